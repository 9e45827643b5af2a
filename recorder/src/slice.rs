//! Slices: what must, and what may, have influenced an event, or have been influenced by it.
//!
//! Must follows proven edges only. May follows possible edges too, and unobserved channels: what the
//! threads of one process (or cgroup, or host) tell each other through memory, files and locks. Whatever
//! neither reaches is excluded, if the recording is complete.

mod chain;
#[cfg(test)]
mod tests;
mod unsent;

use std::collections::VecDeque;

use petgraph::Direction;
use petgraph::graph::EdgeIndex;
use petgraph::visit::EdgeRef;

pub use chain::{Link, Look, STEPS_MAX, Step, Trace, chain, trace};
pub use unsent::Unsent;

use crate::event::{Event, EventIndex, History, Ring};
use crate::graph::{Graph, Node, Proof, Side, complete, event_of, node};

/// How far unobserved channels are assumed to reach.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Domain {
    #[default]
    Process,
    Cgroup,
    Host,
}

/// What to slice by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    pub domain: Domain,
    /// At most so many steps from the symptom; the way through an event is no step.
    pub depth: Option<u32>,
    /// Whether the history is a part of what was recorded: what is not there may only not have been read.
    pub partial: bool,
}

/// How a slice reaches an event. Ordered: must is the greater.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Reach {
    #[default]
    Not,
    May,
    Must,
}

/// The answer to "can this have influenced that?".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    Must,
    May,
    /// Neither, and nothing is missing from the recording.
    Excluded,
    /// Neither, as far as can be seen; but the recording is not complete.
    CannotSay,
}

/// By what a node was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    /// It is where the slice starts.
    Start,
    /// An edge, with its other node nearer to the start.
    Edge(EdgeIndex<u32>),
    /// An unobserved channel, to or from this event.
    Channel(EventIndex),
}

/// Part of a graph: what was reached from some events, and how.
#[derive(Clone, Debug)]
pub struct Slice {
    /// [`Direction::Incoming`]: backward, from effects to causes.
    pub direction: Direction,
    pub symptoms: Vec<EventIndex>,
    /// The events that were reached, nearest first, symptoms included: must first, then may.
    pub order: Vec<EventIndex>,
    /// Backward: what came from other recorded hosts and is not in their recordings.
    pub unsent: Vec<Unsent>,
    /// By node.
    reach: Vec<Reach>,
    /// By node, as [`Via::pack`] says.
    via: Vec<u32>,
}

/// What led to the symptoms.
pub fn backward(
    history: &History,
    graph: &Graph,
    symptoms: &[EventIndex],
    options: Options,
) -> Slice {
    walk(history, graph, symptoms, options, Direction::Incoming)
}

/// What the symptoms led to.
pub fn forward(
    history: &History,
    graph: &Graph,
    symptoms: &[EventIndex],
    options: Options,
) -> Slice {
    walk(history, graph, symptoms, options, Direction::Outgoing)
}

impl Slice {
    /// How the slice reaches an event, by either of its sides.
    pub fn reach(&self, event: EventIndex) -> Reach {
        let side = |side| self.reach[node(event, side).index()];
        side(Side::Begin).max(side(Side::End))
    }

    /// By what the slice came to a node; `None` where it did not.
    pub fn via(&self, node: Node) -> Option<Via> {
        (self.reach[node.index()] != Reach::Not).then(|| Via::unpack(self.via[node.index()]))
    }

    /// The way from an event to a symptom: each node with what leads from it to the next. Empty when
    /// there is none.
    pub fn path(&self, graph: &Graph, event: EventIndex) -> Vec<(Node, Via)> {
        // The side by which the slice came to the event: the one that is reached with more certainty.
        let near = if self.direction == Direction::Incoming { Side::End } else { Side::Begin };
        let far = if self.direction == Direction::Incoming { Side::Begin } else { Side::End };
        let (near, far) = (node(event, near), node(event, far));
        let mut at = if self.reach[near.index()] >= self.reach[far.index()] { near } else { far };
        let mut path = Vec::new();
        while let Some(via) = self.via(at) {
            path.push((at, via));
            at = match via {
                Via::Start => break,
                Via::Edge(edge) => {
                    let Some((from, to)) = graph.nodes.edge_endpoints(edge) else { break };
                    if self.direction == Direction::Incoming { to } else { from }
                }
                Via::Channel(event) => node(event, far_side(self.direction)),
            };
        }
        path
    }

