//! The model's state: hosts, processes, threads and sockets, and the queue of what happens next.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, VecDeque};

use recorder::event::{Address, Event, Name, Names};

use crate::sim::order::{Moment, Order, Seen};
use crate::sim::{Random, Shape};

pub type ProcessId = usize;
pub type ThreadId = usize;
pub type EndId = usize;
pub type CallId = usize;
/// Index of an event in the order in which the model raised it, recorded or not.
pub type RawId = usize;

pub struct World {
    pub shape: Shape,
    pub random: Random,
    pub order: Order,
    pub seen: Seen,
    /// True time, ns. No host's clock shows it.
    pub now: u64,
    queue: BinaryHeap<Reverse<(u64, usize)>>,
    steps: Vec<Option<Step>>,
    pub names: Names,
    pub processes: Vec<Process>,
    pub threads: Vec<Thread>,
    pub ends: Vec<End>,
    pub listeners: Vec<Listener>,
    pub raws: Vec<Raw>,
    pub causes: Causes,
    /// The event that each finished call raised, if any.
    pub call_events: Vec<Option<RawId>>,
    /// Per host: the next unused task number, and numbers of the dead.
    pub next_tid: Vec<u32>,
    pub free_tids: Vec<Vec<u32>>,
    pub next_cookie: Vec<u64>,
    /// Where the present softirq runs.
    pub cpu: u16,
}

/// True causes, by the model's own numbers; `record` turns them into the truth.
#[derive(Default)]
pub struct Causes {
    pub bytes: Vec<(CallId, RawId)>,
    pub eof: Vec<(RawId, RawId)>,
    pub resets: Vec<(RawId, RawId)>,
    pub connections: Vec<(RawId, RawId)>,
    pub forks: Vec<(RawId, ThreadId)>,
    pub signals: Vec<(RawId, RawId)>,
}

/// Something that will happen.
#[derive(Debug)]
pub enum Step {
    /// The thread looks for something to do, unless it was woken meanwhile (another epoch).
    Decide(ThreadId, u64),
    /// The thread's call gets the socket's lock.
    Lock(ThreadId, u64),
    /// The thread's call is over, its hook fires.
    Hook(ThreadId),
    /// Something arrives at an end of a connection.
    Arrive(EndId, Packet),
    /// A SYN arrives at a host's port.
    Syn { from: EndId, cause: Moment },
    /// A signal is not blocked any more.
    Nudge(ThreadId),
    /// The thread's call has waited long enough (`SO_RCVTIMEO`).
    Timeout(ThreadId, CallId),
    /// The hook for a reset that an abort caused.
    ResetSent { end: EndId, begin: Moment, abort: RawId },
}

#[derive(Clone, Debug)]
pub enum Packet {
    SynAck(Moment),
    /// The client's last word of the handshake.
    Ack(Moment),
    Data(Chunk),
    Fin {
        cause: Moment,
        event: RawId,
    },
    FinAck(Moment),
    /// The reader made space: bytes up to here may be sent.
    Space {
        until: u64,
        cause: Moment,
    },
    Reset {
        cause: Moment,
        event: Option<RawId>,
    },
}

/// Bytes in flight or in a receive queue, of one send.
#[derive(Clone, Copy, Debug)]
pub struct Chunk {
    pub start: u64,
    pub end: u64,
    pub cause: Moment,
    pub call: CallId,
}

pub struct Process {
    pub host: usize,
    pub pid: u32,
    pub comm: Name,
    pub parent: Option<ProcessId>,
    pub recorded: bool,
    pub threads: Vec<ThreadId>,
    /// The fatal signal's or `exit_group`'s moment and, of a signal, its event.
    pub dying: Option<(Moment, Option<RawId>)>,
    pub dead: bool,
    pub handles: BTreeSet<u8>,
    pub ignores: BTreeSet<u8>,
}

pub struct Thread {
    pub process: ProcessId,
    pub tid: u32,
    pub started: u64,
    pub last: Moment,
    pub last_time: u64,
    pub dead: bool,
    /// Raised when a wake-up makes earlier plans void.
    pub epoch: u64,
    pub call: Option<Call>,
    pub pending: Vec<Pending>,
    pub comm: Name,
}

/// A signal on its way into a handler.
#[derive(Clone, Copy)]
pub struct Pending {
    pub signal: u8,
    pub cause: Moment,
    pub event: RawId,
    /// Not taken before this time: the thread blocks the signal.
    pub not_before: u64,
}

/// A send or receive under way.
pub struct Call {
    pub id: CallId,
    pub what: What,
    pub end: EndId,
    pub length: u64,
    pub begin: Moment,
    pub causes: Vec<Moment>,
    pub done: u64,
    pub true_start: Option<u64>,
    pub true_end: u64,
    pub scattered: bool,
    pub senders: BTreeSet<CallId>,
    pub close: Option<RawId>,
    pub error: u16,
    pub blocked: bool,
    pub finished: bool,
    pub raced: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    Send {
        wait: bool,
    },
    Receive {
        wait: bool,
        peek: bool,
        all: bool,
    },
    /// A receive that no hook shows.
    Splice,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Connecting,
    Open,
    Dead,
}

