//! Which system calls detail `syscall` tells: those in which a thread waits, and those about sockets and pipes.

use anyhow::{Context, Result};
use aya::Ebpf;
use aya::maps::{Array, MapData};
use probe_ebpf::syscall::{ALWAYS, DESCRIPTOR, SLEPT, STREAM, STRETCH_SHIFT, WAIT_ID, WAIT_STATUS};
use syscalls::Sysno;

/// Their names, and how they are told. Not every machine has all of them.
const TOLD: &[(u32, &str)] = &[
    // About sockets; what also sends, receives, accepts and the like is told by its own events.
    (DESCRIPTOR, "accept accept4 bind connect listen shutdown"),
    (DESCRIPTOR, "sendto sendmsg sendmmsg recvfrom recvmsg recvmmsg"),
    (DESCRIPTOR | STREAM, "read readv write writev sendfile splice tee vmsplice"),
    (ALWAYS, "socket socketpair pipe pipe2"),
    // Waiting until something is ready.
    (ALWAYS, "poll ppoll select pselect6"),
    (DESCRIPTOR, "epoll_wait epoll_pwait epoll_pwait2 io_uring_enter"),
    (ALWAYS, "io_getevents io_pgetevents"),
    // Waiting for other threads. Most calls on a futex find nothing to wait for.
    (SLEPT, "futex futex_wait futex_waitv futex_wake futex_requeue"),
    (ALWAYS, "msgsnd msgrcv semop semtimedop"),
    (DESCRIPTOR, "mq_timedsend mq_timedreceive flock"),
    // Waiting for processes, signals, time and disks; what goes on after a stop.
    (WAIT_STATUS, "wait4"),
    (WAIT_ID, "waitid"),
    (ALWAYS, "pause rt_sigtimedwait rt_sigsuspend nanosleep clock_nanosleep restart_syscall"),
    (DESCRIPTOR, "fsync fdatasync"),
];

/// Writes the table that the programs look calls up in, for another stretch of the detail.
///
/// # Errors
/// When the map cannot be written.
pub(super) fn choose(ebpf: &mut Ebpf, stretch: u32) -> Result<()> {
    let map = ebpf.map_mut("TOLD_CALLS").context("the probes have no map TOLD_CALLS")?;
    let mut told: Array<&mut MapData, u32> = map.try_into()?;
    for (number, how) in table() {
        told.set(number, how | stretch << STRETCH_SHIFT, 0).context("write the map TOLD_CALLS")?;
    }
    Ok(())
}

/// By number, on this machine.
fn table() -> impl Iterator<Item = (u32, u32)> {
    TOLD.iter().flat_map(|&(how, names)| {
        let numbers = names.split(' ').filter_map(|name| name.parse::<Sysno>().ok());
        numbers.map(move |number| (number.id() as u32, how))
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use probe_ebpf::fault::NUMBERS_MAX;

    use super::*;

    #[test]
    fn each_call_is_in_the_table_once() {
        let numbers: Vec<u32> = table().map(|(number, _)| number).collect();
        let distinct: HashSet<u32> = numbers.iter().copied().collect();
        assert_eq!(numbers.len(), distinct.len());
        assert!(numbers.iter().all(|&number| number < NUMBERS_MAX));
        for call in [libc::SYS_futex, libc::SYS_wait4, libc::SYS_accept4, libc::SYS_pselect6] {
            assert!(distinct.contains(&(call as u32)), "{call}");
        }
    }
}
