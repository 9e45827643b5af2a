//! Faults at events that threads raise: a signal for the process that is current, a mark on the socket whose packets are lost
//! from then on, or word to user space, which does the rest.
//! Also where the events are met that only open or end a fault.

use aya_ebpf::helpers::generated::{bpf_get_socket_cookie, bpf_send_signal};
use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;
use probe_ebpf::event::state::{
    CLOSE, CLOSE_WAIT, ESTABLISHED, FIN_WAIT1, LAST_ACK, LISTEN, SYN_SENT,
};
use probe_ebpf::event::{RareSlot, kind};
use probe_ebpf::fault::{action, hook};
use probe_ebpf::storage::seen;

use super::{Walk, cut, detail, leader, pause, sifted, silence, tell, who};
use crate::kernel::{self, Pointer, field};
use crate::{emit, scope};

#[btf_tracepoint(function = "sock_send_length")]
pub fn met_sent(ctx: BtfTracePointContext) -> Option<()> {
    met(hook::SENT, ctx.arg(0))
}

/// For calls that the first program was skipped for, where the kernel preempts programs.
#[btf_tracepoint(function = "sock_send_length")]
pub fn met_sent_again(ctx: BtfTracePointContext) -> Option<()> {
    scope::passed_over(seen::MET, seen::MET)?;
    met(hook::SENT, ctx.arg(0))
}

#[btf_tracepoint(function = "sock_recv_length")]
pub fn met_received(ctx: BtfTracePointContext) -> Option<()> {
    met(hook::RECEIVED, ctx.arg(0))
}

#[btf_tracepoint(function = "sock_recv_length")]
pub fn met_received_again(ctx: BtfTracePointContext) -> Option<()> {
    scope::passed_over(seen::MET, seen::MET)?;
    met(hook::RECEIVED, ctx.arg(0))
}

#[btf_tracepoint(function = "inet_sock_set_state")]
pub fn met_state(ctx: BtfTracePointContext) -> Option<()> {
    state_met(&ctx)
}

#[btf_tracepoint(function = "inet_sock_set_state")]
pub fn met_state_again(ctx: BtfTracePointContext) -> Option<()> {
    scope::passed_over(seen::MET, seen::MET)?;
    state_met(&ctx)
}

/// Only changes that are the current thread's own act.
#[inline(always)]
fn state_met(ctx: &BtfTracePointContext) -> Option<()> {
    let (old, new) = (ctx.arg::<i32>(1) as u8, ctx.arg::<i32>(2) as u8);
    let hook = match (old, new) {
        (CLOSE, SYN_SENT) => hook::CONNECTING,
        (CLOSE, LISTEN) => hook::LISTENING,
        (ESTABLISHED, FIN_WAIT1) | (CLOSE_WAIT, LAST_ACK) => hook::CLOSING,
        _ => return None,
    };
    met(hook, ctx.arg(0))
}

/// The number on all machines that this is built for.
const SIGSTOP: i32 = 19;

#[inline(always)]
fn met(hook: u32, sk: Pointer) -> Option<()> {
    // What costs least is tested first, since every such call comes by.
    sifted(hook)?;
    let protocol = kernel::protocol(sk);
    if protocol == 0 {
        return None;
    }
    let mut walk = Walk::new(hook, who(scope::current_task()?));
    if !walk.concerns() {
        return None;
    }
    let thread = scope::current()?;
    thread.leave_word(seen::MET);
    let subject = &mut walk.subject;
    subject.local = kernel::local_address(sk);
    subject.remote = kernel::remote_address(sk);
    subject.local_port = field!(sk, common_num, u16);
    subject.remote_port = u16::from_be(field!(sk, common_dport, u16));
    (subject.protocol, subject.socket) = (protocol as u16, 1);
    let firing = walk.meet(leader(thread.task));
    // SAFETY: a helper that takes a socket, which the verifier checks.
    let cookie = || unsafe { bpf_get_socket_cookie(sk) };
    // The signal, or the negative errno.
    let result = match firing.action {
        action::SIGNAL | action::DESTROY => firing.value,
        action::CRASH => {
            silence::begin(thread.task, firing.index);
            firing.value
        }
        action::PAUSE | action::RESTART
            if pause::note(thread.pid, thread.time_ns, firing.value) =>
        {
            SIGSTOP
        }
        _ => 0,
    };
    if result != 0 || firing.action == action::HOLE && cut::mark(sk, firing.index) {
        let mut slot = thread.slot(kind::FAULT);
        slot.socket = cookie();
        slot.result = result;
        slot.argument = firing.index;
        if firing.action == action::RESTART {
            slot.code = thread.pid as i32;
        }
        let detail = detail(&firing, hook, &walk.subject);
        // First, since what comes of it are events as well.
        emit::rare(&RareSlot { slot, detail });
    }
    if result > 0 {
        // SAFETY: a helper that takes a number.
        unsafe { bpf_send_signal(result as u32) };
    }
    tell::tell(&firing, hook, thread.time_ns, &walk.subject, cookie);
    None
}
