//! From slots to events: whose act it was, where in the stream the bytes lie, and what everything is called.
//!
//! `current` lies in interrupt context, so that it is decided here, kind by kind, whether an event belongs
//! to the thread that was current or to its socket's kernel lane.

mod call;
mod drop;
mod fault;
mod place;
mod unix_name;

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use probe_ebpf::event::state::{CLOSE, ESTABLISHED, FIN_WAIT1, LAST_ACK, LISTEN, SYN_SENT};
use probe_ebpf::event::{SocketName, TaskName, flag, kind, protocol, proven};

use crate::capture::cgroup::Cgroups;
use crate::capture::generations::{FastMap, Generations};
use crate::capture::places::Places;
use crate::capture::procfs;
use crate::capture::ring::Raw;
use crate::event::{Address, Event, Flags, Name, Names, Op, Proof, Protocol, Task};
use drop::Senders;
use unix_name::UnixNames;

/// Turns slots, in order of time, into events.
pub struct Decoder {
    pub names: Names,
    /// Records that were read and are not events.
    pub records: u64,
    /// When the newest event was whose socket has no name, which was overwritten; 0: every socket has one.
    pub unnamed_ns: u64,
    /// Whether what `/proc` says now was so when the events happened.
    pub live: bool,
    /// Containers and network namespaces that events lie in.
    pub places: Places,
    cgroups: Cgroups,
    /// Names of the faults that are armed, by rule.
    faults: Vec<Name>,
    tasks: FastMap<u32, Known>,
    gone: Vec<Task>,
    sockets: Generations<Socket>,
    /// Where datagrams go to and come from, by the numbers that stand for it.
    peers: Generations<Address>,
    unix_names: UnixNames,
    senders: Senders,
    /// Whether everything is in scope: of packets only their addresses tell.
    whole_machine: bool,
}

/// What is known about a thread.
struct Known {
    task: Task,
    comm: Name,
    cgroup: Name,
    /// The kernel's number of its cgroup of version 2 then; 0 where only one version is there.
    number: u64,
    /// End of its last event: its next one cannot have begun before.
    last_ns: u64,
    count: u32,
    /// Whether it is in scope, and so in the recording's list.
    listed: bool,
}

/// What is known about a socket.
#[derive(Clone)]
struct Socket {
    local: Address,
    remote: Address,
    protocol: Option<Protocol>,
    netns: u32,
    iss: u32,
    irs: u32,
    proof: Proof,
    active: bool,
    /// It was asking for its connection when it was named last, so that only its own number is known.
    asking: bool,
    owner: u32,
}

/// Sockets that are remembered at least.
const GENERATION: usize = 250_000;

/// Most threads that have ended whose names are kept for the recording's list.
const MOST_GONE: usize = 100_000;

impl Decoder {
    pub fn new(cgroups: Cgroups) -> Self {
        Self {
            names: Names::default(),
            records: 0,
            unnamed_ns: 0,
            live: true,
            places: Places::default(),
            cgroups,
            faults: Vec::new(),
            tasks: FastMap::default(),
            gone: Vec::new(),
            sockets: Generations::new(GENERATION),
            peers: Generations::new(GENERATION),
            unix_names: UnixNames::default(),
            senders: Senders::new(GENERATION),
            whole_machine: false,
        }
    }

    /// Takes in what `/proc` knows about threads older than the recorder, and which of them are in scope.
    /// Others are listed when the probes name them.
    pub fn know(&mut self, tasks: Vec<Task>, in_scope: impl Fn(u32) -> bool) {
        for task in tasks {
            let listed = in_scope(task.tid);
            let comm = self.names.intern(&task.comm);
            let cgroup = match task.cgroup.as_str() {
                "" => Name::NONE,
                path => self.names.intern(path),
            };
            let (number, last_ns) = (self.cgroups.number(&task.cgroup), task.start_ns);
            let known = Known { last_ns, task, comm, cgroup, number, count: 0, listed };
            self.tasks.insert(known.task.tid, known);
        }
    }

