//! Cgroups with little memory, of either version.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

/// A cgroup whose processes may use little memory; removed with the value.
pub struct SmallMemory(PathBuf);

impl SmallMemory {
    /// `None` where no memory controller is to be had, on this kernel's own word.
    pub fn make() -> Option<Self> {
        let made = Self::try_make();
        if made.is_none() {
            let controllers = fs::read_to_string("/proc/cgroups").expect("procfs is mounted");
            let enabled = |line: &str| line.starts_with("memory\t") && line.ends_with('1');
            assert!(!controllers.lines().any(enabled), "there is a controller, and no way to it");
        }
        made
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    fn try_make() -> Option<Self> {
        let mounts = fs::read_to_string("/proc/mounts").expect("procfs is mounted");
        let version_1 = mounts.lines().find(|l| {
            l.starts_with("cgroup ")
                && l.split(' ').nth(3).is_some_and(|o| o.split(',').any(|o| o == "memory"))
        });
        let (root, limit) = match version_1 {
            Some(line) => (line.split(' ').nth(1)?.to_owned(), "memory.limit_in_bytes"),
            None => {
                let line = mounts.lines().find(|l| l.starts_with("cgroup2 "))?;
                let root = line.split(' ').nth(1)?.to_owned();
                let file = format!("{root}/cgroup.subtree_control");
                let controllers = fs::read_to_string(format!("{root}/cgroup.controllers")).ok()?;
                controllers.split_whitespace().find(|c| *c == "memory")?;
                fs::write(file, "+memory").ok()?;
                (root, "memory.max")
            }
        };
        let path = PathBuf::from(root).join(format!("wf-{}-memory", std::process::id()));
        fs::create_dir(&path).expect("a cgroup can be made");
        let made = Self(path);
        fs::write(made.0.join(limit), (64 << 20).to_string()).expect("its memory can be limited");
        Some(made)
    }
}

impl Drop for SmallMemory {
    fn drop(&mut self) {
        // It is empty as soon as its last process is reaped, give or take a moment.
        for _ in 0..100 {
            if fs::remove_dir(&self.0).is_ok() {
                return;
            }
            thread::sleep(Duration::from_millis(10));
        }
    }
}
