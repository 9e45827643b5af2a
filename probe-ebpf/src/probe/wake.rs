//! Who woke whom: detail `sched`. A thread that wakes another does it by its own will; what an interrupt wakes has no
//! waker, whoever was current when it came.
//!
//! A wake is told only of a thread that has gone to sleep. It raises no event until it runs again, so that the number
//! of its events, read now, says which one is its next.

use aya_ebpf::bindings::task_struct;
use aya_ebpf::btf_maps::Array;
use aya_ebpf::macros::{btf_map, btf_tracepoint};
use aya_ebpf::programs::BtfTracePointContext;
use probe_ebpf::config::{ABSENT, woken};
use probe_ebpf::event::kind;

use crate::kernel::{Pointer, Structure, Untyped, config, field, offset};
use crate::{emit, scope};

/// How often threads of the recorder were woken, by who woke them: whether that is told right can be seen by it.
#[btf_map]
static WOKEN: Array<u64, { woken::COUNT as usize }> = Array::new();

#[btf_tracepoint(function = "sched_waking")]
pub fn sched_waking(ctx: BtfTracePointContext) -> Option<()> {
    let woken: *mut task_struct = ctx.arg(0);
    let interrupted = in_interrupt();
    if field!(woken, task_tgid, u32) == config!(recorder) {
        note(interrupted);
        return None;
    }
    if interrupted || !sleeps(woken) || !scope::includes(woken) {
        return None;
    }
    let thread = scope::current()?;
    let mut slot = thread.beside(kind::WAKE);
    slot.argument = field!(woken, task_pid, u32);
    slot.count = u64::from(scope::events_of(woken));
    emit::bulk(&slot);
    None
}

/// Whether this runs in a hardware interrupt or what it left to be done, rather than for the current thread.
#[inline(always)]
fn in_interrupt() -> bool {
    // SAFETY: a helper without arguments.
    let task = unsafe { aya_ebpf::helpers::generated::bpf_get_current_task_btf() };
    let count = if offset!(task_preempt_count) != ABSENT {
        field!(task, task_preempt_count, u32)
    } else {
        // The counter is one of each CPU's variables, and so is the run queue that the current thread's scheduling
        // entity leads to: they are as far apart on each CPU.
        let queue = Untyped(field!(task, task_cfs_rq, Pointer)).follow(offset!(cfs_rq_rq));
        Untyped(queue.0.wrapping_byte_add(offset!(preempt_count_from_rq) as i32 as isize as usize))
            .load::<u32>(0)
    };
    count & INTERRUPT != 0
}

/// Of the kernel's counter (`include/linux/preempt.h`): serving what interrupts left to be done (not: that being held
/// off), a hardware interrupt, an interrupt that cannot be held off.
const INTERRUPT: u32 = 0x00ff_0100;

/// Whether a thread is asleep: it is on no run queue, or only to be taken from it. Then it runs no more until it has
/// been woken. One that is about to sleep, or was woken already, will find out by itself.
#[inline(always)]
fn sleeps(task: *mut task_struct) -> bool {
    // (A word or, since Linux 7, a byte; small numbers in either.)
    if field!(task, task_on_rq, u8) == 0 {
        return true;
    }
    offset!(task_sched_delayed) != ABSENT && field!(task, task_sched_delayed, u8) != 0
}

#[inline(always)]
fn note(interrupted: bool) {
    let index = if interrupted { woken::BY_INTERRUPT } else { woken::BY_THREAD };
    if let Some(count) = WOKEN.get_ptr_mut(index) {
        // SAFETY: a live map value.
        unsafe { emit::count(count) };
    }
}
