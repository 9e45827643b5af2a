//! Sockets older than the recorder: a BPF iterator over every open file takes those in scope into
//! storage and names them, so that their first event is not a stranger's. Of Unix sockets all are taken note
//! of, also those that no file holds (not accepted yet, or on their way in a message), since what they moved
//! before was not counted.

use core::ffi::c_void;

use aya_ebpf::bindings::task_struct;
use aya_ebpf::helpers::generated::bpf_sock_from_file;

use crate::kernel::{self, Pointer, field};
use crate::{emit, local, name, remembered, scope};

/// The context of `iter/task_file`, as the kernel lays it out.
#[repr(C)]
struct Context {
    meta: *mut c_void,
    task: *mut task_struct,
    fd: u32,
    file: *mut c_void,
}

#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task_file")]
pub fn open_sockets(context: *mut c_void) -> i32 {
    let context: *mut Context = context.cast();
    // SAFETY: the kernel's context; the verifier checks the accesses.
    let (task, file) = unsafe { ((*context).task, (*context).file) };
    if task.is_null() || file.is_null() {
        return 0;
    }
    // SAFETY: the verifier checks the file.
    let socket: Pointer = unsafe { bpf_sock_from_file(file.cast()) }.cast();
    if socket.is_null() {
        return 0;
    }
    let sk = field!(socket, socket_sk, Pointer);
    let protocol = if sk.is_null() { 0 } else { kernel::protocol(sk) };
    if protocol == 0 {
        return 0;
    }
    if kernel::is_local(protocol) {
        local::older(sk);
    }
    if !scope::includes(task) {
        return 0;
    }
    if let Some(state) = remembered::socket(sk, field!(task, task_tgid, u32)) {
        name::fresh(sk, state, emit::now());
    }
    0
}

/// The context of `iter/unix`.
#[repr(C)]
struct UnixContext {
    meta: *mut c_void,
    unix: *mut c_void,
    uid: u32,
}

#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/unix")]
pub fn unix_sockets(context: *mut c_void) -> i32 {
    let context: *mut UnixContext = context.cast();
    // SAFETY: the kernel's context; the verifier checks the access.
    let sk = unsafe { (*context).unix };
    if !sk.is_null() {
        local::older(sk);
    }
    0
}
