//! A recording of which only some parts are read: those that a question needs, and more when it turns out so.

use std::path::Path;

use super::file::RecordingFile;
use super::index::{Index, Part};
use super::read::{self, ReadError, Recording};
use crate::event::{Event, History};

/// One file, its index, and the events of the parts that were read so far.
pub struct Partial {
    file: RecordingFile,
    index: Index,
    read: Vec<bool>,
    recording: Recording,
}

impl Partial {
    /// Reads the index and no events.
    pub fn open(path: &Path) -> Result<Self, ReadError> {
        let file = RecordingFile::open(path)?;
        let index = read::index(&file)?;
        let read = vec![false; index.parts.len()];
        let mut recording = Recording::default();
        read::begin(&file, &mut recording)?;
        Ok(Self { file, index, read, recording })
    }

    /// How many events the whole recording has.
    pub fn events(&self) -> u64 {
        self.file.parts.iter().map(|(_, part)| part.rows).sum()
    }

    /// How many events these parts have.
    pub fn events_in(&self, parts: impl IntoIterator<Item = usize>) -> u64 {
        parts.into_iter().map(|part| self.file.parts[part].1.rows).sum()
    }

    pub fn parts(&self) -> usize {
        self.read.len()
    }

    pub fn is_read(&self, part: usize) -> bool {
        self.read[part]
    }

    /// What is known of a part; nothing where its index is damaged or of an older version.
    pub fn index(&self, part: usize) -> Option<&Part> {
        self.index.parts[part].as_ref()
    }

    /// The parts that were not read and that satisfy a test. One without an index satisfies every test.
    pub fn unread(&self, test: impl Fn(&Part) -> bool) -> impl Iterator<Item = usize> {
        (0..self.read.len())
            .filter(move |&part| !self.read[part] && self.index(part).is_none_or(&test))
    }

    /// Adds the events of these parts to the history, whose events are numbered anew.
    pub fn read(&mut self, parts: &[usize]) -> Result<(), ReadError> {
        let new: Vec<usize> = parts.iter().copied().filter(|&part| !self.read[part]).collect();
        new.iter().for_each(|&part| self.read[part] = true);
        read::append(&self.file, &new, 0, &mut self.recording)?;
        read::sort(&mut self.recording.history.events);
        Ok(())
    }

    /// Forgets the events that were read.
    pub fn forget(&mut self) -> Result<(), ReadError> {
        self.read.fill(false);
        self.recording = Recording::default();
        read::begin(&self.file, &mut self.recording)?;
        Ok(())
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
        let key = |e: &Event| (e.time_ns, e.cpu, e.ring, e.position);
        let place = self.history().events.binary_search_by_key(&key(event), key).ok()?;
        Some(place as u32)
    }
}
