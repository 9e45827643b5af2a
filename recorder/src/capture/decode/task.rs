//! What a thread is called, and in which cgroup it is.

use probe_ebpf::event::TaskName;

use super::{Decoder, Known};
use crate::capture::procfs;
use crate::event::{Name, Task};

impl Decoder {
    pub(super) fn name_task(&mut self, name: TaskName) {
        let length = name.comm.iter().position(|&b| b == 0).unwrap_or(name.comm.len());
        let comm = String::from_utf8_lossy(&name.comm[..length]).into_owned();
        let cgroup = self.cgroup(&name);
        let known = self.tasks.entry(name.tid).or_insert_with(|| Known {
            task: Task::default(),
            comm: Name::NONE,
            cgroup: Name::NONE,
            number: 0,
            last_ns: name.start_ns,
            count: 0,
            listed: true,
        });
        known.listed = true;
        known.comm = self.names.intern(&comm);
        known.cgroup = cgroup;
        known.number = name.cgroup;
        known.task = Task {
            pid: name.pid,
            tid: name.tid,
            comm,
            executable: std::mem::take(&mut known.task.executable),
            cgroup: self.names.text(cgroup).to_owned(),
            parent: name.parent,
            start_ns: name.start_ns,
        };
    }

    /// The cgroup of a thread that is being named.
    fn cgroup(&mut self, name: &TaskName) -> Name {
        let own = self.cgroups.path(name.cgroup).map(|path| self.names.intern(path));
        let own = own.unwrap_or(Name::NONE);
        let cgroup = if self.cgroups.lives_elsewhere(self.names.text(own)) {
            self.legacy_cgroup(name).unwrap_or(own)
        } else {
            own
        };
        self.places.resident(cgroup, self.names.text(cgroup), name.pid);
        cgroup
    }

    /// All threads of a process go where one of them went.
    pub(super) fn move_process(&mut self, name: &TaskName) {
        let Some(cgroup) = self.tasks.get(&name.tid).map(|known| known.cgroup) else { return };
        let path = self.names.text(cgroup);
        let others = self.tasks.values_mut().filter(|known| known.task.pid == name.pid);
        for known in others.filter(|known| known.cgroup != cgroup) {
            (known.cgroup, known.number) = (cgroup, name.cgroup);
            path.clone_into(&mut known.task.cgroup);
        }
    }

    /// The cgroup of version 1: the kernel's number says nothing of it.
    fn legacy_cgroup(&mut self, name: &TaskName) -> Option<Name> {
        // What is known of one that was elsewhere in version 2 is its place there.
        let still = |known: &&Known| known.number == 0 || known.number == name.cgroup;
        let of = |tid: u32| self.tasks.get(&tid).filter(still).map(|known| known.cgroup);
        if name.tid != name.pid
            && let Some(process) = of(name.pid)
        {
            return Some(process);
        }
        // One that has ended was made in its parent's.
        match procfs::legacy_cgroup(name.pid).filter(|_| self.live) {
            Some(path) => Some(self.names.intern(&path)),
            None => of(name.tid).or_else(|| of(name.parent)),
        }
    }
}
