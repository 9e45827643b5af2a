//! The end of a connection: close and EOF, abort and reset, reset and error, refusal.

use std::collections::HashMap;

use super::build::lossless;
use super::connection::{Listeners, push_if};
use super::endpoint::Notable;
use super::{EdgeKind, Graph, Proof, Side};
use crate::event::{Address, Event, EventIndex, Flags, History, Op};

const KIND: EdgeKind = EdgeKind::Close;

pub(super) fn edges(history: &History, rare: &[EventIndex], notable: &Notable, graph: &mut Graph) {
    let stray = stray_resets(history, rare);
    for endpoint in 0..graph.endpoints.len() as u32 {
        let own = OwnEnd::of(history, notable, graph, endpoint, &stray);
        own.reset_sent(history, graph);
        own.error(history, graph);
    }
    for connection in 0..graph.connections.len() {
        let connection = graph.connections[connection].clone();
        let [a, b] = connection.ends;
        for (from, to, shift) in [(a, b, connection.shift[0]), (b, a, connection.shift[1])] {
            let proven = connection.proof == Proof::Must;
            let closer = OwnEnd::of(history, notable, graph, from, &stray);
            let other = OwnEnd::of(history, notable, graph, to, &stray);
            fin(history, graph, (&closer, &other), shift, proven);
            reset(history, graph, (&closer, &other), to, proven);
        }
    }
    refused(history, rare, graph);
    unmatched_resets(history, graph, &stray);
}

/// Resets that were sent for no socket, by the addresses that they bear.
type Stray = HashMap<(Address, Address), Vec<EventIndex>>;

fn stray_resets(history: &History, rare: &[EventIndex]) -> Stray {
    let mut stray = Stray::new();
    for &index in rare {
        let event = &history.events[index as usize];
        if event.op == Op::ResetSent && event.socket == 0 && event.local != Address::NONE {
            let key = (event.local, event.remote);
            stray.entry(key).or_default().push(index);
        }
    }
    stray
}

/// What one endpoint's end is made of.
#[derive(Default)]
struct OwnEnd {
    closes: Vec<EventIndex>,
    aborts: Vec<EventIndex>,
    resets_sent: Vec<EventIndex>,
    /// Resets in its name after the socket was gone.
    resets_sent_after: Vec<EventIndex>,
    resets_received: Vec<EventIndex>,
    errors: Vec<EventIndex>,
    eofs: Vec<EventIndex>,
    failures: Vec<EventIndex>,
    lossless: bool,
}

impl OwnEnd {
    fn of(history: &History, notable: &Notable, graph: &Graph, number: u32, stray: &Stray) -> Self {
        let endpoint = &graph.endpoints[number as usize];
        let mut own = Self { lossless: lossless(history, endpoint.host), ..Self::default() };
        for &index in notable.of(number) {
            let event = &history.events[index as usize];
            match event.op {
                Op::Close => own.closes.push(index),
                Op::Abort => own.aborts.push(index),
                Op::ResetSent => own.resets_sent.push(index),
                Op::ResetReceived => own.resets_received.push(index),
                Op::Error => own.errors.push(index),
                Op::Recv if event.flags.has(Flags::EOF) => own.eofs.push(index),
                Op::Send | Op::Recv if is_failure(event) => own.failures.push(index),
                _ => {}
            }
        }
        let first = graph.events_of_endpoint(endpoint).first();
        let named = stray.get(&(endpoint.local, endpoint.remote)).into_iter().flatten();
        let after = |&&r: &&EventIndex| {
            history.events[r as usize].host == endpoint.host
                && first.is_some_and(|&first| r > first)
        };
        own.resets_sent_after.extend(named.filter(after));
        own
    }

    /// Why a reset went out: the owner threw the connection away, or had closed it before.
    fn reset_sent(&self, history: &History, graph: &mut Graph) {
        for &reset in &self.resets_sent {
            let to = (reset, Side::Begin);
            let (causes, proven) = if self.aborts.is_empty() {
                (&self.closes, self.lossless)
            } else {
                (&self.aborts, true)
            };
            for &cause in causes {
                push_if(history, graph, proven, (cause, Side::Begin), to, KIND);
            }
        }
        for &reset in &self.resets_sent_after {
            for &cause in self.closes.iter().chain(&self.aborts) {
                graph.push_may(history, (cause, Side::Begin), (reset, Side::Begin), KIND);
            }
        }
    }

    /// From a reset to the error it sets, from an error to the call that returns it.
    fn error(&self, history: &History, graph: &mut Graph) {
        for &error in &self.errors {
            let by_reset = is_reset(&history.events[error as usize]);
            if let (true, [reset]) = (by_reset, &self.resets_received[..]) {
                let (from, to) = ((*reset, Side::Begin), (error, Side::Begin));
                push_if(history, graph, true, from, to, KIND);
            }
        }
        let causes = if self.errors.is_empty() { &self.resets_received } else { &self.errors };
        let mut told = vec![false; causes.len()];
        for &failure in &self.failures {
            for (cause, told) in causes.iter().zip(&mut told) {
                let (error, call) =
                    (&history.events[*cause as usize], &history.events[failure as usize]);
                let same =
                    if error.op == Op::Error { error.error == call.error } else { is_reset(call) };
                let pipe = i32::from(call.error) == libc::EPIPE;
                if failure < *cause || !(same || pipe) {
                    continue;
                }
                // A socket tells its error once; calls after that fail because it is dead.
                let first = same && !*told && causes.len() == 1;
                *told |= same;
                push_if(history, graph, first, (*cause, Side::Begin), (failure, Side::End), KIND);
            }
        }
    }
}