    /// Says that everything on the machine is in scope.
    pub const fn take_all(&mut self) {
        self.whole_machine = true;
    }

    /// Every thread that is or was known.
    pub fn tasks(&self) -> Vec<Task> {
        let mut all = self.gone.clone();
        all.extend(self.tasks.values().filter(|k| k.listed).map(|known| known.task.clone()));
        all.sort_unstable_by_key(|task| (task.pid, task.tid, task.start_ns));
        all
    }

    /// Leaves threads that ended out of what [`Self::tasks`] lists from now on, for recordings that begin here.
    pub fn forget_the_gone(&mut self) {
        self.gone.clear();
    }

    /// Learns names that come later than what they name, since what came before them was overwritten: of
    /// sockets, and of threads that have only one name in all of these slots.
    pub fn look_ahead<'a>(&mut self, slots: impl Iterator<Item = (&'a Raw, [u64; 8])>) {
        let mut threads: HashMap<u32, Option<TaskName>> = HashMap::new();
        for (raw, detail) in slots {
            match raw.slot.kind {
                kind::SOCKET if self.sockets.get(raw.slot.socket).is_none() => {
                    self.name_socket(raw, bytemuck::cast(detail))
                }
                kind::UNIX_NAME => self.unix_names.take(&raw.slot, &detail),
                kind::PEER => self.name_peer(raw, bytemuck::cast(detail)),
                kind::TASK | kind::EXEC if !self.tasks.contains_key(&raw.slot.tid) => {
                    let name: TaskName = bytemuck::cast(detail);
                    let only = threads.entry(raw.slot.tid).or_insert(Some(name));
                    *only = only.filter(|first| {
                        raw.slot.kind == kind::TASK
                            && (first.comm, first.start_ns) == (name.comm, name.start_ns)
                    });
                }
                _ => {}
            }
        }
        threads.into_values().flatten().for_each(|name| self.name_task(name));
    }

    /// Appends the event that a slot stands for; a slot that only names something is taken note of.
    pub fn decode(&mut self, raw: &Raw, detail: [u64; 8], out: &mut Vec<Event>) {
        match raw.slot.kind {
            kind::TASK => {
                self.records += 1;
                let name: TaskName = bytemuck::cast(detail);
                self.name_task(name);
                if raw.slot.argument == 1 {
                    self.move_process(&name);
                }
            }
            kind::SOCKET => {
                self.records += 1;
                self.name_socket(raw, bytemuck::cast(detail));
            }
            kind::UNIX_NAME => {
                self.records += 1;
                self.unix_names.take(&raw.slot, &detail);
            }
            kind::PEER => {
                self.records += 1;
                self.name_peer(raw, bytemuck::cast(detail));
            }
            kind::CGROUP => {
                self.records += 1;
                self.cgroups.learn(raw.slot.socket, raw.slot.sequence, bytemuck::bytes_of(&detail));
            }
            _ => out.extend(self.event(raw, detail)),
        }
    }

    fn event(&mut self, raw: &Raw, detail: [u64; 8]) -> Option<Event> {
        let slot = &raw.slot;
        let op = operation(raw)?;
        let mut event = Event {
            time_ns: slot.time_ns,
            begin_ns: slot.time_ns,
            position: raw.position(),
            socket: slot.socket,
            pid: slot.pid,
            tid: slot.tid,
            task_count: slot.task_count,
            cpu: raw.cpu,
            ring: raw.ring,
            ..Event::blank(op)
        };
        match op {
            _ if matches!(slot.kind, kind::FAULT | kind::CALL) => {
                self.injected(raw, detail, &mut event);
            }
            Op::Send | Op::Recv => place::transfer(raw, &mut event),
            Op::Call => self.called(raw, &mut event),
            Op::Dropped if !self.dropped(raw, detail, &mut event) => {
                self.records += 1;
                return None;
            }
            Op::Signal => signal(raw, &mut event),
            Op::Deliver => event.signal = slot.result as u8,
            Op::Exit => {
                event.result = i64::from(slot.result >> 8 & 0xff);
                event.signal = (slot.result & 0x7f) as u8;
                if slot.flags & flag::LAST_THREAD != 0 {
                    event.flags = event.flags.with(Flags::LAST_THREAD);
                }
            }
            Op::Fork | Op::OomKill => event.target = slot.argument,
            Op::Wake => (event.target, event.result) = (slot.argument, slot.count as i64),
            Op::Closed | Op::Error | Op::ResetReceived => event.error = errno(slot.code),
            _ => {}
        }
        if event.is_of_stream() && event.fault == Name::NONE && op != Op::Dropped {
            self.place_in_stream(raw, &mut event);
        }
        self.place_in_thread(raw, &mut event);
        self.follow_task(raw, detail, op);
        Some(event)
    }

    /// Fills in addresses and initial numbers, and makes stream offsets of the kernel's sequence numbers.
    fn place_in_stream(&mut self, raw: &Raw, event: &mut Event) {
        let slot = &raw.slot;
        let Some(socket) = self.sockets.get(slot.socket) else {
            self.unnamed_ns = self.unnamed_ns.max(slot.time_ns);
            return;
        };
        // Where both ends ask, neither goes from SYN_SENT to ESTABLISHED.
        if event.op == Op::Connect || (event.op == Op::Established && slot.aux[0] == SYN_SENT) {
            socket.active = true;
        }
        if event.tid != 0 {
            socket.owner = event.pid;
        } else {
            event.pid = socket.owner;
        }
        event.protocol = socket.protocol.or(event.protocol);
        event.local = socket.local;
        event.remote = socket.remote;
        if event.protocol == Some(Protocol::Udp) && matches!(event.op, Op::Send | Op::Recv) {
            event.remote = self.peers.get(slot.count).copied().unwrap_or(Address::NONE);
        }
        event.netns = socket.netns;
        event.proof = socket.proof;
        if socket.active {
            event.flags = event.flags.with(Flags::ACTIVE);
        }
        // With TCP Fast Open bytes may go with the SYN.
        let unknown = socket.proof == Proof::Unknown;
        let early = unknown && socket.asking && event.op == Op::Send;
        if unknown && !early {
            return;
        }
        if !early {
            (event.iss, event.irs) = (socket.iss, socket.irs);
        }
        if event.protocol.is_some_and(Protocol::is_local) {
            return place::counted(raw, event);
        }
        let first = match event.op {
            Op::Recv => socket.irs.wrapping_add(1),
            _ => socket.iss.wrapping_add(1),
        };
        let position = match socket.protocol {
            // Its own counters have 64 bits.
            Some(Protocol::Mptcp) => slot.count,
            _ => place::nearest(slot.count, slot.sequence.wrapping_sub(first)),
        };
        place::range(raw, position, event);
    }

    /// Fills in the thread's name, and since when it can have been at it.
    fn place_in_thread(&mut self, raw: &Raw, event: &mut Event) {
        if event.tid == 0 {
            // A kernel lane bears the name of the socket's owner.
            if let Some(owner) = self.tasks.get(&event.pid) {
                event.comm = owner.comm;
                event.cgroup = owner.cgroup;
            }
            return;
        }
        let seen_ns = match event.op {
            Op::Send | Op::Recv => raw.slot.begin_ns(),
            Op::Call => Some(raw.slot.count),
            Op::Wake => Some(event.time_ns),
            _ => None,
        };
        let Some(known) = self.tasks.get_mut(&event.tid) else {
            return begin(event, seen_ns, seen_ns.unwrap_or(event.time_ns));
        };
        event.comm = known.comm;
        event.cgroup = known.cgroup;
        begin(event, seen_ns, known.last_ns.min(event.time_ns));
        // It lies inside of what the thread ends next, which may have begun before.
        if event.op != Op::Wake {
            known.last_ns = event.time_ns;
        }
        if event.task_count != 0 {
            if known.count != 0 && event.task_count != known.count.wrapping_add(1) {
                event.flags = event.flags.with(Flags::AFTER_GAP);
            }
            known.count = event.task_count;
        }
    }

    /// Keeps track of threads that begin, change and end.
    fn follow_task(&mut self, raw: &Raw, detail: [u64; 8], op: Op) {
        match op {
            Op::Fork => {
                self.name_task(bytemuck::cast(detail));
                // A new thread has done nothing yet, whoever bore its number before.
                if let Some(child) = self.tasks.get_mut(&raw.slot.argument) {
                    child.last_ns = raw.slot.time_ns;
                    child.count = 0;
                }
            }
            Op::Exec => {
                self.name_task(bytemuck::cast(detail));
                if let Some(known) = self.tasks.get_mut(&raw.slot.tid).filter(|_| self.live) {
                    known.task.executable = procfs::executable(raw.slot.pid);
                }
            }
            Op::Exit => {
                let Some(known) = self.tasks.get_mut(&raw.slot.tid) else { return };
                if self.gone.len() < MOST_GONE {
                    self.gone.push(known.task.clone());
                }
                // The name stays for what the kernel still does with the sockets after this.
                known.listed = false;
            }
            _ => {}
        }
    }

    fn name_socket(&mut self, raw: &Raw, name: SocketName) {
        let before = self.sockets.get(raw.slot.socket).cloned();
        // The port is given back before the socket's last events.
        let known = before.as_ref().filter(|_| name.local_port == 0).map(|s| s.local);
        let spoken = spoken(name.protocol);
        let [local, remote] = if spoken.is_some_and(Protocol::is_local) {
            self.unix_names.of(raw.slot.socket).map(|name| {
                name.map_or(Address::NONE, |name| self.names.intern_socket_address(name))
            })
        } else {
            [
                known.unwrap_or_else(|| self.address(name.local, name.local_port)),
                self.address(name.remote, name.remote_port),
            ]
        };
        let socket = Socket {
            local,
            remote,
            protocol: spoken,
            netns: if name.netns_cookie != 0 { name.netns_cookie } else { name.netns },
            iss: name.iss,
            irs: name.irs,
            proof: match name.proven {
                proven::AT_ESTABLISHED => Proof::Established,
                proven::AGREED => Proof::Agreed,
                proven::COMPUTED => Proof::Computed,
                _ => Proof::Unknown,
            },
            active: before.as_ref().is_some_and(|s| s.active),
            asking: name.state == SYN_SENT,
            owner: if name.owner != 0 { name.owner } else { before.map_or(0, |s| s.owner) },
        };
        self.places.namespace(socket.netns, name.netns);
        if matches!(spoken, Some(Protocol::Tcp | Protocol::Udp)) {
            self.senders.learn(socket.local, socket.remote, socket.netns, raw.slot.socket);
        }
        self.sockets.put(raw.slot.socket, socket);
    }

    fn name_peer(&mut self, raw: &Raw, name: SocketName) {
        let address = self.address(name.remote, name.remote_port);
        self.peers.put(raw.slot.count, address);
    }

    fn address(&mut self, ip: [u8; 16], port: u16) -> Address {
        let ip = IpAddr::V6(Ipv6Addr::from(ip)).to_canonical();
        if ip.is_unspecified() && port == 0 {
            return Address::NONE;
        }
        self.names.intern_address(SocketAddr::new(ip, port))
    }
}

