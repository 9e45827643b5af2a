//! Where threads and sockets live, in words: what containers, pods and network namespaces are called.
//!
//! What they are is known from the events' own numbers and paths. What they are called is looked up beside the
//! events' way, soon after one was first seen, in what runtimes keep on this machine; nobody is asked.

mod local;

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

use super::procfs;
use crate::container::{self, Called, Container};
use crate::event::Name;
use crate::netns::{HOST, Namespace};

/// Containers, and namespaces, of which names are looked up; more stay with their numbers.
const MOST: usize = 10_000;

/// A name may appear a little later than what it names: so often it is looked up again.
const TRIES: u8 = 10;
const PAUSE: Duration = Duration::from_secs(1);

/// Containers and namespaces seen so far.
#[derive(Default)]
pub struct Places {
    /// By cgroup; nothing where it is no container's.
    residents: HashMap<Name, Option<Resident>>,
    called: Vec<Called>,
    namespaces: HashMap<u32, Seen<Namespace>>,
    /// Something was seen for the first time since names were looked up.
    is_new: bool,
    looked: Option<Instant>,
}

/// A container, and a process that was seen in it.
struct Resident {
    container: Seen<Container>,
    cgroup: String,
    pid: u32,
}

/// Something whose name is looked up a few times.
struct Seen<T> {
    what: T,
    tries: u8,
}

impl<T> Seen<T> {
    const fn new(what: T) -> Self {
        Self { what, tries: 0 }
    }

    const fn is_open(&self) -> bool {
        self.tries < TRIES
    }
}

impl Places {
    /// A process lives in a cgroup.
    pub fn resident(&mut self, cgroup: Name, path: &str, pid: u32) {
        if self.residents.len() >= MOST && !self.residents.contains_key(&cgroup) {
            return;
        }
        let is_new = &mut self.is_new;
        let resident = self.residents.entry(cgroup).or_insert_with(|| {
            let container = Seen::new(container::of(path)?);
            *is_new = true;
            Some(Resident { container, cgroup: path.to_owned(), pid })
        });
        if let Some(resident) = resident {
            resident.pid = pid;
        }
    }

    /// A socket lies in a namespace.
    pub fn namespace(&mut self, number: u32, inode: u32) {
        if number == 0 || self.namespaces.len() >= MOST || self.namespaces.contains_key(&number) {
            return;
        }
        let namespace = Namespace { number, inode, name: String::new() };
        self.namespaces.insert(number, Seen::new(namespace));
        self.is_new = true;
    }

    /// Looks up what has no name yet: at once when it is new, and a few times more.
    pub fn look(&mut self) {
        if !self.is_new && self.looked.is_none_or(|at| at.elapsed() < PAUSE) {
            return;
        }
        self.is_new = false;
        self.looked = Some(Instant::now());
        self.name_containers();
        self.name_namespaces();
    }

    fn name_containers(&mut self) {
        let called = &mut self.called;
        let residents = self.residents.values_mut().flatten();
        let open = residents.filter(|r| !is_named(&r.container.what) && r.container.is_open());
        let open: Vec<&mut Resident> = open.collect();
        if open.is_empty() {
            return;
        }
        let known = local::Names::read("/".as_ref());
        for resident in open {
            resident.container.tries += 1;
            let container = &mut resident.container.what;
            for name in known.of(container) {
                if !called.contains(&name) {
                    called.push(name);
                }
            }
            *container = container.clone().called(called);
        }
    }

    fn name_namespaces(&mut self) {
        let open = self.namespaces.values_mut().filter(|n| n.what.name.is_empty() && n.is_open());
        // Where an inode number was given again, it is the newest namespace that has it now.
        let mut newest: HashMap<u32, &mut Namespace> = HashMap::new();
        for seen in open {
            seen.tries += 1;
            let namespace = &mut seen.what;
            match newest.get(&namespace.inode) {
                Some(other) if other.number > namespace.number => {}
                _ => drop(newest.insert(namespace.inode, namespace)),
            }
        }
        if newest.is_empty() {
            return;
        }
        let residents = self.residents.values().flatten();
        let residents = residents.filter_map(|r| {
            // Its number may be another process's by now.
            procfs::cgroup(r.pid).filter(|cgroup| *cgroup == r.cgroup)?;
            let container = &r.container.what;
            let label =
                if container.pod.is_empty() { container.label() } else { container.pod_label() };
            Some((inode(&format!("/proc/{}/ns/net", r.pid))?, label.to_owned()))
        });
        let bound = local::bound_namespaces("/run/netns".as_ref());
        let (by_hand, by_runtimes): (Vec<_>, Vec<_>) =
            bound.into_iter().partition(|(_, name)| !local::is_made_up(name));
        // The first process, the kernel's own threads, or else the recorder are where the machine is.
        let own = ["1", "2", "self"].iter().find_map(|pid| inode(&format!("/proc/{pid}/ns/net")));
        let own = own.map(|inode| (inode, HOST.to_owned()));
        for (inode, name) in own.into_iter().chain(by_hand).chain(residents).chain(by_runtimes) {
            if let Some(namespace) = newest.remove(&inode) {
                namespace.name = name;
            }
        }
    }

    /// What containers and pods are called.
    pub fn called(&self) -> Vec<Called> {
        self.called.clone()
    }

    /// The namespaces, those that were made first first.
    pub fn namespaces(&self) -> Vec<Namespace> {
        let mut all: Vec<_> = self.namespaces.values().map(|seen| seen.what.clone()).collect();
        all.sort_unstable_by_key(|namespace| namespace.number);
        all
    }
}

const fn is_named(container: &Container) -> bool {
    (container.id.is_empty() || !container.name.is_empty())
        && (container.pod.is_empty() || !container.pod_name.is_empty())
}

/// The inode number of what a path leads to, as far as namespaces have any.
fn inode(path: &str) -> Option<u32> {
    u32::try_from(fs::metadata(path).ok()?.ino()).ok()
}
