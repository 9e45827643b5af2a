//! One segment of the history, while it is being written: a recording like any other.

use std::fs::File;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::capture::clock;
use crate::capture::follow::Following;
use crate::capture::ring::follower::MOST_GAPS;
use crate::capture::snapshot::Source;
use crate::event::{Event, Gap, Host, Names, Ring, Window};
use crate::hide::Hide;
use crate::recording::write::{WriteError, Writer};

pub struct Segment {
    writer: Writer<File>,
    path: PathBuf,
    /// What does not change while it is written.
    host: Host,
    /// Since when it is complete, per ring.
    from_ns: [u64; 2],
    /// Events that the probes had failed to write before.
    unwritten: u64,
    begun: Instant,
    flushed: Instant,
    events: u64,
}

impl Segment {
    pub fn create(
        path: PathBuf,
        source: &Source,
        from_ns: [u64; 2],
        unwritten: u64,
        hide: &Hide,
    ) -> Result<Self, WriteError> {
        let mut host = source.host();
        // The clock may have been set since the probes were attached.
        host.wall_offset_ns = clock::wall_offset_ns();
        [host.bulk_window, host.rare_window] =
            from_ns.map(|from_ns| Window { from_ns, to_ns: from_ns });
        let writer = Writer::hiding(&path, &host, hide.clone())?;
        let now = Instant::now();
        Ok(Self { writer, path, host, from_ns, unwritten, begun: now, flushed: now, events: 0 })
    }

    pub fn append(&mut self, names: &Names, events: &[Event]) -> Result<(), WriteError> {
        self.events += events.len() as u64;
        self.writer.append(names, events)
    }

    /// It turns out to be complete only since later.
    pub const fn begin_at(&mut self, from_ns: [u64; 2]) {
        self.from_ns = from_ns;
    }

    /// Writes down what is buffered. Threads are listed at the end alone: there may be thousands.
    pub fn flush(&mut self, following: &Following, unwritten: u64) -> Result<(), WriteError> {
        let host = self.host(following, unwritten);
        self.writer.set_host(&host);
        self.flushed = Instant::now();
        self.writer.flush()
    }

    /// Finishes the file; its path.
    pub fn finish(self, following: &Following, unwritten: u64) -> Result<PathBuf, WriteError> {
        let mut host = self.host(following, unwritten);
        host.tasks = following.decoder.tasks();
        self.writer.finish(&host)?;
        Ok(self.path)
    }

    pub fn lasts(&self) -> Duration {
        self.begun.elapsed()
    }

    pub fn since_flush(&self) -> Duration {
        self.flushed.elapsed()
    }

    /// Events that are not yet safe.
    pub fn buffered(&self) -> u64 {
        self.events - self.writer.complete_rows()
    }

    pub fn bytes(&self) -> u64 {
        std::fs::metadata(&self.path).map_or(0, |metadata| metadata.len())
    }

    fn host(&self, following: &Following, unwritten: u64) -> Host {
        let gaps = following.follower.gaps.clone();
        let to_ns = following.window_to_ns;
        let window = |ring: Ring| {
            // Nobody knows where the further ones are.
            let from_ns = if gaps.len() >= MOST_GAPS { to_ns } else { self.from_ns[ring as usize] };
            Window { from_ns: from_ns.min(to_ns), to_ns }
        };
        let (bulk_window, rare_window) = (window(Ring::Bulk), window(Ring::Rare));
        let lost =
            gaps.iter().map(|gap: &Gap| gap.events).sum::<u64>() + unwritten - self.unwritten;
        let places = &following.decoder.places;
        Host {
            bulk_window,
            rare_window,
            gaps,
            raised: self.events + lost,
            lost,
            containers: places.called(),
            namespaces: places.namespaces(),
            drop_reasons: following.decoder.reasons_seen(),
            drops_untold: following.rings.drops_untold(),
            ..self.host.clone()
        }
    }
}
