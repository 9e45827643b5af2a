//! Where events come from, and what is known to be missing.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Ring;
use crate::container::Called;
use crate::netns::Namespace;
use crate::state::State;

/// Where events come from, and what is known to be missing. Stored in the recording's file metadata.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Host {
    pub name: String,
    /// Of the boot, so that two recordings of one host are told from two boots of it.
    pub boot_id: String,
    pub kernel: String,
    pub cpus: u32,
    /// When the recorder attached its probes, monotonic ns: together with the boot this names the rings that
    /// the events are from. 0: unknown.
    pub attached_ns: u64,
    /// Wall clock minus monotonic clock, ns, when the recording began.
    pub wall_offset_ns: i64,
    /// Which family of hooks saw sends and receives: `tracepoint`, `trampoline`, `kprobe`.
    pub family: String,
    /// Names of the hooks that were attached.
    pub hooks: Vec<String>,
    /// Hooks that would have been wanted and are missing, with the reason.
    pub missing_hooks: Vec<String>,
    /// What was recorded all the time.
    pub detail: String,
    /// Stretches in which more was recorded.
    pub details: Vec<Detailed>,
    /// What the kernel calls the reasons for which it dropped packets, by number: those that occur.
    pub drop_reasons: BTreeMap<u32, String>,
    /// Dropped packets that were too many to be told, of the recorder's whole time.
    pub drops_untold: u64,
    /// What was recorded: `all`, `pid 12`, `cgroup /a`, or the command.
    pub scope: String,
    /// For which stretch each ring is complete, monotonic ns.
    pub bulk_window: Window,
    pub rare_window: Window,
    pub gaps: Vec<Gap>,
    /// Events the probes raised, and how many of these are not in the recording.
    pub raised: u64,
    pub lost: u64,
    /// Tasks that lived while it was recorded, also those that raised no event.
    pub tasks: Vec<Task>,
    /// What containers and pods are called, as far as the host knew.
    pub containers: Vec<Called>,
    /// The network namespaces that sockets lay in.
    pub namespaces: Vec<Namespace>,
    /// The faults that were armed meanwhile: a fault file with its seed, of each recorder that armed any.
    pub faults: Vec<String>,
    /// What sockets and threads were doing when it was made; of dumps.
    pub state: Option<State>,
}

/// A stretch of monotonic time, both ends included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    pub from_ns: u64,
    pub to_ns: u64,
}

/// A stretch of time in which more was recorded than at others.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Detailed {
    pub detail: String,
    pub from_ns: u64,
    /// 0: it lasted when this was written.
    pub to_ns: u64,
}

/// A place where events are known to be missing.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Gap {
    pub cpu: u32,
    pub ring: Ring,
    /// The last event before and the first after, monotonic ns.
    pub from_ns: u64,
    pub to_ns: u64,
    pub events: u64,
}

/// A thread that lived in the window.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct Task {
    pub pid: u32,
    pub tid: u32,
    pub comm: String,
    pub executable: String,
    pub cgroup: String,
    pub parent: u32,
    pub start_ns: u64,
}
