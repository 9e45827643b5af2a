//! Signals: who sent them, who took them, and who was chosen to die for memory.

use aya_ebpf::bindings::task_struct;
use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;
use probe_ebpf::config::scope::ALL;
use probe_ebpf::event::{RareSlot, flag, kind};

use crate::kernel::{Pointer, argument, config, field, offset, read_u32};
use crate::{emit, scope};

#[btf_tracepoint(function = "signal_generate")]
pub fn signal_generate(ctx: BtfTracePointContext) -> Option<()> {
    let target: *mut task_struct = ctx.arg(2);
    let thread = match scope::current() {
        Some(thread) => thread,
        None if scope::includes(target) => scope::stranger(),
        None => return None,
    };
    let mut slot = thread.slot(kind::SIGNAL);
    slot.result = ctx.arg(0);
    slot.argument = field!(target, task_pid, u32);
    slot.count = u64::from(field!(target, task_tgid, u32));
    slot.aux = [ctx.arg::<i32>(4) as u8, ctx.arg::<i32>(3) as u8];
    // `info` may be one of two small numbers instead of a pointer.
    let info: Pointer = ctx.arg(1);
    match info as u64 {
        0 => slot.flags |= flag::NO_INFO,
        1 => slot.flags |= flag::FROM_KERNEL,
        _ => slot.code = read_u32(info, offset!(siginfo_code)) as i32,
    }
    emit::rare(&RareSlot { slot, detail: [0; 8] });
    None
}

#[btf_tracepoint(function = "signal_deliver")]
pub fn signal_deliver(ctx: BtfTracePointContext) -> Option<()> {
    let thread = scope::current()?;
    let mut slot = thread.slot(kind::DELIVER);
    slot.result = ctx.arg(0);
    emit::rare(&RareSlot { slot, detail: [0; 8] });
    None
}

#[btf_tracepoint(function = "mark_victim")]
pub fn mark_victim(ctx: BtfTracePointContext) -> Option<()> {
    let mut slot = emit::slot(kind::OOM_KILL, 0, 0, emit::now());
    if argument!(mark_victim_task) == 1 {
        let victim: *mut task_struct = ctx.arg(0);
        if !scope::includes(victim) {
            return None;
        }
        slot.argument = field!(victim, task_pid, u32);
    } else {
        // Older kernels give a number, which only the whole machine's scope can judge.
        if config!(scope) != ALL {
            return None;
        }
        slot.argument = ctx.arg(0);
    }
    emit::rare(&RareSlot { slot, detail: [0; 8] });
    None
}