/// One end of a connection: a socket.
pub struct End {
    pub host: usize,
    pub peer: Option<EndId>,
    pub active: bool,
    /// A Unix stream: no packets but bytes, and sums instead of the kernel's numbers.
    pub unix: bool,
    pub counted_sent: u64,
    pub counted_received: u64,
    pub recorded: bool,
    pub owner: u32,
    pub cookie: u64,
    pub local: Address,
    pub remote: Address,
    /// Where a SYN goes.
    pub target: (usize, u16),
    /// Who will accept it.
    pub listener: Option<usize>,
    pub iss: u32,
    pub irs: u32,
    /// True time at which it was established; nothing: before all began.
    pub since: Option<u64>,
    pub established: Option<Moment>,
    pub connect: Option<RawId>,
    /// The descriptor's birth; nobody can use it before.
    pub birth: Moment,
    pub lane: Option<Moment>,
    pub state: State,
    /// Nobody holds it any more.
    pub orphan: bool,
    pub holders: BTreeSet<ProcessId>,
    pub calls: usize,
    pub writers: Vec<ThreadId>,
    pub readers: Vec<ThreadId>,
    /// Without races: the one thread that writes, and the one that reads.
    pub claimed_writer: Option<ThreadId>,
    pub claimed_reader: Option<ThreadId>,
    pub written: u64,
    pub limit: u64,
    pub space: Option<Moment>,
    pub fin_sent: Option<Moment>,
    pub fin_acked: Option<Moment>,
    pub queue: VecDeque<Chunk>,
    pub copied: u64,
    pub fin_received: Option<(Moment, RawId)>,
    /// The error to report once, and the cause of it.
    pub error: u16,
    pub error_cause: Option<Moment>,
    pub last_arrival: u64,
}

pub struct Listener {
    pub host: usize,
    pub port: u16,
    pub process: ProcessId,
    pub cookie: u64,
    pub local: Address,
    pub alive: bool,
    /// The listen or, later, the unlisten.
    pub changed: Moment,
    pub queue: VecDeque<EndId>,
}

/// An event as it was raised, in true time.
pub struct Raw {
    pub event: Event,
    pub begin: Moment,
    pub end: Moment,
    pub thread: Option<ThreadId>,
    pub socket: Option<EndId>,
    pub recorded: bool,
}

impl World {
    pub fn new(shape: Shape, random: Random) -> Self {
        Self {
            shape,
            random,
            order: Order::default(),
            seen: Seen::default(),
            now: 1_000,
            queue: BinaryHeap::new(),
            steps: Vec::new(),
            names: Names::default(),
            processes: Vec::new(),
            threads: Vec::new(),
            ends: Vec::new(),
            listeners: Vec::new(),
            raws: Vec::new(),
            causes: Causes::default(),
            call_events: Vec::new(),
            next_tid: vec![100; shape.hosts],
            free_tids: vec![Vec::new(); shape.hosts],
            next_cookie: vec![1; shape.hosts],
            cpu: 0,
        }
    }

    /// Lives until enough events were raised or nothing happens any more.
    pub fn run(&mut self) {
        self.populate();
        while self.raws.len() < self.shape.events && self.steps.len() < 20_000 {
            let Some(Reverse((time, number))) = self.queue.pop() else { break };
            self.now = self.now.max(time);
            self.cpu = self.random.below(self.shape.cpus as u64) as u16;
            let step = self.steps[number].take().expect("a step happens once");
            self.happen(step);
        }
    }

    pub fn after(&mut self, delay: u64, step: Step) {
        self.at(self.now + delay, step);
    }

    pub fn at(&mut self, time: u64, step: Step) {
        self.queue.push(Reverse((time, self.steps.len())));
        self.steps.push(Some(step));
    }

    fn happen(&mut self, step: Step) {
        match step {
            Step::Decide(thread, epoch) if self.threads[thread].epoch == epoch => {
                self.decide(thread);
            }
            Step::Lock(thread, epoch) if self.threads[thread].epoch == epoch => self.lock(thread),
            Step::Decide(..) | Step::Lock(..) => {}
            Step::Hook(thread) => self.hook(thread),
            Step::Arrive(end, packet) => self.arrive(end, packet),
            Step::Syn { from, cause } => self.syn(from, cause),
            Step::Nudge(thread) => self.interrupt(thread),
            Step::ResetSent { end, begin, abort } => self.reset_sent(end, begin, abort),
            Step::Timeout(thread, call) => self.time_out(thread, call),
        }
    }

    pub fn host_of(&self, thread: ThreadId) -> usize {
        self.processes[self.threads[thread].process].host
    }

    /// How often work between two moments takes: mostly little, sometimes much.
    pub fn delay(&mut self, typical: u64) -> u64 {
        let factor = if self.random.percent(5) { 20 } else { 2 };
        1 + self.random.below(typical * factor)
    }
}
