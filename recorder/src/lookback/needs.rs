//! Which parts that were not read could change a chain.
//!
//! A chain is chosen from the events it consists of and those that were looked at on the way, and from the
//! edges that lead into them. For each of these events this asks the index where a further cause could be:
//! the thread's earlier events, the bytes' senders, the connection's other end, what ended it,
//! who sent the signal. It errs on the side of too many parts.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use petgraph::visit::EdgeRef;

use crate::event::{Event, EventIndex, Flags, History, Name, Op, Proof as Known, Protocol};
use crate::explain::is_wait;
use crate::graph::{EdgeKind, Graph, Proof, Side, event_of, node};
use crate::recording::index::{Numbers, Part, User};
use crate::recording::partial::Partial;
use crate::slice::Trace;

/// What the kernel does at an endpoint.
const LANE: &[Op] = &[
    Op::Established,
    Op::Closed,
    Op::ResetSent,
    Op::ResetReceived,
    Op::Retransmit,
    Op::Dropped,
    Op::Error,
];

const KILL: u8 = libc::SIGKILL as u8;

struct Needs<'a> {
    partial: &'a Partial,
    history: &'a History,
    graph: &'a Graph,
    found: BTreeSet<usize>,
    asked: HashSet<EventIndex>,
}

/// The unread parts that the chain may need; empty when it is the chain of the whole recording.
pub(super) fn needs(partial: &Partial, graph: &Graph, trace: &Trace) -> BTreeSet<usize> {
    let (history, found, asked) = (partial.history(), BTreeSet::new(), HashSet::new());
    let mut needs = Needs { partial, history, graph, found, asked };
    needs.symptom(trace.steps[0].event);
    for look in &trace.looks {
        let oldest = look.events.last().copied().unwrap_or(look.from);
        needs.thread(look.from, oldest, look.exhausted);
        look.events.iter().for_each(|&event| needs.event(event));
    }
    trace.steps.iter().for_each(|step| needs.event(step.event));
    needs.found
}

/// A socket by its host and cookie.
type Socket = (u16, u64);

impl<'a> Needs<'a> {
    fn all(&mut self, host: u16, test: impl Fn(&Part) -> bool) {
        self.found.extend(self.partial.unread_of(host, test));
    }

    /// The newest unread part that satisfies the test and begins before an event ends.
    fn nearest_before(&mut self, event: &Event, test: impl Fn(&Part) -> bool) -> bool {
        let begun = |part: &Part| part.from_ns <= event.time_ns && test(part);
        let parts = self.partial.unread_of(event.host, begun);
        let to_ns = |&part: &usize| self.partial.index(part).map_or(u64::MAX, |p| p.to_ns);
        let nearest = parts.max_by_key(to_ns);
        self.found.extend(nearest);
        nearest.is_some()
    }

    /// Of a socket, parts with any of these kinds of events.
    fn socket(&mut self, (host, cookie): Socket, ops: &[Op]) {
        self.all(host, |part| part.socket(cookie).is_some_and(|s| has(s.ops, ops)));
    }

    /// Unread parts may have events of a thread between two of its events, or before all of them.
    fn thread(&mut self, from: EventIndex, oldest: EventIndex, exhausted: bool) {
        let (event, oldest) = (self.of(from), self.of(oldest));
        let (pid, tid) = (event.pid, event.tid);
        self.all(event.host, |part| {
            part.has_thread(pid, tid)
                && part.from_ns <= event.time_ns
                && oldest.time_ns <= part.to_ns
        });
        if exhausted {
            self.nearest_before(event, |part| part.has_thread(pid, tid));
        }
    }