/// How many sends before a reset are shown as what it may have answered.
const LAST_SENDS: usize = 4;

fn is_failure(event: &Event) -> bool {
    event.error != 0
        && i32::from(event.error) != libc::EAGAIN
        && i32::from(event.error) != libc::EINTR
}

fn is_reset(event: &Event) -> bool {
    matches!(i32::from(event.error), libc::ECONNRESET | libc::EPIPE | libc::ECONNREFUSED)
}

/// A close queues a FIN, which takes one position of the stream; the EOF that is received there is it.
fn fin(
    history: &History,
    graph: &mut Graph,
    (closer, other): (&OwnEnd, &OwnEnd),
    shift: u64,
    proven: bool,
) {
    for &close in &closer.closes {
        for &eof in &other.eofs {
            let (cause, effect) = (&history.events[close as usize], &history.events[eof as usize]);
            let placed = cause.has_range() && effect.has_range();
            let at = cause.stream_start.wrapping_add(shift);
            let same = placed && at == effect.stream_start;
            if same || !placed {
                push_if(
                    history,
                    graph,
                    proven && same,
                    (close, Side::Begin),
                    (eof, Side::End),
                    KIND,
                );
            }
        }
    }
}

/// From the reset that one end sent, or the act that made it, to its arrival at the other.
fn reset(
    history: &History,
    graph: &mut Graph,
    (from, to): (&OwnEnd, &OwnEnd),
    receiver: u32,
    proven: bool,
) {
    let sent: Vec<EventIndex> =
        from.resets_sent.iter().chain(&from.resets_sent_after).copied().collect();
    let causes = if sent.is_empty() { &from.aborts } else { &sent };
    let proven = proven && causes.len() == 1 && from.lossless;
    for &received in &to.resets_received {
        for &cause in causes {
            push_if(history, graph, proven, (cause, Side::Begin), (received, Side::Begin), KIND);
        }
    }
    // A reset that no abort explains answers something that the other end sent.
    if from.aborts.is_empty() && !sent.is_empty() {
        // Nothing that was sent after it came in made it.
        let came = to.resets_received.first().copied().unwrap_or(EventIndex::MAX);
        let sends = last_sends(history, graph, receiver, came);
        for &reset in &sent {
            for &send in &sends {
                graph.push_may(history, (send, Side::Begin), (reset, Side::Begin), KIND);
            }
        }
    }
}

/// The last sends of an endpoint before an event.
fn last_sends(history: &History, graph: &Graph, endpoint: u32, to: EventIndex) -> Vec<EventIndex> {
    let events = graph.events_of_endpoint(&graph.endpoints[endpoint as usize]);
    let sent = |&&e: &&EventIndex| {
        let event = &history.events[e as usize];
        e < to && event.op == Op::Send && event.error == 0
    };
    events.iter().rev().filter(sent).take(LAST_SENDS).copied().collect()
}

/// A connection is refused since nobody listens (any more).
fn refused(history: &History, rare: &[EventIndex], graph: &mut Graph) {
    let listeners = Listeners::new(history, rare);
    for &index in rare {
        let error = &history.events[index as usize];
        if error.op != Op::Error || i32::from(error.error) != libc::ECONNREFUSED {
            continue;
        }
        let endpoint = graph.endpoint_of(history, index).map(|e| &graph.endpoints[e as usize]);
        let remote = endpoint.map_or(error.remote, |e| e.remote);
        let listened = listeners.before(history, error, remote, index);
        let Some(&last) = listened.last() else { continue };
        if history.events[last as usize].op != Op::Unlisten {
            continue;
        }
        let proven = lossless(history, error.host);
        push_if(history, graph, proven, (last, Side::Begin), (index, Side::Begin), KIND);
    }
}

/// Resets without a socket, and the endpoints that they reached, by mirrored addresses. Those name a connection of
/// one host; another host may have the same, so from there it is only possible.
fn unmatched_resets(history: &History, graph: &mut Graph, stray: &Stray) {
    let mut namesakes: HashMap<(u16, Address, Address), usize> = HashMap::new();
    for end in &graph.endpoints {
        *namesakes.entry((end.host, end.local, end.remote)).or_default() += 1;
    }
    for endpoint in 0..graph.endpoints.len() {
        let end = graph.endpoints[endpoint].clone();
        let alone = namesakes[&(end.host, end.local, end.remote)];
        if end.connection.is_some() {
            continue;
        }
        let reaches = |&&reset: &&EventIndex| {
            let event = &history.events[reset as usize];
            event.host == end.host || !is_loopback(history, event)
        };
        let sent = stray.get(&(end.remote, end.local)).into_iter().flatten();
        let sent: Vec<EventIndex> = sent.filter(reaches).copied().collect();
        if sent.is_empty() {
            continue;
        }
        let received: Vec<EventIndex> = graph
            .events_of_endpoint(&end)
            .iter()
            .copied()
            .filter(|&e| history.events[e as usize].op == Op::ResetReceived)
            .collect();
        for &reset in &sent {
            let event = &history.events[reset as usize];
            let netns = event.host == end.host && event.netns == end.netns && end.netns != 0;
            let proven = netns && alone == 1 && sent.len() == 1 && received.len() == 1;
            for &to in &received {
                push_if(history, graph, proven, (reset, Side::Begin), (to, Side::Begin), KIND);
            }
        }
    }
}

fn is_loopback(history: &History, event: &Event) -> bool {
    history.names.address(event.local).is_some_and(|a| a.ip().to_canonical().is_loopback())
}
