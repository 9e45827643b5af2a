//! Whether this kernel lets wakes be told (detail `sched`): by a thread, or by an interrupt that has nothing to do with
//! the thread it came upon. How the kernel counts interrupts is known from its sources; so the recorder has itself woken in
//! three ways and looks whether each is told right.

use std::io::{self, Read, Write, pipe};
use std::net::UdpSocket;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Error, Result, bail};
use aya::Ebpf;
use aya::maps::{Array, MapData};
use probe_ebpf::config::woken::{BY_INTERRUPT, BY_THREAD};

use crate::capture::{offsets, procfs};

/// Refuses kernels on which it cannot be told.
///
/// # Errors
/// With the reason.
pub(super) fn possible() -> Result<()> {
    // What interrupts leave to be done is done by threads there, whose own wakes it would seem to be.
    if procfs::kernel_version().contains("PREEMPT_RT") {
        bail!("this kernel (PREEMPT_RT) does not tell the work of interrupts from that of threads");
    }
    match offsets::waker_unknown()? {
        Some(why) => bail!("this kernel does not tell who wakes a thread: {why}"),
        None => Ok(()),
    }
}

/// Each way is tried so often: other threads of this process may be woken meanwhile.
const TRIES: u32 = 20;

/// A thread that was woken, to be waited for when all has been counted: to wait is to be woken once more.
type Woken = Option<JoinHandle<io::Result<()>>>;

/// Has this process woken by a thread, by a timer's interrupt, and by what a packet's interrupt left to be done.
///
/// # Errors
/// When one of them is told wrong, or nothing is told at all.
pub(super) fn prove(ebpf: &Ebpf) -> Result<()> {
    let map = ebpf.map("WOKEN").context("the probes have no map WOKEN")?;
    let woken: Array<&MapData, u64> = map.try_into()?;
    type Wake = fn() -> Result<Woken>;
    let ways: [(&str, Wake, [u32; 2]); 3] = [
        ("a thread", by_thread, [BY_THREAD, BY_INTERRUPT]),
        ("a timer", by_timer, [BY_INTERRUPT, BY_THREAD]),
        ("a packet", by_packet, [BY_INTERRUPT, BY_THREAD]),
    ];
    for (by, wake, [right, wrong]) in ways {
        let count = |who: u32| woken.get(&who, 0).context("read the map WOKEN");
        let told_right = || -> Result<bool> {
            let before = (count(right)?, count(wrong)?);
            let waiting = wake()?;
            let after = (count(right)?, count(wrong)?);
            if let Some(waiting) = waiting {
                waiting.join().expect("it does not panic").context("be woken")?;
            }
            Ok(after.0 > before.0 && after.1 == before.1)
        };
        if !(0..TRIES).try_fold(false, |told, _| Ok::<_, Error>(told || told_right()?))? {
            bail!("who wakes a thread is told wrong on this kernel: it was {by}");
        }
    }
    Ok(())
}

/// While the other one waits, this thread does not sleep, which would take a timer.
fn by_thread() -> Result<Woken> {
    let (mut reader, mut writer) = pipe().context("make a pipe")?;
    let waiting = thread::spawn(move || reader.read_exact(&mut [0]));
    fall_asleep();
    writer.write_all(&[0]).context("write into a pipe")?;
    Ok(Some(awake(waiting)))
}

fn by_timer() -> Result<Woken> {
    thread::sleep(Duration::from_millis(1));
    Ok(None)
}

/// The loopback gives a packet to its receiver as an interrupt would.
fn by_packet() -> Result<Woken> {
    let receiver = UdpSocket::bind("127.0.0.1:0").context("make a UDP socket")?;
    let address = receiver.local_addr().context("name a UDP socket")?;
    let sender = UdpSocket::bind("127.0.0.1:0").context("make a UDP socket")?;
    // A packet that was lost would be waited for in vain.
    receiver.set_read_timeout(Some(Duration::from_secs(1))).context("limit a UDP socket")?;
    let waiting = thread::spawn(move || receiver.recv(&mut [0]).map(drop));
    fall_asleep();
    sender.send_to(&[0], address).context("send to itself")?;
    Ok(Some(awake(waiting)))
}

/// Gives another thread the time to fall asleep.
fn fall_asleep() {
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(2) {
        thread::yield_now();
    }
}

fn awake<T>(waiting: JoinHandle<T>) -> JoinHandle<T> {
    while !waiting.is_finished() {
        thread::yield_now();
    }
    waiting
}
