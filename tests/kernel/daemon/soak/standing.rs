//! What a daemon holds: descriptors by kind, threads, processes, programs and maps of the kernel, memory.

use std::collections::BTreeMap;
use std::fs;
use std::thread;
use std::time::Duration;

use crate::daemon::running::{children, words};
use crate::daemon::triggers::until;
use crate::detach::{self, BPF_MAP_GET_FD_BY_ID, BPF_PROG_GET_FD_BY_ID, exists};

/// What must be the same whenever nothing is under way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// How many descriptors of each kind: sockets, pipes, programs, links, files by their path.
    descriptors: BTreeMap<String, usize>,
    threads: u64,
    children: usize,
}

impl Standing {
    pub fn of(pid: u32) -> Self {
        let mut descriptors = BTreeMap::new();
        for entry in fs::read_dir(format!("/proc/{pid}/fd")).expect("it lives").flatten() {
            let target = fs::read_link(entry.path()).unwrap_or_default();
            let target = target.to_string_lossy();
            // Without the number of a socket or pipe.
            let kind = target.split(":[").next().unwrap_or_default();
            *descriptors.entry(kind.to_owned()).or_default() += 1;
        }
        Self { descriptors, threads: number(pid, "Threads:"), children: children(pid, "").len() }
    }
}

/// How it stands when that does not change any more: whoever asked last has gone.
pub fn lasting(pid: u32) -> Standing {
    let (mut standing, mut same) = (Standing::of(pid), 0);
    while same < 20 {
        thread::sleep(Duration::from_millis(100));
        let now = Standing::of(pid);
        same = if now == standing { same + 1 } else { 0 };
        standing = now;
    }
    standing
}

fn number(pid: u32, key: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it lives");
    let line = status.lines().find_map(|line| line.strip_prefix(key)).expect("it is told");
    line.split_whitespace().next().and_then(|n| n.parse().ok()).expect("a number")
}

/// Memory that is its own, without the rings.
pub fn resident_bytes(pid: u32) -> u64 {
    number(pid, "RssAnon:") << 10
}

/// Processes of the command under test that are still there: how they were started.
pub fn left() -> Vec<String> {
    let program = fs::canonicalize(tests::command::wherefore()).expect("it was built");
    let entries = fs::read_dir("/proc").expect("it is mounted").flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_string_lossy().parse().ok());
    let ours =
        |pid: &u32| fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe == program);
    pids.filter(ours).map(|pid: u32| words(pid).join(" ")).collect()
}

/// Programs and maps in the kernel, by their numbers.
pub struct Held {
    programs: Vec<u32>,
    maps: Vec<u32>,
}

/// Those of a daemon.
pub fn held(pid: u32) -> Held {
    let (programs, maps) = detach::held(pid);
    assert!(programs.len() >= 14 && maps.len() >= 5, "{programs:?} {maps:?}");
    Held { programs, maps }
}

impl Held {
    /// The kernel frees them a little after their last holder has ended.
    pub fn assert_gone(&self) {
        let left = |command, ids: &[u32]| ids.iter().any(|&id| exists(command, id));
        until("programs and maps are gone", || {
            !left(BPF_PROG_GET_FD_BY_ID, &self.programs) && !left(BPF_MAP_GET_FD_BY_ID, &self.maps)
        });
    }
}
