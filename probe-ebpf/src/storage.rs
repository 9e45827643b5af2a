//! What the kernel half remembers about each thread, in the thread's own storage. User space marks threads by
//! writing it.

use bytemuck::{Pod, Zeroable};

/// What programs at one hook leave word of, for those that come after them. Whether any do is known by hook, so that hooks
/// of one kind have bits of their own.
pub mod seen {
    /// So many stand by where a program records what a thread does.
    pub const STANDBYS: u32 = 3;
    const EACH: u32 = (1 << STANDBYS) - 1;
    /// The end of a call: a bit for each that stands by, which takes it away.
    pub const CALL: u32 = EACH;
    /// Threads that begin, change and end: the same.
    pub const TASK: u32 = EACH << STANDBYS;
    /// A connection that was given to the thread: the same.
    pub const ACCEPT: u32 = EACH << (2 * STANDBYS);
    /// A fault was met; one program stands by.
    pub const MET: u32 = 1 << (3 * STANDBYS);
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
    /// Bits of [`seen`].
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