    /// Whether the event can have influenced the symptoms (or been influenced by them).
    pub fn verdict(&self, history: &History, event: EventIndex) -> Verdict {
        match self.reach(event) {
            Reach::Must => Verdict::Must,
            Reach::May => Verdict::May,
            Reach::Not if self.covered(history, event) => Verdict::Excluded,
            Reach::Not => Verdict::CannotSay,
        }
    }

    /// The same for all that a process did; the most of its events' verdicts.
    pub fn verdict_of_process(&self, history: &History, host: u16, pid: u32) -> Verdict {
        let mut worst = Verdict::Excluded;
        for (index, event) in history.events.iter().enumerate() {
            if event.host != host || event.pid != pid || event.in_kernel_lane() {
                continue;
            }
            match self.verdict(history, index as EventIndex) {
                Verdict::Must => return Verdict::Must,
                Verdict::May => worst = Verdict::May,
                Verdict::CannotSay if worst == Verdict::Excluded => worst = Verdict::CannotSay,
                _ => {}
            }
        }
        worst
    }

    /// Whether nothing is missing that could join the event to the symptoms.
    fn covered(&self, history: &History, event: EventIndex) -> bool {
        inside(history, &history.events[event as usize]) && self.can_exclude(history)
    }

    /// Whether nothing is lost, the symptoms lie where the recording is complete, and all that led to them from other
    /// recorded hosts does: else nobody is excluded.
    pub fn can_exclude(&self, history: &History) -> bool {
        let lossless = history.hosts.iter().all(|h| h.lost == 0 && h.gaps.is_empty());
        let whole = lossless && self.unsent.is_empty();
        whole && self.symptoms.iter().all(|&s| inside(history, &history.events[s as usize]))
    }
}

/// Whether an event lies in the window of its host.
pub fn inside(history: &History, event: &Event) -> bool {
    history.hosts.get(usize::from(event.host)).is_none_or(|host| {
        [Ring::Bulk, Ring::Rare]
            .iter()
            .all(|&ring| complete(host, ring, event.time_ns, event.time_ns))
    })
}

impl Via {
    const START: u32 = u32::MAX;
    const CHANNEL: u32 = 1 << 31;

    fn pack(self) -> u32 {
        match self {
            Self::Start => Self::START,
            Self::Edge(edge) => edge.index() as u32,
            Self::Channel(event) => event | Self::CHANNEL,
        }
    }

    fn unpack(packed: u32) -> Self {
        match packed {
            Self::START => Self::Start,
            edge if edge & Self::CHANNEL == 0 => Self::Edge(EdgeIndex::new(edge as usize)),
            event => Self::Channel(event & !Self::CHANNEL),
        }
    }
}

/// The side at which unobserved channels enter an event, seen from the symptom.
fn far_side(direction: Direction) -> Side {
    if direction == Direction::Incoming { Side::Begin } else { Side::End }
}

/// A breadth-first walk: first by must edges alone, then from all that reached by all that may be.
struct Walk<'a> {
    graph: &'a Graph,
    slice: Slice,
    queue: VecDeque<(Node, u32)>,
    seen: Vec<bool>,
}

fn walk(
    history: &History,
    graph: &Graph,
    symptoms: &[EventIndex],
    options: Options,
    direction: Direction,
) -> Slice {
    let nodes = graph.nodes.node_count();
    let slice = Slice {
        direction,
        symptoms: symptoms.to_vec(),
        order: Vec::new(),
        unsent: Vec::new(),
        reach: vec![Reach::Not; nodes],
        via: vec![Via::START; nodes],
    };
    let seen = vec![false; history.events.len()];
    let mut walk = Walk { graph, slice, queue: VecDeque::new(), seen };
    let depth = options.depth.unwrap_or(u32::MAX);
    let start = if direction == Direction::Incoming { Side::End } else { Side::Begin };
    for &symptom in symptoms {
        walk.reach(node(symptom, start), Reach::Must, Via::Start, 0);
    }
    let mut reached = Vec::new();
    while let Some((at, steps)) = walk.queue.pop_front() {
        reached.push((at, steps));
        walk.edges(at, steps, depth, Reach::Must);
    }
    walk.queue.extend(reached);
    let mut channels = Channels::new(history, options.domain, direction);
    while let Some((at, steps)) = walk.queue.pop_front() {
        walk.edges(at, steps, depth, Reach::May);
        let (event, side) = event_of(at);
        if side == far_side(direction) && steps < depth {
            let near = if direction == Direction::Incoming { Side::End } else { Side::Begin };
            for other in channels.open(history, event) {
                if other != event {
                    walk.reach(node(other, near), Reach::May, Via::Channel(event), steps + 1);
                }
            }
        }
    }
    let mut slice = walk.slice;
    if direction == Direction::Incoming {
        slice.unsent = unsent::unsent(history, graph, &slice.order);
        slice.unsent.retain(|unsent| unsent.after_all || !options.partial);
    }
    slice
}

