//! What was recorded, as a value: events, the names they refer to, and the hosts they come from.
//!
//! A [`History`] is what every later stage works on: the graph, slices, patterns and exports. It knows
//! nothing of files, kernels or clocks.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use nix::errno::Errno;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::container::Called;
use crate::netns::Namespace;
use crate::state::State;

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

/// What an event is. The text form is the recording's `op` column; the numbers stand in its index, so that new ones go to
/// the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Op {
    /// A thread gave bytes to a socket, or tried to.
    Send,
    /// A thread took bytes (or the EOF) from a socket, or tried to.
    Recv,
    /// A thread began to connect. The end of the attempt is `established` or `error`.
    Connect,
    /// Kernel lane: the connection is established at this end.
    Established,
    /// A thread was given a connection by a listener.
    Accept,
    /// A thread began to listen.
    Listen,
    /// A thread stopped listening.
    Unlisten,
    /// A thread ended its direction in good order: close or shutdown, which queued a FIN.
    Close,
    /// A thread threw the connection away (close with unread data, or `SO_LINGER` 0): a reset goes out.
    Abort,
    /// Kernel lane: this end is gone for good.
    Closed,
    /// Kernel lane: a reset went out.
    ResetSent,
    /// Kernel lane: a reset came in.
    ResetReceived,
    /// Kernel lane: a segment was sent again.
    Retransmit,
    /// Kernel lane: an error was reported to the socket.
    Error,
    /// A thread made a thread (`target`).
    Fork,
    /// A process began another program.
    Exec,
    /// A thread ended.
    Exit,
    /// A signal was sent to `target`; a kernel lane's when no thread's act.
    Signal,
    /// A thread took a signal: its handler runs, or it dies of it.
    Deliver,
    /// Kernel lane: `target` was chosen to die for memory.
    OomKill,
    /// A thread asked for a local address; recorded only where a fault changed the call.
    Bind,
    /// A fault fired: it changes what its thread does next, or is doing.
    Fault,
    /// Kernel lane: a packet that the socket sent was thrown away by the kernel of its host; `result` is the number of
    /// the reason ([`Host::drop_reasons`]).
    Dropped,
    /// A thread asked for a socket; recorded only where a fault changed the call.
    Socket,
    /// A thread waited until one of several descriptors is ready; recorded only where a fault changed the call.
    Poll,
    /// A thread made a system call that raised no other event: it waited, or did something about a socket or pipe.
    Call,
    /// A thread woke another, `target`, that was asleep; `result` is how many events that one had raised before. Lies inside
    /// of what its thread ends next.
    Wake,
}

impl Op {
    /// Where the probes write such events.
    pub const fn ring(self) -> Ring {
        match self {
            Self::Send | Self::Recv | Self::Call | Self::Wake => Ring::Bulk,
            _ => Ring::Rare,
        }
    }

    /// Whether it is what more detail than `flow` adds to what a thread does.
    pub const fn is_detail(self) -> bool {
        matches!(self, Self::Call | Self::Wake)
    }

