//! A process is started anew: what it is made of is read while it stands still, then it dies and another one takes its
//! place, with the same program, arguments, environment and surroundings.
//!
//! Whatever speaks against it is found out before the process is killed; then it goes on as if nothing had been.

mod anew;
mod learned;
mod program;
mod status;

use std::collections::HashMap;
use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use aya::maps::{Map, MapData, RingBuf};
use probe_ebpf::fault::{Pause, Told};

use super::successors::Successors;
use crate::capture::attach::map_fd;
use crate::capture::scope::{self, Scope, pidfd_open};
use crate::capture::unpreempted::Unpreempted;
use crate::capture::{Capture, clock, procfs};
use crate::fault::arm;
use crate::fault::guardian::resume::resume;
use anew::Anew;
use learned::Learned;
use program::{Noted, Program};

/// How long a process may take until all of its threads stand still.
const PATIENCE: Duration = Duration::from_secs(2);

/// What it takes to start processes anew.
pub struct Restarter {
    /// What processes were started with, as they begin.
    began: RingBuf<MapData>,
    noted: HashMap<u32, Noted>,
    /// Who is stopped: the guardian looks after them.
    paused: aya::maps::HashMap<MapData, [u8; size_of::<Pause>()], u64>,
    /// Marks threads, where those in scope are marked.
    tasks: Option<OwnedFd>,
    /// The program that a successor runs to tell of itself.
    takes_place: OwnedFd,
    successors: Successors,
}

impl Restarter {
    /// For a recording whose faults are armed.
    ///
    /// # Errors
    /// When the kernel half lacks a part.
    pub fn new(capture: &mut Capture, successors: Successors) -> Result<Self> {
        let is_marked = matches!(capture.scope(), Scope::Command(_) | Scope::Process(_));
        let ebpf = capture.maps_mut();
        let own = |map| Ok::<_, anyhow::Error>(map_fd(ebpf, map)?.try_clone_to_owned()?);
        let tasks = if is_marked { Some(own("TASKS")?) } else { None };
        let paused = MapData::from_fd(own("PAUSED")?).context("open the map PAUSED")?;
        let began = ebpf.take_map("PROGRAMS").context("take the map PROGRAMS")?;
        let takes_place = arm::raw(ebpf, "takes_place")?.fd()?.as_fd().try_clone_to_owned()?;
        Ok(Self {
            began: began.try_into().context("map the ring of programs into memory")?,
            noted: HashMap::new(),
            paused: Map::from_map_data(paused)?.try_into()?,
            tasks,
            takes_place,
            successors,
        })
    }

    /// Readable when processes have begun that are to be taken note of.
    pub fn began(&self) -> BorrowedFd<'_> {
        self.began.as_fd()
    }

    /// Takes note of the programs that have begun, and forgets those that have ended.
    pub fn read(&mut self) {
        while let Some(item) = self.began.next() {
            self.noted.extend(Noted::parse(&item));
        }
        if self.noted.len() > NOTED_MAX {
            self.noted.retain(|pid, _| fs::exists(format!("/proc/{pid}")).unwrap_or(true));
        }
    }

    /// Starts the process anew that is to be restarted, or lets it go on.
    ///
    /// # Errors
    /// Why it was not started anew.
    pub fn restart(&mut self, rule: usize, told: &Told) -> Result<()> {
        self.read();
        let pid = told.subject.pid;
        let restarted = self.replace(rule, pid, told.time_ns);
        if restarted.is_err() {
            resume(pid, told.time_ns);
        }
        // After that: whoever takes over from here would let it go on.
        let pause = Pause { since_ns: told.time_ns, pid, reserved: 0 };
        let _unpreempted = Unpreempted::begin();
        let _ = self.paused.remove(&bytemuck::cast(pause));
        restarted
    }

    fn replace(&mut self, rule: usize, pid: u32, since_ns: u64) -> Result<()> {
        ensure!(pid != 1, "process 1 is the machine's first, which ends with it");
        let process = pidfd_open(pid, 0).context("it had ended")?;
        let slept_ns = clock::since_boot_ns().saturating_sub(clock::monotonic_ns());
        let began_ns = procfs::started_ns(pid).context("it had ended")?;
        ensure!(began_ns <= since_ns + slept_ns, "it had ended, and its number is another's");
        wait_until_stopped(pid)?;
        let program = Program::of(pid, self.noted.get(&pid))?;
        let learned = Learned::of(pid, &process)?;
        let takes_place = self.takes_place.try_clone().context("hand a program on")?;
        let anew = Anew::new(process, &program, learned, takes_place, [rule as u64, pid.into()])?;
        let _pending = self.successors.begin(pid);
        self.mark(true)?;
        let spawned = anew.spawn(&program);
        self.mark(false)?;
        self.successors.add(pid, spawned?);
        Ok(())
    }

    /// Whoever is made by this thread is in scope from now on, or not any more.
    fn mark(&self, marked: bool) -> Result<()> {
        let Some(tasks) = &self.tasks else { return Ok(()) };
        let thread = scope::own_thread().context("open the recorder's own thread")?;
        scope::mark_thread(tasks.as_fd(), thread.as_fd(), marked)
            .context("mark the recorder's own thread")
    }
}

/// Above this number programs are looked through for those whose processes have ended.
const NOTED_MAX: usize = 256;

/// All threads stand still, so that nothing changes under our eyes.
fn wait_until_stopped(pid: u32) -> Result<()> {
    let begun = Instant::now();
    loop {
        let mut threads =
            fs::read_dir(format!("/proc/{pid}/task")).context("it had ended")?.flatten();
        let is_stopped = |thread: fs::DirEntry| {
            let stat = fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
            let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
            !matches!(state, Some('R' | 'S' | 'D' | 'I' | 't'))
        };
        if threads.all(is_stopped) {
            return Ok(());
        }
        if begun.elapsed() > PATIENCE {
            bail!("its threads did not all stand still within {} s", PATIENCE.as_secs());
        }
        thread::sleep(Duration::from_millis(1));
    }
}
