//! Deeds that user space does: a thread beside the recording waits to be told of firings, and does what their rules ask.
//!
//! One deed after another. What is told meanwhile waits in the control ring, which holds some 600 firings; those that find no
//! room there are not done. Whatever is not done is counted with its reason.

pub mod destroy;

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
use crate::capture::control::Control;

/// What user space does at an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deed {
    /// Break the connection for both of its ends.
    Destroy,
}

impl Deed {
    /// The part of a fault's deed that user space has; nothing where the kernel half does all of it.
    pub const fn of(action: Action) -> Option<Self> {
        match action {
            Action::Destroy => Some(Self::Destroy),
            _ => None,
        }
    }

    fn act(self, told: &Told) -> Result<()> {
        match self {
            Self::Destroy => destroy::destroy(told),
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
}

impl Actor {
    /// Starts it; the deeds are in the order of the rules.
    ///
    /// # Errors
    /// When there is no room for a thread or a pipe.
    pub fn start(control: Control, deeds: Vec<Option<Deed>>) -> Result<Self> {
        let (ends, pipe) = pipe2(OFlag::O_CLOEXEC).context("make a pipe")?;
        let done = Arc::new(Mutex::new(vec![Done::default(); deeds.len()]));
        let shared = Arc::clone(&done);
        let thread = thread::Builder::new()
            .name("deeds".to_owned())
            .spawn(move || work(control, &ends, &deeds, &shared))
            .context("start the thread that does what faults ask of user space")?;
        Ok(Self { thread: Some(thread), pipe: Some(pipe), done })
    }

    /// By rule, so far.
    pub fn done(&self) -> Vec<Done> {
        self.done.lock().unwrap_or_else(PoisonError::into_inner).clone()
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

fn work(mut control: Control, ends: &OwnedFd, deeds: &[Option<Deed>], done: &Mutex<Vec<Done>>) {
    loop {
        let ended = wait(&control, ends);
        for told in control.by_ref() {
            let fired = deeds.iter().enumerate().filter(|(rule, _)| told.rules >> rule & 1 == 1);
            for (rule, deed) in fired {
                let Some(deed) = deed else { continue };
                let acted = deed.act(&told);
                let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
                match acted {
                    Ok(()) => done[rule].count += 1,
                    Err(error) => {
                        done[rule].failure.get_or_insert_with(|| format!("{error:#}"));
                    }
                }
            }
        }
        if ended {
            return;
        }
    }
}

/// Waits until there is something to do; whether the end has been asked for.
fn wait(control: &Control, ends: &OwnedFd) -> bool {
    let wanted = |fd| PollFd::new(fd, PollFlags::POLLIN);
    let mut wanted = [wanted(control.as_fd()), wanted(ends.as_fd())];
    match poll(&mut wanted, PollTimeout::NONE) {
        Ok(_) => wanted[1].any() != Some(false),
        Err(error) => error != Errno::EINTR,
    }
}
