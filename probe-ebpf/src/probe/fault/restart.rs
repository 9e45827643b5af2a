//! Processes that are started anew: what each was started with, before it can write over it, and word of who takes
//! another's place.

use aya_ebpf::bindings::task_struct;
use aya_ebpf::btf_maps::RingBuf;
use aya_ebpf::helpers::generated::{bpf_probe_read_kernel_str, bpf_probe_read_user};
use aya_ebpf::macros::{btf_map, btf_tracepoint, raw_tracepoint};
use aya_ebpf::programs::{BtfTracePointContext, RawTracePointContext};
use probe_ebpf::event::{RareSlot, kind};
use probe_ebpf::fault::{
    FaultDetail, PROGRAM_BYTES, PROGRAM_NAME, PROGRAMS_BYTES, Program, action,
};

use crate::kernel::{Pointer, field};
use crate::{emit, scope};

/// What is not read in time is lost: such a process is known by what it shows of itself.
#[btf_map]
static PROGRAMS: RingBuf<Program, { PROGRAMS_BYTES as usize }> = RingBuf::new();

/// A process in scope begins a program.
#[btf_tracepoint(function = "sched_process_exec")]
pub fn program_began(ctx: BtfTracePointContext) -> Option<()> {
    scope::current_task()?;
    let task: *mut task_struct = ctx.arg(0);
    let binary: Pointer = ctx.arg(2);
    let memory = field!(task, task_mm, Pointer);
    let from = field!(memory, mm_arg_start, u64);
    let arguments = field!(memory, mm_arg_end, u64) - from;
    let length = field!(memory, mm_env_end, u64) - from;
    let (name, interpreter) =
        (field!(binary, bprm_filename, Pointer), field!(binary, bprm_interp, Pointer));
    if length > PROGRAM_BYTES as u64 || arguments > length {
        return None;
    }
    let mut place = PROGRAMS.reserve(0)?;
    let program = place.as_mut_ptr();
    // SAFETY: the place is ours until it is submitted. The helpers cope with any address, and write no more than is said.
    let read = unsafe {
        (*program).pid = field!(task, task_tgid, u32);
        (*program).arguments = arguments as u32;
        (*program).length = length as u32;
        (*program).is_script = u32::from(name != interpreter);
        bpf_probe_read_kernel_str(
            (&raw mut (*program).name).cast(),
            PROGRAM_NAME as u32,
            name.cast_const(),
        );
        bpf_probe_read_user((&raw mut (*program).bytes).cast(), length as u32, from as Pointer)
    };
    if read == 0 {
        place.submit(0);
    } else {
        place.discard(0);
    }
    None
}

const SIGKILL: i32 = 9;

/// Run by a process before it does what it was made for: it kills another, and takes its place. Its arguments are the
/// rule and the other process.
#[raw_tracepoint]
pub fn takes_place(ctx: RawTracePointContext) -> i32 {
    let (rule, other) = (ctx.arg::<u64>(0) as u32, ctx.arg::<u64>(1) as u32);
    let Some(thread) = scope::current() else { return 0 };
    let mut slot = thread.slot(kind::FAULT);
    slot.result = SIGKILL;
    slot.argument = rule;
    slot.code = other as i32;
    let told = FaultDetail { rule, action: action::RESTART, ..bytemuck::Zeroable::zeroed() };
    emit::rare(&RareSlot { slot, detail: bytemuck::cast(told) });
    1
}
