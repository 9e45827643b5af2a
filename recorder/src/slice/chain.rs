//! The chain that a person reads first: one proven way from the symptom back to an origin.
//!
//! Many ways lead back. At each step the chain takes the cause that tells most: a signal before the end of
//! a connection, that before bytes, those before the making of a connection. Where an event has
//! no cause outside its thread, the thread's earlier events are looked through for one that has.

use std::cmp::Reverse;

use petgraph::Direction;
use petgraph::graph::EdgeIndex;
use petgraph::visit::EdgeRef;

use super::Slice;
use crate::event::{EventIndex, History, Op};
use crate::graph::{EdgeKind, Graph, Node, Proof, Side, event_of, node};

/// One event of a chain, and what joins it to the one before it (which is nearer to the symptom).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    pub event: EventIndex,
    pub link: Link,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// It is the symptom.
    Symptom,
    /// A proven edge leads from this event to the step before.
    Edge(EdgeIndex<u32>),
    /// The same thread did this earlier.
    Thread,
}

/// How far a thread's earlier events are looked through: those that are always recorded, and with what more detail adds
/// between them.
const LOOK_BACK: usize = 256;
const LOOK_BACK_IN_DETAIL: usize = 4096;
/// No chain is longer; one of that length may go on.
pub const STEPS_MAX: usize = 256;

/// A chain, and what it was chosen from.
#[derive(Clone, Debug, Default)]
pub struct Trace {
    pub steps: Vec<Step>,
    pub looks: Vec<Look>,
}

impl Trace {
    /// Leaves at most so many steps, and what they were chosen from.
    pub fn cut(&mut self, steps: usize) {
        self.steps.truncate(steps);
        let kept = |look: &Look| self.steps.iter().any(|step| step.event == look.from);
        self.looks.retain(kept);
    }
}

/// One look at what a thread did before an event.
#[derive(Clone, Debug, Default)]
pub struct Look {
    pub from: EventIndex,
    /// The earlier events that were looked at, newest first.
    pub events: Vec<EventIndex>,
    /// There were no more of them.
    pub exhausted: bool,
}

/// The chain from a symptom of a backward slice to its origin: an event that nothing outside its own
/// thread must precede.
pub fn chain(history: &History, graph: &Graph, slice: &Slice, symptom: EventIndex) -> Vec<Step> {
    debug_assert_eq!(slice.direction, Direction::Incoming, "chains lead back");
    trace(history, graph, symptom).steps
}

/// The same, with what was looked at on the way.
pub fn trace(history: &History, graph: &Graph, symptom: EventIndex) -> Trace {
    let mut looks = Vec::new();
    let mut steps = vec![Step { event: symptom, link: Link::Symptom }];
    let mut at = node(symptom, Side::End);
    let mut seen = std::collections::HashSet::from([symptom]);
    while steps.len() < STEPS_MAX {
        let event = event_of(at).0;
        if is_origin(history, graph, event) {
            break;
        }
        let earlier = cause(history, graph, at, steps.len() == 1)
            .map(|edge| (event, edge))
            .or_else(|| thread_cause(history, graph, event, &mut looks));
        let Some((through, edge)) = earlier else { break };
        let Some((from, _)) = graph.nodes.edge_endpoints(edge) else { break };
        let next = event_of(from).0;
        if !seen.insert(next) {
            break;
        }
        if through != event {
            seen.insert(through);
            steps.push(Step { event: through, link: Link::Thread });
        }
        steps.push(Step { event: next, link: Link::Edge(edge) });
        at = from;
    }
    Trace { steps, looks }
}

/// Whether an event is a fault that no other event of its led to. Whoever injected it wanted it: what its thread did before
/// made no difference. But a packet may be lost because a cut had begun, and a process takes another's place because that one was to be
/// restarted.
fn is_origin(history: &History, graph: &Graph, event: EventIndex) -> bool {
    let sides = [Side::Begin, Side::End].into_iter();
    let mut edges =
        sides.flat_map(|side| graph.nodes.edges_directed(node(event, side), Direction::Incoming));
    history.events[event as usize].op == Op::Fault
        && !edges.any(|edge| edge.weight().kind == EdgeKind::Fault)
}

