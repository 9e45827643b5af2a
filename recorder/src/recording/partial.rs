//! Recordings of which only some parts are read: those that a question needs, and more when it turns out so.

use std::path::PathBuf;

use super::file::RecordingFile;
use super::index::Part;
use super::read::{self, ReadError, Recording};
use super::{merge, sources};
use crate::event::{Event, History};

/// Files of one host each, their indexes, and the events of the parts that were read so far. Parts are numbered
/// through all files.
pub struct Partial {
    /// By host.
    files: Vec<RecordingFile>,
    parts: Vec<Place>,
    /// What is known before any part is read.
    begun: Recording,
    recording: Recording,
}

struct Place {
    host: u16,
    /// Number of the part in its file.
    number: usize,
    index: Option<Part>,
    read: bool,
}

/// More files than this are read as a whole: all of them are open at a time.
const FILES_MAX: usize = 256;

impl Partial {
    /// Reads the indexes and no events. `None` where a host has several recordings, whose events have to
    /// be compared.
    pub fn open(paths: &[PathBuf]) -> Result<Option<Self>, ReadError> {
        let sources::Sources { hosts, notes } = sources::gather(paths)?;
        if hosts.len() > FILES_MAX || hosts.iter().any(|files| files.len() > 1) {
            return Ok(None);
        }
        let mut begun = Recording { notes, ..Recording::default() };
        let (mut opened, mut parts) = (Vec::new(), Vec::new());
        for source in hosts.iter().flatten() {
            let file = RecordingFile::open(&source.path)?;
            let host = read::begin(&file, &mut begun)?;
            let indexes = read::index(&file)?.parts.into_iter().enumerate();
            let place = |(number, index)| Place { host, number, index, read: false };
            parts.extend(indexes.map(place));
            opened.push(file);
        }
        merge::tell_apart(&mut begun);
        Ok(Some(Self { files: opened, parts, recording: begun.clone(), begun }))
    }

    /// How many events the whole recording has.
    pub fn events(&self) -> u64 {
        self.events_in(0..self.parts.len())
    }

    /// How many events these parts have.
    pub fn events_in(&self, parts: impl IntoIterator<Item = usize>) -> u64 {
        let rows = |part: usize| {
            let Place { host, number, .. } = self.parts[part];
            self.files[usize::from(host)].parts[number].1.rows
        };
        parts.into_iter().map(rows).sum()
    }

    pub fn parts(&self) -> usize {
        self.parts.len()
    }

    pub fn is_read(&self, part: usize) -> bool {
        self.parts[part].read
    }

    /// What is known of a part; nothing where its index is damaged or of an older version.
    pub fn index(&self, part: usize) -> Option<&Part> {
        self.parts[part].index.as_ref()
    }

    pub fn host(&self, part: usize) -> u16 {
        self.parts[part].host
    }

    /// The time on a host's wall clock, ns since 1970.
    pub fn wall_ns(&self, host: u16, time_ns: u64) -> i128 {
        let host = &self.history().hosts[usize::from(host)];
        i128::from(time_ns) + i128::from(host.wall_offset_ns)
    }

    /// The parts that were not read and that satisfy a test. One without an index satisfies every test.
    pub fn unread(&self, test: impl Fn(&Part) -> bool) -> impl Iterator<Item = usize> {
        let satisfies = move |place: &Place| !place.read && place.index.as_ref().is_none_or(&test);
        self.parts.iter().enumerate().filter(move |(_, place)| satisfies(place)).map(|(n, _)| n)
    }

    /// The same of one host's parts.
    pub fn unread_of(
        &self,
        host: u16,
        test: impl Fn(&Part) -> bool,
    ) -> impl Iterator<Item = usize> {
        self.unread(test).filter(move |&part| self.host(part) == host)
    }

    /// Adds the events of these parts to the history, whose events are numbered anew.
    pub fn read(&mut self, parts: &[usize]) -> Result<(), ReadError> {
        let mut new: Vec<usize> = parts.to_vec();
        new.sort_unstable();
        new.dedup();
        new.retain(|&part| !std::mem::replace(&mut self.parts[part].read, true));
        for of_host in new.chunk_by(|&a, &b| self.parts[a].host == self.parts[b].host) {
            let host = self.parts[of_host[0]].host;
            let numbers: Vec<usize> = of_host.iter().map(|&p| self.parts[p].number).collect();
            let file = &self.files[usize::from(host)];
            read::append(file, &numbers, host, &mut self.recording)?;
        }
        read::sort(&mut self.recording.history.events);
        Ok(())
    }

    /// Forgets the events that were read.
    pub fn forget(&mut self) {
        self.parts.iter_mut().for_each(|place| place.read = false);
        self.recording.clone_from(&self.begun);
    }

    /// The host, and the events that were read.
    pub fn history(&self) -> &History {
        &self.recording.history
    }

    pub fn into_recording(self) -> Recording {
        self.recording
    }

    /// Number of the event in the history as it is now.
    pub fn find(&self, event: &Event) -> Option<u32> {
        let key = |e: &Event| (e.host, e.time_ns, e.cpu, e.ring, e.position);
        let place = self.history().events.binary_search_by_key(&key(event), key).ok()?;
        Some(place as u32)
    }
}
