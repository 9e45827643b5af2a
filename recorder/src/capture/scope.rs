//! Whose events are recorded, and how user space marks them: a word in the thread's task storage, which
//! the fork hook hands on to children.

use std::collections::HashSet;
use std::fmt;
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use probe_ebpf::config::{Config, scope};
use probe_ebpf::storage::TaskState;

use crate::capture::procfs;

/// Whose events are recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The whole machine, but for the recorder.
    All,
    /// A process and its descendants, those that live now and those to come.
    Process(u32),
    /// A cgroup and what is below it.
    Cgroup(PathBuf),
    /// A command's process tree. Only the program's name is told and kept: arguments may hold secrets.
    Command(String),
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all"),
            Self::Process(pid) => write!(f, "pid {pid}"),
            Self::Cgroup(path) => write!(f, "cgroup {}", path.display()),
            Self::Command(program) => f.write_str(program),
        }
    }
}

impl Scope {
    /// Puts the scope into the probes' configuration.
    pub fn configure(&self, config: &mut Config) -> Result<()> {
        match self {
            Self::All => config.scope = scope::ALL,
            Self::Process(_) | Self::Command(_) => config.scope = scope::MARKED,
            Self::Cgroup(path) => {
                let mount =
                    procfs::cgroup_mount().context("find the cgroup2 mount in /proc/mounts")?;
                let full = cgroup_directory(&mount, path)?;
                let below = full.strip_prefix(&mount).unwrap_or(&full);
                config.scope = scope::CGROUP;
                config.cgroup = fs::metadata(&full)
                    .with_context(|| format!("look at cgroup {}", full.display()))?
                    .ino();
                config.cgroup_level = below.components().count() as u32;
            }
        }
        Ok(())
    }

    /// Marks the threads that are in scope now, where threads are marked; the marked ones. Forks must be seen by then.
    pub fn mark(&self, tasks: BorrowedFd<'_>) -> Result<HashSet<u32>> {
        if let Self::Process(pid) = self
            && !Path::new(&format!("/proc/{pid}")).exists()
        {
            bail!("there is no process {pid}");
        }
        let mut marked = HashSet::new();
        // What a thread has made before it was marked is there the next time. Those made later have its mark.
        loop {
            let mut all_were = true;
            for tid in self.threads()? {
                // A thread that has ended in the meantime needs no mark.
                let Ok(thread) = open_thread(tid) else { continue };
                match set(tasks, thread.as_fd(), true, BPF_NOEXIST) {
                    Ok(()) => all_were = false,
                    // It has one, and has counted events with it.
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                    Err(error) => {
                        return Err(error).with_context(|| format!("mark thread {tid} of {self}"));
                    }
                }
                marked.insert(tid);
            }
            if all_were {
                return Ok(marked);
            }
        }
    }

    /// The threads that are in scope now, where they are marked.
    fn threads(&self) -> Result<Vec<u32>> {
        Ok(match self {
            Self::All | Self::Command(_) => Vec::new(),
            Self::Process(pid) => procfs::tree(*pid),
            Self::Cgroup(path) => {
                let mount = procfs::cgroup_mount().context("find the cgroup2 mount")?;
                procfs::cgroup_threads(&cgroup_directory(&mount, path)?)
            }
        })
    }
}

fn cgroup_directory(mount: &Path, path: &Path) -> Result<PathBuf> {
    let inside = path.strip_prefix("/").unwrap_or(path);
    for candidate in [path.to_owned(), mount.join(inside)] {
        if candidate.starts_with(mount) && candidate.is_dir() {
            return Ok(candidate);
        }
    }
    bail!("there is no cgroup {} below {}", path.display(), mount.display());
}

/// A descriptor of the calling thread.
pub fn own_thread() -> io::Result<OwnedFd> {
    // SAFETY: a call without arguments.
    open_thread(unsafe { libc::gettid() } as u32)
}

/// `PIDFD_THREAD` (6.9): a descriptor of any thread, not only of a process's first.
const PIDFD_THREAD: libc::c_uint = libc::O_EXCL as libc::c_uint;

fn open_thread(tid: u32) -> io::Result<OwnedFd> {
    pidfd_open(tid, PIDFD_THREAD).or_else(|_| pidfd_open(tid, 0))
}

/// A descriptor of a process or a thread, which no other comes to have when its number is given again.
pub fn pidfd_open(tid: u32, flags: libc::c_uint) -> io::Result<OwnedFd> {
    // SAFETY: a system call on numbers; the descriptor it returns is ours.
    unsafe {
        match libc::syscall(libc::SYS_pidfd_open, tid as libc::pid_t, flags) {
            -1 => Err(io::Error::last_os_error()),
            fd => Ok(OwnedFd::from_raw_fd(fd as i32)),
        }
    }
}

/// The part of `bpf_attr` that updates an element of a map.
#[repr(C)]
struct UpdateElement {
    map_fd: u32,
    reserved: u32,
    key: u64,
    value: u64,
    flags: u64,
}

const BPF_MAP_UPDATE_ELEM: libc::c_long = 2;
const BPF_ANY: u64 = 0;
const BPF_NOEXIST: u64 = 1;

/// Marks or unmarks a thread.
pub fn mark_thread(tasks: BorrowedFd<'_>, thread: BorrowedFd<'_>, marked: bool) -> io::Result<()> {
    set(tasks, thread, marked, BPF_ANY)
}

/// Sets what is remembered of a thread. aya has no task storage, so the call is made here.
fn set(tasks: BorrowedFd<'_>, thread: BorrowedFd<'_>, marked: bool, flags: u64) -> io::Result<()> {
    let key = thread.as_raw_fd();
    let value = TaskState { marked: u32::from(marked), ..TaskState::default() };
    let attributes = UpdateElement {
        map_fd: tasks.as_raw_fd() as u32,
        reserved: 0,
        key: (&raw const key) as u64,
        value: (&raw const value) as u64,
        flags,
    };
    // SAFETY: key and value live until the call returns and have the sizes the map was made with.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_MAP_UPDATE_ELEM,
            &raw const attributes,
            size_of::<UpdateElement>(),
        )
    };
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
