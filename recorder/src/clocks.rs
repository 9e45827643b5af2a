//! How far the clocks of several hosts were apart, as far as their messages tell.
//!
//! A message is sent before it is received. Read on two clocks, that bounds how far apart they were:
//!
//! ```text
//! host a   ──────┬ sent, not before 5.000000 ──────────────────┬ received at 5.000310 ───▶
//!                 ╲                                           ╱
//! host b   ────────┴ received at 7.000120 ──── sent, not before 7.000180 ───────────────▶
//!
//!          b − a ≤ 7.000120 − 5.000000         b − a ≥ 7.000180 − 5.000310
//! ```
//!
//! Messages by way of other hosts bound it too: all bounds together are difference constraints, and the interval
//! comes of shortest paths. Clocks drift, so a bound that is older than the moment in question is
//! loosened by as much as two clocks can have parted since. Where no offset is left, something is not as it seems,
//! which is said.
//!
//! This is for people who read times of several hosts. No edge and no proof rests on it, and no time is
//! ever corrected by it.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use petgraph::Direction;
use petgraph::unionfind::UnionFind;
use petgraph::visit::EdgeRef;

use crate::event::{EventIndex, History, Op};
use crate::graph::{Graph, Proof, Side, event_of, node};

/// Two hosts' clocks are taken to run at rates that differ by at most one part in so many: twice what the kernel
/// lets a clock be corrected by (500 ppm).
const DRIFT: i128 = 1000;

/// Bounds that are kept from one host to another, the strictest of their stretch each.
const BOUNDS_MAX: usize = 1024;

/// One message's bound: the receiver's clock was ahead of the sender's by at most `effect_ns - cause_ns`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bound {
    pub cause: EventIndex,
    pub effect: EventIndex,
    /// A time at or before the cause, on its host's clock.
    pub cause_ns: u64,
    /// A time at or after the effect, on its host's clock.
    pub effect_ns: u64,
}

impl Bound {
    fn most(&self) -> i128 {
        i128::from(self.effect_ns) - i128::from(self.cause_ns)
    }
}

/// The messages from one host to another.
#[derive(Clone, Debug, Default)]
struct Way {
    bounds: Vec<Bound>,
    messages: u64,
}

/// What the messages of a history tell of its hosts' clocks.
#[derive(Clone, Debug, Default)]
pub struct Clocks {
    hosts: usize,
    ways: BTreeMap<(u16, u16), Way>,
}

/// By how much a host's monotonic clock is ahead of another's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offset {
    pub host: u16,
    /// At least, and at most; `None` where nothing tells.
    pub low_ns: Option<i128>,
    pub high_ns: Option<i128>,
    /// How many messages the two exchanged; none, where all that is known comes from other hosts.
    pub messages: u64,
}

impl Offset {
    /// Whether one offset fits both.
    pub fn meets(&self, other: &Self) -> bool {
        let below =
            |low: Option<i128>, high: Option<i128>| low.zip(high).is_none_or(|(l, h)| l <= h);
        below(self.low_ns, other.high_ns) && below(other.low_ns, self.high_ns)
    }

    /// The same for the wall clocks, which the hosts' monotonic clocks are some time from.
    #[must_use]
    pub fn by_wall_clock(&self, history: &History, of: u16) -> Self {
        let wall = |host: u16| i128::from(history.hosts[usize::from(host)].wall_offset_ns);
        let add = wall(self.host) - wall(of);
        let moved = |bound: Option<i128>| bound.map(|ns| ns + add);
        Self { low_ns: moved(self.low_ns), high_ns: moved(self.high_ns), ..*self }
    }
}

/// The clocks of a host that exchanged messages with others, directly or by way of others still.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reading {
    /// Whose clock the others are compared with, and what it showed.
    pub of: u16,
    pub at_ns: u64,
    pub offsets: Vec<Offset>,
}

/// Messages that no offset of two clocks explains, as long as these run at nearly the same rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Contradiction {
    pub hosts: [u16; 2],
    /// By how much the two differ.
    pub by_ns: i128,
    /// A message each way; nothing where it takes more than two hosts.
    pub messages: Option<[Bound; 2]>,
}

impl Clocks {
    /// Gathers what proven edges between hosts tell.
    pub fn new(history: &History, graph: &Graph) -> Self {
        let mut clocks = Self { hosts: history.hosts.len(), ways: BTreeMap::new() };
        for connection in graph.connections.iter().filter(|c| c.proof == Proof::Must) {
            let ends = connection.ends.map(|end| &graph.endpoints[end as usize]);
            if ends[0].host == ends[1].host {
                continue;
            }
            for &event in ends.iter().flat_map(|end| graph.events_of_endpoint(end)) {
                clocks.add_effects(history, graph, event);
            }
        }
        clocks.ways.values_mut().for_each(Way::thin);
        clocks
    }

