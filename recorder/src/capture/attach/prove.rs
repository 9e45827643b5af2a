//! Whether hooks that were attached have an effect: a kernel may accept a trampoline or a kprobe and never run
//! it. So the recorder makes one call of each kind, and asks the programs whether they saw it.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use anyhow::{Context, Result};
use aya::Ebpf;
use aya::maps::Array;
use probe_ebpf::config::fired;

use super::family::{Hook, Need};

/// Those of the attached hooks that did not fire.
pub fn silent<'a>(ebpf: &mut Ebpf, hooks: &[&'a Hook]) -> Result<Vec<&'a Hook>> {
    let map = ebpf.map_mut("FIRED").context("find the probes' map FIRED")?;
    let mut seen: Array<_, u64> = map.try_into().context("open the probes' map FIRED")?;
    for index in 0..fired::COUNT {
        seen.set(index, 0, 0).context("clear the probes' map FIRED")?;
    }
    make_calls(libc::AF_INET);
    make_calls(libc::AF_INET6);
    let mut silent = Vec::new();
    for &hook in hooks {
        let Some(index) = hook.fired else { continue };
        if hook.need == Need::RequiredForV6 && !has_v6() {
            continue;
        }
        if seen.get(&index, 0).context("read the probes' map FIRED")? == 0 {
            silent.push(hook);
        }
    }
    Ok(silent)
}

/// Whether sockets of IPv6 can be made: without them the hooks for them are not needed.
pub fn has_v6() -> bool {
    tcp_socket(libc::AF_INET6).is_ok()
}

/// Sends, receives and accepts on a socket that is connected to nothing: each fails, in the function that is
/// hooked, and leaves nothing behind.
fn make_calls(family: i32) {
    let Ok(socket) = tcp_socket(family) else { return };
    let (fd, mut byte) = (socket.as_raw_fd(), [0u8]);
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: the buffer is one byte long and lives; the socket is ours.
    unsafe {
        libc::send(fd, byte.as_ptr().cast(), 1, flags);
        libc::recv(fd, byte.as_mut_ptr().cast(), 1, flags);
        libc::accept(fd, std::ptr::null_mut(), std::ptr::null_mut());
    }
}

fn tcp_socket(family: i32) -> io::Result<OwnedFd> {
    // SAFETY: a system call on numbers; the descriptor it returns is ours.
    unsafe {
        match libc::socket(family, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) {
            -1 => Err(io::Error::last_os_error()),
            fd => Ok(OwnedFd::from_raw_fd(fd)),
        }
    }
}

/// What is known to keep attached hooks from firing, and what to do about it.
pub fn reason() -> &'static str {
    if off("/sys/kernel/debug/kprobes/enabled") {
        return "kprobes are switched off: `echo 1 >/sys/kernel/debug/kprobes/enabled` allows them";
    }
    "the kernel accepts it and never runs it"
}

/// Why functions must not be hooked now. With function tracing switched off hooks are attached without effect,
/// and attaching and detaching them may end with a kernel that switches tracing off for good.
pub fn forbidden() -> Option<&'static str> {
    off("/proc/sys/kernel/ftrace_enabled").then_some(
        "function tracing is switched off, so that hooks of functions would have no effect: \
         `sysctl kernel.ftrace_enabled=1` allows it",
    )
}

fn off(switch: &str) -> bool {
    std::fs::read_to_string(switch).is_ok_and(|text| text.trim() == "0")
}
