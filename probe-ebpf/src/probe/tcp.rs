//! A connection's life: state changes, resets, retransmissions and reported errors.
//!
//! `current` lies in softirq: most of these events run while some task, often the peer, happens to be
//! current. The slot carries the current thread only where the change is the caller's own act.

use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;
use probe_ebpf::config::ABSENT;
use probe_ebpf::event::state::{
    CLOSE, CLOSE_WAIT, ESTABLISHED, FIN_WAIT1, LAST_ACK, LISTEN, SYN_SENT,
};
use probe_ebpf::event::{RareSlot, Slot, call, flag, kind, protocol};

use crate::kernel::{self, Pointer, Structure, argument, diagnose, field, offset};
use crate::remembered::{self, Sock, SocketState};
use crate::standby::standing_by;
use crate::{emit, initial, mptcp, name, scope};

#[btf_tracepoint(function = "inet_sock_set_state")]
pub fn inet_sock_set_state(ctx: BtfTracePointContext) -> Option<()> {
    changed(&ctx)
}

standing_by! {
    #[btf_tracepoint(function = "inet_sock_set_state")]
    [inet_sock_set_state_1 1, inet_sock_set_state_2 2, inet_sock_set_state_3 3]
    |ctx: BtfTracePointContext, _turn| untold(&ctx) => {
        changed(&ctx)?;
        emit::taken_over();
        None
    }
}

/// Whether the programs before were skipped for this change. A change may happen in an interrupt, so that the socket has
/// the word of it and not the thread; a socket's changes come one at a time, and lead to another state each.
#[inline(always)]
fn untold(ctx: &BtfTracePointContext) -> Option<()> {
    let state = remembered::known(ctx.arg(0));
    // SAFETY: NULL or a live storage value.
    let told = if state.is_null() { 0 } else { unsafe { (*state).told } };
    (told != ctx.arg::<i32>(2) as u32).then_some(())
}

/// Records a change; nothing where it is out of scope, or matters to nobody.
#[inline(always)]
fn changed(ctx: &BtfTracePointContext) -> Option<()> {
    let sk: Pointer = ctx.arg(0);
    let old = ctx.arg::<i32>(1) as u8;
    let new = ctx.arg::<i32>(2) as u8;
    let protocol = kernel::protocol(sk);
    if !matters(old, new) || !matches!(protocol, protocol::TCP | protocol::MPTCP) {
        return None;
    }
    let error = field!(sk, sock_err, i32);
    let (state, mut slot) = if own_act(old, new, error) {
        let thread = scope::current()?;
        let state = remembered::socket(sk, thread.pid)?;
        name::fresh(sk, state, thread.time_ns);
        // The thread acted upon the whole, which has an event of its own; this is a part of it.
        let part = protocol == protocol::TCP && mptcp::is_part(sk);
        (state, if part { lane_slot(kind::STATE, state) } else { thread.slot(kind::STATE) })
    } else {
        let state = remembered::lane(sk)?;
        if new == ESTABLISHED && protocol == protocol::TCP {
            initial::established(sk, state, old == SYN_SENT);
        } else {
            name::fresh_in_lane(sk, state);
        }
        (state, lane_slot(kind::STATE, state))
    };
    // SAFETY: a live storage value.
    unsafe {
        slot.socket = (*state).cookie;
        (*state).told = new.into();
    }
    slot.aux = [old, new];
    slot.code = error;
    if protocol == protocol::MPTCP {
        slot.count = mptcp::sent(sk);
    } else {
        sequences(sk, &mut slot);
    }
    diagnose!(ctx, "socket {}: state {} after {}", slot.socket, new, old);
    emit::rare(&RareSlot { slot, detail: [0; 8] });
    Some(())
}

/// Which changes are recorded: those a later event may be the consequence of.
#[inline(always)]
fn matters(old: u8, new: u8) -> bool {
    match new {
        ESTABLISHED | SYN_SENT | LISTEN | FIN_WAIT1 | LAST_ACK => true,
        CLOSE => old != CLOSE,
        _ => false,
    }
}

/// Whether the change is the act of the thread that is current. A connection that goes to CLOSE without
/// an error is thrown away by its owner; a received reset sets the error first.
#[inline(always)]
fn own_act(old: u8, new: u8, error: i32) -> bool {
    match new {
        SYN_SENT | LISTEN => old == CLOSE,
        FIN_WAIT1 => old == ESTABLISHED,
        LAST_ACK => old == CLOSE_WAIT,
        CLOSE => old == LISTEN || ((old == ESTABLISHED || old == CLOSE_WAIT) && error == 0),
        _ => false,
    }
}

#[btf_tracepoint(function = "tcp_send_reset")]
pub fn tcp_send_reset(ctx: BtfTracePointContext) -> Option<()> {
    let sk: Pointer = ctx.arg(0);
    // A reset for a port nobody listens on has no socket; one for a socket that is half gone
    // (TIME_WAIT) has one that storage refuses.
    if sk.is_null() {
        return None;
    }
    let state = remembered::lane(sk)?;
    name::fresh_in_lane(sk, state);
    let mut slot = lane_slot(kind::RESET_SENT, state);
    if argument!(send_reset_skb) != ABSENT && !ctx.arg::<Pointer>(1).is_null() {
        slot.flags |= flag::ANSWERS;
    }
    if argument!(send_reset_reason) != ABSENT {
        slot.argument = ctx.arg(2);
    }
    sequences(sk, &mut slot);
    emit::rare(&RareSlot { slot, detail: [0; 8] });
    None
}