    fn add_effects(&mut self, history: &History, graph: &Graph, cause: EventIndex) {
        let event = &history.events[cause as usize];
        // That a reset was sent is noted when it has left, perhaps when it has arrived.
        let told_in_time = [Op::Send, Op::Connect, Op::Established, Op::Close, Op::Abort];
        if !told_in_time.contains(&event.op) {
            return;
        }
        for side in [Side::Begin, Side::End] {
            let edges = graph.nodes.edges_directed(node(cause, side), Direction::Outgoing);
            for edge in edges.filter(|edge| edge.weight().proof == Proof::Must) {
                let effect = event_of(edge.target()).0;
                let then = &history.events[effect as usize];
                if then.host == event.host {
                    continue;
                }
                // Of a thread's act only a lower bound of its begin is known; what the kernel does takes no time.
                let early = side == Side::Begin && !event.in_kernel_lane();
                let cause_ns = if early { event.begin_ns } else { event.time_ns };
                let bound = Bound { cause, effect, cause_ns, effect_ns: then.time_ns };
                self.ways.entry((event.host, then.host)).or_default().add(bound);
            }
        }
    }

    /// By how much the other hosts' clocks were ahead of one host's when that showed `at_ns`.
    pub fn at(&self, of: u16, at_ns: u64) -> Result<Reading, Contradiction> {
        let mut known = vec![Interval::default(); self.hosts];
        known[usize::from(of)] = Interval { low: Some(0), high: Some(0) };
        let mut hosts = [of, of];
        // A change travels one way per round, and what it loosens bounds by gets 1000 times smaller each time.
        for _ in 0..2 * self.hosts + 32 {
            let mut changed = false;
            for (&(from, to), way) in &self.ways {
                let (f, t) = (usize::from(from), usize::from(to));
                let Some(most) = way.most(i128::from(at_ns), known[f], known[t]) else { continue };
                let high = known[f].high.map(|high| high + most);
                let low = known[t].low.map(|low| low - most);
                if known[t].lower(high) | known[f].raise(low) {
                    (changed, hosts) = (true, [from.min(to), from.max(to)]);
                }
                if let Some(by_ns) = known[t].empty().or(known[f].empty()) {
                    return Err(Contradiction { hosts, by_ns, messages: None });
                }
            }
            if !changed {
                return Ok(Reading { of, at_ns, offsets: self.offsets(of, &known) });
            }
        }
        // Bounds that never come to rest run in a circle.
        Err(Contradiction { hosts, by_ns: 0, messages: None })
    }

    fn offsets(&self, of: u16, known: &[Interval]) -> Vec<Offset> {
        let others = (0..self.hosts as u16).filter(|&host| host != of);
        others
            .map(|host| {
                let Interval { low, high } = known[usize::from(host)];
                Offset { host, low_ns: low, high_ns: high, messages: self.messages(of, host) }
            })
            .filter(|offset| offset.low_ns.is_some() || offset.high_ns.is_some())
            .collect()
    }

    /// How many messages two hosts exchanged.
    pub fn messages(&self, one: u16, other: u16) -> u64 {
        let ways = [(one, other), (other, one)];
        ways.iter().filter_map(|way| self.ways.get(way)).map(|way| way.messages).sum()
    }

    /// All clocks that messages join, when the first of them shows its first and its last of these messages.
    pub fn readings(&self) -> Vec<Result<Reading, Contradiction>> {
        let mut joined = UnionFind::<usize>::new(self.hosts);
        for &(from, to) in self.ways.keys() {
            joined.union(usize::from(from), usize::from(to));
        }
        let groups = joined.into_labeling();
        let mut firsts: BTreeMap<usize, (u16, u64, u64)> = BTreeMap::new();
        for (&(from, to), way) in &self.ways {
            let own = [(from, way.times(|b| b.cause_ns)), (to, way.times(|b| b.effect_ns))];
            for (host, (first, last)) in own {
                let known = firsts.entry(groups[usize::from(host)]).or_insert((host, first, last));
                match host.cmp(&known.0) {
                    Ordering::Less => *known = (host, first, last),
                    Ordering::Equal => *known = (host, known.1.min(first), known.2.max(last)),
                    Ordering::Greater => {}
                }
            }
        }
        let moments = firsts.values().flat_map(|&(of, first, last)| {
            let last = (last != first).then_some(last);
            std::iter::once((of, first)).chain(last.map(|last| (of, last)))
        });
        moments.map(|(of, at_ns)| self.at(of, at_ns)).collect()
    }

