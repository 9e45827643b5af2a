//! The clocks that tie the kernel's time stamps to the wall.

use nix::time::{ClockId, clock_gettime};

/// `CLOCK_MONOTONIC`, the probes' clock, in ns.
pub fn monotonic_ns() -> u64 {
    read(ClockId::CLOCK_MONOTONIC) as u64
}

/// Wall clock minus monotonic clock, ns. The monotonic clock is read before and after the wall's, and the
/// narrowest of some tries is taken.
pub fn wall_offset_ns() -> i64 {
    let attempt = || {
        let before = read(ClockId::CLOCK_MONOTONIC);
        let wall = read(ClockId::CLOCK_REALTIME);
        let after = read(ClockId::CLOCK_MONOTONIC);
        (after - before, wall - (before + (after - before) / 2))
    };
    (0..5).map(|_| attempt()).min().map_or(0, |(_, offset)| offset)
}

/// Time since the machine was booted, with the time that it slept, ns: what `/proc` counts processes' starts in.
pub fn since_boot_ns() -> u64 {
    read(ClockId::CLOCK_BOOTTIME) as u64
}

/// CPU time that the calling thread has used, ns.
pub fn own_cpu_ns() -> u64 {
    read(ClockId::CLOCK_THREAD_CPUTIME_ID) as u64
}

/// CPU time that the process has used, ns.
pub fn process_cpu_ns() -> u64 {
    read(ClockId::CLOCK_PROCESS_CPUTIME_ID) as u64
}

fn read(clock: ClockId) -> i64 {
    let time = clock_gettime(clock).expect("these clocks exist on every Linux");
    time.tv_sec() * 1_000_000_000 + time.tv_nsec()
}
