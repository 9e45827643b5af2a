//! Where a connection's two streams began: the initial sequence numbers, from which offsets are counted, and how well they
//! are known.

use probe_ebpf::event::proven;

use crate::kernel::field;
use crate::remembered::{self, Sock, SocketState};
use crate::{emit, mptcp, name};

/// The initial sequence numbers of a connection whose beginning was not seen.
#[inline(always)]
pub fn compute(sk: impl Sock, state: *mut SocketState) {
    let Some(initial) = Initial::of(sk) else { return };
    // SAFETY: a live storage value.
    unsafe {
        (*state).iss = initial.iss.unwrap_or(initial.acked);
        (*state).irs = initial.irs;
        let agreed = initial.iss.is_some();
        (*state).proven = if agreed { proven::AGREED } else { proven::COMPUTED } as u32;
    }
}

/// Takes this end's initial number, which is known before the other end's: its first bytes may go with the SYN.
#[inline(always)]
pub fn asked(sk: impl Sock, state: *mut SocketState) {
    if let Some(tcp) = sk.tcp() {
        // SAFETY: a live storage value.
        unsafe { (*state).iss = field!(tcp, tcp_snd_una, u32) };
    }
}

/// Takes the initial sequence numbers at the moment the connection is established, and names it again.
#[inline(always)]
pub fn established(sk: impl Sock, state: *mut SocketState, active: bool) {
    let Some(initial) = Initial::of(sk) else { return };
    // SAFETY: a live storage value.
    unsafe {
        (*state).iss = match initial.iss {
            Some(iss) => iss,
            None if active => initial.acked,
            None => initial.acked.wrapping_sub(1),
        };
        (*state).irs = initial.irs;
        (*state).proven = proven::AT_ESTABLISHED as u32;
    }
    name::socket(sk, state, emit::now());
    remembered::copy(state);
}

/// What a socket's counters say about where its two streams began.
#[derive(PartialEq)]
struct Initial {
    /// Where two independent counts agree.
    iss: Option<u32>,
    /// `snd_una − bytes_acked`: our initial number, or one more. The count includes our SYN where it was the
    /// first one sent, also where both ends sent one.
    acked: u32,
    irs: u32,
}

impl Initial {
    #[inline(always)]
    fn of(sk: impl Sock) -> Option<Self> {
        // The stream that goes over it has its own numbers, or these, and is what bytes belong to.
        if mptcp::is_part(sk) {
            return None;
        }
        let tcp = sk.tcp()?;
        // Another CPU may be between counting bytes and moving on: what it leaves then does not stay.
        let initial = Self::read(tcp);
        (initial == Self::read(tcp)).then_some(initial)
    }

    #[inline(always)]
    fn read(tcp: impl Sock) -> Self {
        let acked =
            field!(tcp, tcp_snd_una, u32).wrapping_sub(field!(tcp, tcp_bytes_acked, u64) as u32);
        let sent = (field!(tcp, tcp_bytes_sent, u64) as u32).wrapping_sub(field!(
            tcp,
            tcp_bytes_retrans,
            u64
        ) as u32);
        // Never counts the SYN.
        let first = field!(tcp, tcp_snd_nxt, u32).wrapping_sub(sent);
        let agreed = first == acked || first == acked.wrapping_add(1);
        let irs = field!(tcp, tcp_rcv_nxt, u32)
            .wrapping_sub(field!(tcp, tcp_bytes_received, u64) as u32)
            .wrapping_sub(1);
        Self { iss: agreed.then_some(first.wrapping_sub(1)), acked, irs }
    }
}