    /// Pairs of hosts whose messages fit no offset; if there are none, circles of hosts.
    pub fn contradictions(&self) -> Vec<Contradiction> {
        let forth = self.ways.iter().filter(|((from, to), _)| from < to);
        let both = forth.filter_map(|(&(a, b), way)| Some((a, b, way, self.ways.get(&(b, a))?)));
        let mut found: Vec<_> =
            both.filter_map(|(a, b, f, back)| f.against(back, [a, b])).collect();
        if found.is_empty() {
            found.extend(self.readings().into_iter().filter_map(Result::err));
        }
        found
    }
}

/// What is known of an offset.
#[derive(Clone, Copy, Debug, Default)]
struct Interval {
    low: Option<i128>,
    high: Option<i128>,
}

impl Interval {
    fn lower(&mut self, high: Option<i128>) -> bool {
        let better = high.is_some_and(|new| self.high.is_none_or(|old| new < old));
        if better {
            self.high = high;
        }
        better
    }

    fn raise(&mut self, low: Option<i128>) -> bool {
        let better = low.is_some_and(|new| self.low.is_none_or(|old| new > old));
        if better {
            self.low = low;
        }
        better
    }

    /// By how much the least is above the most.
    fn empty(self) -> Option<i128> {
        self.low.zip(self.high).map(|(low, high)| low - high).filter(|&by| by > 0)
    }

    /// How far a time on this clock may be from the moment in question, at most.
    fn distance(self, at_ns: i128, time_ns: u64) -> Option<i128> {
        let (low, high) = self.low.zip(self.high)?;
        let from = |offset: i128| (i128::from(time_ns) - at_ns - offset).abs();
        Some(i128::max(from(low), from(high)))
    }
}

impl Way {
    fn add(&mut self, bound: Bound) {
        self.messages += 1;
        self.bounds.push(bound);
        if self.bounds.len() == 8 * BOUNDS_MAX {
            self.thin();
        }
    }

    /// Keeps the strictest bound of each stretch of time.
    fn thin(&mut self) {
        self.bounds.sort_by_key(|bound| (bound.cause_ns, bound.effect_ns));
        if self.bounds.len() > BOUNDS_MAX {
            let stretches = self.bounds.chunks(self.bounds.len().div_ceil(BOUNDS_MAX));
            let strictest = stretches.filter_map(|s| s.iter().min_by_key(|b| b.most()));
            self.bounds = strictest.copied().collect();
        }
    }

    /// How far the receiver's clock was ahead at most at the moment in question: every message tells,
    /// less so the further away it is. That it was near is known from either of its ends.
    fn most(&self, at_ns: i128, from: Interval, to: Interval) -> Option<i128> {
        let loosened = |bound: &Bound| {
            let near = [from.distance(at_ns, bound.cause_ns), to.distance(at_ns, bound.effect_ns)];
            let distance = near.into_iter().flatten().min()?;
            Some(bound.most() + (distance + DRIFT - 1) / DRIFT)
        };
        self.bounds.iter().filter_map(loosened).min()
    }

    fn times(&self, time: impl Fn(&Bound) -> u64) -> (u64, u64) {
        let times = || self.bounds.iter().map(&time);
        (times().min().unwrap_or(0), times().max().unwrap_or(0))
    }

    /// The two messages, one each way, that contradict each other most, if any do.
    fn against(&self, back: &Self, hosts: [u16; 2]) -> Option<Contradiction> {
        // On the first host's clock: when, and by how much at most, or at least, the other's was ahead.
        let mosts = self.bounds.iter().map(|b| (b.cause_ns, true, b));
        let leasts = back.bounds.iter().map(|b| (b.effect_ns, false, b));
        let mut all: Vec<_> = mosts.chain(leasts).collect();
        all.sort_by_key(|&(at_ns, most, _)| (at_ns, !most));
        let mut worst: Option<Contradiction> = None;
        for forward in [true, false] {
            let sign = if forward { 1 } else { -1 };
            let mut strictest: Option<(i128, &Bound)> = None;
            for &(at_ns, most, bound) in &all {
                let since = sign * i128::from(at_ns);
                if most {
                    let here = DRIFT * bound.most() - since;
                    if strictest.is_none_or(|(least, _)| here < least) {
                        strictest = Some((here, bound));
                    }
                } else if let Some((least, forth)) = strictest {
                    let by_ns = (-DRIFT * bound.most() - since - least) / DRIFT;
                    if by_ns > worst.map_or(0, |worst| worst.by_ns) {
                        let messages = Some([*forth, *bound]);
                        worst = Some(Contradiction { hosts, by_ns, messages });
                    }
                }
            }
            all.reverse();
        }
        worst
    }
}

#[cfg(test)]
mod tests;
