//! Reads recordings: all of one or several, or only some parts, and says what could not be read.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use parquet::file::metadata::RowGroupMetaData;
use thiserror::Error;

use super::checkpoint::{Part, part_hash};
use super::decode::{self, Columns, Span};
use super::file::RecordingFile;
use super::index::Index;
use super::{SCHEMA_VERSION, merge, sources};
use crate::event::{Event, Gap, History, Host, Ring, Window};

/// What was read, and what has to be said about it.
#[derive(Clone, Debug, Default)]
pub struct Recording {
    pub history: History,
    pub notes: Vec<Note>,
}

/// Something a reader of the history should know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// The file was not finished, or its footer is damaged: `complete_rows` events were found without
    /// it, and `bytes_after` bytes follow them.
    Recovered { path: PathBuf, complete_rows: u64, bytes_after: u64 },
    /// A part is damaged: its events are missing, and stand as gaps in the host.
    Damaged { path: PathBuf, part: usize, events: u64, reason: String },
    /// Events that two recordings of a host have; each is kept once.
    Duplicates { host: String, events: u64 },
    /// Two paths lead to one recording, or one is a copy of the other; it is read once.
    Same { first: PathBuf, second: PathBuf },
    /// The wall clock of a host was set between two of its recordings: by so much it was ahead at the last.
    ClockSet { host: String, by_ns: i64 },
    /// Several hosts have this name, and are called these instead.
    Namesakes { name: String, apart: Vec<String> },
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Recovered { path, complete_rows, bytes_after } => write!(
                f,
                "{} was not finished: {complete_rows} events are complete, {bytes_after} bytes follow them",
                path.display()
            ),
            Self::Damaged { path, part, events, reason } => write!(
                f,
                "part {part} of {} is damaged, its {events} events are missing: {reason}",
                path.display()
            ),
            Self::Duplicates { host, events } => {
                write!(f, "{events} events of {host} were recorded twice and are kept once")
            }
            Self::Same { first, second } => {
                let (first, second) = (first.display(), second.display());
                write!(f, "{second} is the same recording as {first} and is read once")
            }
            Self::ClockSet { host, by_ns } => {
                let by_s = by_ns.unsigned_abs() / 1_000_000_000;
                let way = if *by_ns < 0 { "back" } else { "ahead" };
                write!(
                    f,
                    "the clock of {host} was set {way} by {by_s} s between its recordings; all of its times are by the first one's"
                )
            }
            Self::Namesakes { name, apart } => write!(
                f,
                "{} hosts, or boots of one, are called {name}; here they are {}",
                apart.len(),
                apart.join(", ")
            ),
        }
    }
}

/// Nothing can be read, or not as one history.
#[derive(Debug, Error)]
pub enum ReadError {
    #[error("open {}: no such file or folder", path.display())]
    NotFound { path: PathBuf },
    #[error("read {}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("open {}: no recordings (*.parquet) in this folder", path.display())]
    EmptyFolder { path: PathBuf },
    #[error("open {}: not a recording but {what}", path.display())]
    NotARecording { path: PathBuf, what: String },
    #[error(
        "open {}: written by a newer wherefore (schema {version}), this one reads up to {SCHEMA_VERSION}",
        path.display()
    )]
    Newer { path: PathBuf, version: u32 },
    #[error("open {}: cut off at {bytes} bytes, before its first complete part", path.display())]
    Truncated { path: PathBuf, bytes: u64 },
    #[error(
        "open {} and {}: two recorders made them on one host at the same time, and followed the same \
         threads or sockets, whose events they number differently; open one of them",
        first.display(), second.display()
    )]
    TwoRecorders { first: PathBuf, second: PathBuf },
    #[error("open recordings of {hosts} hosts: at most {} can be one history", u16::MAX)]
    TooManyHosts { hosts: usize },
    #[error("open {}: it has no part {part}, only {parts} of them", path.display())]
    NoSuchPart { path: PathBuf, part: usize, parts: usize },
}

impl ReadError {
    pub(super) fn io(path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::NotFound => Self::NotFound { path },
            _ => Self::Io { path, source },
        }
    }
}