#[btf_tracepoint(function = "tcp_receive_reset")]
pub fn tcp_receive_reset(ctx: BtfTracePointContext) -> Option<()> {
    lane_event(ctx.arg(0), kind::RESET_RECEIVED)
}

#[btf_tracepoint(function = "tcp_retransmit_skb")]
pub fn tcp_retransmit_skb(ctx: BtfTracePointContext) -> Option<()> {
    let sk: Pointer = ctx.arg(0);
    let state = remembered::lane(sk)?;
    name::fresh_in_lane(sk, state);
    let mut slot = lane_slot(kind::RETRANSMIT, state);
    sequences(sk, &mut slot);
    if offset!(skb_cb) != ABSENT {
        // `struct tcp_skb_cb` begins with the numbers of the segment's first byte and of the one behind its last.
        let skb: Pointer = ctx.arg(1);
        slot.argument = kernel::read_u32(skb, offset!(skb_cb));
        let end = kernel::read_u32(skb, offset!(skb_cb) + 4);
        slot.result = end.wrapping_sub(slot.argument) as i32;
    }
    emit::rare(&RareSlot { slot, detail: [0; 8] });
    None
}

#[btf_tracepoint(function = "inet_sk_error_report")]
pub fn inet_sk_error_report(ctx: BtfTracePointContext) -> Option<()> {
    let sk: Pointer = ctx.arg(0);
    // Whoever waits for a socket that is taken apart is woken by a report of no error.
    if kernel::protocol(sk) == 0 || field!(sk, sock_err, i32) == 0 {
        return None;
    }
    lane_event(sk, kind::SOCKET_ERROR)
}

/// An event of a socket's kernel lane.
#[inline(always)]
fn lane_event(sk: Pointer, what: u8) -> Option<()> {
    let state = remembered::lane(sk)?;
    name::fresh_in_lane(sk, state);
    let mut slot = lane_slot(what, state);
    slot.code = field!(sk, sock_err, i32);
    sequences(sk, &mut slot);
    emit::rare(&RareSlot { slot, detail: [0; 8] });
    None
}

/// A slot that belongs to no thread: `pid` is the socket's owner, `tid` zero.
#[inline(always)]
fn lane_slot(what: u8, state: *mut SocketState) -> Slot {
    // SAFETY: a live storage value.
    let (owner, cookie) = unsafe { ((*state).owner, (*state).cookie) };
    let mut slot = emit::slot(what, owner, 0, emit::now());
    slot.socket = cookie;
    slot
}

const SOCK_DONE: u64 = 1 << 1;
const MSG_PEEK: u32 = 2;

/// Where the stream stands after a send or a receive.
#[inline(always)]
pub fn position(sk: impl Sock, slot: &mut Slot) -> Option<()> {
    let tcp = sk.tcp()?;
    if slot.kind == kind::SEND {
        sent(tcp, slot);
        if repaired(tcp) {
            slot.aux[0] |= call::REPAIRED;
        }
        return Some(());
    }
    // In this order: a FIN that is seen here has been counted in `rcv_nxt`, which is read after it.
    if field!(sk, common_flags, u64) & SOCK_DONE != 0 {
        slot.flags |= flag::FIN_SEEN;
    }
    slot.sequence = field!(tcp, tcp_copied_seq, u32);
    let unread = field!(tcp, tcp_rcv_nxt, u32).wrapping_sub(slot.sequence);
    slot.count = field!(tcp, tcp_bytes_received, u64).wrapping_sub(unread as u64);
    if slot.argument & MSG_PEEK != 0 {
        peek(sk, tcp, slot);
    }
    match unread {
        0 => slot.flags |= flag::DRAINED,
        1 => slot.flags |= flag::ONE_LEFT,
        _ => {}
    }
    Some(())
}

/// A peek begins where the next bytes are, or at an offset that the program chose (`SO_PEEK_OFF`) and that the peek
/// has moved on. In repair mode it may look at what was sent.
#[inline(always)]
fn peek<S: Sock>(sk: S, tcp: S, slot: &mut Slot) {
    if repaired(tcp) {
        slot.aux[0] |= call::REPAIRED;
    }
    let offset = field!(sk, sock_peek_off, i32);
    if offset >= 0 && slot.result > 0 {
        let ahead = (offset - slot.result) as u32;
        slot.sequence = slot.sequence.wrapping_add(ahead);
        slot.count += ahead as u64;
    }
}

/// Whether the socket is being taken apart or put together again (`TCP_REPAIR`).
#[inline(always)]
fn repaired(tcp: impl Structure) -> bool {
    let mask = offset!(tcp_repair_mask);
    mask != 0 && field!(tcp, tcp_repair, u8) as u32 & mask != 0
}

/// Where the endpoint's own stream stands: the position of the FIN if one is sent now.
#[inline(always)]
fn sequences(sk: impl Sock, slot: &mut Slot) {
    if let Some(tcp) = sk.tcp() {
        sent(tcp, slot);
    }
}

#[inline(always)]
fn sent(tcp: impl Structure, slot: &mut Slot) {
    slot.sequence = field!(tcp, tcp_write_seq, u32);
    let unacked = slot.sequence.wrapping_sub(field!(tcp, tcp_snd_una, u32));
    slot.count = field!(tcp, tcp_bytes_acked, u64) + unacked as u64;
}

/// Where the stream stands that a packet from or to a socket belongs to: near where its bytes lie.
#[inline(always)]
pub fn of_packet(tcp: impl Structure, from: bool, slot: &mut Slot) {
    if from {
        return sent(tcp, slot);
    }
    slot.count = field!(tcp, tcp_bytes_received, u64);
}