    /// Who made the thread matters where nothing else explains it.
    fn symptom(&mut self, symptom: EventIndex) {
        let event = self.of(symptom);
        if event.op == Op::Call && event.target != 0 {
            // How the process began and ended whose end the call told.
            let child = event.target;
            let of_child = |part: &Part| {
                has(part.ops, &[Op::Exit]) && part.threads.iter().any(|t| t.pid == child)
                    || has(part.ops, &[Op::Fork]) && targets(part, child)
            };
            self.all(event.host, |part| part.from_ns <= event.time_ns && of_child(part));
        }
        if !event.in_kernel_lane() && !self.has_cause(symptom, |kind| kind != EdgeKind::Task) {
            // That it is its thread's first event, to begin with.
            let lives = self.graph.lives_of(event.host, event.tid).iter();
            let mut lives = lives.map(|life| self.graph.events_of_thread(life));
            let acts = |&&e: &&EventIndex| self.history.events[e as usize].op != Op::Wake;
            if lives.any(|life| life.iter().find(acts) == Some(&symptom) || life[0] == symptom) {
                self.thread(symptom, symptom, true);
            }
            let forks = |part: &Part| has(part.ops, &[Op::Fork]) && targets(part, event.tid);
            self.nearest_before(event, forks);
        }
    }

