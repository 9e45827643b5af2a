//! Reads what sockets and threads are doing now. Nobody is stopped for it, and it is bounded: on a machine with more than this
//! reads, the rest is counted or named.

mod sockets;
mod threads;

use std::collections::BTreeMap;

use crate::capture::clock;
use crate::state::State;

/// So many are read at most, of which those that are in a recording are kept.
const MOST_SOCKETS: usize = 65_536;
const MOST_THREADS: usize = 16_384;
/// Network namespaces that are entered.
const MOST_NAMESPACES: usize = 64;

/// All there is.
pub fn read() -> State {
    let mut unread = Unread::default();
    let from_ns = clock::monotonic_ns();
    let processes = super::procfs::processes();
    let threads = threads::read(&processes, &mut unread);
    let sockets = sockets::read(&processes, &mut unread);
    let to_ns = clock::monotonic_ns();
    State { from_ns, to_ns, sockets, threads, unread: unread.told(), ..State::default() }
}

/// What could not be read: each reason once, with how often.
#[derive(Default)]
struct Unread(BTreeMap<String, u64>);

impl Unread {
    fn note(&mut self, what: impl std::fmt::Display) {
        *self.0.entry(what.to_string()).or_default() += 1;
    }

    fn told(self) -> Vec<String> {
        let told = self.0.into_iter().map(|(what, times)| match times {
            1 => what,
            _ => format!("{what} (× {times})"),
        });
        told.collect()
    }
}
