//! The guardian: a process beside the recorder that lets go on whoever was stopped, when their time is up or when the
//! recorder has ended, however it ended.
//!
//! It holds two maps, two more to wait by, and the reading end of a pipe, and nothing that keeps a fault armed. The kernel half notes who
//! is stopped before it stops them, so there is nothing that the recorder would have to tell.

mod grace;
pub(super) mod resume;
pub mod watch;

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use aya::Ebpf;
use nix::fcntl::{FcntlArg, fcntl};

use crate::capture::attach::map_fd;

/// The word that makes of the command a guardian.
pub const GUARDIAN: &str = "fault-guardian";

/// How long the guardian may take to end after the recorder's faults are gone.
const PATIENCE: Duration = Duration::from_secs(10);

/// A guardian at work. Dropped, it is waited for.
pub struct Guardian {
    child: Child,
    /// The guardian's work begins to end when this is closed.
    pipe: Option<ChildStdin>,
    /// Who is stopped, and what wakes the guardian: for another, should this one be killed.
    maps: [OwnedFd; 2],
}

impl Guardian {
    /// Starts one for the faults that are about to be armed.
    ///
    /// # Errors
    /// When the kernel half lacks the maps, or the process cannot be started.
    pub fn start(ebpf: &Ebpf) -> Result<Self> {
        let map = |name| Ok::<_, anyhow::Error>(map_fd(ebpf, name)?.try_clone_to_owned()?);
        let maps = [map("PAUSED")?, map("PAUSES")?];
        let mut child = spawn(&maps).context("start the guardian of the faults")?;
        let pipe = child.stdin.take();
        Ok(Self { child, pipe, maps })
    }

    /// Starts another if it has been killed.
    ///
    /// # Errors
    /// When no other can be started.
    pub fn look_after(&mut self) -> Result<()> {
        if self.child.try_wait().context("look after the guardian")?.is_some() {
            let mut child = spawn(&self.maps).context("start another guardian of the faults")?;
            self.pipe = child.stdin.take();
            self.child = child;
        }
        Ok(())
    }
}

impl Drop for Guardian {
    fn drop(&mut self) {
        self.pipe = None;
        let begun = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) && begun.elapsed() < PATIENCE {
            thread::sleep(Duration::from_millis(2));
        }
    }
}

fn spawn(maps: &[OwnedFd; 2]) -> Result<Child> {
    let [paused, pauses] = maps;
    let inherited = [inheritable(paused)?, inheritable(pauses)?];
    let program = std::env::current_exe().context("find the recorder's own program")?;
    let mut command = Command::new(program);
    command.arg(GUARDIAN).args(inherited.iter().map(|fd| fd.as_raw_fd().to_string()));
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).current_dir("/");
    // A session of its own: what a terminal sends to the recorder's is not for it.
    // SAFETY: a system call without arguments, after the fork.
    unsafe {
        command.pre_exec(|| match libc::setsid() {
            -1 => Err(io::Error::last_os_error()),
            _ => Ok(()),
        });
    }
    Ok(command.spawn()?)
}

/// A descriptor of the same map that a program started now inherits.
fn inheritable(map: &OwnedFd) -> Result<OwnedFd> {
    let fd = fcntl(map, FcntlArg::F_DUPFD(3)).context("hand a map on")?;
    // SAFETY: just made, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
