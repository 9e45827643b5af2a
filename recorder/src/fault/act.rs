//! Deeds that user space does: a thread beside the recording waits to be told of firings, and does what their rules ask.
//!
//! One deed after another. What is told meanwhile waits in the control ring, which holds some 600 firings; those that find no
//! room there are not done. Whatever is not done is counted with its reason.

pub mod destroy;
pub mod restart;
pub mod successors;

use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::pipe2;
use probe_ebpf::fault::Told;

use super::spec::Action;
use crate::capture::Capture;
use crate::capture::control::Control;
use restart::Restarter;
use successors::Successors;

/// What user space does at an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deed {
    /// Break the connection for both of its ends.
    Destroy,
    /// Kill the process, and start its program anew.
    Restart,
}

impl Deed {
    /// The part of a fault's deed that user space has; nothing where the kernel half does all of it.
    pub const fn of(action: Action) -> Option<Self> {
        match action {
            Action::Destroy => Some(Self::Destroy),
            Action::Restart => Some(Self::Restart),
            _ => None,
        }
    }
}

/// What became of one rule's firings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Done {
    pub count: u64,
    /// Why the first of the others was not done.
    pub failure: Option<String>,
}

impl Done {
    /// What is missing of so many firings, and why.
    pub fn remark(&self, fired: u64) -> Option<String> {
        let missing = fired.checked_sub(self.count).filter(|&missing| missing > 0)?;
        let why = self.failure.as_deref().unwrap_or("they came too fast to be told");
        Some(format!("{missing} of {fired} not done: {why}"))
    }
}

/// The thread at work.
pub struct Actor {
    thread: Option<JoinHandle<()>>,
    /// The thread ends when this is closed.
    pipe: Option<OwnedFd>,
    done: Arc<Mutex<Vec<Done>>>,
    successors: Successors,
}

impl Actor {
    /// Starts it; the deeds are in the order of the rules.
    ///
    /// # Errors
    /// When there is no room for a thread or a pipe.
    pub fn start(
        capture: &mut Capture,
        control: Control,
        deeds: Vec<Option<Deed>>,
    ) -> Result<Self> {
        let successors = Successors::default();
        let restarter = if deeds.contains(&Some(Deed::Restart)) {
            Some(Restarter::new(capture, successors.clone())?)
        } else {
            None
        };
        let (ends, pipe) = pipe2(OFlag::O_CLOEXEC).context("make a pipe")?;
        let done = Arc::new(Mutex::new(vec![Done::default(); deeds.len()]));
        let worker = Worker {
            control,
            ends,
            deeds,
            done: Arc::clone(&done),
            restarter,
            successors: successors.clone(),
        };
        // Without a name of its own: what it makes is called as we are.
        let thread = thread::Builder::new()
            .spawn(move || worker.work())
            .context("start the thread that does what faults ask of user space")?;
        Ok(Self { thread: Some(thread), pipe: Some(pipe), done, successors })
    }

    /// By rule, so far.
    pub fn done(&self) -> Vec<Done> {
        self.done.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether a process that took this one's place is still there.
    pub fn lives_on(&self, process: u32) -> bool {
        self.successors.live(process)
    }

    /// Does what has been told, and no more.
    pub fn end(&mut self) {
        self.pipe = None;
        if let Some(thread) = self.thread.take() {
            // A panic has been told; what was not done is counted as that.
            let _ = thread.join();
        }
    }
}

impl Drop for Actor {
    fn drop(&mut self) {
        self.end();
    }
}

/// What the thread has.
struct Worker {
    control: Control,
    ends: OwnedFd,
    deeds: Vec<Option<Deed>>,
    done: Arc<Mutex<Vec<Done>>>,
    /// Where processes are started anew.
    restarter: Option<Restarter>,
    successors: Successors,
}

impl Worker {
    fn work(mut self) {
        loop {
            let ended = self.wait();
            if let Some(restarter) = &mut self.restarter {
                restarter.read();
            }
            while let Some(told) = self.control.next() {
                for rule in (0..self.deeds.len()).filter(|rule| told.rules >> rule & 1 == 1) {
                    self.act(rule, &told);
                }
            }
            if ended {
                return;
            }
        }
    }

    fn act(&mut self, rule: usize, told: &Told) {
        let acted = match (self.deeds[rule], &mut self.restarter) {
            (Some(Deed::Destroy), _) => destroy::destroy(told),
            (Some(Deed::Restart), Some(restarter)) => restarter.restart(rule, told),
            _ => return,
        };
        let mut done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
        match acted {
            Ok(()) => done[rule].count += 1,
            Err(error) => {
                done[rule].failure.get_or_insert_with(|| format!("{error:#}"));
            }
        }
    }

    /// Waits until there is something to do; whether the end has been asked for.
    fn wait(&self) -> bool {
        let wanted = |fd| PollFd::new(fd, PollFlags::POLLIN);
        let mut wanted = vec![wanted(self.ends.as_fd()), wanted(self.control.as_fd())];
        wanted.extend(
            self.restarter
                .iter()
                .map(|restarter| PollFd::new(restarter.began(), PollFlags::POLLIN)),
        );
        let timeout =
            if self.successors.reap() { PollTimeout::from(REAPING) } else { PollTimeout::NONE };
        match poll(&mut wanted, timeout) {
            Ok(_) => wanted[0].any() != Some(false),
            Err(error) => error != Errno::EINTR,
        }
    }
}

/// How long a successor that has ended may wait until that is taken note of, ms.
const REAPING: u16 = 100;