/// Sets an event's begin: when a hook saw it, unless something that the thread did inside of the call stands
/// before it; else no sooner than the thread's end before.
fn begin(event: &mut Event, seen_ns: Option<u64>, bound_ns: u64) {
    match seen_ns.filter(|&seen_ns| seen_ns >= bound_ns) {
        Some(seen_ns) => {
            event.begin_ns = seen_ns;
            event.flags = event.flags.with(Flags::BEGAN);
        }
        None => event.begin_ns = bound_ns,
    }
}

/// What a slot is about; nothing for a kind of a newer probe.
fn operation(raw: &Raw) -> Option<Op> {
    Some(match raw.slot.kind {
        kind::SEND => Op::Send,
        kind::RECEIVE => Op::Recv,
        kind::STATE => transition(raw.slot.aux[0], raw.slot.aux[1], raw.slot.tid != 0)?,
        kind::RESET_SENT => Op::ResetSent,
        kind::RESET_RECEIVED => Op::ResetReceived,
        kind::RETRANSMIT => Op::Retransmit,
        kind::DROPPED => Op::Dropped,
        kind::SYSCALL => Op::Call,
        kind::WAKE => Op::Wake,
        kind::SOCKET_ERROR => Op::Error,
        kind::FORK => Op::Fork,
        kind::EXEC => Op::Exec,
        kind::EXIT => Op::Exit,
        kind::SIGNAL => Op::Signal,
        kind::DELIVER => Op::Deliver,
        kind::OOM_KILL => Op::OomKill,
        kind::FAULT => Op::Fault,
        kind::CALL => fault::call(raw.slot.aux[0])?,
        kind::ACCEPT => Op::Accept,
        _ => return None,
    })
}