/// Reads files, and the `*.parquet` in folders, as one history. Events are read to where they stay: no file's
/// are held twice.
pub fn open(paths: &[PathBuf]) -> Result<Recording, ReadError> {
    let sources::Sources { hosts, notes } = sources::gather(paths)?;
    if hosts.len() > usize::from(u16::MAX) {
        return Err(ReadError::TooManyHosts { hosts: hosts.len() });
    }
    let mut recording = Recording { notes, ..Recording::default() };
    reserve(hosts.iter().flatten().map(sources::Source::rows).sum(), &mut recording);
    for files in &hosts {
        merge::add_host(files, &mut recording)?;
    }
    merge::tell_apart(&mut recording);
    Ok(recording)
}

/// Reads only these parts of one file.
pub fn open_row_groups(path: &Path, row_groups: &[usize]) -> Result<Recording, ReadError> {
    let file = RecordingFile::open(path)?;
    let parts = file.parts.len();
    if let Some(&part) = row_groups.iter().find(|&&part| part >= parts) {
        return Err(ReadError::NoSuchPart { path: path.to_owned(), part, parts });
    }
    read_parts(file, row_groups)
}

/// What a file says of its host and of each of its parts, without reading the events.
pub fn open_index(path: &Path) -> Result<(Host, Index), ReadError> {
    let file = RecordingFile::open(path)?;
    let index = index(&file)?;
    Ok((file.host, index))
}

pub(super) fn index(file: &RecordingFile) -> Result<Index, ReadError> {
    let mut index = Index::default();
    for (_, part) in &file.parts {
        let found = file.part_index(part).map_err(|source| ReadError::io(&file.path, source))?;
        // Without its index a part may hold anything; it is never left out.
        index.parts.push(found);
    }
    Ok(index)
}

/// Threads that decode at once; more would wait for the one that puts events together.
const DECODERS: usize = 4;

fn read_parts(file: RecordingFile, numbers: &[usize]) -> Result<Recording, ReadError> {
    let mut recording = Recording::default();
    let host = begin(&file, &mut recording)?;
    append(&file, numbers, host, &mut recording)?;
    sort(&mut recording.history.events);
    Ok(recording)
}

/// Adds a file's host and all its events, in the order of the file.
pub(super) fn add(file: &RecordingFile, recording: &mut Recording) -> Result<(), ReadError> {
    let all: Vec<usize> = (0..file.parts.len()).collect();
    let host = begin(file, recording)?;
    append(file, &all, host, recording)
}

/// Adds what a file says of its host, and no events yet. Returns the host's number.
pub(super) fn begin(file: &RecordingFile, recording: &mut Recording) -> Result<u16, ReadError> {
    let number = recording.history.hosts.len() as u16;
    recording.history.hosts.push(file.host.clone());
    note_recovery(file, number, recording)?;
    Ok(number)
}

/// Adds the events of these parts, in the order of the file.
pub(super) fn append(
    file: &RecordingFile,
    numbers: &[usize],
    host: u16,
    recording: &mut Recording,
) -> Result<(), ReadError> {
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get().min(DECODERS));
    let rows: u64 = numbers.iter().map(|&number| file.parts[number].1.rows).sum();
    reserve(rows, recording);
    for round in numbers.chunks(threads) {
        let decoded: Vec<Result<Columns, String>> = std::thread::scope(|scope| {
            let workers: Vec<_> = round
                .iter()
                .map(|&number| scope.spawn(move || decode_part(file, &file.parts[number])))
                .collect();
            workers
                .into_iter()
                .map(|worker| worker.join().unwrap_or_else(|_| Err("decoding failed".to_owned())))
                .collect()
        });
        for (&number, columns) in round.iter().zip(decoded) {
            let History { names, events, .. } = &mut recording.history;
            let before = events.len();
            let read = columns.and_then(|columns| {
                columns.events(host, names, events).map_err(|error| error.to_string())
            });
            if let Err(reason) = read {
                events.truncate(before);
                lose_part(file, number, host, reason, recording)?;
            }
        }
    }
    Ok(())
}

/// Rows come from a file: reserve what is plausible, grow for the rest.
fn reserve(rows: u64, recording: &mut Recording) {
    recording.history.events.reserve(rows.min(1 << 26) as usize);
}

