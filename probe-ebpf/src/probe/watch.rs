//! Triggers: whether an event is what one watches for, and whether there are too many of them. User space hears
//! of it at once, and of nothing else. Attached only where a trigger needs it.

use core::ffi::c_void;
use core::ptr;

use aya_ebpf::bindings::task_struct;
use aya_ebpf::btf_maps::Array;
use aya_ebpf::helpers::generated::{bpf_get_socket_cookie, bpf_loop};
use aya_ebpf::macros::{btf_map, btf_tracepoint};
use aya_ebpf::programs::BtfTracePointContext;
use bytemuck::Zeroable;
use probe_ebpf::event::state::{
    CLOSE, CLOSE_WAIT, ESTABLISHED, FIN_WAIT1, LAST_ACK, LISTEN, SYN_SENT,
};
use probe_ebpf::fault::{Subject, hook};
use probe_ebpf::watch::{
    EXITED, RESET_RECEIVED, RESET_SENT, TESTS_MAX, TOLD, Tally, Test, WATCHES_MAX, Watch, counts,
};

use crate::fault::{holds, in_cgroup, tell};
use crate::kernel::{self, Pointer, field};
use crate::{emit, remembered, scope, task};

#[btf_map]
static TESTS: Array<Test, { TESTS_MAX as usize }> = Array::new();
#[btf_map]
static WATCHES: Array<Watch, { WATCHES_MAX as usize }> = Array::new();
#[btf_map]
static TALLIES: Array<Tally, { WATCHES_MAX as usize }> = Array::new();

/// For so long after user space was told of a trigger its events are only counted.
const QUIET_NS: u64 = 1_000_000_000;

#[btf_tracepoint(function = "sock_send_length")]
pub fn watch_sent(ctx: BtfTracePointContext) -> Option<()> {
    watch_socket(hook::SENT, ctx.arg(0), i64::from(ctx.arg::<i32>(1)))
}

#[btf_tracepoint(function = "sock_recv_length")]
pub fn watch_received(ctx: BtfTracePointContext) -> Option<()> {
    watch_socket(hook::RECEIVED, ctx.arg(0), i64::from(ctx.arg::<i32>(1)))
}

#[btf_tracepoint(function = "inet_sock_set_state")]
pub fn watch_state(ctx: BtfTracePointContext) -> Option<()> {
    let hook = match (ctx.arg::<i32>(1) as u8, ctx.arg::<i32>(2) as u8) {
        (CLOSE, SYN_SENT) => hook::CONNECTING,
        (CLOSE, LISTEN) => hook::LISTENING,
        (ESTABLISHED, FIN_WAIT1) | (CLOSE_WAIT, LAST_ACK) => hook::CLOSING,
        _ => return None,
    };
    watch_socket(hook, ctx.arg(0), 0)
}

/// Of a process only the end of its last thread counts.
#[btf_tracepoint(function = "sched_process_exit")]
pub fn watch_exit(ctx: BtfTracePointContext) -> Option<()> {
    let exiting: *mut task_struct = ctx.arg(0);
    if !task::is_last(&ctx, exiting) {
        return None;
    }
    let thread = scope::current()?;
    let code = field!(exiting, task_exit_code, i32);
    let outcome = if code & 0x7f != 0 { -(code & 0x7f) } else { code >> 8 & 0xff };
    let subject = Subject {
        comm: field!(exiting, task_comm, [u64; 2]),
        pid: thread.pid,
        tid: thread.tid,
        ..Subject::zeroed()
    };
    watch(EXITED, subject, i64::from(outcome), thread.time_ns, || 0)
}

#[btf_tracepoint(function = "tcp_send_reset")]
pub fn watch_reset_sent(ctx: BtfTracePointContext) -> Option<()> {
    watch_lane(RESET_SENT, ctx.arg(0))
}

#[btf_tracepoint(function = "tcp_receive_reset")]
pub fn watch_reset_received(ctx: BtfTracePointContext) -> Option<()> {
    watch_lane(RESET_RECEIVED, ctx.arg(0))
}

/// What the kernel does at a socket: whoever is current has nothing to do with it.
#[inline(always)]
fn watch_lane(hook: u32, sk: Pointer) -> Option<()> {
    // A reset for a port where nobody listens has no socket.
    if sk.is_null() {
        return None;
    }
    remembered::lane(sk)?;
    let subject = of_socket(sk, kernel::protocol(sk));
    // SAFETY: a helper that takes a socket, which the verifier checks.
    watch(hook, subject, 0, emit::now(), || unsafe { bpf_get_socket_cookie(sk) })
}

#[inline(always)]
fn of_socket(sk: Pointer, protocol: u8) -> Subject {
    Subject {
        local: kernel::local_address(sk),
        remote: kernel::remote_address(sk),
        local_port: field!(sk, common_num, u16),
        remote_port: u16::from_be(field!(sk, common_dport, u16)),
        protocol: protocol.into(),
        ..Subject::zeroed()
    }
}

