//! What surrounds a process that stands still: directory, root, namespaces, control group, users, limits, standard files.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};

use anyhow::{Context, Result, bail, ensure};

use super::status::Status;
use crate::capture::procfs;

pub struct Learned {
    pub directory: OwnedFd,
    /// Where it is not ours.
    pub root: Option<OwnedFd>,
    /// Those that are not ours.
    pub namespaces: Vec<OwnedFd>,
    /// Where it is written who joins its control group; nothing where that is ours.
    pub cgroup: Option<OwnedFd>,
    pub users: Ids,
    pub groups: Ids,
    pub more_groups: Vec<libc::gid_t>,
    pub umask: libc::mode_t,
    pub limits: Vec<libc::rlimit>,
    /// Standard input, output and error, where they are open.
    pub files: [Option<OwnedFd>; 3],
    pub leads_session: bool,
    pub no_new_privileges: bool,
}

/// The real, effective and saved ones.
pub type Ids = [u32; 3];

impl Learned {
    /// # Errors
    /// What cannot be known, or given to another process by us.
    pub fn of(pid: u32, process: &OwnedFd) -> Result<Self> {
        let own = Status::of("self")?;
        let status = Status::of(&pid.to_string())?;
        ensure!(
            status.number("Seccomp", 10)? == 0,
            "it runs under a seccomp filter, which nobody can give to another process"
        );
        let program = fs::metadata(format!("/proc/{pid}/exe")).context("look at its program")?;
        let users = ids(&status, "Uid", program.mode() & libc::S_ISUID != 0)?;
        let groups = ids(&status, "Gid", program.mode() & libc::S_ISGID != 0)?;
        let more_groups = status.numbers("Groups", 10)?.into_iter().map(|id| id as u32).collect();
        may_become(&own, &status, users[0])?;
        let folder = |name| {
            let path = format!("/proc/{pid}/{name}");
            let opened = OpenOptions::new().read(true).custom_flags(libc::O_PATH).open(&path);
            opened.map(OwnedFd::from).with_context(|| format!("open {path}"))
        };
        Ok(Self {
            directory: folder("cwd")?,
            root: if is_own_root(pid)? { None } else { Some(folder("root")?) },
            namespaces: namespaces(pid)?,
            cgroup: cgroup(pid)?,
            users,
            groups,
            more_groups,
            umask: status.number("Umask", 8)? as libc::mode_t,
            limits: limits(pid)?,
            files: [file(process, 0)?, file(process, 1)?, file(process, 2)?],
            leads_session: session(pid)? == pid,
            no_new_privileges: status.number("NoNewPrivs", 10)? != 0,
        })
    }
}

/// Of a set-id program it is the real ones that it was started with.
fn ids(status: &Status, field: &str, is_set_by_program: bool) -> Result<Ids> {
    let ids = status.numbers(field, 10)?;
    let &[real, effective, saved, _] = &ids[..] else { bail!("understand {field}") };
    let ids = if is_set_by_program { [real; 3] } else { [real, effective, saved] };
    Ok(ids.map(|id| id as u32))
}

/// Whether we may start programs as that user.
fn may_become(own: &Status, status: &Status, user: u32) -> Result<()> {
    const SET_IDS: u64 = 1 << 6 | 1 << 7;
    let same = |field| Ok::<_, anyhow::Error>(own.words(field)? == status.words(field)?);
    let may = own.number("CapEff", 16)? & SET_IDS == SET_IDS;
    ensure!(
        may || same("Uid")? && same("Gid")? && same("Groups")?,
        "the recorder may not start programs as user {user}: it lacks CAP_SETUID and CAP_SETGID"
    );
    // Root's come with being root; others were given by whoever started it.
    ensure!(
        status.number("CapAmb", 16)? == 0,
        "it was started with ambient capabilities, which are not given to another process"
    );
    Ok(())
}

/// A namespace can be joined by a process for itself, or only by its children.
const JOINED: [&str; 5] = ["net", "uts", "ipc", "cgroup", "mnt"];
const INHERITED: [&str; 3] = ["pid", "user", "time"];