fn decode_part(file: &RecordingFile, entry: &(RowGroupMetaData, Part)) -> Result<Columns, String> {
    let (row_group, part) = entry;
    let bytes = file.part_bytes(part).map_err(|error| error.to_string())?;
    let mut hasher = twox_hash::XxHash64::with_seed(0);
    std::hash::Hasher::write(&mut hasher, &bytes);
    if part_hash(hasher, row_group) != part.hash || row_group.num_rows() as u64 != part.rows {
        return Err("its bytes are not those that were written".to_owned());
    }
    let span = Span { start: part.from, bytes: Bytes::from(bytes) };
    decode::decode(row_group, span).map_err(|error| error.to_string())
}

/// Says that there was no footer, and what its absence hides.
fn note_recovery(
    file: &RecordingFile,
    number: u16,
    recording: &mut Recording,
) -> Result<(), ReadError> {
    let Some(recovery) = &file.recovery else { return Ok(()) };
    let complete_rows = file.parts.iter().map(|(_, part)| part.rows).sum();
    let (path, bytes_after) = (file.path.clone(), recovery.bytes_after);
    recording.notes.push(Note::Recovered { path, complete_rows, bytes_after });
    for hole in &recovery.holes {
        let window = between(file, hole.before)?;
        let host = &mut recording.history.hosts[usize::from(number)];
        host.lost = host.lost.saturating_add(hole.events);
        host.gaps.extend(everywhere(host, window, hole.events));
        let (path, events) = (file.path.clone(), hole.events);
        let reason = "its description is damaged, and so is the footer".to_owned();
        recording.notes.push(Note::Damaged { path, part: hole.before, events, reason });
    }
    Ok(())
}

/// The time between the part before and the part with this number, as far as their indexes tell.
fn between(file: &RecordingFile, number: usize) -> Result<Window, ReadError> {
    let index = |number: usize| match file.parts.get(number) {
        Some((_, part)) => {
            file.part_index(part).map_err(|source| ReadError::io(&file.path, source))
        }
        None => Ok(None),
    };
    let earlier = match number.checked_sub(1) {
        Some(number) => index(number)?,
        None => None,
    };
    Ok(Window {
        from_ns: earlier.map_or(0, |part| part.to_ns),
        to_ns: index(number)?.map_or(u64::MAX, |part| part.from_ns),
    })
}

/// Gaps on every CPU and ring; the events are counted in the first, since nobody knows where they were.
fn everywhere(host: &Host, window: Window, events: u64) -> Vec<Gap> {
    let lanes = (0..host.cpus.max(1)).flat_map(|cpu| [(cpu, Ring::Bulk), (cpu, Ring::Rare)]);
    lanes
        .enumerate()
        .map(|(number, (cpu, ring))| Gap {
            cpu,
            ring,
            from_ns: window.from_ns,
            to_ns: window.to_ns,
            events: if number == 0 { events } else { 0 },
        })
        .collect()
}

/// Says what is gone: a note, and gaps as exact as the part's index.
fn lose_part(
    file: &RecordingFile,
    number: usize,
    host: u16,
    reason: String,
    recording: &mut Recording,
) -> Result<(), ReadError> {
    let part = &file.parts[number].1;
    let index = file.part_index(part).map_err(|source| ReadError::io(&file.path, source))?;
    let host = &mut recording.history.hosts[usize::from(host)];
    match index {
        Some(index) => host.gaps.extend(index.lanes.iter().map(|lane| Gap {
            cpu: u32::from(lane.cpu),
            ring: lane.ring,
            from_ns: index.from_ns,
            to_ns: index.to_ns,
            events: lane.events,
        })),
        None => host.gaps.extend(everywhere(host, between(file, number)?, part.rows)),
    }
    host.lost = host.lost.saturating_add(part.rows);
    let path = file.path.clone();
    recording.notes.push(Note::Damaged { path, part: number, events: part.rows, reason });
    Ok(())
}

/// Stable, and fast on the sorted runs that parts are.
pub(super) fn sort(events: &mut [Event]) {
    let order = |e: &Event| (e.host, e.time_ns, e.cpu, e.ring, e.position);
    if !events.is_sorted_by_key(order) {
        events.sort_by_key(order);
    }
}
