//! What was recorded, as a value: events, the names they refer to, and the hosts they come from.
//!
//! A [`History`] is what every later stage works on: the graph, slices, patterns and exports. It knows
//! nothing of files, kernels or clocks.

use nix::errno::Errno;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

mod host;
mod names;
mod op;
mod protocol;

pub use host::{Detailed, Gap, Host, Task, Window};
pub use names::{Address, Name, Names, SocketAddress};
pub use op::Op;
pub use protocol::Protocol;

/// Index of an event in [`History::events`].
pub type EventIndex = u32;

/// One call or occurrence in one thread or kernel lane: an interval. Compact, since there are millions.
///
/// The end is [`Event::time_ns`]. The begin is `begin_ns` or, unless a hook saw it, lies in `begin_ns ..= time_ns`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// End, in the host's monotonic nanoseconds.
    pub time_ns: u64,
    /// The begin where it was seen ([`Flags::BEGAN`]), else its lower bound: the thread's previous end, or when
    /// the thread began.
    pub begin_ns: u64,
    /// Position in its ring; with host, CPU and ring the event's identity.
    pub position: u64,
    /// Cookie of the socket on its host; 0: no socket.
    pub socket: u64,
    /// Stream offsets of the bytes, as reported by the kernel at the event's end: first byte 0. A close
    /// and an EOF cover the one position of the FIN. `start > end` never; [`Event::has_range`] tells
    /// whether they mean anything.
    pub stream_start: u64,
    pub stream_end: u64,
    /// Bytes of a send or receive; exit status of an exit; number of the reason of a drop; what a system call returned
    /// that did not fail; how many events a thread that is woken had raised; 0 otherwise.
    pub result: i64,
    /// Initial sequence number of this end of the connection and of the other; see [`Event::proof`].
    pub iss: u32,
    pub irs: u32,
    /// Process. In a kernel lane the socket's owner, 0 when unknown.
    pub pid: u32,
    /// Thread; 0 in a kernel lane.
    pub tid: u32,
    /// The other thread: a fork's child, a signal's target, an OOM kill's victim, who is woken; the process that a fault restarts, or
    /// whose end a wait has told.
    pub target: u32,
    /// How many events the thread has raised so far, this one included; 0 in kernel lanes.
    pub task_count: u32,
    /// Network namespace: its cookie, or its inode where the kernel has no cookies. 0 without a socket.
    pub netns: u32,
    pub comm: Name,
    pub cgroup: Name,
    /// The injected fault that this is, or that changed it.
    pub fault: Name,
    /// What a system call is called ([`Op::Call`]).
    pub syscall: Name,
    pub fd: Descriptor,
    pub local: Address,
    pub remote: Address,
    /// Index in [`History::hosts`].
    pub host: u16,
    pub cpu: u16,
    /// errno of what failed; 0: nothing did.
    pub error: u16,
    pub op: Op,
    /// What the event's socket speaks; nothing for events of tasks.
    pub protocol: Option<Protocol>,
    pub ring: Ring,
    /// Number of the signal, 0 when the event has none.
    pub signal: u8,
    pub proof: Proof,
    pub flags: Flags,
}

impl Event {
    /// An event of which nothing is known but what it is; for building others from. A socket's is TCP's.
    pub const fn blank(op: Op) -> Self {
        Self {
            time_ns: 0,
            begin_ns: 0,
            position: 0,
            socket: 0,
            stream_start: 0,
            stream_end: 0,
            result: 0,
            iss: 0,
            irs: 0,
            pid: 0,
            tid: 0,
            target: 0,
            task_count: 0,
            netns: 0,
            comm: Name::NONE,
            cgroup: Name::NONE,
            fault: Name::NONE,
            syscall: Name::NONE,
            fd: Descriptor::NONE,
            local: Address::NONE,
            remote: Address::NONE,
            host: 0,
            cpu: 0,
            error: 0,
            op,
            protocol: if op.of_socket() { Some(Protocol::Tcp) } else { None },
            ring: Ring::Bulk,
            signal: 0,
            proof: Proof::Unknown,
            flags: Flags::NONE,
        }
    }

    /// Whether `stream_start..stream_end` are offsets in a stream whose initial number is known.
    pub const fn has_range(&self) -> bool {
        self.flags.has(Flags::RANGE)
    }

    /// Whether the event lies in a kernel lane rather than in a thread.
    pub const fn in_kernel_lane(&self) -> bool {
        self.tid == 0
    }

    /// Whether it is a fault from which on all packets of its socket are lost.
    pub const fn is_hole(&self) -> bool {
        let both = self.flags.has(Flags::LOST) && self.flags.has(Flags::INCOMING);
        both && matches!(self.op, Op::Fault) && !self.in_kernel_lane()
    }

    /// A fault's event in the process that is to be started anew.
    pub fn is_restart(&self) -> bool {
        self.op == Op::Fault && self.target != 0 && self.target == self.pid
    }

