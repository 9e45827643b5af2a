//! Which threads and sockets have events in which part of a recording, so that a slice reads only those.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::ops::Range;

use super::columns::ZSTD_LEVEL;
use super::pages::{take_varint, varint};
use crate::event::{Event, Op, Proof, Ring};

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
    /// Which kinds of events there are: bit `op as u32` each.
    pub ops: u32,
    /// Errnos that occur, and targets of forks, signals and kills; both sorted.
    pub errors_seen: Vec<u16>,
    pub targets: Vec<u32>,
    /// By process and thread; kernel lanes have thread 0.
    pub threads: Vec<Thread>,
    /// By cookie. Cookie 0 stands for resets that were sent for no socket.
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
    /// Which kinds of events there are: bit `op as u32` each.
    pub ops: u32,
    pub numbers: Numbers,
    pub sender: User,
    pub receiver: User,
}

/// Who uses one direction of a socket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum User {
    #[default]
    Nobody,
    Thread(u32),
    Several,
}

impl User {
    /// Both together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Nobody, user) | (user, Self::Nobody) => user,
            (one, other) if one == other => one,
            _ => Self::Several,
        }
    }

    /// No thread has the number 0, nor the highest.
    const fn pack(self) -> u64 {
        match self {
            Self::Nobody => 0,
            Self::Thread(tid) => tid as u64,
            Self::Several => u32::MAX as u64,
        }
    }

    const fn unpack(packed: u32) -> Self {
        match packed {
            0 => Self::Nobody,
            u32::MAX => Self::Several,
            tid => Self::Thread(tid),
        }
    }
}

/// The initial sequence numbers of a socket, as far as its events of one part agree on them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Numbers {
    #[default]
    Unknown,
    Known {
        iss: u32,
        irs: u32,
    },
    /// The socket was connected more than once, or its numbers are not certain.
    Several,
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
        self.row_groups(|part| part.socket(cookie).is_some())
    }

    /// The parts with events of this thread (`tid` 0: of the process's kernel lanes).
    pub fn row_groups_for_thread(&self, pid: u32, tid: u32) -> Vec<usize> {
        self.row_groups(|part| part.has_thread(pid, tid))
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
            if event.socket != 0 || event.op == Op::ResetSent {
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
            ops: events.iter().fold(0, |ops, event| ops | 1 << event.op as u32),
            errors_seen: distinct(events.iter().map(|event| event.error)),
            targets: distinct(events.iter().map(|event| event.target)),
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
        self.encode_kinds(&mut out);
        zstd::bulk::compress(&out, ZSTD_LEVEL).expect("compressing memory into memory cannot fail")
    }

    /// What came to the index later stands last, so that what reads an older one comes upon its end.
    fn encode_kinds(&self, out: &mut Vec<u8>) {
        varint(u64::from(self.ops), out);
        varint(self.errors_seen.len() as u64, out);
        self.errors_seen.iter().for_each(|&error| varint(u64::from(error), out));
        varint(self.targets.len() as u64, out);
        self.targets.iter().for_each(|&target| varint(u64::from(target), out));
        for socket in &self.sockets {
            varint(u64::from(socket.ops), out);
            varint(socket.sender.pack(), out);
            varint(socket.receiver.pack(), out);
            match socket.numbers {
                Numbers::Unknown => varint(0, out),
                Numbers::Several => varint(1, out),
                Numbers::Known { iss, irs } => {
                    varint(2, out);
                    out.extend_from_slice(&iss.to_le_bytes());
                    out.extend_from_slice(&irs.to_le_bytes());
                }
            }
        }
    }

    fn decode_kinds(&mut self, from: &mut &[u8]) -> Option<()> {
        self.ops = take_u32(from)?;
        for _ in 0..take_varint(from)? {
            self.errors_seen.push(u16::try_from(take_varint(from)?).ok()?);
        }
        for _ in 0..take_varint(from)? {
            self.targets.push(take_u32(from)?);
        }
        for socket in &mut self.sockets {
            socket.ops = take_u32(from)?;
            socket.sender = User::unpack(take_u32(from)?);
            socket.receiver = User::unpack(take_u32(from)?);
            socket.numbers = match take_varint(from)? {
                0 => Numbers::Unknown,
                1 => Numbers::Several,
                _ => {
                    let (iss, rest) = from.split_first_chunk::<4>()?;
                    let (irs, rest) = rest.split_first_chunk::<4>()?;
                    *from = rest;
                    Numbers::Known { iss: u32::from_le_bytes(*iss), irs: u32::from_le_bytes(*irs) }
                }
            };
        }
        Some(())
    }

    /// The inverse of [`Part::encode`]; `None` if the bytes are not of it.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        // A part has at most PART_ROWS events, and each adds less than 192 bytes here.
        let bytes = zstd::bulk::decompress(bytes, super::PART_ROWS * 192).ok()?;
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
                ..Socket::default()
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
        part.decode_kinds(from)?;
        Some(part)
    }

    /// What the part has of a socket.
    pub fn socket(&self, cookie: u64) -> Option<&Socket> {
        let place = self.sockets.binary_search_by_key(&cookie, |s| s.cookie).ok()?;
        Some(&self.sockets[place])
    }

    pub fn has_thread(&self, pid: u32, tid: u32) -> bool {
        self.threads.binary_search_by_key(&(pid, tid), |t| (t.pid, t.tid)).is_ok()
    }
}

/// The values but 0, sorted, each once. Few of very many differ from the one before.
fn distinct<T: Copy + Default + Ord>(values: impl Iterator<Item = T>) -> Vec<T> {
    let mut found: Vec<T> = values.filter(|value| *value != T::default()).collect();
    found.sort_unstable();
    found.dedup();
    found
}

impl Socket {
    fn add(&mut self, event: &Event) {
        self.events += 1;
        self.ops |= 1 << event.op as u32;
        self.numbers = match (self.numbers, event.proof) {
            (known, Proof::Unknown) => known,
            (Numbers::Unknown, Proof::Agreed | Proof::Established) => {
                Numbers::Known { iss: event.iss, irs: event.irs }
            }
            (Numbers::Known { iss, irs }, _) if (iss, irs) == (event.iss, event.irs) => {
                self.numbers
            }
            _ => Numbers::Several,
        };
        match event.op {
            Op::Send => self.sender = self.sender.and(User::Thread(event.tid)),
            Op::Recv => self.receiver = self.receiver.and(User::Thread(event.tid)),
            _ => {}
        }
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
