//! Which threads and sockets have events in which part of a recording, so that a slice reads only those.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::ops::Range;

use super::columns::ZSTD_LEVEL;
use super::pages::{take_varint, varint};
use crate::event::{Event, Op, Ring};

/// What a recording's parts hold, in their order in the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Index {
    /// `None` where a part's index is damaged: it may hold anything, and every question includes it.
    pub parts: Vec<Option<Part>>,
}

/// What one part (one Parquet row group) holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Part {
    pub events: u64,
    /// Ends of the first and last event, monotonic ns.
    pub from_ns: u64,
    pub to_ns: u64,
    /// How many of the events failed with an errno.
    pub errors: u64,
    /// Names of the threads that have events here.
    pub comms: Vec<String>,
    /// By process and thread; kernel lanes have thread 0.
    pub threads: Vec<Thread>,
    /// By cookie.
    pub sockets: Vec<Socket>,
    pub lanes: Vec<Lane>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Thread {
    pub pid: u32,
    pub tid: u32,
    pub events: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Socket {
    pub cookie: u64,
    pub events: u64,
    /// Hull of the stream offsets sent and received here.
    pub sent: Option<Range<u64>>,
    pub received: Option<Range<u64>>,
}

/// The events of one ring of one CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lane {
    pub cpu: u16,
    pub ring: Ring,
    pub events: u64,
    /// Lowest and highest ring position.
    pub first: u64,
    pub last: u64,
}

impl Index {
    /// The parts with events of this socket.
    pub fn row_groups_for_socket(&self, cookie: u64) -> Vec<usize> {
        self.row_groups(|part| part.sockets.binary_search_by_key(&cookie, |s| s.cookie).is_ok())
    }

    /// The parts with events of this thread (`tid` 0: of the process's kernel lanes).
    pub fn row_groups_for_thread(&self, pid: u32, tid: u32) -> Vec<usize> {
        let key = (pid, tid);
        self.row_groups(|part| part.threads.binary_search_by_key(&key, |t| (t.pid, t.tid)).is_ok())
    }

    /// The parts with events that end in this stretch, both ends included.
    pub fn row_groups_for_time(&self, from_ns: u64, to_ns: u64) -> Vec<usize> {
        self.row_groups(|part| part.from_ns <= to_ns && from_ns <= part.to_ns)
    }

    /// The parts that satisfy a test.
    pub fn row_groups(&self, test: impl Fn(&Part) -> bool) -> Vec<usize> {
        let passes = |&number: &usize| self.parts[number].as_ref().is_none_or(&test);
        (0..self.parts.len()).filter(passes).collect()
    }
}

impl Part {
    /// The index of these events; `comms` are the names of their threads.
    pub fn of(events: &[Event], comms: Vec<String>) -> Self {
        let mut threads: HashMap<(u32, u32), u64, Quick> = HashMap::default();
        let mut sockets: HashMap<u64, Socket, Quick> = HashMap::default();
        let mut lanes: Vec<Lane> = Vec::new();
        for event in events {
            *threads.entry((event.pid, event.tid)).or_default() += 1;
            if event.socket != 0 {
                sockets.entry(event.socket).or_default().add(event);
            }
            match lanes.iter_mut().find(|lane| lane.cpu == event.cpu && lane.ring == event.ring) {
                Some(lane) => lane.add(event.position),
                None => lanes.push(Lane {
                    cpu: event.cpu,
                    ring: event.ring,
                    events: 1,
                    first: event.position,
                    last: event.position,
                }),
            }
        }
        let mut part = Self {
            events: events.len() as u64,
            from_ns: events.iter().map(|event| event.time_ns).min().unwrap_or(0),
            to_ns: events.iter().map(|event| event.time_ns).max().unwrap_or(0),
            errors: events.iter().filter(|event| event.error != 0).count() as u64,
            comms,
            threads: threads
                .into_iter()
                .map(|((pid, tid), events)| Thread { pid, tid, events })
                .collect(),
            sockets: sockets.into_iter().map(|(cookie, s)| Socket { cookie, ..s }).collect(),
            lanes,
        };
        part.threads.sort_unstable_by_key(|thread| (thread.pid, thread.tid));
        part.sockets.sort_unstable_by_key(|socket| socket.cookie);
        part.lanes.sort_unstable_by_key(|lane| (lane.cpu, lane.ring));
        part
    }