#[inline(always)]
fn watch_socket(hook: u32, sk: Pointer, outcome: i64) -> Option<()> {
    let protocol = kernel::protocol(sk);
    if protocol == 0 {
        return None;
    }
    let thread = scope::current()?;
    let subject = Subject {
        comm: field!(thread.task, task_comm, [u64; 2]),
        pid: thread.pid,
        tid: thread.tid,
        ..of_socket(sk, protocol)
    };
    // SAFETY: a helper that takes a socket, which the verifier checks.
    watch(hook, subject, outcome, thread.time_ns, || unsafe { bpf_get_socket_cookie(sk) })
}

/// What is carried from one test, and then from one trigger, to the next.
struct Walk {
    subject: Subject,
    outcome: i64,
    time_ns: u64,
    hook: u32,
    /// Triggers that count the event, and that count it among the others: a bit each.
    events: u32,
    of: u32,
    /// Triggers of which user space is told.
    told: u32,
}

#[inline(always)]
fn watch(
    hook: u32,
    subject: Subject,
    outcome: i64,
    time_ns: u64,
    socket: impl FnOnce() -> u64,
) -> Option<()> {
    let mut walk = Walk { subject, outcome, time_ns, hook, events: 0, of: 0, told: 0 };
    each(TESTS_MAX, tested, &mut walk);
    if walk.events | walk.of == 0 {
        return None;
    }
    each(WATCHES_MAX, counted, &mut walk);
    tell::rules(walk.told, hook + TOLD, time_ns, &walk.subject, socket);
    None
}

#[inline(always)]
fn each(rounds: u32, body: unsafe extern "C" fn(u32, *mut Walk) -> i64, walk: &mut Walk) {
    // SAFETY: the body gets this very walk, which outlives the call.
    unsafe { bpf_loop(rounds, body as *mut c_void, ptr::from_mut(walk).cast(), 0) };
}

unsafe extern "C" fn tested(index: u32, walk: *mut Walk) -> i64 {
    let Some(test) = TESTS.get_ptr_mut(index) else { return 1 };
    // SAFETY: a live map value, and the walk of the caller.
    unsafe {
        let matcher = &raw mut (*test).matcher;
        if (*matcher).hooks == 0 {
            return 1;
        }
        let outcome = (*walk).outcome;
        if (*matcher).hooks >> ((*walk).hook & 63) & 1 == 0
            || outcome < (*test).least
            || outcome > (*test).most
            || !holds(matcher, &raw const (*walk).subject)
            || !in_cgroup(matcher)
        {
            return 0;
        }
        let bit = 1 << ((*matcher).rule & (WATCHES_MAX - 1));
        match (*matcher).role {
            counts::EVENTS => (*walk).events |= bit,
            _ => (*walk).of |= bit,
        }
    }
    0
}

/// Counts the event for one trigger, and notes whether user space is to hear of it.
unsafe extern "C" fn counted(index: u32, walk: *mut Walk) -> i64 {
    let Some(watch) = WATCHES.get_ptr_mut(index) else { return 1 };
    let Some(tally) = TALLIES.get_ptr_mut(index) else { return 1 };
    // SAFETY: live map values, and the walk of the caller.
    unsafe {
        let is_event = (*walk).events >> (index & 31) & 1 != 0;
        let is_other = (*walk).of >> (index & 31) & 1 != 0;
        if !(is_event || is_other) {
            return 0;
        }
        let now_ns = (*walk).time_ns;
        let mut tell = is_event && (*watch).window_ns == 0;
        if (*watch).window_ns != 0 && now_ns.wrapping_sub((*tally).began_ns) > (*watch).window_ns {
            // Whether a share was too large is known when its window is over.
            tell = (*watch).share != 0 && too_many(watch, tally);
            (*tally).began_ns = now_ns;
            (*tally).events = 0;
            (*tally).of = 0;
        }
        if is_other {
            emit::count(&raw mut (*tally).of);
        }
        if is_event {
            let events = emit::count(&raw mut (*tally).events) + 1;
            tell |= (*watch).window_ns != 0 && (*watch).share == 0 && events > (*watch).above;
        }
        if tell && now_ns.wrapping_sub((*tally).told_ns) > QUIET_NS {
            (*tally).told_ns = now_ns;
            (*walk).told |= 1 << (index & 31);
        }
    }
    0
}

/// Whether the window's events are more than their share of the others, of which there are enough.
#[inline(always)]
unsafe fn too_many(watch: *mut Watch, tally: *mut Tally) -> bool {
    // SAFETY: the caller's.
    unsafe {
        (*tally).of >= (*watch).above
            && (*tally).events.wrapping_mul(10_000) > (*tally).of.wrapping_mul((*watch).share)
    }
}
