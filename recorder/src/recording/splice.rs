//! Several recordings of one host, one after the other in time, made one file: part by part, so that it takes no
//! more memory however long they are.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::path::{Path, PathBuf};

use super::file::RecordingFile;
use super::read::{self, ReadError, Recording};
use super::write::{WriteError, Writer};
use super::{index, merge};

use crate::event::{Event, Flags, Gap, Host, Op, Window};

/// A recording could not be read, or the new one not be written.
#[derive(Debug, thiserror::Error)]
pub enum SpliceError {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// An event's place: the same in two recordings, it is the same event.
type Place = (u64, u16, u8, u64);

/// A recording may begin with events that the one before it ends with: so far back.
pub const OVERLAP_NS: u64 = 100_000_000;

/// Writes what several recordings of one host hold since a time as one; they are given in the order of their beginnings.
/// What lies between two of them becomes a gap; what two of them hold is kept once.
///
/// # Errors
/// When one cannot be read at all, or the new one not be written. Damaged parts become gaps.
pub fn splice(pieces: &[Piece], since_ns: u64, output: &Path) -> Result<(Host, u64), SpliceError> {
    let Some(last) = pieces.last() else {
        return Err(ReadError::EmptyFolder { path: output.to_owned() }.into());
    };
    let mut splice = Splice {
        writer: Writer::create(output, &last.host)?,
        since_ns,
        recorder: last.host.attached_ns,
        recording: Recording::default(),
        joined: None,
        ends: HashMap::default(),
        late: HashSet::new(),
        kept: 0,
    };
    for (number, piece) in pieces.iter().enumerate() {
        let next_ns = pieces.get(number + 1).map_or(u64::MAX, Piece::from_ns);
        match piece.read() {
            Ok(file) => splice.add(&file, next_ns.saturating_sub(2 * OVERLAP_NS))?,
            // It made room for newer ones meanwhile. What is missing then shows in the windows.
            Err(ReadError::NotFound { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    splice.finish(output)
}

/// A recording, and what it says of its host.
pub struct Piece {
    pub path: PathBuf,
    /// What it is called once it is finished, if it is not.
    pub finished: Option<PathBuf>,
    pub host: Host,
}

impl Piece {
    /// # Errors
    /// When nothing of the file can be read.
    pub fn open(path: &Path) -> Result<Self, ReadError> {
        let RecordingFile { path, host, .. } = RecordingFile::open(path)?;
        Ok(Self { path, finished: None, host })
    }

    /// Its writer may have finished it meanwhile.
    fn read(&self) -> Result<RecordingFile, ReadError> {
        match (RecordingFile::open(&self.path), &self.finished) {
            (Err(ReadError::NotFound { .. }), Some(finished)) => RecordingFile::open(finished),
            (opened, _) => opened,
        }
    }

    /// One of which nothing can be read.
    pub fn unreadable(path: &Path) -> Self {
        Self { path: path.to_owned(), finished: None, host: Host::default() }
    }

    /// When the first of its windows begins.
    pub fn from_ns(&self) -> u64 {
        from_ns(&self.host)
    }

    /// Since when it is complete.
    pub fn complete_from_ns(&self) -> u64 {
        self.host.bulk_window.from_ns.max(self.host.rare_window.from_ns)
    }

    /// Up to when it is complete.
    pub fn to_ns(&self) -> u64 {
        self.host.bulk_window.to_ns.min(self.host.rare_window.to_ns)
    }
}

struct Splice {
    writer: Writer<File>,
    since_ns: u64,
    /// Which recorder made the last of them.
    recorder: u64,
    /// Names so far; hosts and events only of the part at hand.
    recording: Recording,
    joined: Option<Host>,
    /// When each thread was seen last: what it did later did not begin before.
    ends: HashMap<u32, u64, foldhash::fast::RandomState>,
    /// Events that the next recording may hold, too.
    late: HashSet<Place>,
    kept: u64,
}

impl Splice {
    fn add(&mut self, file: &RecordingFile, late_ns: u64) -> Result<(), SpliceError> {
        self.recording.history.hosts.clear();
        let number = read::begin(file, &mut self.recording)?;
        let before = std::mem::take(&mut self.late);
        for part in 0..file.parts.len() {
            if self.is_over(file, part)? {
                continue;
            }
            self.recording.history.events.clear();
            read::append(file, &[part], number, &mut self.recording)?;
            self.keep(&before, late_ns, file.host.attached_ns != self.recorder);
            let history = &self.recording.history;
            self.writer.append(&history.names, &history.events)?;
            self.kept += history.events.len() as u64;
        }
        if let Some(host) = self.recording.history.hosts.pop() {
            self.join(host);
        }
        Ok(())
    }

    /// Whether all of a part was before what is wanted.
    fn is_over(&self, file: &RecordingFile, part: usize) -> Result<bool, ReadError> {
        let index = file.part_index(&file.parts[part].1);
        let index: Option<index::Part> =
            index.map_err(|source| ReadError::io(&file.path, source))?;
        Ok(index.is_some_and(|index| index.to_ns < self.since_ns))
    }

    /// Leaves of the part at hand what is wanted and not yet there.
    fn keep(&mut self, before: &HashSet<Place>, late_ns: u64, other_recorder: bool) {
        let Self { since_ns, ends, late, recording, .. } = self;
        recording.history.events.retain_mut(|event| {
            let place = (event.time_ns, event.cpu, event.ring as u8, event.position);
            if event.time_ns < *since_ns || before.contains(&place) {
                return false;
            }
            if event.time_ns >= late_ns {
                late.insert(place);
            }
            if event.tid != 0 {
                begin_after(event, ends.insert(event.tid, event.time_ns).unwrap_or(0));
            }
            // Of a thread outside its scope each recorder counts the signals alone.
            if other_recorder && event.op == Op::Signal {
                event.task_count = 0;
            }
            true
        });
    }

    fn join(&mut self, mut host: Host) {
        if from_ns(&host) < self.since_ns {
            clip(&mut host, self.since_ns);
        }
        match &mut self.joined {
            None => self.joined = Some(host),
            Some(joined) => {
                merge::join(joined, &host, false);
                joined.attached_ns = host.attached_ns;
                joined.wall_offset_ns = host.wall_offset_ns;
            }
        }
    }

    fn finish(self, output: &Path) -> Result<(Host, u64), SpliceError> {
        let mut host = self.joined.unwrap_or_default();
        host.raised = self.kept + host.lost;
        let file = self.writer.finish(&host)?;
        file.sync_all().map_err(|source| ReadError::io(output, source))?;
        Ok((host, self.kept))
    }
}

/// A recording that begins anew knows less of when a call can have begun than the one before it.
fn begin_after(event: &mut Event, end_ns: u64) {
    if !event.flags.has(Flags::BEGAN) && event.begin_ns < end_ns {
        event.begin_ns = end_ns.min(event.time_ns);
    }
}

fn from_ns(host: &Host) -> u64 {
    host.bulk_window.from_ns.min(host.rare_window.from_ns)
}

/// Takes from a host what was before a time.
fn clip(host: &mut Host, since_ns: u64) {
    let window = |window: Window| Window {
        from_ns: window.from_ns.max(since_ns).min(window.to_ns),
        to_ns: window.to_ns,
    };
    host.bulk_window = window(host.bulk_window);
    host.rare_window = window(host.rare_window);
    let over = |gap: &Gap| gap.to_ns < since_ns;
    let gone: u64 = host.gaps.iter().filter(|gap| over(gap)).map(|gap| gap.events).sum();
    host.gaps.retain(|gap| !over(gap));
    host.lost = host.lost.saturating_sub(gone);
}

#[cfg(test)]
mod tests;
