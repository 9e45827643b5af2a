//! What `/proc` and `/sys` know that the probes do not: tasks older than the recorder, executables, the
//! host's name, and cgroups of version 1.

use std::fs;
use std::path::{Path, PathBuf};

use crate::container;
use crate::event::Task;

pub fn host_name() -> String {
    line("/proc/sys/kernel/hostname")
}

pub fn boot_id() -> String {
    line("/proc/sys/kernel/random/boot_id")
}

pub fn kernel_release() -> String {
    line("/proc/sys/kernel/osrelease")
}

/// `uname -v`: how and when it was built.
pub fn kernel_version() -> String {
    line("/proc/sys/kernel/version")
}

/// Whether the kernel lets this process load probes: CAP_BPF and CAP_PERFMON, or CAP_SYS_ADMIN, which stands for both.
pub fn may_load_probes() -> bool {
    const ADMIN: u64 = 1 << 21;
    const BOTH: u64 = 1 << 38 | 1 << 39;
    // What cannot be read is tried.
    capabilities().is_none_or(|mask| mask & ADMIN != 0 || mask & BOTH == BOTH)
}

/// What this process may do beyond others, a bit for each capability; nothing where it cannot be read.
pub fn capabilities() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

fn line(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

/// Every thread that lives now. One that ends while we look is left out.
pub fn tasks() -> Vec<Task> {
    let mut tasks = Vec::new();
    for pid in processes() {
        let cgroup = cgroup(pid).unwrap_or_default();
        for tid in numbers(&PathBuf::from(format!("/proc/{pid}/task"))) {
            tasks.extend(task(pid, tid, &cgroup));
        }
    }
    tasks
}

/// Every process that lives now.
pub fn processes() -> Vec<u32> {
    numbers(Path::new("/proc"))
}

/// Threads of a process and of all processes below it.
pub fn tree(pid: u32) -> Vec<u32> {
    let tasks = tasks();
    let mut processes = vec![pid];
    let mut next = 0;
    while let Some(&parent) = processes.get(next) {
        let children = tasks.iter().filter(|t| t.parent == parent && t.tid == t.pid).map(|t| t.pid);
        let new = children.filter(|pid| !processes.contains(pid)).collect::<Vec<_>>();
        processes.extend(new);
        next += 1;
    }
    tasks.iter().filter(|t| processes.contains(&t.pid)).map(|t| t.tid).collect()
}

/// The executable of a process, empty for kernel threads and where it may not be known.
pub fn executable(pid: u32) -> String {
    fs::read_link(format!("/proc/{pid}/exe"))
        .map(|path| path.to_string_lossy().into_owned())
        .unwrap_or_default()
}

/// When a process began, since the machine was booted, to the 100th of a second before; nothing if there is none.
pub fn started_ns(pid: u32) -> Option<u64> {
    task(pid, pid, "").map(|task| task.start_ns)
}

/// The process that a process came of or was given to; nothing if there is none.
pub fn parent(pid: u32) -> Option<u32> {
    task(pid, pid, "").map(|task| task.parent)
}

/// A thread that lives now.
pub fn task(pid: u32, tid: u32, cgroup: &str) -> Option<Task> {
    let stat = fs::read_to_string(format!("/proc/{pid}/task/{tid}/stat")).ok()?;
    // The name stands in parentheses and may itself hold some.
    let (_, rest) = stat.split_once('(')?;
    let (comm, rest) = rest.rsplit_once(')')?;
    let fields = rest.split_ascii_whitespace().collect::<Vec<_>>();
    let ticks: u64 = fields.get(19)?.parse().ok()?;
    Some(Task {
        pid,
        tid,
        comm: comm.to_owned(),
        executable: if pid == tid { executable(pid) } else { String::new() },
        cgroup: cgroup.to_owned(),
        parent: fields.get(1)?.parse().ok()?,
        start_ns: ticks * (1_000_000_000 / TICKS_PER_SECOND),
    })
}

/// `USER_HZ`, which is 100 on every architecture this runs on.
const TICKS_PER_SECOND: u64 = 100;

/// The entries of a folder that are numbers.
pub(super) fn numbers(directory: &Path) -> Vec<u32> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    entries.flatten().filter_map(|e| e.file_name().to_str()?.parse().ok()).collect()
}

/// Where the cgroup2 hierarchy is mounted.
pub fn cgroup_mount() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/mounts").ok()?;
    mounts.lines().find_map(|line| {
        let mut words = line.split(' ');
        let (mount, kind) = (words.nth(1)?, words.next()?);
        (kind == "cgroup2").then(|| PathBuf::from(mount))
    })
}

/// Threads in a cgroup and below it.
pub fn cgroup_threads(directory: &Path) -> Vec<u32> {
    let threads = fs::read_to_string(directory.join("cgroup.threads")).unwrap_or_default();
    let mut found: Vec<u32> = threads.lines().filter_map(|tid| tid.parse().ok()).collect();
    let below = fs::read_dir(directory).into_iter().flatten().flatten();
    for entry in below.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        found.extend(cgroup_threads(&entry.path()));
    }
    found
}

/// Whether there are hierarchies of version 1 that processes live in.
pub fn has_legacy_cgroups() -> bool {
    let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
    mounts.lines().any(|line| line.split(' ').nth(2) == Some("cgroup"))
}

/// The path of a process's cgroup; nothing where there is no such process. Of one that lives in version 2's
/// root, or in none of its cgroups, that of version 1.
pub fn cgroup(pid: u32) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    // From inside a cgroup namespace what lies outside has a path that begins there, which names nothing elsewhere.
    let own = text.lines().find_map(|line| line.strip_prefix("0::"));
    let own = own.filter(|path| !path.starts_with("/.."));
    let path = own.filter(|&path| path != "/").or_else(|| of_version_1(&text)).or(own);
    path.map(str::to_owned)
}

/// The path of a process's cgroup of version 1, wherever it lives in version 2's hierarchy by now.
pub fn legacy_cgroup(pid: u32) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    of_version_1(&text).map(str::to_owned)
}

/// Its hierarchies may differ: the one that tells of a container is taken, else systemd's.
fn of_version_1(text: &str) -> Option<&str> {
    let fields = text.lines().filter_map(|line| {
        let mut fields = line.splitn(3, ':');
        let (number, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
        (number != "0").then_some((controllers, path))
    });
    let rank = |&(controllers, path): &(&str, &str)| {
        (container::of(path).is_some(), controllers == "name=systemd", path != "/")
    };
    fields.max_by_key(rank).map(|(_, path)| path)
}
