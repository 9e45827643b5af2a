//! An `inject` that runs beside the test, with all processes that came of it: told by a word in their environment.

use std::cell::Cell;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use tests::command::wherefore;
use tests::patience;

use super::STAGE;
use crate::detach::{exists, held};
use crate::recorded::{python_path, require_root};

pub fn wait_for(what: &str, ready: impl Fn() -> bool) {
    let begun = Instant::now();
    while !ready() {
        assert!(begun.elapsed() < patience::seconds(20), "{what} took too long");
        thread::sleep(Duration::from_millis(5));
    }
}

pub struct Inject {
    pub child: Child,
    mark: String,
    _folder: tempfile::TempDir,
}

impl Inject {
    /// Starts a Python script under `inject`.
    pub fn start(faults: &[&str], script: &str) -> Self {
        Self::start_with(&[], faults, script)
    }

    pub fn start_with(words: &[&str], faults: &[&str], script: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        require_root();
        let folder = tempfile::tempdir().expect("a folder");
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let mark = format!("WHEREFORE_TEST_MARK={}.{number}", std::process::id());
        let (name, value) = mark.split_once('=').expect("it has both");
        let mut command = Command::new(wherefore());
        command.args(["inject", "--quiet", "--ring", "4MiB"]).args(words).env(name, value);
        for fault in faults {
            command.args(["--fault", fault]);
        }
        command.arg("-o").arg(folder.path().join("run.parquet"));
        let script = format!("{STAGE}\n{script}");
        command.args(["--", python_path(), "-c", &script]);
        // A session of its own: where a group is left behind in which somebody is stopped, the kernel hangs up on all of a
        // session that goes on (SIGHUP), and nobody would be left of whom to see that they were let go on.
        // SAFETY: a system call without arguments, after the fork.
        unsafe {
            command.pre_exec(|| nix::unistd::setsid().map(drop).map_err(Into::into));
        }
        let child = command.stdout(Stdio::null()).spawn().expect("wherefore starts");
        Self { child, mark, _folder: folder }
    }

    /// All processes that came of it, with their state.
    fn processes(&self) -> Vec<(u32, char)> {
        let entries = std::fs::read_dir("/proc").expect("it is there").flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        let ours = pids.filter(|pid| {
            let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            environment.split(|byte| *byte == 0).any(|word| word == self.mark.as_bytes())
        });
        ours.filter_map(|pid| Some((pid, state(pid)?))).collect()
    }

    pub fn all_stopped(&self) -> Vec<u32> {
        let processes = self.processes().into_iter();
        processes.filter(|(_, state)| *state == 'T').map(|(pid, _)| pid).collect()
    }

    /// Waits until somebody is stopped.
    pub fn stopped(&self) -> u32 {
        let found = Cell::new(0);
        wait_for("the pause", || {
            found.set(self.all_stopped().first().copied().unwrap_or(0));
            found.get() != 0
        });
        found.get()
    }

    /// Whether one of them has this name.
    pub fn has(&self, comm: &str) -> bool {
        let name = |pid| std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        self.processes().into_iter().any(|(pid, _)| name(pid).trim_end() == comm)
    }

    pub fn guardian(&self) -> Option<u32> {
        let is_guardian = |pid: &u32| {
            let words = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            words.split(|byte| *byte == 0).any(|word| word == b"fault-guardian")
        };
        self.processes().into_iter().map(|(pid, _)| pid).find(is_guardian)
    }

    /// Ends the recorder with SIGKILL, and looks at what is left. What it ran goes on.
    pub fn kill_and_look(mut self) -> Self {
        let (programs, _) = held(self.child.id());
        let status = self.end(Signal::SIGKILL, patience::seconds(5));
        assert_eq!(status.signal(), Some(libc::SIGKILL), "it was at work");
        wait_for("the end of the programs", || {
            !programs.iter().any(|&id| exists(crate::detach::BPF_PROG_GET_FD_BY_ID, id))
        });
        self.look();
        self
    }

    pub fn end(&mut self, signal: Signal, within: Duration) -> ExitStatus {
        // It may have ended by itself.
        let _ = kill(Pid::from_raw(self.child.id() as i32), signal);
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("it is our child") {
                return status;
            }
            assert!(begun.elapsed() < within, "it does not end");
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// The guardian goes, nobody is stopped, and nobody will be.
    pub fn look(&self) {
        wait_for("the guardian's end", || self.guardian().is_none());
        for _ in 0..20 {
            let stopped = self.all_stopped();
            assert!(stopped.is_empty(), "stopped: {stopped:?} of {:?}", self.processes());
            thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Inject {
    fn drop(&mut self) {
        // The group is that of our child; its leader may be gone, and the group with it.
        let _ = killpg(Pid::from_raw(self.child.id() as i32), Signal::SIGKILL);
        let _ = self.child.wait();
        for (pid, _) in self.processes() {
            let _ = kill(Pid::from_raw(pid as i32), Signal::SIGKILL);
        }
    }
}

/// The letter of a process's state; nothing where it is gone or waits to be taken note of.
fn state(pid: u32) -> Option<char> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let state = stat.rsplit_once(") ")?.1.chars().next()?;
    (state != 'Z' && state != 'X').then_some(state)
}
