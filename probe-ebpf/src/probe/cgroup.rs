//! Cgroups as they are made, since a short-lived one is gone before anybody could ask for its path; and who goes
//! to another.

use aya_ebpf::bindings::task_struct;
use aya_ebpf::helpers::generated::bpf_probe_read_kernel_str;
use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;
use probe_ebpf::event::{RareSlot, kind};

use crate::kernel::{Pointer, field};
use crate::{emit, kernel, name, scope};

/// The kernel's buffer for a cgroup's path in its tracepoints (`TRACE_CGROUP_PATH_LEN`).
const PATH_BYTES: u32 = 1024;

/// A piece is what a detail holds, but for the 0 at its end.
const PIECE_BYTES: u32 = 63;

/// No event, but records that name it, whoever made it: who will live in it is not known yet.
#[btf_tracepoint(function = "cgroup_mkdir")]
pub fn cgroup_mkdir(ctx: BtfTracePointContext) -> Option<()> {
    let cgroup: Pointer = ctx.arg(0);
    let path: Pointer = ctx.arg(1);
    let root = field!(cgroup, cgroup_root, Pointer);
    // The hierarchies of version 1 number their cgroups anew.
    if field!(root, cgroup_root_hierarchy_id, i32) != 0 {
        return None;
    }
    let mut slot = emit::slot(kind::CGROUP, 0, 0, emit::now());
    slot.socket = kernel::cgroup_id(cgroup);
    while slot.sequence < PATH_BYTES {
        let mut detail = [0u64; 8];
        // SAFETY: the helper copes with any address; at most 64 bytes are written.
        let read = unsafe {
            let piece = path.wrapping_byte_add(slot.sequence as usize);
            bpf_probe_read_kernel_str((&raw mut detail).cast(), PIECE_BYTES + 1, piece)
        };
        if read <= 0 {
            break;
        }
        emit::rare(&RareSlot { slot, detail });
        if read <= PIECE_BYTES as i64 {
            break;
        }
        slot.sequence += PIECE_BYTES;
    }
    None
}

/// A process goes to another cgroup: no event, but a new name. Fires when it is there already.
#[btf_tracepoint(function = "cgroup_attach_task")]
pub fn cgroup_attach_task(ctx: BtfTracePointContext) -> Option<()> {
    let task: *mut task_struct = ctx.arg(2);
    if !scope::includes(task) {
        return None;
    }
    let pid = field!(task, task_tgid, u32);
    let mut slot = emit::slot(kind::TASK, pid, field!(task, task_pid, u32), emit::now());
    // Its other threads go with it, and are not told one by one.
    slot.argument = ctx.arg::<i32>(3) as u32 & 1;
    emit::rare(&RareSlot { slot, detail: name::task_detail(task) });
    None
}
