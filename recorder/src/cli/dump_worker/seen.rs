//! Whose events a dump holds: of whom it tells what they were doing.

use std::collections::HashSet;
use std::path::Path;

use foldhash::fast::RandomState;

use crate::event::Event;
use crate::recording::read::{self, ReadError};
use crate::state::State;

#[derive(Default)]
pub(super) struct Seen {
    threads: HashSet<(u32, u32), RandomState>,
    sockets: HashSet<u64, RandomState>,
    last: (u32, u64),
}

impl Seen {
    pub(super) fn add(&mut self, events: &[Event]) {
        for event in events {
            // Mostly it is the one before once more.
            let last = (event.tid, event.socket);
            if self.last != last {
                self.last = last;
                self.threads.insert((event.pid, event.tid));
                self.sockets.insert(event.socket);
            }
        }
    }

    /// All that a recording holds, from its index.
    pub(super) fn add_recording(&mut self, path: &Path) -> Result<(), ReadError> {
        let (_, index) = read::open_index(path)?;
        for part in index.parts.into_iter().flatten() {
            self.threads.extend(part.threads.iter().map(|thread| (thread.pid, thread.tid)));
            self.sockets.extend(part.sockets.iter().map(|socket| socket.cookie));
        }
        Ok(())
    }

    /// What of all that was read the dump is about.
    pub(super) fn of(&self, mut state: State) -> State {
        state.keep(&self.threads, &self.sockets);
        state
    }
}
