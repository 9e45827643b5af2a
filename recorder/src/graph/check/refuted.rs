//! Counted streams whose sums contradict the clock: calls that have too little room not to meet, and yet the one began
//! when the other had ended. Somebody whom nobody recorded moved bytes, and the calls lie elsewhere.

use std::collections::{HashMap, HashSet};

use super::bytes::{StreamOf, has_bytes, is_counted, stream_of};
use super::streams::Streams;
use crate::event::{Event, EventIndex, Op};

/// A stream, by the host and the numbers of its sending end.
type Numbers = (u16, u32, u32);

/// These streams, by their sending ends.
pub(super) fn streams(events: &[Event], streams: &Streams) -> HashSet<StreamOf> {
    let mut received: HashMap<Numbers, Vec<EventIndex>> = HashMap::new();
    let counted = |event: &Event| is_counted(event) && has_bytes(event);
    for (index, event) in events.iter().enumerate() {
        if event.op == Op::Recv && counted(event) {
            let numbers = (event.host, event.irs, event.iss);
            received.entry(numbers).or_default().push(index as EventIndex);
        }
    }
    let received: HashMap<Numbers, Received> =
        received.into_iter().map(|(key, calls)| (key, Received::new(calls, streams))).collect();
    let mut refuted = HashSet::new();
    for (index, event) in events.iter().enumerate() {
        if event.op != Op::Send || !counted(event) || refuted.contains(&stream_of(event)) {
            continue;
        }
        let Some(received) = received.get(&(event.host, event.iss, event.irs)) else { continue };
        let send = index as EventIndex;
        let ended = |receive: EventIndex| event.begin_ns > events[receive as usize].time_ns;
        let mut near = received.near(streams.within(send));
        if near.any(|receive| ended(receive) && streams.must_meet(send, receive)) {
            refuted.insert(stream_of(event));
        }
    }
    refuted
}

/// What one end received, by where its bytes begin at the lowest.
struct Received {
    calls: Vec<EventIndex>,
    starts: Vec<u64>,
    /// How far those up to each reach at most.
    reached: Vec<u64>,
}

impl Received {
    fn new(mut calls: Vec<EventIndex>, streams: &Streams) -> Self {
        calls.sort_by_key(|&call| streams.within(call).0);
        let starts = calls.iter().map(|&call| streams.within(call).0).collect();
        let mut highest = 0;
        let reach = |&call: &EventIndex| {
            highest = streams.within(call).1.max(highest);
            highest
        };
        let reached = calls.iter().map(reach).collect();
        Self { calls, starts, reached }
    }

    /// The calls that may reach into a stretch, and a few more.
    fn near(&self, (start, end): (u64, u64)) -> impl Iterator<Item = EventIndex> + '_ {
        let from = self.reached.partition_point(|&reached| reached <= start);
        let to = self.starts.partition_point(|&lowest| lowest < end).max(from);
        self.calls[from..to].iter().copied()
    }
}
