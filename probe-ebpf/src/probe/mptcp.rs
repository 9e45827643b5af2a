//! Multipath TCP: one stream over several TCP connections. Its socket has counters of its own, in 64 bits, which both
//! ends share as TCP's do; they are behind no type that the verifier would let us read.

use probe_ebpf::event::{Slot, call, flag, kind, protocol, proven, state};

use crate::emit;
use crate::kernel::{self, Pointer, Untyped, field, offset};
use crate::remembered::{Sock, SocketState};

const MSG_PEEK: u32 = 2;

macro_rules! number {
    ($sk:expr, $offset:ident) => {
        field!(Untyped($sk.address() as Pointer), $offset, u64)
    };
}

/// Whether this kernel tells where in the stream bytes lie (since Linux 6.6 what was sent, later what was received).
#[inline(always)]
fn counts(what: u8) -> bool {
    offset!(mptcp_bytes_sent) != 0 && (what == kind::SEND || offset!(mptcp_bytes_consumed) != 0)
}

/// Where the stream stands after a send or a receive: the offset itself, in 64 bits.
#[inline(always)]
pub fn position(sk: impl Sock, slot: &mut Slot) {
    // A peek at an offset that the program chose (`SO_PEEK_OFF`) is not told from others.
    let peeks = slot.kind == kind::RECEIVE && slot.argument & MSG_PEEK != 0;
    if !counts(slot.kind) || (peeks && field!(sk, sock_peek_off, i32) >= 0) {
        slot.aux[0] |= call::UNPLACED;
        return;
    }
    if slot.kind == kind::SEND {
        slot.count = sent(sk);
        return;
    }
    let consumed = number!(sk, mptcp_bytes_consumed);
    let drained = consumed == number!(sk, mptcp_bytes_received);
    slot.count = consumed;
    // As TCP does: the end of the stream takes a position, and is received with the last bytes.
    if drained && ended(sk) {
        slot.flags |= flag::FIN_SEEN;
        if peeks {
            slot.flags |= flag::ONE_LEFT;
        } else {
            slot.flags |= flag::DRAINED;
            slot.count += 1;
        }
    }
}

/// Whether the other end has ended its direction.
#[inline(always)]
fn ended(sk: impl Sock) -> bool {
    matches!(
        field!(sk, common_state, u8),
        state::CLOSE_WAIT | state::LAST_ACK | state::CLOSING | state::CLOSE
    )
}

/// Bytes that were given to the socket. What was sent and where the next byte goes are changed one after the other:
/// read again if they were meanwhile.
#[inline(always)]
pub fn sent(sk: impl Sock) -> u64 {
    let mut sent = number!(sk, mptcp_bytes_sent);
    let mut next = number!(sk, mptcp_snd_nxt);
    let again = number!(sk, mptcp_bytes_sent);
    if again != sent {
        sent = again;
        next = number!(sk, mptcp_snd_nxt);
    }
    sent + number!(sk, mptcp_write_seq).wrapping_sub(next)
}

/// Whether a TCP connection is one of those that a multipath connection goes over.
#[inline(always)]
pub fn is_part(sk: impl Sock) -> bool {
    let carries = |tcp| field!(tcp, tcp_is_mptcp, u8) != 0;
    offset!(tcp_is_mptcp) != 0 && sk.tcp().is_some_and(carries)
}

/// A number for a socket. What a listener accepts has the listener's cookie (seen on Linux 6.18): so it is the time, in
/// 16 ns, at which the socket was met, beyond all cookies.
#[inline(always)]
pub fn number() -> u64 {
    1 << 52 | emit::now() >> 4
}

/// Whether a connection stands whose numbers and addresses were not known yet when it was established.
#[inline(always)]
pub fn unnamed(sk: impl Sock, storage: *mut SocketState) -> bool {
    kernel::protocol(sk) == protocol::MPTCP
        // SAFETY: a live storage value.
        && unsafe { (*storage).proven } == proven::NO as u32
        && matches!(field!(sk, common_state, u8), state::ESTABLISHED | state::CLOSE_WAIT)
        && counts(kind::SEND)
}

/// What names the connection: the low halves of both initial data sequence numbers. Where the other end speaks only
/// TCP, the one connection that there is names it.
#[inline(always)]
pub fn compute(sk: impl Sock, storage: *mut SocketState) {
    // (At an accepting end they are not all there when it is noted to be established.)
    if !unnamed(sk, storage) {
        return;
    }
    if number!(sk, mptcp_remote_key) == 0 {
        return fallen_back(number!(sk, mptcp_first), storage);
    }
    let sent = number!(sk, mptcp_bytes_sent);
    let received = number!(sk, mptcp_bytes_received);
    let first_sent = number!(sk, mptcp_snd_nxt).wrapping_sub(sent);
    // The end of the stream takes a number and is no byte.
    let end = (field!(sk, common_state, u8) == state::CLOSE_WAIT) as u64;
    let first_received = number!(sk, mptcp_ack_seq).wrapping_sub(received).wrapping_sub(end);
    if number!(sk, mptcp_bytes_sent) != sent || number!(sk, mptcp_bytes_received) != received {
        return;
    }
    // SAFETY: a live storage value.
    unsafe {
        (*storage).iss = (first_sent as u32).wrapping_sub(1);
        (*storage).irs = (first_received as u32).wrapping_sub(1);
        (*storage).proven = proven::AGREED as u32;
    }
}

#[inline(always)]
fn fallen_back(first: u64, storage: *mut SocketState) {
    if first == 0 {
        return;
    }
    let tcp = Untyped(first as Pointer);
    let sent =
        field!(tcp, tcp_bytes_sent, u64).wrapping_sub(field!(tcp, tcp_bytes_retrans, u64)) as u32;
    let first_sent = field!(tcp, tcp_snd_nxt, u32).wrapping_sub(sent);
    let received = field!(tcp, tcp_bytes_received, u64) as u32;
    let first_received = field!(tcp, tcp_rcv_nxt, u32).wrapping_sub(received);
    // SAFETY: a live storage value.
    unsafe {
        (*storage).iss = first_sent.wrapping_sub(1);
        (*storage).irs = first_received.wrapping_sub(1);
        (*storage).proven = proven::AGREED as u32;
    }
}
