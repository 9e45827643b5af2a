//! Threads and processes: how they begin, what they become, how they end.

use aya_ebpf::bindings::task_struct;
use aya_ebpf::helpers::generated::bpf_probe_read_kernel_str;
use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;
use probe_ebpf::config::ABSENT;
use probe_ebpf::event::{RareSlot, flag, kind};
use probe_ebpf::storage::seen;

use crate::kernel::{Pointer, argument, field};
use crate::scope::Thread;
use crate::standby::{standing_by, takes_task};
use crate::{emit, name, scope};

#[btf_tracepoint(function = "sched_process_fork")]
pub fn sched_process_fork(ctx: BtfTracePointContext) -> Option<()> {
    // Before anything else: the recorder itself is never recorded, but what it starts while it is marked is.
    scope::adopt(ctx.arg(0), ctx.arg(1));
    let thread = scope::current()?;
    thread.leave_word(seen::TASK);
    forked(&ctx, &thread)
}

standing_by! {
    #[btf_tracepoint(function = "sched_process_fork")]
    [sched_process_fork_1 1, sched_process_fork_2 2, sched_process_fork_3 3]
    |ctx: BtfTracePointContext, turn| {
        scope::adopt(ctx.arg(0), ctx.arg(1));
        takes_task(turn)
    } => forked(&ctx, &scope::current()?)
}

#[inline(always)]
fn forked(ctx: &BtfTracePointContext, thread: &Thread) -> Option<()> {
    let child: *mut task_struct = ctx.arg(1);
    let mut slot = thread.slot(kind::FORK);
    slot.argument = field!(child, task_pid, u32);
    emit::rare(&RareSlot { slot, detail: name::task_detail(child) });
    None
}

#[btf_tracepoint(function = "sched_process_exec")]
pub fn sched_process_exec(ctx: BtfTracePointContext) -> Option<()> {
    let thread = scope::current()?;
    thread.leave_word(seen::TASK);
    executes(&ctx, &thread)
}

standing_by! {
    #[btf_tracepoint(function = "sched_process_exec")]
    [sched_process_exec_1 1, sched_process_exec_2 2, sched_process_exec_3 3]
    |ctx: BtfTracePointContext, turn| takes_task(turn) => executes(&ctx, &scope::current()?)
}

#[inline(always)]
fn executes(ctx: &BtfTracePointContext, thread: &Thread) -> Option<()> {
    let task: *mut task_struct = ctx.arg(0);
    let slot = thread.slot(kind::EXEC);
    emit::rare(&RareSlot { slot, detail: name::task_detail(task) });
    None
}

#[btf_tracepoint(function = "sched_process_exit")]
pub fn sched_process_exit(ctx: BtfTracePointContext) -> Option<()> {
    let thread = scope::current()?;
    thread.leave_word(seen::TASK);
    ends(&ctx, &thread)
}

standing_by! {
    #[btf_tracepoint(function = "sched_process_exit")]
    [sched_process_exit_1 1, sched_process_exit_2 2, sched_process_exit_3 3]
    |ctx: BtfTracePointContext, turn| takes_task(turn) => ends(&ctx, &scope::current()?)
}

#[inline(always)]
fn ends(ctx: &BtfTracePointContext, thread: &Thread) -> Option<()> {
    let task: *mut task_struct = ctx.arg(0);
    let mut slot = thread.slot(kind::EXIT);
    slot.result = field!(task, task_exit_code, i32);
    if is_last(ctx, task) {
        slot.flags |= flag::LAST_THREAD;
    }
    emit::rare(&RareSlot { slot, detail: [0; 8] });
    None
}

/// Whether the thread that ends is the last of its process.
#[inline(always)]
pub fn is_last(ctx: &BtfTracePointContext, task: *mut task_struct) -> bool {
    if argument!(exit_group_dead) == ABSENT {
        // Before Linux 6.16 the tracepoint does not say. The thread has been subtracted already.
        field!(field!(task, task_signal, Pointer), signal_live, i32) == 0
    } else {
        ctx.arg::<i32>(1) & 1 != 0
    }
}

/// A thread takes another name: no event, but a name record. Fires before the change; the new name is the argument.
#[btf_tracepoint(function = "task_rename")]
pub fn task_rename(ctx: BtfTracePointContext) -> Option<()> {
    let task: *mut task_struct = ctx.arg(0);
    let thread = scope::current()?;
    let mut detail = name::task_detail(task);
    let mut comm = [0u64; 2];
    // SAFETY: the helper copes with any address; at most 16 bytes are written.
    unsafe { bpf_probe_read_kernel_str((&raw mut comm).cast(), 16, ctx.arg(1)) };
    detail[0] = comm[0];
    detail[1] = comm[1];
    emit::rare(&RareSlot {
        slot: emit::slot(kind::TASK, thread.pid, thread.tid, thread.time_ns),
        detail,
    });
    None
}
