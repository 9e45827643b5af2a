//! Doing something in another network namespace.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::panic::resume_unwind;
use std::thread;

use anyhow::{Context, Result};

/// Does it in a thread of its own, since a thread that has entered a namespace stays there.
///
/// # Errors
/// Those of `work`, and when the namespace may not be entered.
pub fn within<T: Send>(namespace: &File, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let entered = || {
        // SAFETY: a system call on a descriptor that is open.
        match unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) } {
            -1 => Err(io::Error::last_os_error()).context("enter the network namespace"),
            _ => work(),
        }
    };
    thread::scope(|scope| scope.spawn(entered).join()).unwrap_or_else(|panic| resume_unwind(panic))
}
