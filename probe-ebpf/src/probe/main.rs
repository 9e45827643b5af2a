//! The probes: programs that run in the kernel at socket, connection, task and signal events and write
//! what happened into per-CPU rings. Nothing here waits, allocates on a hot path or wakes anybody.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]
#![cfg_attr(target_arch = "bpf", feature(core_intrinsics))]
#![cfg_attr(
    target_arch = "bpf",
    expect(internal_features, reason = "core's fetch_add does not exist on this target")
)]

#[cfg(target_arch = "bpf")]
mod kernel;

#[cfg(target_arch = "bpf")]
mod emit;

#[cfg(target_arch = "bpf")]
mod storage;

#[cfg(target_arch = "bpf")]
mod scope;

#[cfg(target_arch = "bpf")]
mod remembered;

#[cfg(target_arch = "bpf")]
mod name;

#[cfg(target_arch = "bpf")]
mod initial;

#[cfg(target_arch = "bpf")]
mod file;

#[cfg(target_arch = "bpf")]
mod fire;

#[cfg(target_arch = "bpf")]
mod standby;

#[cfg(target_arch = "bpf")]
mod socket;

#[cfg(target_arch = "bpf")]
mod trampoline;

#[cfg(target_arch = "bpf")]
mod kprobe;

#[cfg(target_arch = "bpf")]
mod tcp;

#[cfg(target_arch = "bpf")]
mod drop;

#[cfg(target_arch = "bpf")]
mod local;

#[cfg(target_arch = "bpf")]
mod datagram;

#[cfg(target_arch = "bpf")]
mod mptcp;

#[cfg(target_arch = "bpf")]
mod task;

#[cfg(target_arch = "bpf")]
mod cgroup;

#[cfg(target_arch = "bpf")]
mod signal;

#[cfg(target_arch = "bpf")]
mod syscall;

#[cfg(target_arch = "bpf")]
mod wake;

#[cfg(target_arch = "bpf")]
mod iterate;

#[cfg(target_arch = "bpf")]
mod fault;

#[cfg(target_arch = "bpf")]
mod watch;

#[cfg(target_arch = "bpf")]
mod idle;

/// The kernel lets only programs under a GPL-compatible licence call the helpers that read kernel
/// memory and tasks. The sources are MIT OR Apache-2.0 as well; this is what the kernel is told.
#[cfg(target_arch = "bpf")]
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[cfg(not(target_arch = "bpf"))]
fn main() {}
