//! What became of a call that a fault changed: such a call passes none of the hooks that record it, so its
//! result is taken where system calls end. Attached only while such a fault is armed, since this hook costs
//! every system call of every process.

use core::intrinsics::{AtomicOrdering, atomic_xadd};

use aya_ebpf::bindings::task_struct;
use aya_ebpf::helpers::generated::bpf_get_current_task_btf;
use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;
use probe_ebpf::event::{RareSlot, kind};

use super::{Firing, Victim, caller, victim};
use crate::{emit, scope};

/// How many calls are awaited on the whole machine: while it is none, the hook costs one load. In a section of its own,
/// whose memory is reached without a lookup.
#[unsafe(no_mangle)]
#[unsafe(link_section = ".bss.awaited")]
static mut AWAITED: u64 = 0;

/// Remembers that the current thread's call has met a fault: in what is remembered about it, NULL if there was no room.
#[inline(always)]
pub fn await_call(victim: *mut Victim, firing: &Firing, hook: u32, socket: u64, detail: &[u64; 8]) {
    if victim.is_null() {
        emit::dropped();
        return;
    }
    // SAFETY: a live storage value, of the thread that is running.
    unsafe {
        if (*victim).pending == 0 {
            awaited(1);
        }
        (*victim).pending = firing.index + 1;
        (*victim).hook = hook;
        (*victim).socket = socket;
        (*victim).detail = *detail;
    }
}

/// Changes how many calls there are whose end is looked at.
#[inline(always)]
pub fn awaited(change: i64) {
    // SAFETY: the intrinsic is the atomic add of the target.
    unsafe {
        atomic_xadd::<u64, u64, { AtomicOrdering::AcqRel }>(&raw mut AWAITED, change as u64);
    }
}

#[btf_tracepoint(function = "sys_exit")]
pub fn call_ended(ctx: BtfTracePointContext) -> Option<()> {
    look_at_end(&ctx)
}

/// For calls that the first program was skipped for, where the kernel preempts programs: what that one has told is not
/// awaited any more.
#[btf_tracepoint(function = "sys_exit")]
pub fn call_ended_again(ctx: BtfTracePointContext) -> Option<()> {
    look_at_end(&ctx)
}

#[inline(always)]
fn look_at_end(ctx: &BtfTracePointContext) -> Option<()> {
    // SAFETY: others add to it at once.
    if unsafe { (&raw const AWAITED).read_volatile() } == 0 {
        return None;
    }
    // SAFETY: a helper without arguments.
    let task = unsafe { bpf_get_current_task_btf() };
    ended(remembered(task), ctx.arg(1));
    caller::forget();
    None
}

/// What is remembered about the current thread's call.
#[inline(always)]
fn remembered(task: *mut task_struct) -> *mut Victim {
    let noted = caller::noted();
    // SAFETY: NULL or a live map value, of the thread that is running.
    if !noted.is_null() && unsafe { (*noted).pending } != 0 { noted } else { victim(task, false) }
}

/// Tells how a call ended that met a fault.
#[inline(always)]
fn ended(victim: *mut Victim, result: i32) -> Option<()> {
    // SAFETY: NULL or a live value of a map.
    if victim.is_null() || unsafe { (*victim).pending } == 0 {
        return None;
    }
    let thread = scope::current()?;
    let mut slot = thread.slot(kind::CALL);
    slot.result = result;
    // SAFETY: a live value of a map, of the thread that is running.
    let detail = unsafe {
        slot.argument = (*victim).pending - 1;
        slot.socket = (*victim).socket;
        slot.aux[0] = (*victim).hook as u8;
        (*victim).pending = 0;
        (*victim).detail
    };
    awaited(-1);
    emit::rare(&RareSlot { slot, detail });
    None
}
