//! Finds which spans of two streams' calls meet, without comparing each with each.

use super::Proof;
use crate::event::EventIndex;

/// A call's bytes: `len` of them, beginning somewhere in `lo ..= hi`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub event: EventIndex,
    pub lo: u64,
    pub hi: u64,
    pub len: u64,
}

impl Span {
    fn may_meet(&self, other: &Self) -> bool {
        self.lo < other.hi + other.len && other.lo < self.hi + self.len
    }

    /// Whether they meet wherever in their limits they lie: also when one lies as low and the other as
    /// high as possible.
    fn must_meet(&self, other: &Self) -> bool {
        self.hi < other.lo + other.len && other.hi < self.lo + self.len
    }
}

/// Candidates beyond this per receive are counted and left out.
const MAY_MAX: usize = 256;

/// Calls `found` for each send and receive that meet; returns how many possible pairs were left out.
pub(super) fn meetings(
    sent: &[Span],
    received: &[Span],
    mut found: impl FnMut(EventIndex, EventIndex, Proof),
) -> u64 {
    let (sent, received) = (by_start(sent), by_start(received));
    let mut left_out = 0;
    let mut next = 0;
    // Sends that begin below what was looked at so far, and do not end below the present receive.
    let mut near: Vec<Span> = Vec::new();
    for receive in received.iter() {
        near.retain(|send| send.hi + send.len > receive.lo);
        while next < sent.len() && sent[next].lo < receive.hi + receive.len {
            if sent[next].hi + sent[next].len > receive.lo {
                near.push(sent[next]);
            }
            next += 1;
        }
        let mut candidates = 0;
        for send in near.iter().filter(|send| send.may_meet(receive)) {
            if send.must_meet(receive) {
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

fn by_start(spans: &[Span]) -> std::borrow::Cow<'_, [Span]> {
    let mut spans = std::borrow::Cow::Borrowed(spans);
    if !spans.is_sorted_by_key(|span| span.lo) {
        spans.to_mut().sort_by_key(|span| span.lo);
    }
    spans
}
