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
}
