//! What a stretch of a recording looks like: who asks whom, with which outcomes, and how long answers take, all of it
//! as the asking end of each TCP connection saw it.

use std::collections::{BTreeMap, HashMap};

use nix::errno::Errno;

use super::waits::Waits;
use crate::event::{Event, Flags, Names, Op, Protocol};
use crate::hide::Hide;

/// Who asks, and on which port whoever is asked listens. Addresses are not told apart: there are too many.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Pair {
    pub who: String,
    pub port: u16,
}

/// What went on between two.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Shape {
    /// How often each outcome came: `send`, `recv EOF`, `recv ECONNRESET`.
    pub acts: BTreeMap<String, f64>,
    /// From a request to the first of its answer.
    pub waits: Waits,
}

impl Shape {
    /// Of all outcomes.
    pub fn count(&self) -> f64 {
        self.acts.values().sum()
    }
}

pub type Shapes = BTreeMap<Pair, Shape>;

/// Takes the shapes of events that come one after the other, from a time on.
pub struct Shaper {
    from_ns: u64,
    hide: Hide,
    shapes: Shapes,
    /// Requests without an answer so far, by socket.
    asked: HashMap<(u16, u64), (Pair, u64)>,
    left_out: u64,
}

/// A request that has no answer after so long counts as one that is answered now.
const HUNG_NS: u64 = 1_000_000_000;
/// Pairs that are looked at: what else there is, is counted.
const MOST_PAIRS: usize = 10_000;

impl Shaper {
    pub fn new(from_ns: u64, hide: Hide) -> Self {
        Self { from_ns, hide, shapes: Shapes::new(), asked: HashMap::new(), left_out: 0 }
    }

    /// Takes in more events, in order of time.
    pub fn add(&mut self, names: &Names, events: &[Event]) {
        let from_ns = self.from_ns;
        for event in events.iter().filter(|event| event.time_ns >= from_ns) {
            if let (Some(pair), Some(act)) = (pair(names, event, &self.hide), act(event)) {
                self.take(event, pair, act);
            }
        }
    }

    fn take(&mut self, event: &Event, pair: Pair, act: String) {
        if self.shapes.len() >= MOST_PAIRS && !self.shapes.contains_key(&pair) {
            self.left_out += 1;
            return;
        }
        let socket = (event.host, event.socket);
        let shape = self.shapes.entry(pair.clone()).or_default();
        *shape.acts.entry(act).or_default() += 1.0;
        match event.op {
            Op::Send if event.result > 0 => {
                self.asked.insert(socket, (pair, event.time_ns));
            }
            Op::Recv if event.result > 0 => {
                if let Some((_, asked_ns)) = self.asked.remove(&socket) {
                    shape.waits.add(event.time_ns.saturating_sub(asked_ns));
                }
            }
            Op::Close | Op::Closed | Op::Abort => drop(self.asked.remove(&socket)),
            _ => {}
        }
    }

    /// The shapes of what happened up to a time, and how many events were left out.
    pub fn end(mut self, until_ns: u64) -> (Shapes, u64) {
        for (pair, asked_ns) in self.asked.into_values() {
            let wait_ns = until_ns.saturating_sub(asked_ns);
            // Others are merely under way.
            if wait_ns >= HUNG_NS {
                self.shapes.entry(pair).or_default().waits.add(wait_ns);
            }
        }
        (self.shapes, self.left_out)
    }
}

/// Whose act an event is, if it is one of whoever asks: the end that made the connection, as far as that was seen; else
/// the one with the higher port.
fn pair(names: &Names, event: &Event, hide: &Hide) -> Option<Pair> {
    if !matches!(event.protocol, Some(Protocol::Tcp | Protocol::Mptcp)) || event.pid == 0 {
        return None;
    }
    let port = |address| names.address(address).map(|address| address.port());
    let remote = port(event.remote).filter(|&port| port != 0)?;
    let asks = event.flags.has(Flags::ACTIVE) || port(event.local).is_some_and(|own| own > remote);
    let name = hide.name(names.text(event.comm));
    let who = family(&name);
    (asks && !who.is_empty()).then(|| Pair { who: who.to_owned(), port: remote })
}

/// A thread's name without its number among others of its kind: `worker-17` is `worker`.
fn family(comm: &str) -> &str {
    let stem = comm.trim_end_matches(|c: char| c.is_ascii_digit());
    match stem.chars().next_back() {
        Some('-' | '_' | '/' | '#' | ':' | ' ') if stem.len() < comm.len() => {
            stem.trim_end_matches(['-', '_', '/', '#', ':', ' '])
        }
        _ => comm,
    }
}

/// What stands in the place of an errno where a stream has ended.
pub const EOF: &str = "EOF";

/// What happened, in a word or two; nothing for calls that found nothing to do, nor for what is recorded only at times.
fn act(event: &Event) -> Option<String> {
    if event.op.is_detail() {
        return None;
    }
    let idle = [Errno::EAGAIN, Errno::EINTR, Errno::EINPROGRESS, Errno::EALREADY, Errno::EISCONN];
    let op = event.op.as_str();
    match Errno::from_raw(event.error.into()) {
        _ if event.error == 0 && event.op == Op::Recv && event.flags.has(Flags::EOF) => {
            Some(format!("{op} {EOF}"))
        }
        _ if event.error == 0 => Some(op.to_owned()),
        errno if idle.contains(&errno) => None,
        errno => Some(format!("{op} {errno:?}")),
    }
}

/// Whether an outcome is of the kind that a person wants to hear of.
pub fn is_failure(act: &str) -> bool {
    act.contains(' ') || [Op::ResetReceived, Op::ResetSent].iter().any(|op| op.as_str() == act)
}
