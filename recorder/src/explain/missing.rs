//! Why something did *not* happen: what was outstanding, how far it got, and what each thread and socket
//! there was last seen doing.
//!
//! Faults show as the absence of a message. The question names the event that is missing; the last
//! thing its threads asked for is followed forward to its frontier.

use petgraph::Direction;
use petgraph::visit::EdgeRef;

use crate::event::{Event, EventIndex, Flags, History, Op};
use crate::graph::{self, EdgeKind, Graph, Side, event_of, node};
use crate::pattern::{Key, Pattern};
use crate::slice::{self, Options, Reach, Slice};
use crate::state::{self, Socket, Thread};

/// What is known about an event that is missing.
#[derive(Debug)]
pub struct Missing {
    /// The last event that does match, if there is one.
    pub last: Option<EventIndex>,
    /// What the same threads last asked of others: a send or a connect.
    pub outstanding: EventIndex,
    /// Threads that what was asked reached, with where they stopped.
    pub frontier: Vec<Stop>,
    /// Bytes that were sent and that nobody is known to have taken.
    pub undelivered: Vec<Undelivered>,
    /// Packets that faults lost on the way of what was asked or sent, where the network had not healed before; the message
    /// itself, if a fault lost that.
    pub lost: Vec<EventIndex>,
    /// If what was asked for is a connection, and nobody answered.
    pub unanswered: Option<Unanswered>,
}

/// Where a thread was last seen.
#[derive(Clone, Debug)]
pub struct Stop {
    /// The first event of the thread that what was asked reached.
    pub reached: EventIndex,
    /// Its last event.
    pub last: EventIndex,
    /// How long before the end of the recording it was, ns.
    pub silent_ns: u64,
    /// Whether the thread ended.
    pub ended: bool,
    /// Whether it is certain that what was asked got there.
    pub must: bool,
    /// What it was doing when the recording was made, if that is known.
    pub state: Option<Thread>,
}

/// Bytes on their way.
#[derive(Clone, Debug)]
pub struct Undelivered {
    pub send: EventIndex,
    pub bytes: u64,
    /// Whether the other end is in the recording at all.
    pub peer_seen: bool,
    /// The last event of the other end.
    pub peer: Option<EventIndex>,
    /// How often a packet of the connection was sent again since.
    pub sent_again: usize,
    /// The sockets of this end and of the other, as they were when the recording was made.
    pub own: Option<Socket>,
    pub other: Option<Socket>,
}

impl Undelivered {
    /// Whether the other end's kernel has not said that it has all of it.
    pub fn is_unacknowledged(&self) -> bool {
        self.own.as_ref().is_some_and(|own| own.send_queue > 0)
    }
}

/// A connect that came to nothing.
#[derive(Clone, Debug)]
pub struct Unanswered {
    pub sent_again: usize,
    /// Who should have answered, as it was when the recording was made.
    pub listener: Option<Socket>,
}

/// Answers for a pattern of an event that did not happen. `None`: its threads asked nobody for anything.
pub fn missing(
    history: &History,
    graph: &Graph,
    pattern: &Pattern,
    options: Options,
) -> Option<Missing> {
    let last = super::last_match(history, &pattern.bind(history)).map(|(last, _)| last);
    let about = about(pattern).bind(history);
    let outstanding = super::latest(history, |event| {
        matches!(event.op, Op::Send | Op::Connect) && event.error == 0 && about.matches(event)
    })?;
    let slice = slice::forward(history, graph, &[outstanding], options);
    let undelivered = undelivered(history, graph, &slice);
    Some(Missing {
        last,
        outstanding,
        frontier: frontier(history, graph, &slice),
        lost: lost(history, graph, outstanding, &undelivered),
        unanswered: unanswered(history, graph, outstanding),
        undelivered,
    })
}

/// Who and with whom, without what: the tests that hold for the request as well as for its answer.
fn about(pattern: &Pattern) -> Pattern {
    let kept = [
        Key::Host,
        Key::Pid,
        Key::Tid,
        Key::Comm,
        Key::Cgroup,
        Key::Container,
        Key::Pod,
        Key::Protocol,
        Key::Local,
        Key::Remote,
        Key::Netns,
        Key::Socket,
    ];
    let tests = pattern.tests.iter().filter(|test| kept.contains(&test.key)).cloned();
    Pattern { tests: tests.collect() }
}