    /// Compact bytes: numbers as varints, cookies and pids as differences, all of it compressed.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for number in [self.events, self.from_ns, self.to_ns, self.errors] {
            varint(number, &mut out);
        }
        varint(self.comms.len() as u64, &mut out);
        for comm in &self.comms {
            varint(comm.len() as u64, &mut out);
            out.extend_from_slice(comm.as_bytes());
        }
        varint(self.threads.len() as u64, &mut out);
        let mut pid = 0;
        for thread in &self.threads {
            varint(u64::from(thread.pid - pid), &mut out);
            varint(u64::from(thread.tid), &mut out);
            varint(thread.events, &mut out);
            pid = thread.pid;
        }
        varint(self.sockets.len() as u64, &mut out);
        let mut cookie = 0;
        for socket in &self.sockets {
            varint(socket.cookie - cookie, &mut out);
            varint(socket.events, &mut out);
            encode_range(socket.sent.as_ref(), &mut out);
            encode_range(socket.received.as_ref(), &mut out);
            cookie = socket.cookie;
        }
        varint(self.lanes.len() as u64, &mut out);
        for lane in &self.lanes {
            varint(u64::from(lane.cpu) << 1 | lane.ring as u64, &mut out);
            varint(lane.events, &mut out);
            varint(lane.first, &mut out);
            varint(lane.last - lane.first, &mut out);
        }
        zstd::bulk::compress(&out, ZSTD_LEVEL).expect("compressing memory into memory cannot fail")
    }

    /// The inverse of [`Part::encode`]; `None` if the bytes are not of it.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        // A part has at most PART_ROWS events, and each adds less than 128 bytes here.
        let bytes = zstd::bulk::decompress(bytes, super::PART_ROWS * 128).ok()?;
        let from = &mut bytes.as_slice();
        let mut part = Self {
            events: take_varint(from)?,
            from_ns: take_varint(from)?,
            to_ns: take_varint(from)?,
            errors: take_varint(from)?,
            ..Self::default()
        };
        for _ in 0..take_varint(from)? {
            let len = take_varint(from)?;
            let (text, rest) = from.split_at_checked(usize::try_from(len).ok()?)?;
            part.comms.push(std::str::from_utf8(text).ok()?.to_owned());
            *from = rest;
        }
        let mut pid = 0_u32;
        for _ in 0..take_varint(from)? {
            pid = pid.checked_add(take_u32(from)?)?;
            part.threads.push(Thread { pid, tid: take_u32(from)?, events: take_varint(from)? });
        }
        let mut cookie = 0_u64;
        for _ in 0..take_varint(from)? {
            cookie = cookie.checked_add(take_varint(from)?)?;
            part.sockets.push(Socket {
                cookie,
                events: take_varint(from)?,
                sent: decode_range(from)?,
                received: decode_range(from)?,
            });
        }
        for _ in 0..take_varint(from)? {
            let lane = take_varint(from)?;
            let (events, first) = (take_varint(from)?, take_varint(from)?);
            part.lanes.push(Lane {
                cpu: u16::try_from(lane >> 1).ok()?,
                ring: if lane & 1 == Ring::Bulk as u64 { Ring::Bulk } else { Ring::Rare },
                events,
                first,
                last: first.checked_add(take_varint(from)?)?,
            });
        }
        Some(part)
    }
}

impl Socket {
    fn add(&mut self, event: &Event) {
        self.events += 1;
        let side = match event.op {
            Op::Send | Op::Close | Op::Retransmit => &mut self.sent,
            Op::Recv => &mut self.received,
            _ => return,
        };
        if event.has_range() {
            let hull = side.get_or_insert(event.stream_start..event.stream_end);
            hull.start = hull.start.min(event.stream_start);
            hull.end = hull.end.max(event.stream_end);
        }
    }
}

impl Lane {
    fn add(&mut self, position: u64) {
        self.events += 1;
        self.first = self.first.min(position);
        self.last = self.last.max(position);
    }
}

/// A range takes its length + 1 and its start; 0 stands for none.
fn encode_range(range: Option<&Range<u64>>, out: &mut Vec<u8>) {
    match range {
        None => varint(0, out),
        Some(range) => {
            varint(range.end.saturating_sub(range.start).saturating_add(1), out);
            varint(range.start, out);
        }
    }
}

fn decode_range(from: &mut &[u8]) -> Option<Option<Range<u64>>> {
    let len = take_varint(from)?;
    if len == 0 {
        return Some(None);
    }
    let start = take_varint(from)?;
    Some(Some(start..start.checked_add(len - 1)?))
}

fn take_u32(from: &mut &[u8]) -> Option<u32> {
    u32::try_from(take_varint(from)?).ok()
}

/// A hasher for the kernel's own numbers: nobody chooses them to collide, and SipHash would cost more
/// than the rest of the indexing.
pub(super) type Quick = BuildHasherDefault<QuickHasher>;

#[derive(Default)]
pub(super) struct QuickHasher(u64);

impl Hasher for QuickHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u64(u64::from(byte));
        }
    }

    fn write_u32(&mut self, number: u32) {
        self.write_u64(u64::from(number));
    }

    fn write_i64(&mut self, number: i64) {
        self.write_u64(number as u64);
    }

    fn write_u64(&mut self, number: u64) {
        // The golden ratio spreads neighbours; hash tables look at the high bits, and at the low ones.
        let mixed = (self.0.rotate_left(5) ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = mixed ^ (mixed >> 32);
    }
}
