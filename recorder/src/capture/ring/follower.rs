//! Reading behind the writers, and counting exactly what was missed.

use probe_ebpf::ring::intact;

use super::{Batch, Rings};
use crate::capture::IN_FLIGHT;
use crate::event::{Gap, Ring};

/// Reads behind the writers.
pub struct Follower {
    /// Next position to read, per CPU: `bulk`, `rare`.
    next: Vec<[u64; 2]>,
    /// Where the writers stood when they were last looked at.
    heads: Vec<[u64; 2]>,
    pub lost: u64,
    pub gaps: Vec<Gap>,
    /// Time of the last event read, per CPU and ring.
    last_ns: Vec<[u64; 2]>,
}

/// What was read of the rings.
pub struct Drained {
    /// Up to when everything was; `u64::MAX`: all there is.
    pub until_ns: u64,
    /// There is more than was to be read.
    pub more: bool,
}

/// What stands where reading a ring ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Nothing,
    More,
    /// A slot whose writer is not done: others wait behind it, among them names of events that are read already.
    Unfinished,
}

/// Most gaps that are named one by one; what is lost is counted all the same.
pub const MOST_GAPS: usize = 10_000;

impl Follower {
    /// Starts at the oldest position: what was written before anybody read is not lost.
    pub fn new(rings: &Rings) -> Self {
        let cpus = rings.cpus as usize;
        Self {
            next: vec![[0; 2]; cpus],
            heads: vec![[0; 2]; cpus],
            lost: 0,
            gaps: Vec::new(),
            last_ns: vec![[0; 2]; cpus],
        }
    }

    /// Goes on where another left off, who has everything up to a time: of `bulk` reads what is later, and
    /// of `rare` all that is there, for the names. Returns since when nothing is missing, per ring.
    pub fn resume(rings: &Rings, since_ns: u64) -> (Self, [u64; 2]) {
        let mut follower = Self::new(rings);
        let mut complete_from_ns = [since_ns; 2];
        for (cpu, ring) in (0..rings.cpus).flat_map(|cpu| [(cpu, Ring::Bulk), (cpu, Ring::Rare)]) {
            let (position, overwritten) = first(rings, cpu, ring, since_ns);
            follower.next[cpu as usize][ring as usize] = position;
            if overwritten {
                let (oldest, _) = rings.copy(cpu, ring, position);
                // As in a snapshot: an interrupted program may have stored an earlier time later.
                let from_ns = oldest.time_ns + IN_FLIGHT.as_nanos() as u64;
                let known = &mut complete_from_ns[ring as usize];
                *known = from_ns.max(*known);
            }
        }
        (follower, complete_from_ns)
    }

    /// Time of the oldest slot of `rare` that will be read; nothing where that is the first there was.
    pub fn oldest_name_ns(&self, rings: &Rings) -> Option<u64> {
        let next = self.next.iter().map(|next| next[Ring::Rare as usize]).zip(0..);
        let overwritten = next.filter(|(position, _)| *position > 0);
        overwritten.map(|(at, cpu)| rings.copy(cpu, Ring::Rare, at).0.time_ns).min()
    }

    /// Appends what has been written since the last time, of each ring at most so many slots. `bulk` before
    /// `rare`, since an event's names are written before it: whoever has the event finds its names.
    pub fn drain(&mut self, rings: &Rings, most: u64, out: &mut Batch) -> Drained {
        let mut drained = Drained { until_ns: u64::MAX, more: false };
        for ring in [Ring::Bulk, Ring::Rare] {
            for cpu in 0..rings.cpus {
                let end = self.drain_one(rings, cpu, ring, most, out);
                if end != End::Nothing {
                    let last_ns = self.last_ns[cpu as usize][ring as usize];
                    let known_ns = last_ns.saturating_sub(IN_FLIGHT.as_nanos() as u64);
                    drained.until_ns = drained.until_ns.min(known_ns);
                }
                drained.more |= end == End::More;
            }
        }
        drained
    }

    fn drain_one(
        &mut self,
        rings: &Rings,
        cpu: u32,
        ring: Ring,
        most: u64,
        out: &mut Batch,
    ) -> End {
        let slots = rings.slots(ring);
        let head = rings.head(cpu, ring);
        self.heads[cpu as usize][ring as usize] = head;
        let mut left = most;
        while self.next[cpu as usize][ring as usize] < head {
            if left == 0 {
                self.heads[cpu as usize][ring as usize] = self.next[cpu as usize][ring as usize];
                return End::More;
            }
            left -= 1;
            let position = self.next[cpu as usize][ring as usize];
            let (slot, detail) = rings.copy(cpu, ring, position);
            let now = rings.head(cpu, ring);
            if intact(position, slot.position, now, slots) {
                self.last_ns[cpu as usize][ring as usize] = slot.time_ns;
                out.push(slot, detail, cpu, ring);
                self.next[cpu as usize][ring as usize] += 1;
            } else if now > position + u64::from(slots) {
                self.skip(rings, cpu, ring, now);
            } else {
                return End::Unfinished;
            }
        }
        End::Nothing
    }