impl Stop {
    /// Of a thread with these two events, which nothing certainly reached.
    fn of(
        history: &History,
        graph: &Graph,
        thread: &graph::Thread,
        reached: EventIndex,
        last: EventIndex,
    ) -> Self {
        let event = &history.events[last as usize];
        let host = history.hosts.get(usize::from(thread.host));
        let end_ns = host.map_or(0, |host| host.rare_window.to_ns);
        let mut events = graph.events_of_thread(thread).iter();
        Self {
            reached,
            last,
            silent_ns: end_ns.saturating_sub(event.time_ns),
            ended: events.any(|&e| history.events[e as usize].op == Op::Exit),
            must: false,
            state: host.and_then(|host| host.thread_state(event)).cloned(),
        }
    }

    /// If it waits for another thread of its process (a lock, a queue, a pool): those that wait for others themselves, and may
    /// hold what it waits for. Those that were silent longest come first.
    pub fn held_by(&self, history: &History, graph: &Graph) -> Vec<Self> {
        if !self.state.as_ref().is_some_and(Thread::waits_for_memory) {
            return Vec::new();
        }
        let own = &history.events[self.last as usize];
        let threads = graph.threads.iter().filter(|thread| {
            (thread.host, thread.pid) == (own.host, own.pid) && thread.tid != own.tid
        });
        let mut held: Vec<Self> = threads
            .filter_map(|thread| {
                let events = graph.events_of_thread(thread);
                let &last = events.last()?;
                // What it waited in before says nothing of whom it asked.
                let event = |&e: &EventIndex| &history.events[e as usize];
                let asked = events.iter().rev().map(event).find(|e| !e.op.is_detail())?;
                let stop = Self::of(history, graph, thread, last, last);
                (!stop.ended && waits_for_others(asked)).then_some(stop)
            })
            .collect();
        held.sort_by_key(|stop| std::cmp::Reverse(stop.silent_ns));
        held
    }
}

/// Whether the last that a thread did was to ask somebody.
fn waits_for_others(last: &Event) -> bool {
    let found_nothing = last.op == Op::Recv && super::is_wait(last.error);
    last.error == 0 && matches!(last.op, Op::Send | Op::Connect) || found_nothing
}

fn frontier(history: &History, graph: &Graph, slice: &Slice) -> Vec<Stop> {
    let mut stops = Vec::new();
    for thread in &graph.threads {
        let events = graph.events_of_thread(thread);
        let reached = |&&event: &&EventIndex| slice.reach(event) != Reach::Not;
        let (Some(&first), Some(&last)) = (events.iter().find(reached), events.last()) else {
            continue;
        };
        let must = events.iter().any(|&e| slice.reach(e) == Reach::Must);
        stops.push(Stop { must, ..Stop::of(history, graph, thread, first, last) });
    }
    // What certainly got there first; of these those that live, and of these those that were silent longest.
    stops.sort_by_key(|s| (!s.must, s.ended, std::cmp::Reverse(s.silent_ns)));
    stops
}

/// For every connection that the slice sent on: what lies beyond the last byte that the other end took.
fn undelivered(history: &History, graph: &Graph, slice: &Slice) -> Vec<Undelivered> {
    let mut found = Vec::new();
    for (number, endpoint) in graph.endpoints.iter().enumerate() {
        let events = graph.events_of_endpoint(endpoint);
        let sent = |&&event: &&EventIndex| {
            let e = &history.events[event as usize];
            e.op == Op::Send && e.has_range() && slice.reach(event) != Reach::Not
        };
        let Some(&send) = events.iter().rev().find(sent) else { continue };
        let peers = graph.peers(number as u32).map(|(peer, _)| peer).collect::<Vec<_>>();
        let end = history.events[send as usize].stream_end;
        let taken = peers.iter().map(|&peer| taken(history, graph, peer)).max().unwrap_or(0);
        if taken < end {
            let peer = peers.iter().find_map(|&peer| {
                graph.events_of_endpoint(&graph.endpoints[peer as usize]).last().copied()
            });
            let state = |event: EventIndex| {
                let event = &history.events[event as usize];
                history.hosts.get(usize::from(event.host))?.socket_state(event.socket).cloned()
            };
            found.push(Undelivered {
                send,
                bytes: end - taken,
                peer_seen: !peers.is_empty(),
                peer,
                sent_again: sent_again(history, events, send),
                own: state(send),
                other: peer.and_then(state),
            });
        }
    }
    found
}