/// What a change of TCP state means; `own_act` when the probe found it to be the current thread's doing.
fn transition(old: u8, new: u8, own_act: bool) -> Option<Op> {
    Some(match (old, new) {
        (_, SYN_SENT) => Op::Connect,
        (_, ESTABLISHED) => Op::Established,
        (_, LISTEN) => Op::Listen,
        (LISTEN, CLOSE) => Op::Unlisten,
        (_, FIN_WAIT1 | LAST_ACK) => Op::Close,
        (_, CLOSE) if own_act => Op::Abort,
        (_, CLOSE) => Op::Closed,
        _ => return None,
    })
}

/// The protocol of a number on the wire.
fn spoken(number: u8) -> Option<Protocol> {
    Some(match number {
        protocol::TCP => Protocol::Tcp,
        protocol::UDP => Protocol::Udp,
        protocol::UNIX_STREAM => Protocol::UnixStream,
        protocol::UNIX_DGRAM => Protocol::UnixDgram,
        protocol::UNIX_SEQPACKET => Protocol::UnixSeqpacket,
        protocol::PIPE => Protocol::Pipe,
        protocol::MPTCP => Protocol::Mptcp,
        _ => return None,
    })
}

const SIGCHLD: i32 = libc::SIGCHLD;
/// `TRACE_SIGNAL_*` of the kernel: the first says delivered, the last that only its details were lost.
const TRACE_SIGNAL_IGNORED: u8 = 1;
const TRACE_SIGNAL_OVERFLOW_FAIL: u8 = 3;

