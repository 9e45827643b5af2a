//! What the guardian does: it waits for those who are stopped and for the recorder's end, and lets go on.

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use aya::maps::{HashMap, Map, MapData, RingBuf};
use aya::programs::loaded_programs;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigHandler, Signal, signal};
use probe_ebpf::fault::Pause;

use super::grace::Grace;
use super::resume::resume;
use crate::capture::clock;
use crate::capture::unpreempted::Unpreempted;

/// How long programs that stop processes are taken to outlive the recorder where the kernel does not say.
const GRACE: Duration = Duration::from_secs(8);
const TURN: Duration = Duration::from_millis(2);

const KEY: usize = size_of::<Pause>();

/// Those who are stopped, as the kernel half notes them.
struct Watch {
    paused: HashMap<MapData, [u8; KEY], u64>,
    /// The map's number, by which programs are told that may note others.
    number: u32,
    wakes: RingBuf<MapData>,
    /// Nothing where the kernel refuses it.
    grace: Option<Grace>,
    /// Programs that noted a pause before this have also sent the signal.
    settled_ns: u64,
}

/// Guards until the pipe on standard input has ended and nobody is stopped any more.
///
/// # Errors
/// When the maps are not what they should be.
pub fn run(paused: OwnedFd, wakes: OwnedFd) -> Result<()> {
    stand_firm();
    let _unpreempted = Unpreempted::begin();
    let paused = MapData::from_fd(paused).context("open the map of those who are stopped")?;
    let number = paused.info()?.id();
    let wakes = MapData::from_fd(wakes).context("open the ring that tells of pauses")?;
    let mut watch = Watch {
        paused: Map::from_map_data(paused)?.try_into()?,
        number,
        wakes: Map::from_map_data(wakes)?.try_into()?,
        grace: Grace::new().ok(),
        settled_ns: 0,
    };
    // Whoever was stopped while there was no guardian.
    watch.settle();
    while watch.wait()? {}
    watch.end();
    Ok(())
}

/// What ends the recorder must not end its guardian, short of SIGKILL.
fn stand_firm() {
    for ignored in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT] {
        // SAFETY: no handler of ours is installed.
        let _ = unsafe { signal(ignored, SigHandler::SigIgn) };
    }
    // Where this is refused it guards all the same.
    let _ = fs::write("/proc/self/oom_score_adj", "-1000");
}

impl Watch {
    /// Waits for the next thing to do, and does it; false: the recorder has ended.
    fn wait(&mut self) -> Result<bool> {
        let next_ns = self.resume_due(clock::monotonic_ns());
        let stdin = std::io::stdin();
        let wait = |fd| PollFd::new(fd, PollFlags::POLLIN);
        let mut wanted = [wait(stdin.as_fd()), wait(self.wakes.as_fd())];
        match poll(&mut wanted, timeout(next_ns)) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(error) => return Err(error).context("wait for the recorder"),
        }
        let [pipe, wakes] = wanted.map(|fd| fd.any() == Some(true));
        if wakes {
            while self.wakes.next().is_some() {}
            self.settle();
        }
        Ok(!pipe)
    }

    /// Lets everybody go on, until nobody can be stopped any more. However long that takes: the kernel takes one program
    /// after the other from its hook when it ends the recorder, and has to wait at each kprobe.
    fn end(&mut self) {
        let begun = Instant::now();
        while self.is_armed().unwrap_or_else(|| begun.elapsed() < GRACE) {
            self.resume_due(u64::MAX);
            thread::sleep(TURN);
        }
        self.settle();
        self.resume_due(u64::MAX);
    }

    /// Waits until programs that are at work now have ended: one that has noted a pause sends the signal after it.
    fn settle(&mut self) {
        let now_ns = clock::monotonic_ns();
        if !matches!(self.grace.as_ref().map(Grace::wait), Some(Ok(()))) {
            thread::sleep(Duration::from_millis(50));
        }
        self.settled_ns = now_ns;
    }

    /// Whether there are programs that may still stop somebody: those that know the map. Nothing where that may not be
    /// asked.
    fn is_armed(&self) -> Option<bool> {
        for program in loaded_programs() {
            match program.map(|program| program.map_ids()) {
                Ok(Ok(Some(maps))) if maps.contains(&self.number) => return Some(true),
                Err(error) if is_refused(&error) => return None,
                // Another, or it has gone meanwhile.
                _ => {}
            }
        }
        Some(false)
    }

    /// Lets those go on whose time is up; when the next one's is.
    fn resume_due(&mut self, now_ns: u64) -> Option<u64> {
        let pauses: Vec<(Pause, u64)> = self.pauses();
        let mut next_ns: Option<u64> = None;
        for (pause, until_ns) in &pauses {
            let of_process = pauses.iter().filter(|(other, _)| other.pid == pause.pid);
            let last_ns = of_process.map(|(_, until_ns)| *until_ns).max().unwrap_or(*until_ns);
            if last_ns > now_ns {
                next_ns = Some(next_ns.map_or(last_ns, |next| next.min(last_ns)));
                continue;
            }
            if pause.since_ns >= self.settled_ns {
                self.settle();
            }
            resume(pause.pid, pause.since_ns);
            // The note goes last: whoever takes over from here would do it again, which does no harm.
            let _ = self.paused.remove(&bytemuck::cast::<Pause, [u8; KEY]>(*pause));
        }
        next_ns
    }

    fn pauses(&self) -> Vec<(Pause, u64)> {
        let pauses = self.paused.iter().flatten();
        pauses.map(|(key, until_ns)| (bytemuck::cast(key), until_ns)).collect()
    }
}

fn is_refused(error: &aya::programs::ProgramError) -> bool {
    let mut cause: Option<&dyn std::error::Error> = Some(error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<std::io::Error>() {
            return error.raw_os_error() == Some(libc::EPERM);
        }
        cause = error.source();
    }
    false
}

/// Until a time; for as long as it takes where there is none.
fn timeout(until_ns: Option<u64>) -> PollTimeout {
    let Some(until_ns) = until_ns else { return PollTimeout::NONE };
    let left_ns = until_ns.saturating_sub(clock::monotonic_ns());
    // Rounded up, so that it is time when the wait is over.
    PollTimeout::try_from(left_ns / 1_000_000 + 1).unwrap_or(PollTimeout::MAX)
}
