//! Following the rings: reads what was written since the last time, puts it in order, and decodes it.

use std::thread::sleep;
use std::time::Duration;

use anyhow::Result;

use crate::capture::decode::Decoder;
use crate::capture::ring::{Batch, Follower, Rings};
use crate::capture::{BLOCK, IN_FLIGHT, Sink, clock};
use crate::event::Ring;

/// The rings, where they have been read to, and what is known by what was read.
pub struct Following {
    pub rings: Rings,
    pub follower: Follower,
    pub decoder: Decoder,
    /// Up to when everything has been read.
    pub window_to_ns: u64,
    /// There was more to read the last time than is read in one go.
    pub behind: bool,
    /// Events that were read before everything older was: they wait for the next turn.
    waiting: Batch,
}

/// Slots of each ring that are read in one go, so that a follower which has fallen behind does not hold all of
/// the rings a second time.
const AT_ONCE: u64 = 1 << 16;

/// How long what comes after a slot is held back whose writer is not done: where the kernel preempts programs, it is done
/// when its thread gets a CPU again.
const PREEMPTED: Duration = Duration::from_secs(1);

impl Following {
    pub fn new(rings: Rings, follower: Follower, decoder: Decoder, from_ns: u64) -> Self {
        let (window_to_ns, behind, waiting) = (from_ns, false, Batch::default());
        Self { rings, follower, decoder, window_to_ns, behind, waiting }
    }

    /// Reads what has been written up to a moment ago, or a good piece of it where that is much, and hands it to
    /// `sink`, in order of time.
    ///
    /// # Errors
    /// Those of `sink`.
    pub fn drain(&mut self, sink: &mut Sink<'_>) -> Result<u64> {
        let before = |now_ns: u64, span: Duration| now_ns.saturating_sub(span.as_nanos() as u64);
        let now_ns = clock::monotonic_ns();
        let drained = self.follower.drain(&self.rings, AT_ONCE, &mut self.waiting);
        self.behind = drained.more;
        let mut read_to_ns = drained.until_ns.min(before(now_ns, IN_FLIGHT));
        if !drained.more {
            read_to_ns = read_to_ns.max(before(now_ns, PREEMPTED));
        }
        let count = self.hand_out(read_to_ns, sink)?;
        self.window_to_ns = read_to_ns.max(self.window_to_ns);
        self.decoder.places.look();
        Ok(count)
    }

    /// Reads everything there is. Call it once, at the end.
    ///
    /// # Errors
    /// Those of `sink`.
    pub fn drain_rest(&mut self, sink: &mut Sink<'_>) -> Result<u64> {
        let end_ns = clock::monotonic_ns();
        let mut count = 0;
        // Programs that were busy writing a moment ago have finished by then.
        while self.window_to_ns < end_ns {
            sleep(IN_FLIGHT);
            count += self.drain(sink)?;
        }
        self.follower.drain(&self.rings, AT_ONCE, &mut self.waiting);
        Ok(count + self.hand_out(u64::MAX, sink)?)
    }

    fn hand_out(&mut self, until_ns: u64, sink: &mut Sink<'_>) -> Result<u64> {
        let ready = self.waiting.in_order(until_ns);
        let named = ready.iter().filter(|raw| raw.ring == Ring::Rare);
        self.decoder.look_ahead(named.map(|raw| (*raw, self.waiting.detail(raw))));
        let mut count = 0;
        let mut events = Vec::with_capacity(BLOCK.min(ready.len()));
        for block in ready.chunks(BLOCK) {
            events.clear();
            for raw in block {
                self.decoder.decode(raw, self.waiting.detail(raw), &mut events);
            }
            count += events.len() as u64;
            sink(&self.decoder.names, &events)?;
        }
        self.waiting.keep_after(until_ns);
        Ok(count)
    }
}