    fn of(&self, event: EventIndex) -> &'a Event {
        &self.history.events[event as usize]
    }

    /// The proven causes of an event outside its thread.
    fn causes(&self, event: EventIndex) -> impl Iterator<Item = (EventIndex, EdgeKind)> + use<'a> {
        let graph = self.graph;
        let sides = [Side::Begin, Side::End].into_iter();
        let edges = sides.flat_map(move |side| {
            graph.nodes.edges_directed(node(event, side), petgraph::Direction::Incoming)
        });
        let proven = edges.filter(|edge| edge.weight().proof == Proof::Must);
        proven
            .map(|edge| (event_of(edge.source()).0, edge.weight().kind))
            .filter(move |&(cause, _)| cause != event)
    }

    fn has_cause(&self, event: EventIndex, kinds: impl Fn(EdgeKind) -> bool) -> bool {
        let lane = self.of(event).in_kernel_lane();
        let outside = |kind| lane || kind != EdgeKind::Program;
        self.causes(event).any(|(_, kind)| outside(kind) && kinds(kind))
    }

    fn event(&mut self, index: EventIndex) {
        if !self.asked.insert(index) {
            return;
        }
        let event = self.of(index);
        match event.op {
            Op::Deliver | Op::Signal => self.signal(index, event),
            _ => {}
        }
        self.wakes(index, event);
        let own = event.op == Op::Signal && event.target == event.tid;
        // What a cut made happen, and the cut's beginning.
        let cut = event.op == Op::Retransmit
            || event.op == Op::Error && i32::from(event.error) == libc::ETIMEDOUT
            || event.op == Op::Fault && event.flags.has(Flags::LOST);
        if cut || own || event.fault != Name::NONE && event.op != Op::Fault {
            self.all(event.host, |part| has(part.ops, &[Op::Fault]));
        }
        if event.socket == 0 {
            return;
        }
        let peers = self.peers(index, event);
        let own = (event.host, event.socket);
        match event.op {
            Op::Send | Op::Recv => self.call(index, event, &peers),
            Op::Established => {
                self.socket(own, &[Op::Connect]);
                for &peer in &peers {
                    self.socket(peer, &[Op::Connect, Op::Established]);
                }
                if !self.has_cause(index, |kind| kind == EdgeKind::Connection) {
                    self.all(event.host, |part| has(part.ops, &[Op::Listen, Op::Unlisten]));
                }
            }
            Op::Accept => self.socket(own, &[Op::Established]),
            Op::Error => {
                let tries = [Op::Retransmit, Op::Established];
                self.socket(own, &[Op::Connect, Op::ResetReceived, Op::Error]);
                if i32::from(event.error) == libc::ETIMEDOUT {
                    self.socket(own, &tries);
                }
                if i32::from(event.error) == libc::ECONNREFUSED {
                    self.all(event.host, |part| has(part.ops, &[Op::Listen, Op::Unlisten]));
                }
            }
            Op::ResetReceived => {
                self.socket(own, &[Op::Connect, Op::ResetReceived]);
                for &peer in peers.iter().chain(&[(event.host, 0)]) {
                    self.socket(peer, &[Op::ResetSent, Op::Abort]);
                }
            }
            Op::ResetSent => self.socket(own, &[Op::Abort, Op::Close]),
            _ => {}
        }
        if event.in_kernel_lane() {
            self.lane(index, event);
        }
    }

    /// Who woke the thread, since its event before.
    fn wakes(&mut self, index: EventIndex, event: &Event) {
        if event.in_kernel_lane() {
            return;
        }
        let lives = self.graph.lives_of(event.host, event.tid).iter();
        let mut lives = lives.map(|life| self.graph.events_of_thread(life));
        let before = lives.find_map(|life| {
            let place = life.binary_search(&index).ok()?;
            Some(if place == 0 { 0 } else { self.of(life[place - 1]).time_ns })
        });
        let from_ns = before.unwrap_or(0);
        let woken = |part: &Part| has(part.ops, &[Op::Wake]) && targets(part, event.tid);
        self.all(event.host, |part| {
            woken(part) && part.from_ns <= event.time_ns && from_ns <= part.to_ns
        });
    }

    /// What the kernel did before at the same endpoint.
    fn lane(&mut self, index: EventIndex, event: &Event) {
        let here = |part: &Part| part.socket(event.socket).is_some_and(|s| has(s.ops, LANE));
        if self.has_cause(index, |kind| kind != EdgeKind::Program) {
            return;
        }
        let earlier = self.causes(index).map(|(cause, _)| self.of(cause).time_ns).min();
        match earlier {
            Some(from_ns) => {
                self.all(event.host, |p| {
                    here(p) && p.from_ns <= event.time_ns && from_ns <= p.to_ns
                });
            }
            None => {
                self.nearest_before(event, here);
            }
        }
    }

    fn signal(&mut self, index: EventIndex, event: &Event) {
        let victim = if event.op == Op::Deliver { event.pid } else { event.target };
        let threads = self.threads_of(event.host, victim);
        let meant = |part: &Part| part.targets.iter().any(|target| threads.contains(target));
        let before = |part: &Part| part.from_ns <= event.time_ns;
        if event.signal == KILL {
            self.all(event.host, |part| has(part.ops, &[Op::OomKill]));
            self.victims(event);
        }
        if event.op != Op::Deliver {
            return;
        }
        // Of a process's death all deadly signals are possible causes, and the exits of its threads, those
        // to come too, until one is a SIGKILL.
        let kill = |cause| event.signal != KILL || self.of(cause).signal == KILL;
        let mut causes = self.causes(index);
        if causes.any(|(cause, kind)| kind == EdgeKind::Signal && kill(cause)) {
            return;
        }
        let sent = [Op::Signal, Op::Fork];
        self.all(event.host, |part| has(part.ops, &sent) && meant(part) && before(part));
        if event.signal == KILL {
            let ended = [Op::Exit, Op::Deliver];
            let pid = event.pid;
            let own = |part: &Part| part.threads.iter().any(|t| t.pid == pid);
            self.all(event.host, |part| has(part.ops, &ended) && own(part));
        }
    }

    /// Whose threads those were that were killed for memory.
    fn victims(&mut self, event: &Event) {
        let here = |e: &&Event| (e.host, e.op) == (event.host, Op::OomKill);
        let kills = self.history.events.iter().filter(here);
        let victims: BTreeSet<u32> = kills.map(|kill| kill.target).collect();
        for tid in victims {
            self.nearest_before(event, |part| part.threads.iter().any(|t| t.tid == tid));
        }
    }

    /// Numbers of a process's threads, as far as anything names them.
    fn threads_of(&self, host: u16, pid: u32) -> HashSet<u32> {
        let mut threads = HashSet::from([pid]);
        let known = self.graph.threads.iter().filter(|t| (t.host, t.pid) == (host, pid));
        threads.extend(known.map(|t| t.tid));
        let tasks = self.history.hosts.get(usize::from(host)).map_or(&[][..], |h| &h.tasks);
        threads.extend(tasks.iter().filter(|t| t.pid == pid).map(|t| t.tid));
        let indexed = self.indexes(host).flat_map(|part| &part.threads);
        threads.extend(indexed.filter(|t| t.pid == pid).map(|t| t.tid));
        threads
    }

    /// The indexes of a host's parts, read or not.
    fn indexes(&self, host: u16) -> impl Iterator<Item = &'a Part> + use<'a> {
        let partial = self.partial;
        let own = (0..partial.parts()).filter(move |&part| partial.host(part) == host);
        own.filter_map(|part| partial.index(part))
    }

    /// Sockets of the other end, on any host, as far as it was read. Where unread parts have a socket whose numbers
    /// mirror those of this one, the newest of them is needed.
    fn peers(&mut self, index: EventIndex, event: &Event) -> Vec<Socket> {
        let Some(number) = self.graph.endpoint_of(self.history, index) else { return Vec::new() };
        let endpoint = &self.graph.endpoints[number as usize];
        if endpoint.proof == Known::Unknown {
            self.nearest_before(event, |part| part.socket(event.socket).is_some());
            return Vec::new();
        }
        let ends = self.graph.endpoints.iter().filter(|end| end.proof != Known::Unknown);
        let read: HashSet<Socket> = ends
            .filter(|end| mirror((end.iss, end.irs), (endpoint.iss, endpoint.irs)))
            .map(|end| (end.host, end.socket))
            .collect();
        let mut newest: BTreeMap<Socket, (u64, usize)> = BTreeMap::new();
        for number in self.partial.unread(|_| true) {
            let Some(part) = self.partial.index(number) else { continue };
            for socket in &part.sockets {
                let mirrors = match socket.numbers {
                    Numbers::Unknown => false,
                    Numbers::Several => true,
                    Numbers::Known { iss, irs } => mirror((iss, irs), (endpoint.iss, endpoint.irs)),
                };
                let other = (self.partial.host(number), socket.cookie);
                if mirrors && other != (event.host, event.socket) && !read.contains(&other) {
                    let known = newest.entry(other).or_insert((part.to_ns, number));
                    *known = (*known).max((part.to_ns, number));
                }
            }
        }
        self.found.extend(newest.into_values().map(|(_, part)| part));
        self.graph
            .peers(number)
            .map(|(peer, _)| &self.graph.endpoints[peer as usize])
            .map(|peer| (peer.host, peer.socket))
            .collect()
    }

    fn call(&mut self, index: EventIndex, event: &Event, peers: &[Socket]) {
        let own = (event.host, event.socket);
        if event.op == Op::Recv && event.flags.has(Flags::EOF) {
            if !self.has_cause(index, |kind| kind == EdgeKind::Close) {
                peers.iter().for_each(|&peer| self.socket(peer, &[Op::Close]));
            }
        } else if event.error != 0 && !is_wait(event.error) {
            self.socket(own, &[Op::Error, Op::ResetReceived]);
        } else if event.op == Op::Recv && event.has_range() {
            self.bytes(index, event, peers);
        }
        let told = |kind| matches!(kind, EdgeKind::Signal | EdgeKind::Close | EdgeKind::Bytes);
        if event.error == 0 && !self.has_cause(index, told) {
            self.first_use(index, event);
        }
    }

    /// The senders of the bytes, and where they and the receive lie in the stream.
    fn bytes(&mut self, index: EventIndex, event: &Event, peers: &[Socket]) {
        self.placed(index, event);
        let (mut covered, mut senders) = (Vec::new(), Vec::new());
        let sides = [Side::Begin, Side::End].into_iter();
        let edges = sides.flat_map(|side| {
            self.graph.nodes.edges_directed(node(index, side), petgraph::Direction::Incoming)
        });
        for edge in edges.filter(|edge| edge.weight().kind == EdgeKind::Bytes) {
            senders.push(event_of(edge.source()).0);
        }
        for &sender in &senders {
            let send = self.of(sender);
            // An initial number that was computed may be one off.
            let off = i64::from(send.iss.wrapping_sub(event.irs).cast_signed());
            covered.push((
                send.stream_start.saturating_add_signed(off),
                send.stream_end.saturating_add_signed(off),
            ));
            self.placed(sender, send);
        }
        if covers(covered, (event.stream_start, event.stream_end)) {
            return;
        }
        for &peer in peers {
            if self.user(peer, Op::Send) == User::Several {
                // Where several threads sent, what each reports may lie above its bytes.
                self.socket(peer, &[Op::Send]);
            }
            let (host, cookie) = peer;
            self.all(host, |part| {
                let sent = part.socket(cookie).and_then(|s| s.sent.clone());
                sent.is_some_and(|s| {
                    s.start <= event.stream_end + 1 && event.stream_start <= s.end + 1
                })
            });
        }
    }

    /// Where a call lies in its stream depends on the calls before it: on the one before where one thread
    /// makes them all, on all of them where several do.
    fn placed(&mut self, index: EventIndex, event: &Event) {
        let (cookie, op) = (event.socket, event.op);
        let uses = |part: &Part| part.socket(cookie).is_some_and(|s| has(s.ops, &[op]));
        if self.partial.unread_of(event.host, uses).next().is_none() {
            return;
        }
        // Where a counted call lies depends on those after it as well.
        let counted = event.protocol.is_some_and(Protocol::is_counted);
        if counted || self.user((event.host, cookie), op) == User::Several {
            self.all(event.host, uses);
            return;
        }
        let Some(endpoint) = self.graph.endpoint_of(self.history, index) else { return };
        let endpoint = &self.graph.endpoints[endpoint as usize];
        let before = self.graph.events_of_endpoint(endpoint).iter().rev().filter(|&&e| e < index);
        let mut before = before.map(|&e| self.of(e)).filter(|e| e.op == op && e.has_range());
        match before.next() {
            Some(previous) => self.all(event.host, |part| {
                uses(part) && part.from_ns <= event.time_ns && previous.time_ns <= part.to_ns
            }),
            None => {
                self.nearest_before(event, uses);
            }
        }
    }

    /// Who uses a direction of a socket in the whole recording.
    fn user(&self, (host, cookie): Socket, op: Op) -> User {
        let sockets = self.indexes(host).filter_map(|part| part.socket(cookie));
        let users = sockets.map(|s| if op == Op::Send { s.sender } else { s.receiver });
        users.fold(User::Nobody, User::and)
    }

    /// Whether the connection's making explains a call depends on whether it is its thread's first.
    fn first_use(&mut self, index: EventIndex, event: &Event) {
        let Some(endpoint) = self.graph.endpoint_of(self.history, index) else { return };
        let endpoint = &self.graph.endpoints[endpoint as usize];
        let earlier = self.graph.events_of_endpoint(endpoint).iter().any(|&e| {
            let other = self.of(e);
            e < index
                && other.tid == event.tid
                && other.error == 0
                && matches!(other.op, Op::Send | Op::Recv)
        });
        let (cookie, pid, tid) = (event.socket, event.pid, event.tid);
        let both = |part: &Part| part.socket(cookie).is_some() && part.has_thread(pid, tid);
        if !earlier && !self.nearest_before(event, both) {
            self.socket((event.host, cookie), &[Op::Established, Op::Accept]);
        }
    }
}

fn has(ops: u32, wanted: &[Op]) -> bool {
    wanted.iter().any(|&op| ops >> op as u32 & 1 == 1)
}

fn targets(part: &Part, tid: u32) -> bool {
    part.targets.binary_search(&tid).is_ok()
}

/// Whether two pairs of initial numbers may be those of two ends; one of each may be one too high.
fn mirror(one: (u32, u32), other: (u32, u32)) -> bool {
    let near = |a: u32, b: u32| a.wrapping_sub(b).wrapping_add(1) <= 2;
    near(one.0, other.1) && near(one.1, other.0)
}

/// Whether ranges leave nothing of another uncovered.
fn covers(mut ranges: Vec<(u64, u64)>, whole: (u64, u64)) -> bool {
    ranges.sort_unstable();
    let mut upto = whole.0;
    for (start, end) in ranges {
        if start > upto {
            return false;
        }
        upto = upto.max(end);
    }
    upto >= whole.1
}
