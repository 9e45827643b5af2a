//! What the kernel half remembers about each thread, in the thread's own storage. User space marks threads by
//! writing it.

use bytemuck::{Pod, Zeroable};

/// Which of the programs that are there twice.
pub mod seen {
    /// Those that record.
    pub const RECORDED: u32 = 1;
    /// Those at which faults are met.
    pub const MET: u32 = 2;
}

/// What is remembered about a thread.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct TaskState {
    /// 1: in scope, and so are the threads it makes.
    pub marked: u32,
    /// Events raised so far.
    pub count: u32,
    /// Place of its last name record.
    pub named: u64,
    /// How often it had gone to sleep at its last event.
    pub switches: u64,
    /// The call it is in, where calls are seen to begin: when that was, the address of the `struct socket`
    /// (0: none), and a receive's flags.
    pub entered_ns: u64,
    pub entered: u64,
    pub entered_flags: u32,
    /// Bits of [`seen`]: the first of two programs at a hook has seen the call that ends, so that the second has nothing
    /// to do.
    pub seen: u32,
    /// Detail `syscall`: the system call that it is in.
    pub call: Call,
}

/// A system call as it began.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Call {
    /// 0: it was not seen to begin, or is over.
    pub begun_ns: u64,
    /// Cookie of the socket behind its descriptor; 0: none, or it has none yet.
    pub socket: u64,
    /// Where the program wants to be told of a child: an address of its own.
    pub report: u64,
    /// How often the thread had gone to sleep before.
    pub switches: u64,
    /// Events that it had raised before.
    pub count: u32,
    pub number: u32,
    /// What the table of calls said of it ([`crate::syscall`]).
    pub how: u32,
    /// Its descriptor, or [`NO_DESCRIPTOR`](crate::event::NO_DESCRIPTOR).
    pub fd: u32,
    /// What that is: one of [`protocol`](crate::event::protocol), 0 for others.
    pub protocol: u32,
    pub reserved: u32,
}