fn namespaces(pid: u32) -> Result<Vec<OwnedFd>> {
    let is_own = |name| {
        let number = |of: &str| fs::metadata(format!("/proc/{of}/ns/{name}")).map(|ns| ns.ino());
        match (number("self"), number(&pid.to_string())) {
            (Ok(own), Ok(number)) => Ok(own == number),
            // The kernel has none.
            (Err(_), Err(_)) => Ok(true),
            _ => bail!("tell its {name} namespace"),
        }
    };
    for name in INHERITED {
        ensure!(
            is_own(name)?,
            "it lives in a {name} namespace of its own (a container's?): restart it by what made that"
        );
    }
    let mut found = Vec::new();
    for name in JOINED {
        if !is_own(name)? {
            let file = File::open(format!("/proc/{pid}/ns/{name}"));
            found.push(file.with_context(|| format!("open its {name} namespace"))?.into());
        }
    }
    Ok(found)
}

fn is_own_root(pid: u32) -> Result<bool> {
    let place = |of: &str| {
        let root = fs::metadata(format!("/proc/{of}/root")).context("look at its root")?;
        let namespace =
            fs::metadata(format!("/proc/{of}/ns/mnt")).context("tell its mnt namespace")?;
        Ok::<_, anyhow::Error>((root.dev(), root.ino(), namespace.ino()))
    };
    Ok(place("self")? == place(&pid.to_string())?)
}

fn cgroup(pid: u32) -> Result<Option<OwnedFd>> {
    let read = |of: &str| {
        fs::read_to_string(format!("/proc/{of}/cgroup")).context("read its control group")
    };
    let (own, its) = (read("self")?, read(&pid.to_string())?);
    let mut procs = None;
    for line in its.lines().filter(|line| !own.lines().any(|own| own == *line)) {
        let Some(path) = line.strip_prefix("0::") else {
            bail!("it is in the control group `{line}` of version 1, which is not joined");
        };
        let mount = procfs::cgroup_mount().context("find the cgroup2 mount in /proc/mounts")?;
        let file = mount.join(path.trim_start_matches('/')).join("cgroup.procs");
        let opened = OpenOptions::new().write(true).open(&file);
        procs = Some(opened.with_context(|| format!("open {}", file.display()))?.into());
    }
    Ok(procs)
}

/// The kernel writes them in the order of their numbers, each name in the same room. (`prlimit` would need a privilege.)
fn limits(pid: u32) -> Result<Vec<libc::rlimit>> {
    const NAME: usize = 26;
    let text = fs::read_to_string(format!("/proc/{pid}/limits")).context("read its limits")?;
    let value = |word: Option<&str>| match word? {
        "unlimited" => Some(libc::RLIM_INFINITY),
        number => number.parse().ok(),
    };
    let limit = |line: &str| {
        let mut words = line.get(NAME..)?.split_whitespace();
        Some(libc::rlimit { rlim_cur: value(words.next())?, rlim_max: value(words.next())? })
    };
    text.lines().skip(1).map(|line| limit(line).context("understand its limits")).collect()
}

/// A copy of one of its descriptors.
fn file(process: &OwnedFd, number: i32) -> Result<Option<OwnedFd>> {
    // SAFETY: a system call on numbers; the descriptor it returns is ours.
    let got = unsafe {
        match libc::syscall(libc::SYS_pidfd_getfd, process.as_raw_fd(), number, 0) {
            -1 => Err(io::Error::last_os_error()),
            fd => Ok(OwnedFd::from_raw_fd(fd as i32)),
        }
    };
    match got {
        Err(error) if error.raw_os_error() == Some(libc::EBADF) => Ok(None),
        got => got.map(Some).with_context(|| format!("take a copy of its descriptor {number}")),
    }
}

fn session(pid: u32) -> Result<u32> {
    // SAFETY: a system call on a number.
    match unsafe { libc::getsid(pid as libc::pid_t) } {
        -1 => Err(io::Error::last_os_error()).context("ask for its session"),
        session => Ok(session as u32),
    }
}