impl Walk<'_> {
    fn reach(&mut self, at: Node, reach: Reach, via: Via, steps: u32) {
        let known = &mut self.slice.reach[at.index()];
        if *known != Reach::Not {
            return;
        }
        *known = reach;
        self.slice.via[at.index()] = via.pack();
        let (event, _) = event_of(at);
        if !self.seen[event as usize] {
            self.seen[event as usize] = true;
            self.slice.order.push(event);
        }
        // The way through an event is no step: what it leads to is as near as the event.
        match self.queue.front() {
            Some(&(_, next)) if steps < next => self.queue.push_front((at, steps)),
            _ => self.queue.push_back((at, steps)),
        }
    }

    fn edges(&mut self, at: Node, steps: u32, depth: u32, reach: Reach) {
        let graph = self.graph;
        for edge in graph.nodes.edges_directed(at, self.slice.direction) {
            if reach == Reach::Must && edge.weight().proof == Proof::May {
                continue;
            }
            let incoming = self.slice.direction == Direction::Incoming;
            let next = if incoming { edge.source() } else { edge.target() };
            let within = event_of(next).0 == event_of(at).0;
            if within || steps < depth {
                let steps = if within { steps } else { steps + 1 };
                self.reach(next, reach, Via::Edge(edge.id()), steps);
            }
        }
    }
}

/// Unobserved channels: within a group, whatever has ended may have influenced whatever has not.
///
/// Per group a water mark says up to where events have been handed out, so that all of it is linear.
struct Channels {
    direction: Direction,
    /// Group of each event; `u32::MAX` for the kernel's, which take no part.
    group: Vec<u32>,
    /// Events of each group, in order of time.
    members: Vec<Vec<EventIndex>>,
    /// How many of a group have been handed out: its oldest, or its newest.
    handed_out: Vec<usize>,
}

impl Channels {
    fn new(history: &History, domain: Domain, direction: Direction) -> Self {
        let mut index = std::collections::HashMap::new();
        let mut members: Vec<Vec<EventIndex>> = Vec::new();
        let mut group = Vec::with_capacity(history.events.len());
        for (number, event) in history.events.iter().enumerate() {
            if event.in_kernel_lane() {
                group.push(u32::MAX);
                continue;
            }
            let within = match domain {
                Domain::Process => event.pid,
                Domain::Cgroup => event.cgroup.0,
                Domain::Host => 0,
            };
            let id = *index.entry((event.host, within)).or_insert_with(|| {
                members.push(Vec::new());
                members.len() as u32 - 1
            });
            members[id as usize].push(number as EventIndex);
            group.push(id);
        }
        let handed_out = vec![0; members.len()];
        Self { direction, group, members, handed_out }
    }

    /// The events that a channel may join to this one, and that were not handed out before. The begin of
    /// an event may be as late as its end.
    fn open(&mut self, history: &History, event: EventIndex) -> Vec<EventIndex> {
        let group = self.group[event as usize];
        if group == u32::MAX {
            return Vec::new();
        }
        let members = &self.members[group as usize];
        let done = &mut self.handed_out[group as usize];
        let time = history.events[event as usize].time_ns;
        let end = |e: EventIndex| history.events[e as usize].time_ns;
        if self.direction == Direction::Incoming {
            let from = *done;
            while members.get(*done).is_some_and(|&e| end(e) <= time) {
                *done += 1;
            }
            members[from..*done].to_vec()
        } else {
            let upto = members.len() - *done;
            while members[..members.len() - *done].last().is_some_and(|&e| end(e) >= time) {
                *done += 1;
            }
            members[members.len() - *done..upto].to_vec()
        }
    }
}
