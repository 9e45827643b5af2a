//! Finds which calls at the two ends of a stream meet, without comparing each with each.

use super::Proof;
use crate::event::EventIndex;

/// A call's bytes: `len` of those in `lo .. hi + len`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub event: EventIndex,
    pub lo: u64,
    pub hi: u64,
    pub len: u64,
    pub peek: bool,
    /// Whether it can prove anything.
    pub sure: bool,
}

/// What was sent, or received, of a stream.
#[derive(Clone, Debug, Default)]
pub(super) struct Stream {
    pub spans: Vec<Span>,
    /// Stretches that the spans fill though it is not known how.
    pub filled: Vec<(u64, u64)>,
    /// Where the calls' bytes lie does not follow from what they reported.
    pub bypassed: bool,
    /// Offsets are sums of what calls moved.
    pub summed: bool,
}

impl Stream {
    /// The same calls where their bytes lie if every byte that was moved was seen.
    pub(super) fn counted(&self) -> Self {
        let mut moved = 0;
        let spans = self.spans.iter().map(|&span| {
            let counted = Span { lo: moved, hi: moved, ..span };
            moved += if span.peek { 0 } else { span.len };
            counted
        });
        Self { spans: spans.collect(), ..Self::default() }
    }
}

type Range = (u64, u64);

fn overlap(one: Range, other: Range) -> u64 {
    one.1.min(other.1).saturating_sub(one.0.max(other.0))
}

impl Span {
    fn outer(&self) -> Range {
        (self.lo, self.hi + self.len)
    }

    fn is_exact(&self) -> bool {
        self.lo == self.hi
    }

    /// At most so many of the bytes lie in a range.
    fn most_in(&self, range: Range) -> u64 {
        overlap(self.outer(), range).min(self.len)
    }

    /// Whether two calls have too little room not to meet.
    fn must_meet(&self, other: &Self) -> bool {
        let (one, two) = (self.outer(), other.outer());
        let common = overlap(one, two);
        common > 0 && self.len + other.len > one.1 - one.0 + two.1 - two.0 - common
    }
}

/// Candidates beyond this per call are counted and left out.
const MAY_MAX: usize = 256;

/// Calls `found` for each send and receive that meet; returns how many possible pairs were left out.
pub(super) fn meetings(
    sent: &Stream,
    received: &Stream,
    mut found: impl FnMut(EventIndex, EventIndex, Proof),
) -> u64 {
    // Which sends can an exact receive not do without? Which other receives can a send not?
    let exact = |receive: &Span, _: &Span| receive.is_exact();
    let uncertain = |_: &Span, receive: &Span| !receive.is_exact();
    let left_out = sweep(received, sent, exact, |receive, send, proof| found(send, receive, proof));
    if received.spans.iter().all(Span::is_exact) {
        return left_out;
    }
    left_out + sweep(sent, received, uncertain, found)
}

/// For each call at one end, those at the other that it meets, of the pairs that are wanted.
fn sweep(
    calls: &Stream,
    others: &Stream,
    wanted: impl Fn(&Span, &Span) -> bool,
    mut found: impl FnMut(EventIndex, EventIndex, Proof),
) -> u64 {
    let filled = &others.filled;
    let (calls, others) = (by_start(&calls.spans), by_start(&others.spans));
    let mut left_out = 0;
    let mut next = 0;
    // Those that begin below what was looked at so far, and do not end below the present call.
    let mut near: Vec<Span> = Vec::new();
    for call in calls.iter() {
        near.retain(|other| other.outer().1 > call.lo);
        while next < others.len() && others[next].lo < call.outer().1 {
            if others[next].outer().1 > call.lo {
                near.push(others[next]);
            }
            next += 1;
        }
        let needed = if call.is_exact() { Needed::of(filled, call, &near) } else { Vec::new() };
        let mut candidates = 0;
        for other in near.iter().filter(|other| overlap(other.outer(), call.outer()) > 0) {
            if !wanted(call, other) {
                continue;
            }
            let meets = call.must_meet(other) || needed.iter().any(|needed| needed.needs(other));
            if meets && call.sure && other.sure {
                found(call.event, other.event, Proof::Must);
            } else if candidates < MAY_MAX {
                candidates += 1;
                found(call.event, other.event, Proof::May);
            } else {
                left_out += 1;
            }
        }
    }
    left_out
}

/// A stretch of an exact call's bytes that calls at the other end filled, it is not known how: whoever
/// the rest of them cannot do without has had some of it.
struct Needed {
    range: Range,
    /// What all of them together could have had of it.
    most: u64,
}

impl Needed {
    fn of(filled: &[Range], call: &Span, near: &[Span]) -> Vec<Self> {
        let bytes = call.outer();
        let from = filled.partition_point(|range| range.1 <= bytes.0);
        let within = filled[from..].iter().take_while(|range| range.0 < bytes.1);
        let needed = |range: &Range| {
            let range = (range.0.max(bytes.0), range.1.min(bytes.1));
            Self { range, most: near.iter().map(|other| other.most_in(range)).sum() }
        };
        within.map(needed).collect()
    }

    fn needs(&self, other: &Span) -> bool {
        self.most - other.most_in(self.range) < self.range.1 - self.range.0
    }
}

fn by_start(spans: &[Span]) -> std::borrow::Cow<'_, [Span]> {
    let mut spans = std::borrow::Cow::Borrowed(spans);
    if !spans.is_sorted_by_key(|span| span.lo) {
        spans.to_mut().sort_by_key(|span| span.lo);
    }
    spans
}
