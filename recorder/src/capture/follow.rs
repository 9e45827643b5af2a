//! Following the rings: reads what was written since the last time, puts it in order, and decodes it.

use std::thread::sleep;
use std::time::Duration;

use anyhow::Result;

use crate::capture::decode::Decoder;
use crate::capture::ring::follower::Follower;
use crate::capture::ring::{Batch, Rings};
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

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::ops::Range;
    use std::os::fd::AsFd;
    use std::os::unix::fs::FileExt;

    use nix::sys::memfd::{MFdFlags, memfd_create};
    use probe_ebpf::event::{RareSlot, Slot, SocketName, kind, proven};
    use probe_ebpf::ring::Heads;

    use super::*;
    use crate::capture::cgroup::Cgroups;
    use crate::capture::ring::Shape;
    use crate::event::Event;

    const SOCKET: u64 = 7;
    const ISS: u32 = 1000;
    const SHAPE: Shape = Shape { cpus: 1, bulk_slots: 4, rare_slots: 4 };

    /// The rings of one CPU as a test writes them.
    struct Written {
        heads: File,
        bulk: File,
        rare: File,
    }

    impl Written {
        fn new() -> Self {
            let memory = |bytes: usize| {
                let fd = memfd_create(c"ring", MFdFlags::MFD_CLOEXEC).expect("memory is there");
                let file = File::from(fd);
                file.set_len(bytes as u64).expect("memory grows");
                file
            };
            Self {
                heads: memory(size_of::<Heads>()),
                bulk: memory(4 * size_of::<Slot>()),
                rare: memory(4 * size_of::<RareSlot>()),
            }
        }

        /// Positions that writers have taken.
        fn take(&self, bulk: u64, rare: u64) {
            let heads = Heads { bulk, rare, ..bytemuck::Zeroable::zeroed() };
            self.heads.write_all_at(bytemuck::bytes_of(&heads), 0).expect("it is memory");
        }

        /// The first slot of `rare`: what the socket is called.
        fn name(&self, time_ns: u64) {
            let name = SocketName {
                local_port: 80,
                remote_port: 5000,
                iss: ISS,
                proven: proven::AT_ESTABLISHED,
                ..bytemuck::Zeroable::zeroed()
            };
            let kind = kind::SOCKET;
            let slot = Slot { kind, socket: SOCKET, position: 1, time_ns, ..Slot::default() };
            let named = RareSlot { slot, detail: bytemuck::cast(name) };
            self.rare.write_all_at(bytemuck::bytes_of(&named), 0).expect("it is memory");
        }

        /// The first slot of `bulk`: ten bytes sent on the socket.
        fn send(&self, time_ns: u64) {
            let (kind, socket, position) = (kind::SEND, SOCKET, 1);
            let (result, sequence, count) = (10, ISS + 1 + 10, 10);
            let (pid, tid) = (4, 5);
            let call = Slot { kind, socket, position, time_ns, pid, tid, ..Slot::default() };
            let send = Slot { result, sequence, count, ..call };
            self.bulk.write_all_at(bytemuck::bytes_of(&send), 0).expect("it is memory");
        }

        fn follow(&self, from_ns: u64) -> Following {
            let maps = [self.heads.as_fd(), self.bulk.as_fd(), self.rare.as_fd()];
            let rings = Rings::of(maps, SHAPE).expect("memory can be mapped");
            let follower = Follower::new(&rings);
            Following::new(rings, follower, Decoder::new(Cgroups::default()), from_ns)
        }
    }

    /// What is handed out in one turn: which bytes, where that is known.
    fn handed_out(following: &mut Following) -> Vec<Option<Range<u64>>> {
        let range =
            |event: &Event| event.has_range().then_some(event.stream_start..event.stream_end);
        let mut found = Vec::new();
        let mut sink = |_: &_, events: &[Event]| {
            found.extend(events.iter().map(range));
            Ok(())
        };
        following.drain(&mut sink).expect("the sink takes all");
        found
    }

    #[test]
    fn what_comes_after_an_unfinished_slot_waits_for_it() {
        let written = Written::new();
        let then_ns = clock::monotonic_ns() - 100_000_000;
        let mut following = written.follow(then_ns - 1);
        // A program took the position of a name and was preempted; who stands by recorded the send.
        written.send(then_ns);
        written.take(1, 1);
        assert_eq!(handed_out(&mut following), []);
        assert!(following.window_to_ns < then_ns, "what is held back is said to be read");
        written.name(then_ns);
        assert_eq!(handed_out(&mut following), [Some(0..10)]);
        assert!(following.window_to_ns > then_ns, "what is read is not said to be");
    }

    #[test]
    fn it_does_not_wait_for_ever() {
        let written = Written::new();
        let then_ns = clock::monotonic_ns() - 2 * PREEMPTED.as_nanos() as u64;
        let mut following = written.follow(then_ns - 1);
        written.send(then_ns);
        written.take(1, 1);
        assert_eq!(handed_out(&mut following), [None]);
    }
}
