//! Which system calls detail `syscall` tells, and what of each: bits by number, in a table that the loader writes.

/// Its first argument is a descriptor.
pub const DESCRIPTOR: u32 = 1;
/// It is told only on sockets and pipes.
pub const STREAM: u32 = 2;
/// It is told only if the thread slept in it.
pub const SLEPT: u32 = 4;
/// Its second argument says where the status of a child goes.
pub const WAIT_STATUS: u32 = 8;
/// Its third argument says where the `siginfo` of a child goes.
pub const WAIT_ID: u32 = 16;
/// It is told whatever it does. Some bit has to be set of each that is told.
pub const ALWAYS: u32 = 32;

/// The rest is the number of the stretch of detail: a call that began in another one is not told.
pub const STRETCH_SHIFT: u32 = 8;

/// `si_code` of a child that has ended: `CLD_EXITED`, `CLD_KILLED`, `CLD_DUMPED`.
pub const ENDED: core::ops::RangeInclusive<u32> = 1..=3;