    /// Goes on at the oldest slot that will survive for a while, and notes what lies between.
    fn skip(&mut self, rings: &Rings, cpu: u32, ring: Ring, head: u64) {
        let slots = u64::from(rings.slots(ring));
        let next = &mut self.next[cpu as usize][ring as usize];
        let oldest = head - slots + slots / 32;
        let events = oldest - *next;
        *next = oldest;
        self.lost += events;
        let (after, _) = rings.copy(cpu, ring, oldest);
        if self.gaps.len() < MOST_GAPS {
            self.gaps.push(Gap {
                cpu,
                ring,
                from_ns: self.last_ns[cpu as usize][ring as usize],
                to_ns: after.time_ns,
                events,
            });
        }
    }

    /// How many slots the probes had taken, by their own count, when the rings were last read.
    pub fn written(&self) -> u64 {
        self.heads.iter().flatten().sum()
    }

    /// Since when everything that was written has been read: the end of the newest gap, 0 without any.
    pub fn complete_from(&self, ring: Ring) -> u64 {
        self.gaps.iter().filter(|g| g.ring == ring).map(|g| g.to_ns).max().unwrap_or(0)
    }
}

/// Where to begin so as to read all later than a time, and whether what comes before it was overwritten and may
/// be later, too.
fn first(rings: &Rings, cpu: u32, ring: Ring, since_ns: u64) -> (u64, bool) {
    /// Slots that are stepped over at once.
    const STEP: u64 = 1024;
    let (head, slots) = (rings.head(cpu, ring), u64::from(rings.slots(ring)));
    let oldest = (head + slots / 32).saturating_sub(slots).min(head);
    let mut position = match ring {
        Ring::Bulk => head,
        Ring::Rare => oldest,
    };
    while position > oldest {
        position = position.saturating_sub(STEP).max(oldest);
        let (slot, _) = rings.copy(cpu, ring, position);
        if slot.position == position + 1 && slot.time_ns < since_ns {
            return (position, false);
        }
    }
    (oldest, oldest > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Words per slot in the model: the position, and two that must belong together.
    const WORDS: usize = 3;
    const SLOTS: u32 = 2;

    /// One CPU's ring in memory, written and read a word at a time, so that a test can stop anywhere.
    #[derive(Clone, Default)]
    struct Model {
        head: u64,
        slots: [[u64; WORDS]; SLOTS as usize],
    }

    /// A writer in the order of the probes: takes a position, stores the words, the position last.
    #[derive(Clone, Copy)]
    struct Writer {
        step: usize,
        position: u64,
        left: usize,
    }

    impl Writer {
        fn step(&mut self, ring: &mut Model) {
            let slot = (self.position % u64::from(SLOTS)) as usize;
            match self.step {
                0 => {
                    self.position = ring.head;
                    ring.head += 1;
                }
                WORDS => ring.slots[slot][0] = self.position + 1,
                word => ring.slots[slot][word] = (self.position + 1) * 100,
            }
            self.step += 1;
            if self.step > WORDS {
                self.step = 0;
                self.left -= 1;
            }
        }
    }

    /// A reader in the order of [`Follower`]: copies a slot's words, then reads the head.
    #[derive(Clone, Copy)]
    struct Reader {
        step: usize,
        position: u64,
        copy: [u64; WORDS],
    }

    impl Reader {
        /// Takes a step; the copy when it is done and believed.
        fn step(&mut self, ring: &Model) -> Option<[u64; WORDS]> {
            if self.step < WORDS {
                let slot = (self.position % u64::from(SLOTS)) as usize;
                self.copy[self.step] = ring.slots[slot][self.step];
                self.step += 1;
                return None;
            }
            self.step = 0;
            let believed = intact(self.position, self.copy[0], ring.head, SLOTS);
            if believed {
                self.position += 1;
            } else if ring.head > self.position + u64::from(SLOTS) {
                self.position = ring.head - u64::from(SLOTS);
            }
            believed.then_some(self.copy)
        }
    }

    /// Runs every interleaving of the writers and `reads` steps of a reader; returns how many copies were believed.
    fn explore(ring: &Model, writers: [Writer; 2], reader: Reader, reads: usize) -> u64 {
        let mut believed = 0;
        for i in 0..2 {
            // The second writer interrupts the first on the same CPU: while it is at work, the first stands still.
            if writers[i].left == 0 || (i == 0 && writers[1].step != 0) {
                continue;
            }
            let (mut ring, mut writers) = (ring.clone(), writers);
            writers[i].step(&mut ring);
            believed += explore(&ring, writers, reader, reads);
        }
        if reads > 0 {
            let mut reader = reader;
            if let Some(copy) = reader.step(ring) {
                assert_eq!([copy[1], copy[2]], [copy[0] * 100; 2], "a torn slot was believed");
                believed += 1;
            }
            believed += explore(ring, writers, reader, reads - 1);
        }
        believed
    }

    #[test]
    fn no_interleaving_makes_a_reader_believe_a_torn_slot() {
        let writers =
            [Writer { step: 0, position: 0, left: 3 }, Writer { step: 0, position: 0, left: 1 }];
        let reader = Reader { step: 0, position: 0, copy: [0; WORDS] };
        assert!(explore(&Model::default(), writers, reader, 8) > 1000, "nothing was ever read");
    }

    #[test]
    fn without_the_second_look_at_the_head_torn_slots_would_pass() {
        // What the copy's own position says is not enough: the words were read one lap apart.
        assert!(!intact(0, 1, 3, SLOTS));
        assert!(intact(0, 1, 2, SLOTS));
        assert!(!intact(2, 1, 3, SLOTS));
    }
}
