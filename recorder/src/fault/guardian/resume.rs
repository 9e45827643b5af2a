//! Letting a stopped process go on, and never another that was given its number.

use std::os::fd::AsRawFd;
use std::ptr;

use crate::capture::scope::pidfd_open;
use crate::capture::{clock, procfs};

/// Lets the process go on that had this number at this time of the monotonic clock; nothing where it is gone.
pub(in crate::fault) fn resume(pid: u32, since_ns: u64) {
    let Ok(process) = pidfd_open(pid, 0) else { return };
    let slept_ns = clock::since_boot_ns().saturating_sub(clock::monotonic_ns());
    // Of the process that the descriptor is of, or of none.
    if procfs::started_ns(pid).is_none_or(|started_ns| started_ns > since_ns + slept_ns) {
        return;
    }
    let (fd, signal) = (process.as_raw_fd(), libc::SIGCONT);
    // It may end at this moment, which is as well.
    // SAFETY: a system call on a descriptor that is open, and numbers.
    unsafe {
        libc::syscall(libc::SYS_pidfd_send_signal, fd, signal, ptr::null::<libc::siginfo_t>(), 0);
    }
}