/// How often packets were sent again after an event of this end.
fn sent_again(history: &History, events: &[EventIndex], since: EventIndex) -> usize {
    let again = |&&e: &&EventIndex| history.events[e as usize].op == Op::Retransmit;
    events.iter().filter(|&&event| event > since).filter(again).count()
}

/// A connect after which its socket was never connected, nor told why not.
fn unanswered(history: &History, graph: &Graph, asked: EventIndex) -> Option<Unanswered> {
    let connect = &history.events[asked as usize];
    let endpoint = graph.endpoint_of(history, asked).filter(|_| connect.op == Op::Connect)?;
    let events = graph.events_of_endpoint(&graph.endpoints[endpoint as usize]);
    let answer = |&&event: &&EventIndex| {
        matches!(history.events[event as usize].op, Op::Established | Op::ResetReceived | Op::Error)
    };
    if events.iter().filter(answer).any(|&event| event > asked) {
        return None;
    }
    let listener = state::listener(history, connect).cloned();
    Some(Unanswered { sent_again: sent_again(history, events, asked), listener })
}

/// What both ends of the connections that wait have lost. Of a socket only the first is known; it counts for as long
/// as its cut had not healed when the bytes were sent.
fn lost(
    history: &History,
    graph: &Graph,
    outstanding: EventIndex,
    undelivered: &[Undelivered],
) -> Vec<EventIndex> {
    let mut lost = Vec::new();
    for sent in undelivered.iter().map(|bytes| bytes.send).chain([outstanding]) {
        let Some(endpoint) = graph.endpoint_of(history, sent) else { continue };
        for end in graph.peers(endpoint).map(|(peer, _)| peer).chain([endpoint]) {
            let events = graph.events_of_endpoint(&graph.endpoints[end as usize]).iter().copied();
            lost.extend(events.filter(|&event| lies_on_way(history, event, sent)));
        }
    }
    lost.extend(swallowed(history, graph, outstanding));
    lost.sort_unstable();
    lost.dedup();
    lost
}

/// The fault that lost what a call sent.
fn swallowed(history: &History, graph: &Graph, sent: EventIndex) -> Option<EventIndex> {
    let causes = graph.nodes.edges_directed(node(sent, Side::End), Direction::Incoming);
    let causes = causes.filter(|edge| edge.weight().kind == EdgeKind::Fault);
    let mut faults = causes.map(|edge| event_of(edge.source()).0);
    faults.find(|&fault| history.events[fault as usize].flags.has(Flags::LOST))
}

fn lies_on_way(history: &History, lost: EventIndex, sent: EventIndex) -> bool {
    let fault = &history.events[lost as usize];
    let sent = &history.events[sent as usize];
    let healed = |event: &Event| {
        let same = (event.host, event.fault) == (fault.host, fault.fault);
        same && event.flags.has(Flags::HEALED) && event.time_ns < sent.begin_ns
    };
    fault.op == Op::Fault && fault.flags.has(Flags::LOST) && !history.events.iter().any(healed)
}

/// Up to where an endpoint has taken its stream.
pub(crate) fn taken(history: &History, graph: &Graph, endpoint: u32) -> u64 {
    let events = graph.events_of_endpoint(&graph.endpoints[endpoint as usize]).iter();
    let consumed = |e: &&Event| e.op == Op::Recv && e.has_range() && !e.flags.has(Flags::PEEK);
    events
        .map(|&e| &history.events[e as usize])
        .filter(consumed)
        .map(|e| e.stream_end)
        .max()
        .unwrap_or(0)
}
