//! The files that a thread has open, found by descriptor. Read by helper: between a thread's tables and a file the
//! verifier knows no types.

use aya_ebpf::bindings::task_struct;

use crate::kernel::{Pointer, Structure, Untyped, field, offset};

const S_IFMT: u16 = 0o170_000;
const S_IFIFO: u16 = 0o010_000;
const S_IFSOCK: u16 = 0o140_000;

/// The file behind a descriptor, if there is one.
#[inline(always)]
pub fn of(task: *mut task_struct, fd: u32) -> Option<Untyped> {
    let table = Untyped(field!(task, task_files, Pointer)).follow(offset!(files_fdt));
    if fd >= table.load::<u32>(offset!(fdt_max_fds)) {
        return None;
    }
    in_table(table.follow(offset!(fdt_fd)), fd)
}

/// The same of an array of files that has so many.
#[inline(always)]
pub fn in_table(files: Untyped, fd: u32) -> Option<Untyped> {
    let file = Untyped(files.0.wrapping_byte_add(fd as usize * 8)).follow(0);
    (!file.0.is_null()).then_some(file)
}

/// What bytes or messages go through.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Socket,
    Pipe,
    Other,
}

#[inline(always)]
pub fn kind(file: Untyped) -> Kind {
    let mode: u16 = file.follow(offset!(file_inode)).load(offset!(inode_mode));
    match mode & S_IFMT {
        S_IFSOCK => Kind::Socket,
        S_IFIFO => Kind::Pipe,
        _ => Kind::Other,
    }
}

/// The socket that a file is.
#[inline(always)]
pub fn socket(file: Untyped) -> Option<Untyped> {
    if kind(file) == Kind::Socket { socket_of(file) } else { None }
}

/// The same of a file that is known to be one.
#[inline(always)]
pub fn socket_of(file: Untyped) -> Option<Untyped> {
    let sk = file.follow(offset!(file_private_data)).follow(offset!(socket_sk));
    (!sk.0.is_null()).then_some(sk)
}