    /// The first event of the process that takes the place of `target`.
    pub fn takes_place(&self) -> bool {
        self.op == Op::Fault && self.target != 0 && self.target != self.pid
    }

    /// Whether a fault changed the call: it was never made, or came to nothing, whatever it returned.
    pub fn is_changed(&self) -> bool {
        self.fault != Name::NONE && self.op != Op::Fault
    }

    /// Whether it has a part in what goes through its socket: not so a call that a fault changed, whatever it returned, nor
    /// a system call, of which the socket has told what there is to tell.
    pub fn is_of_stream(&self) -> bool {
        self.socket != 0 && !self.is_changed() && self.op != Op::Call
    }

    /// What the call returned: the bytes of a send or receive that succeeded, or an exit's status; of a dropped
    /// packet the number of the reason.
    pub const fn outcome(&self) -> Option<i64> {
        match self.op {
            Op::Send | Op::Recv | Op::Exit | Op::Dropped | Op::Call if self.error == 0 => {
                Some(self.result)
            }
            _ => None,
        }
    }

    pub fn errno(&self) -> Option<Errno> {
        (self.error != 0).then(|| Errno::from_raw(i32::from(self.error)))
    }
}

/// Which of a CPU's two rings an event was in.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum Ring {
    /// Sends, receives, system calls and wakes.
    Bulk,
    /// Everything else, so that a flood of bytes never evicts the culprit.
    Rare,
}

impl Ring {
    /// The text form, as in the recording's `ring` column.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Bulk => "bulk",
            Self::Rare => "rare",
        }
    }
}

/// How well a connection's initial sequence numbers are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Proof {
    /// `iss` and `irs` mean nothing.
    Unknown,
    /// Computed from the counters of a connection older than the recorder; `iss` may be one too high.
    Computed,
    /// Computed in two independent ways that agree.
    Agreed,
    /// Taken when the connection was established.
    Established,
}

/// Bits that qualify an event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags(pub u16);

impl Flags {
    pub const NONE: Self = Self(0);
    /// The stream offsets mean something.
    pub const RANGE: Self = Self(1);
    /// The receive left the bytes in place (`MSG_PEEK`).
    pub const PEEK: Self = Self(2);
    /// The receive saw the end of the stream, or the close made it. A fault's: it destroys the connection.
    pub const EOF: Self = Self(4);
    /// Urgent data: outside the stream's offsets.
    pub const URGENT: Self = Self(8);
    /// The signal was meant for the whole process, not one thread.
    pub const PROCESS: Self = Self(16);
    /// The signal was ignored, already pending, or could not be queued: it causes nothing.
    pub const IGNORED: Self = Self(32);
    /// The thread was the last of its process.
    pub const LAST_THREAD: Self = Self(64);
    /// Events of this thread are missing just before this one.
    pub const AFTER_GAP: Self = Self(128);
    /// This end asked for the connection (it sent the SYN).
    pub const ACTIVE: Self = Self(256);
    /// The call may have let others in between its bytes: a send whose thread slept, a receive that waits
    /// for all (`MSG_WAITALL`).
    pub const SPLIT: Self = Self(512);
    /// The begin was seen: `begin_ns` is when the call began, not a bound of it.
    pub const BEGAN: Self = Self(1024);
    /// The offsets were counted, and what was counted may not be all there was: the socket is older than the
    /// recorder, or somebody took bytes unseen.
    pub const UNSURE: Self = Self(2048);
    /// A fault's: it lost a packet of this socket, of a cut the first or the first that bore bytes; or what a call sent.
    pub const LOST: Self = Self(4096);
    /// A fault's: a cut has healed.
    pub const HEALED: Self = Self(8192);
    /// The packet that was lost was on its way to this socket; its offsets are the other end's. In a thread's fault: all that
    /// are on their way to it or from it are lost from then on.
    pub const INCOMING: Self = Self(16384);

    pub const fn has(self, flag: Self) -> bool {
        self.0 & flag.0 != 0
    }

    pub const fn with(self, flag: Self) -> Self {
        Self(self.0 | flag.0)
    }
}

/// A thread's number for a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Descriptor(pub u32);

impl Descriptor {
    pub const NONE: Self = Self(u32::MAX);

    pub fn number(self) -> Option<u32> {
        (self != Self::NONE).then_some(self.0)
    }
}

/// All that was recorded: what the rest of the program works on.
///
/// Events are sorted by host, then time, then ring position; several recordings of several hosts are one history.
#[derive(Clone, Debug, Default)]
pub struct History {
    pub hosts: Vec<Host>,
    pub names: Names,
    pub events: Vec<Event>,
}

impl History {
    /// Puts the events into their order. Call it after adding events by hand.
    pub fn sort(&mut self) {
        self.events.sort_unstable_by_key(|e| (e.host, e.time_ns, e.cpu, e.ring, e.position));
    }

    pub fn comm(&self, event: &Event) -> &str {
        self.names.text(event.comm)
    }
}
