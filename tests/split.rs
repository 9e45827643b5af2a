//! One history told by several hosts: as if each part of a machine had recorded itself, with a clock of its own.
//!
//! The graph of the parts has to be that of the whole. What two hosts cannot know of each other is named here, and
//! nothing else may be missing: signals and forks, which no connection carries, and who stopped listening
//! before a connection was refused, which rests on one host's addresses. What is more in it are possible edges
//! that one clock refutes and two do not.

use std::collections::BTreeMap;

use recorder::event::{Event, EventIndex, Gap, History, Op, Window};
use recorder::graph::{EdgeKind, Graph, Proof, Side, event_of};

/// The parts as one history, and where each of its events was in the whole.
pub struct Split {
    pub history: History,
    pub origin: Vec<EventIndex>,
}

/// What two graphs of the same events have in common, in edges.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Common {
    pub all: usize,
    pub bytes_between_parts: usize,
    /// Only in the whole, for one of the reasons above.
    pub unknowable: usize,
    /// Only in the parts: against the one clock of the whole.
    pub untimely: usize,
}

impl Common {
    /// Counts another comparison in.
    pub const fn add(&mut self, other: Self) {
        self.all += other.all;
        self.bytes_between_parts += other.bytes_between_parts;
        self.unknowable += other.unknowable;
        self.untimely += other.untimely;
    }
}

/// Gives each event to the host that `host` names, of those in `offsets_ns`, by which that host's clock is ahead.
///
/// # Panics
/// When `host` names none of them.
pub fn split(
    whole: &History,
    offsets_ns: &[u64],
    host: impl Fn(EventIndex, &Event) -> usize,
) -> Split {
    let mut history = History { names: whole.names.clone(), ..History::default() };
    let mut events: Vec<(Event, EventIndex)> = Vec::with_capacity(whole.events.len());
    let mut of: BTreeMap<usize, u16> = BTreeMap::new();
    for (index, event) in whole.events.iter().enumerate() {
        let index = index as EventIndex;
        let number = host(index, event);
        let offset = offsets_ns[number];
        let known = of.insert(number, event.host);
        assert!(known.is_none_or(|known| known == event.host), "a part is of one host");
        let (time_ns, begin_ns) = (event.time_ns + offset, event.begin_ns + offset);
        events.push((Event { host: number as u16, time_ns, begin_ns, ..*event }, index));
    }
    for (number, &offset) in offsets_ns.iter().enumerate() {
        let from = of.get(&number).map_or(0, |&host| usize::from(host));
        let mut part = whole.hosts[from].clone();
        part.name = format!("part-{number:03}");
        part.boot_id = format!("boot of part {number}");
        // As far as anybody outside knows, its wall clock is right.
        part.wall_offset_ns = part.wall_offset_ns.wrapping_sub(offset as i64);
        for window in [&mut part.bulk_window, &mut part.rare_window] {
            *window = Window { from_ns: window.from_ns + offset, to_ns: window.to_ns + offset };
        }
        let moved = |gap: &Gap| Gap {
            from_ns: gap.from_ns + offset,
            to_ns: gap.to_ns + offset,
            ..gap.clone()
        };
        part.gaps = part.gaps.iter().map(moved).collect();
        part.tasks.iter_mut().for_each(|task| task.start_ns += offset);
        history.hosts.push(part);
    }
    // By time within a host, else as in the whole.
    events.sort_by_key(|(event, index)| (event.host, event.time_ns, *index));
    let origin = events.iter().map(|&(_, index)| index).collect();
    history.events = events.into_iter().map(|(event, _)| event).collect();
    Split { history, origin }
}

/// An edge by its events' places in the whole.
type Place = (EventIndex, Side, EventIndex, Side, EdgeKind);

fn places(
    graph: &Graph,
    origin: impl Fn(EventIndex) -> EventIndex,
) -> BTreeMap<Place, (Proof, usize)> {
    let mut places = BTreeMap::new();
    for edge in graph.nodes.raw_edges() {
        let (from, to) = (event_of(edge.source()), event_of(edge.target()));
        let place = (origin(from.0), from.1, origin(to.0), to.1, edge.weight.kind);
        let known = places.entry(place).or_insert((edge.weight.proof, 0));
        known.1 += 1;
        if edge.weight.proof == Proof::Must {
            known.0 = Proof::Must;
        }
    }
    places
}

/// Compares the graphs of a whole and of its parts, edge by edge.
///
/// # Errors
/// An edge that only one of them has, or that is proven in one of them only, for no reason that is allowed.
pub fn compare(
    (whole, one): (&History, &Graph),
    (parts, other): (&Split, &Graph),
) -> Result<Common, String> {
    let mut part_of = vec![0; whole.events.len()];
    for (event, &origin) in parts.history.events.iter().zip(&parts.origin) {
        part_of[origin as usize] = event.host;
    }
    let mut common = Common::default();
    let in_whole = places(one, |event| event);
    let in_parts = places(other, |event| parts.origin[event as usize]);
    for (place, proof) in &in_whole {
        let &(from, _, to, _, kind) = place;
        let apart = part_of[from as usize] != part_of[to as usize];
        match in_parts.get(place) {
            Some(same) if same == proof => {
                common.all += 1;
                common.bytes_between_parts += usize::from(apart && kind == EdgeKind::Bytes);
            }
            None if apart && unknowable(whole, place) => common.unknowable += 1,
            found => {
                return Err(format!("the parts have {found:?} of {}", told(whole, place, *proof)));
            }
        }
    }
    for (place, proof) in in_parts.iter().filter(|(place, _)| !in_whole.contains_key(place)) {
        let &(from, _, to, _, _) = place;
        let apart = part_of[from as usize] != part_of[to as usize];
        if !(apart && proof.0 == Proof::May && untimely(whole, place)) {
            return Err(format!("only the parts have {}", told(whole, place, *proof)));
        }
        common.untimely += 1;
    }
    Ok(common)
}

fn unknowable(whole: &History, &(from, _, _, _, kind): &Place) -> bool {
    let cause = &whole.events[from as usize];
    matches!(kind, EdgeKind::Signal | EdgeKind::Task) || cause.op == Op::Unlisten
}

/// Whether the effect ended before the cause can have begun.
fn untimely(whole: &History, &(from, side, to, _, _): &Place) -> bool {
    let (cause, effect) = (&whole.events[from as usize], &whole.events[to as usize]);
    let early = side == Side::Begin && !cause.in_kernel_lane();
    let begun_ns = if early { cause.begin_ns } else { cause.time_ns };
    begun_ns > effect.time_ns
}

fn told(
    whole: &History,
    &(from, from_side, to, to_side, kind): &Place,
    proof: (Proof, usize),
) -> String {
    let event = |index: EventIndex, side: Side| {
        let event = &whole.events[index as usize];
        format!("{} of #{index} {} {event:?}", side.as_str(), whole.comm(event))
    };
    format!(
        "{} {} × {}\n  from {}\n  to   {}",
        proof.0.as_str(),
        kind.as_str(),
        proof.1,
        event(from, from_side),
        event(to, to_side)
    )
}