    pub const ALL: [Self; 27] = [
        Self::Send,
        Self::Recv,
        Self::Connect,
        Self::Established,
        Self::Accept,
        Self::Listen,
        Self::Unlisten,
        Self::Close,
        Self::Abort,
        Self::Closed,
        Self::ResetSent,
        Self::ResetReceived,
        Self::Retransmit,
        Self::Error,
        Self::Fork,
        Self::Exec,
        Self::Exit,
        Self::Signal,
        Self::Deliver,
        Self::OomKill,
        Self::Bind,
        Self::Fault,
        Self::Dropped,
        Self::Socket,
        Self::Poll,
        Self::Call,
        Self::Wake,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Send => "send",
            Self::Recv => "recv",
            Self::Connect => "connect",
            Self::Established => "established",
            Self::Accept => "accept",
            Self::Listen => "listen",
            Self::Unlisten => "unlisten",
            Self::Close => "close",
            Self::Abort => "abort",
            Self::Closed => "closed",
            Self::ResetSent => "reset_sent",
            Self::ResetReceived => "reset_received",
            Self::Retransmit => "retransmit",
            Self::Dropped => "dropped",
            Self::Error => "error",
            Self::Fork => "fork",
            Self::Exec => "exec",
            Self::Exit => "exit",
            Self::Signal => "signal",
            Self::Deliver => "deliver",
            Self::OomKill => "oom_kill",
            Self::Bind => "bind",
            Self::Socket => "socket",
            Self::Poll => "poll",
            Self::Call => "call",
            Self::Wake => "wake",
            Self::Fault => "fault",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|op| op.as_str() == text)
    }

    /// Whether the event is about a socket rather than a task.
    pub const fn of_socket(self) -> bool {
        !matches!(
            self,
            Self::Fork
                | Self::Exec
                | Self::Exit
                | Self::Signal
                | Self::Deliver
                | Self::OomKill
                | Self::Socket
                | Self::Poll
                | Self::Call
                | Self::Wake
                | Self::Fault
        )
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What bytes go through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Protocol {
    Tcp,
    Udp,
    UnixStream,
    UnixDgram,
    UnixSeqpacket,
    /// A pipe or FIFO.
    Pipe,
    /// Multipath TCP: the stream, not the connections that carry it.
    Mptcp,
}

impl Protocol {
    pub const ALL: [Self; 7] = [
        Self::Tcp,
        Self::Udp,
        Self::UnixStream,
        Self::UnixDgram,
        Self::UnixSeqpacket,
        Self::Pipe,
        Self::Mptcp,
    ];

    /// The text form, as in the recording's `protocol` column.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::UnixStream => "unix_stream",
            Self::UnixDgram => "unix_dgram",
            Self::UnixSeqpacket => "unix_seqpacket",
            Self::Pipe => "pipe",
            Self::Mptcp => "mptcp",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|protocol| protocol.as_str() == text)
    }

    /// Whether nothing of it leaves the machine.
    pub const fn is_local(self) -> bool {
        matches!(self, Self::UnixStream | Self::UnixDgram | Self::UnixSeqpacket | Self::Pipe)
    }

    /// Whether ends that speak one and the other can be of one connection: one end of multipath TCP may fall back
    /// to TCP where the other does not notice.
    pub fn fits(self, other: Self) -> bool {
        let numbered = |protocol| matches!(protocol, Self::Tcp | Self::Mptcp);
        self == other || numbered(self) && numbered(other)
    }

    /// Whether offsets are sums of what calls moved, since the kernel tells none. They count from 0 at both
    /// ends.
    pub const fn is_counted(self) -> bool {
        matches!(self, Self::UnixStream | Self::UnixSeqpacket | Self::Pipe)
    }

    /// Whether messages have no place in a stream, but a length and a way.
    pub const fn is_datagram(self) -> bool {
        matches!(self, Self::Udp | Self::UnixDgram)
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

/// Index of an interned text: comm, cgroup, system call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(pub u32);

impl Default for Name {
    fn default() -> Self {
        Self::NONE
    }
}

impl Name {
    pub const NONE: Self = Self(u32::MAX);
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

/// Index of an interned socket address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Address(pub u32);

impl Address {
    pub const NONE: Self = Self(u32::MAX);
}

/// What a socket is bound or connected to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum SocketAddress {
    Ip(SocketAddr),
    /// A path, or `@` and the name in the abstract namespace.
    Unix(String),
}

impl SocketAddress {
    /// The address and port; nothing for a Unix socket's name.
    pub const fn ip(&self) -> Option<SocketAddr> {
        match self {
            Self::Ip(address) => Some(*address),
            Self::Unix(_) => None,
        }
    }
}

/// `127.0.0.1:80`, `[::1]:80`, `unix:/run/app.sock`, `unix:@abstract`.
impl fmt::Display for SocketAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) => address.fmt(f),
            Self::Unix(name) => write!(f, "unix:{name}"),
        }
    }
}

impl FromStr for SocketAddress {
    type Err = std::net::AddrParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.strip_prefix("unix:") {
            Some(name) => Ok(Self::Unix(name.to_owned())),
            None => text.parse().map(Self::Ip),
        }
    }
}

/// Interned texts and addresses.
#[derive(Clone, Debug, Default)]
pub struct Names {
    texts: Vec<String>,
    text_index: HashMap<String, Name>,
    addresses: Vec<SocketAddress>,
    address_index: HashMap<SocketAddress, Address>,
}

impl Names {
    pub fn intern(&mut self, text: &str) -> Name {
        if let Some(&name) = self.text_index.get(text) {
            return name;
        }
        let name = Name(self.texts.len() as u32);
        self.texts.push(text.to_owned());
        self.text_index.insert(text.to_owned(), name);
        name
    }

    pub fn intern_address(&mut self, address: SocketAddr) -> Address {
        self.intern_socket_address(SocketAddress::Ip(address))
    }

    pub fn intern_socket_address(&mut self, address: SocketAddress) -> Address {
        if let Some(&index) = self.address_index.get(&address) {
            return index;
        }
        let index = Address(self.addresses.len() as u32);
        self.addresses.push(address.clone());
        self.address_index.insert(address, index);
        index
    }

    /// All texts: number `i` is that of `Name(i)`.
    pub fn texts(&self) -> &[String] {
        &self.texts
    }

    /// All addresses: number `i` is that of `Address(i)`.
    pub fn addresses(&self) -> &[SocketAddress] {
        &self.addresses
    }

    /// The text, `""` for [`Name::NONE`].
    pub fn text(&self, name: Name) -> &str {
        self.texts.get(name.0 as usize).map_or("", String::as_str)
    }

    /// Address and port; nothing where there are none, as of a Unix socket.
    pub fn address(&self, address: Address) -> Option<SocketAddr> {
        self.socket_address(address)?.ip()
    }

    pub fn socket_address(&self, address: Address) -> Option<&SocketAddress> {
        self.addresses.get(address.0 as usize)
    }
}

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