fn signal(raw: &Raw, event: &mut Event) {
    let slot = &raw.slot;
    event.signal = slot.result as u8;
    let process = slot.aux[1] != 0;
    event.target = if process { slot.count as u32 } else { slot.argument };
    if process {
        event.flags = event.flags.with(Flags::PROCESS);
    }
    if (TRACE_SIGNAL_IGNORED..=TRACE_SIGNAL_OVERFLOW_FAIL).contains(&slot.aux[0]) {
        event.flags = event.flags.with(Flags::IGNORED);
    }
    // Sent by a thread's own act: through a system call (no details, or a code that only users have), as
    // the death notice of a child, or as the fault of the target itself. Everything else comes from
    // timers, terminals and workers, where `current` means nothing.
    let by_call = slot.flags & flag::NO_INFO != 0
        || (slot.flags & flag::FROM_KERNEL == 0 && matches!(slot.code, 0 | -1 | -6));
    let notice = slot.result == SIGCHLD && slot.flags & flag::FROM_KERNEL == 0 && slot.code > 0;
    let own_fault = slot.argument == slot.tid;
    if !(by_call || notice || own_fault) {
        event.tid = 0;
        event.pid = 0;
        event.task_count = 0;
    }
}

/// `ERESTARTSYS` and its kin of the kernel: a signal broke the call off. Programs see `EINTR`, or the call
/// is made again.
const RESTARTS: std::ops::RangeInclusive<u16> = 512..=516;

fn errno(code: i32) -> u16 {
    let errno = code.unsigned_abs() as u16;
    if RESTARTS.contains(&errno) { libc::EINTR as u16 } else { errno }
}

mod task;
#[cfg(test)]
mod tests;
