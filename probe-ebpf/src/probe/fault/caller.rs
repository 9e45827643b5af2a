//! Who makes a call, for programs of control groups on kernels where these cannot look at what hangs on a thread: noted
//! where calls begin, by a program that can, and forgotten where they end.
//!
//! Attached only where the kernel refuses the other form of these programs, since it costs every system call.

use aya_ebpf::bindings::task_struct;
use aya_ebpf::btf_maps::{Array, HashMap};
use aya_ebpf::helpers::generated::{bpf_get_current_pid_tgid, bpf_get_current_task_btf};
use aya_ebpf::macros::{btf_map, btf_tracepoint};
use aya_ebpf::programs::BtfTracePointContext;
use probe_ebpf::fault::{CALLERS_MAX, NUMBERS_MAX};

use super::{Victim, leader, result, victim};
use crate::{emit, scope};

/// By the number of a system call: 1 where a control group's program looks at it.
#[btf_map]
static LOOKED_AT: Array<u32, { NUMBERS_MAX as usize }> = Array::new();
/// By process and thread: the call that is under way.
#[btf_map]
static CALLERS: HashMap<u64, Victim, { CALLERS_MAX as usize }> = HashMap::new();

#[btf_tracepoint(function = "sys_enter")]
pub fn call_begun(ctx: BtfTracePointContext) -> Option<()> {
    let looked_at = LOOKED_AT.get_ptr_mut(ctx.arg(1))?;
    // SAFETY: a live map value.
    if unsafe { looked_at.read_volatile() } == 0 {
        return None;
    }
    let thread = scope::current()?;
    let mut noted = Victim { after: 0, before: 0, pending: 0, hook: 0, socket: 0, detail: [0; 8] };
    let process = victim(leader(thread.task), false);
    if !process.is_null() {
        // SAFETY: a live storage value.
        (noted.after, noted.before) = unsafe { ((*process).after, (*process).before) };
    }
    if CALLERS.insert(number(), noted, 0).is_err() {
        emit::dropped();
        return None;
    }
    result::awaited(1);
    None
}

/// What was noted about the current thread's call; NULL where nothing was.
#[inline(always)]
pub fn noted() -> *mut Victim {
    CALLERS.get_ptr_mut(number()).unwrap_or(core::ptr::null_mut())
}

/// The current thread's task, if its call was noted, which only those in scope have.
#[inline(always)]
pub fn task() -> Option<*mut task_struct> {
    // SAFETY: a helper without arguments.
    (!noted().is_null()).then(|| unsafe { bpf_get_current_task_btf() })
}

/// Ends what [`call_begun`] began.
#[inline(always)]
pub fn forget() {
    if !noted().is_null() {
        // It was there just now, and is this thread's alone.
        let _ = CALLERS.remove(number());
        result::awaited(-1);
    }
}

#[inline(always)]
fn number() -> u64 {
    // SAFETY: a helper without arguments.
    unsafe { bpf_get_current_pid_tgid() }
}
