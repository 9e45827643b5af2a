//! Finds which calls at the two ends of a stream meet, without comparing each with each.

use super::Proof;
use crate::event::EventIndex;

/// A call's bytes: `len` of them. A receive's begin somewhere in `lo ..= hi`; a send's lie somewhere in
/// `lo .. hi + len`, in one run only if that leaves no other way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub event: EventIndex,
    pub lo: u64,
    pub hi: u64,
    pub len: u64,
}

/// What was sent, or received, of a stream.
#[derive(Clone, Debug, Default)]
pub(super) struct Stream {
    pub spans: Vec<Span>,
    /// Stretches that the spans fill though it is not known how.
    pub filled: Vec<(u64, u64)>,
}

type Range = (u64, u64);

fn overlap(one: Range, other: Range) -> u64 {
    one.1.min(other.1).saturating_sub(one.0.max(other.0))
}

impl Span {
    fn outer(&self) -> Range {
        (self.lo, self.hi + self.len)
    }

    /// What a receive has taken wherever it lies.
    fn core(&self) -> Range {
        (self.hi, self.lo + self.len)
    }

    /// At most so many of a send's bytes lie in a range.
    fn most_in(&self, range: Range) -> u64 {
        overlap(self.outer(), range).min(self.len)
    }

    /// Whether a send's bytes meet a receive's wherever both lie.
    fn must_meet(&self, receive: &Self) -> bool {
        if self.lo == self.hi {
            return self.hi < receive.lo + receive.len && receive.hi < self.lo + self.len;
        }
        let outside = self.outer().1 - self.outer().0 - overlap(self.outer(), receive.core());
        outside < self.len
    }
}

/// Candidates beyond this per receive are counted and left out.
const MAY_MAX: usize = 256;

/// Calls `found` for each send and receive that meet; returns how many possible pairs were left out.
pub(super) fn meetings(
    sent: &Stream,
    received: &Stream,
    mut found: impl FnMut(EventIndex, EventIndex, Proof),
) -> u64 {
    let filled = &sent.filled;
    let (sent, received) = (by_start(&sent.spans), by_start(&received.spans));
    let mut left_out = 0;
    let mut next = 0;
    // Sends that begin below what was looked at so far, and do not end below the present receive.
    let mut near: Vec<Span> = Vec::new();
    for receive in received.iter() {
        near.retain(|send| send.outer().1 > receive.lo);
        while next < sent.len() && sent[next].lo < receive.outer().1 {
            if sent[next].outer().1 > receive.lo {
                near.push(sent[next]);
            }
            next += 1;
        }
        let needed = Needed::of(filled, receive, &near);
        let mut candidates = 0;
        for send in near.iter().filter(|send| overlap(send.outer(), receive.outer()) > 0) {
            if send.must_meet(receive) || needed.iter().any(|needed| needed.needs(send)) {
                found(send.event, receive.event, Proof::Must);
            } else if candidates < MAY_MAX {
                candidates += 1;
                found(send.event, receive.event, Proof::May);
            } else {
                left_out += 1;
            }
        }
    }
    left_out
}

/// A stretch that a receive took and that seen sends filled: whoever the others cannot do without has
/// sent some of it.
struct Needed {
    range: Range,
    /// What all sends together could have put there.
    most: u64,
}

impl Needed {
    fn of(filled: &[Range], receive: &Span, near: &[Span]) -> Vec<Self> {
        let core = receive.core();
        if core.0 >= core.1 {
            return Vec::new();
        }
        let from = filled.partition_point(|range| range.1 <= core.0);
        let within = filled[from..].iter().take_while(|range| range.0 < core.1);
        let needed = |range: &Range| {
            let range = (range.0.max(core.0), range.1.min(core.1));
            Self { range, most: near.iter().map(|send| send.most_in(range)).sum() }
        };
        within.map(needed).collect()
    }

    fn needs(&self, send: &Span) -> bool {
        self.most - send.most_in(self.range) < self.range.1 - self.range.0
    }
}

fn by_start(spans: &[Span]) -> std::borrow::Cow<'_, [Span]> {
    let mut spans = std::borrow::Cow::Borrowed(spans);
    if !spans.is_sorted_by_key(|span| span.lo) {
        spans.to_mut().sort_by_key(|span| span.lo);
    }
    spans
}