/// The most telling cause of a node outside its thread: of its event's begin and, for an end, its end.
fn cause(history: &History, graph: &Graph, at: Node, symptom: bool) -> Option<EdgeIndex<u32>> {
    let (event, side) = event_of(at);
    let sides = [Some(at), (side == Side::End).then(|| node(event, Side::Begin))];
    let edges = sides.into_iter().flatten();
    edges
        .flat_map(|at| graph.nodes.edges_directed(at, Direction::Incoming))
        .filter(|edge| edge.weight().proof == Proof::Must)
        .filter_map(|edge| {
            let cause = event_of(edge.source()).0;
            let rank = rank(history, edge.weight().kind, event, symptom)?;
            Some((rank, Reverse(history.events[cause as usize].time_ns), edge.id()))
        })
        .min()
        .map(|(_, _, edge)| edge)
}

/// A lock that was let go wakes as well as an answer that is there: taken where nothing else is known.
const WAKE: u8 = 5;

/// How telling a cause is: the least is the most. `None`: not worth a step.
fn rank(history: &History, kind: EdgeKind, event: EventIndex, symptom: bool) -> Option<u8> {
    let event = &history.events[event as usize];
    match kind {
        // That a child has ended is rarely why its parent did something; it would hide the rest.
        EdgeKind::Signal if i32::from(event.signal) == libc::SIGCHLD && !symptom => None,
        EdgeKind::Signal | EdgeKind::Fault => Some(0),
        EdgeKind::Close => Some(1),
        EdgeKind::Bytes => Some(2),
        EdgeKind::Connection => Some(3),
        EdgeKind::Task if event.op == Op::Call && event.target != 0 => symptom.then_some(4),
        EdgeKind::Wake => Some(WAKE),
        // Every thread was made by another: that explains nothing but a symptom without other causes.
        EdgeKind::Task => symptom.then_some(WAKE + 1),
        EdgeKind::Program if event.in_kernel_lane() => Some(WAKE + 1),
        EdgeKind::Interval | EdgeKind::Program => None,
    }
}

/// The earlier event of the same thread that tells most, with its cause. An answer is explained by what
/// happened since its request arrived; anything else by the nearest event that has a cause.
fn thread_cause(
    history: &History,
    graph: &Graph,
    event: EventIndex,
    looks: &mut Vec<Look>,
) -> Option<(EventIndex, EdgeIndex<u32>)> {
    let here = &history.events[event as usize];
    if here.in_kernel_lane() {
        return None;
    }
    let lives = graph.lives_of(here.host, here.tid).iter();
    let mut lives = lives.map(|life| graph.events_of_thread(life));
    let (life, place) = lives.find_map(|l| l.iter().position(|&e| e == event).map(|p| (l, p)))?;
    let mut best: Option<(u8, EventIndex, EdgeIndex<u32>)> = None;
    looks.push(Look { from: event, events: Vec::new(), exhausted: false });
    let look = looks.last_mut()?;
    let mut always = 0;
    for &earlier in life[..place].iter().rev() {
        always += usize::from(!history.events[earlier as usize].op.is_detail());
        if always > LOOK_BACK || look.events.len() == LOOK_BACK_IN_DETAIL {
            return best.map(|(_, event, edge)| (event, edge));
        }
        look.events.push(earlier);
        let at = node(earlier, Side::End);
        let Some(edge) = cause(history, graph, at, false) else { continue };
        let kind = graph.nodes[edge].kind;
        let rank = rank(history, kind, earlier, false).unwrap_or(u8::MAX);
        let then = &history.events[earlier as usize];
        let request = then.op == Op::Recv && then.socket == here.socket && kind == EdgeKind::Bytes;
        if request {
            let best = best.filter(|&(rank, ..)| rank != WAKE);
            return best.map_or(Some((earlier, edge)), |(_, event, edge)| Some((event, edge)));
        }
        if best.is_none_or(|(least, ..)| rank < least) {
            best = Some((rank, earlier, edge));
        }
        if here.op != Op::Send && kind != EdgeKind::Wake {
            return best.map(|(_, event, edge)| (event, edge));
        }
    }
    look.exhausted = true;
    best.map(|(_, event, edge)| (event, edge))
}
