//! The true order: moments and what caused them, as the model lived it.

use std::collections::BTreeSet;

use recorder::event::EventIndex;
use recorder::graph::{self, Node};

/// A point in one thread, kernel lane or packet's life. Numbered as they happened, so that causes have
/// lower numbers than effects.
pub type Moment = u32;

/// All moments, each with its direct causes.
#[derive(Debug, Default)]
pub struct Order {
    causes: Vec<Vec<Moment>>,
}

impl Order {
    pub fn add(&mut self, causes: &[Moment]) -> Moment {
        let moment = self.causes.len() as Moment;
        assert!(causes.iter().all(|&c| c < moment), "an effect before its cause");
        self.causes.push(causes.to_vec());
        moment
    }

    /// One more cause of a moment.
    pub fn precede(&mut self, cause: Moment, effect: Moment) {
        assert!(cause < effect, "an effect before its cause");
        self.causes[effect as usize].push(cause);
    }

    /// For each moment the set of those that happened before it, one bit each.
    fn pasts(&self) -> Pasts {
        let words = self.causes.len().div_ceil(64);
        let mut bits = vec![0u64; words * self.causes.len()];
        for (moment, causes) in self.causes.iter().enumerate() {
            let (before, rest) = bits.split_at_mut(moment * words);
            let past = &mut rest[..words];
            for &cause in causes {
                let cause = cause as usize;
                let inherited = &before[cause * words..][..words];
                past.iter_mut().zip(inherited).for_each(|(p, i)| *p |= i);
                past[cause / 64] |= 1 << (cause % 64);
            }
        }
        Pasts { words, bits }
    }
}

#[derive(Debug)]
struct Pasts {
    words: usize,
    bits: Vec<u64>,
}

/// Pairs of events, cause first.
pub type Pairs = BTreeSet<(EventIndex, EventIndex)>;

/// What really happened in a simulated history.
#[derive(Debug)]
pub struct Truth {
    /// Begin and end of each event of the history.
    moments: Vec<[Moment; 2]>,
    pasts: Pasts,
    /// Send and receive (or peek) of at least one same byte.
    pub bytes: Pairs,
    /// Directions of Unix sockets (host, cookie, sends) in which a call had moved bytes and not returned when all ended:
    /// no recorder can know of it.
    pub unfinished: BTreeSet<(u16, u64, bool)>,
    /// Close or shutdown, and the receive that saw the end of the stream because of it.
    pub eof: Pairs,
    /// What made a reset go out (abort, or `reset_sent`), and the `reset_received` of the other end.
    pub resets: Pairs,
    /// Connect, and `established` at either end.
    pub connections: Pairs,
    /// Fork, and the first event that the child raised.
    pub forks: Pairs,
    /// Signal, and the delivery it led to.
    pub signals: Pairs,
    pub seen: Seen,
}

/// How often the difficult things occurred in a history: a property over seeds in which they never do
/// would be an empty one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Calls in one direction of one socket, by several threads at a time.
    pub races: usize,
    /// Calls whose reported range is not the true one.
    pub misreported: usize,
    /// Bytes through Unix sockets, and those where several threads were at one direction.
    pub unix: usize,
    pub unix_races: usize,
    /// Calls whose bytes do not lie together in the stream.
    pub scattered: usize,
    /// Sends that waited for space.
    pub blocked_sends: usize,
    /// Receives stamped before a send whose bytes they hold.
    pub early_receives: usize,
    pub lost: usize,
    pub refused: usize,
    pub resets: usize,
    pub peeks: usize,
    pub spliced: usize,
    pub kills: usize,
    /// Threads with the number of a dead one.
    pub reused_tids: usize,
    /// Bytes edges between hosts.
    pub cross_host: usize,
    /// Connections with a shifted initial number.
    pub shifted: usize,
    /// Events with offsets beyond 4 GiB.
    pub far_offsets: usize,
}

impl Truth {
    pub(crate) fn new(order: &Order, moments: Vec<[Moment; 2]>, seen: Seen) -> Self {
        Self {
            moments,
            pasts: order.pasts(),
            bytes: Pairs::new(),
            unfinished: BTreeSet::new(),
            eof: Pairs::new(),
            resets: Pairs::new(),
            connections: Pairs::new(),
            forks: Pairs::new(),
            signals: Pairs::new(),
            seen,
        }
    }

    /// Whether `a` really happened before `b`: there was a chain of program order, bytes, packets,
    /// signals and forks from one to the other.
    pub fn happened_before(&self, a: Node, b: Node) -> bool {
        let (a, b) = (self.moment(a) as usize, self.moment(b) as usize);
        self.pasts.bits[b * self.pasts.words + a / 64] >> (a % 64) & 1 == 1
    }

    fn moment(&self, node: Node) -> Moment {
        let (event, side) = graph::event_of(node);
        self.moments[event as usize][side as usize]
    }
}
