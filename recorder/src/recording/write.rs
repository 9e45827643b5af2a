//! Writes a recording part by part, so that what was written stays readable whatever happens next.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

use bytemuck::Zeroable;
use parquet::errors::ParquetError;
use parquet::file::metadata::RowGroupMetaData;
use parquet::file::properties::WriterPropertiesPtr;
use parquet::file::writer::{SerializedRowGroupWriter, TrackedWrite};
use parquet::schema::types::{SchemaDescPtr, SchemaDescriptor};
use thiserror::Error;

use super::checkpoint::{self, Blocks, Hashed, Part, Trailer, part_hash};
use super::encode::{self, Buffer};
use super::{PART_ROWS, SCHEMA_VERSION, columns, footer, index};
use crate::event::{Event, History, Host, Names};
use crate::hide::Hide;

/// A recording could not be written on. What was complete before stays readable.
#[derive(Debug, Error)]
#[error("write {act} of {what}; the {complete_rows} events before it are safe")]
pub struct WriteError {
    /// Path of the file, or what the caller calls the output.
    pub what: String,
    /// What was being written: `the head`, `part 3 (512 events)`, `the end`.
    pub act: String,
    /// How many events can be read from the file as it is now.
    pub complete_rows: u64,
    pub source: io::Error,
}

/// What a Parquet file begins with, and ends with.
const MAGIC: [u8; 4] = *b"PAR1";

/// Writes the events of one host. If it is dropped unfinished, only what is still buffered is lost.
pub struct Writer<W: Write + Send> {
    /// None once writing has failed: what is complete stays as it is.
    output: Option<TrackedWrite<Hashed<W>>>,
    schema: SchemaDescPtr,
    properties: WriterPropertiesPtr,
    what: String,
    host: Host,
    host_changed: bool,
    buffer: Buffer,
    parts: Vec<(RowGroupMetaData, Part)>,
    /// Where the last checkpoint ends.
    checkpoint: u64,
}

/// Writes the events of one host of a history to a file.
pub fn save(path: &Path, history: &History, host: u16) -> Result<(), WriteError> {
    let mut writer = Writer::create(path, &history.hosts[usize::from(host)])?;
    for run in history.events.chunk_by(|a, b| a.host == b.host) {
        if run[0].host == host {
            writer.append(&history.names, run)?;
        }
    }
    writer.finish(&history.hosts[usize::from(host)])?;
    Ok(())
}

impl Writer<File> {
    /// Creates the file, or empties it.
    pub fn create(path: &Path, host: &Host) -> Result<Self, WriteError> {
        Self::hiding(path, host, Hide::default())
    }

    /// The same, for a file that such names do not get into.
    pub fn hiding(path: &Path, host: &Host, hide: Hide) -> Result<Self, WriteError> {
        let what = path.display().to_string();
        match File::create(path) {
            Ok(file) => Self::on(file, &what, host, hide),
            Err(source) => {
                Err(WriteError { what, act: "the head".to_owned(), complete_rows: 0, source })
            }
        }
    }
}

impl<W: Write + Send> Writer<W> {
    /// Writes to anything, standard output for one; `what` names it in errors.
    pub fn new(output: W, what: &str, host: &Host) -> Result<Self, WriteError> {
        Self::on(output, what, host, Hide::default())
    }

    fn on(output: W, what: &str, host: &Host, hide: Hide) -> Result<Self, WriteError> {
        let mut writer = Self {
            output: Some(TrackedWrite::new(Hashed::new(output))),
            schema: Arc::new(SchemaDescriptor::new(columns::schema())),
            properties: columns::properties(),
            what: what.to_owned(),
            host: hide.host(host).into_owned(),
            host_changed: true,
            buffer: Buffer::hiding(hide),
            parts: Vec::new(),
            checkpoint: 0,
        };
        writer.attempt("the head", Self::write_head)?;
        Ok(writer)
    }

    /// What is known of the host by now; goes into the file with the next part.
    pub fn set_host(&mut self, host: &Host) {
        let host = self.buffer.hide.host(host);
        if self.host != *host {
            self.host = host.into_owned();
            self.host_changed = true;
        }
    }

    /// Takes events of the host (their own `host` is not looked at), and writes a part when it is full.
    ///
    /// `names` are what the events' names and addresses index: the same in every call, though they may
    /// grow in between.
    pub fn append(&mut self, names: &Names, mut events: &[Event]) -> Result<(), WriteError> {
        while !events.is_empty() {
            let room = PART_ROWS - self.buffer.events.len();
            let (now, later) = events.split_at(events.len().min(room));
            self.buffer.take(names, now);
            if self.buffer.events.len() == PART_ROWS {
                self.flush()?;
            }
            events = later;
        }
        Ok(())
    }

    /// Writes what is buffered as a part of its own, so that a crash from here on does not lose it.
    /// A part costs some kilobytes however few its events: flush every few seconds, not every event.
    pub fn flush(&mut self) -> Result<(), WriteError> {
        if self.buffer.events.is_empty() {
            return Ok(());
        }
        let act = format!("part {} ({} events)", self.parts.len() + 1, self.buffer.events.len());
        self.attempt(&act, Self::write_part)
    }

    /// Writes the rest, what is finally known of the host, and the footer. Returns the output.
    pub fn finish(mut self, host: &Host) -> Result<W, WriteError> {
        self.set_host(host);
        self.flush()?;
        self.attempt("the end", Self::write_end)
    }

    /// How many events can be read from the output as it is now.
    pub fn complete_rows(&self) -> u64 {
        self.parts.iter().map(|(_, part)| part.rows).sum()
    }

    fn attempt<T>(
        &mut self,
        act: &str,
        step: impl FnOnce(&mut Self) -> Result<T, ParquetError>,
    ) -> Result<T, WriteError> {
        step(self).map_err(|error| {
            self.output = None;
            WriteError {
                what: self.what.clone(),
                act: act.to_owned(),
                complete_rows: self.complete_rows(),
                source: io_error(error),
            }
        })
    }

    /// The first checkpoint has the host alone: a file cut off before its first part still says whose it is.
    fn write_head(&mut self) -> Result<(), ParquetError> {
        self.output.as_mut().ok_or_else(failed_before)?.write_all(&MAGIC)?;
        self.write_checkpoint(&[], &[], Trailer::zeroed())
    }

    /// The buffered events as a row group, and its checkpoint.
    fn write_part(&mut self) -> Result<(), ParquetError> {
        self.buffer.sort();
        let output = self.output.as_mut().ok_or_else(failed_before)?;
        output.inner_mut().take();
        let from = output.inner().position;
        let (schema, properties) = (self.schema.clone(), self.properties.clone());
        let ordinal = self.parts.len() as i32;
        let row_group = SerializedRowGroupWriter::new(schema, properties, output, ordinal, None);
        let row_group = encode::write(row_group, &self.schema, &self.buffer, &self.host)?;
        output.flush()?;
        let hash = part_hash(output.inner_mut().take(), &row_group);
        let to = output.inner().position;
        let rows = row_group.num_rows() as u64;
        let metadata = footer::encode_row_group(&self.schema, &row_group)?;
        let index = index::Part::of(&self.buffer.events, self.buffer.comms()).encode();
        let trailer = Trailer { from, rows, part_hash: hash, ..Trailer::zeroed() };
        self.write_checkpoint(&metadata, &index, trailer)?;
        let part = Part { from, to, rows, hash, checkpoint: self.checkpoint };
        self.parts.push((Arc::unwrap_or_clone(row_group), part));
        self.buffer.clear();
        Ok(())
    }

    fn write_checkpoint(
        &mut self,
        metadata: &[u8],
        index: &[u8],
        trailer: Trailer,
    ) -> Result<(), ParquetError> {
        let host = if self.host_changed { footer::encode_host(&self.host) } else { String::new() };
        let blocks = Blocks { metadata, index, host: host.as_bytes() };
        let rows_before = self.complete_rows();
        let trailer = Trailer {
            schema_version: SCHEMA_VERSION,
            previous: self.checkpoint,
            rows_before,
            ..trailer
        };
        let output = self.output.as_mut().ok_or_else(failed_before)?;
        output.write_all(&checkpoint::encode(blocks, trailer))?;
        output.flush()?;
        self.checkpoint = output.inner().position;
        self.host_changed = false;
        Ok(())
    }

    /// The last checkpoint repeats what the footer says of the host, for a footer that gets damaged.
    fn write_end(&mut self) -> Result<W, ParquetError> {
        self.write_checkpoint(&[], &[], Trailer::zeroed())?;
        let mut output = self.output.take().ok_or_else(failed_before)?;
        output.write_all(&footer::encode_footer(&self.host, &self.parts)?)?;
        output.flush()?;
        Ok(output.into_inner()?.inner)
    }
}

fn failed_before() -> ParquetError {
    ParquetError::General("writing has failed before".to_owned())
}

/// The cause as the system named it, where it did.
fn io_error(error: ParquetError) -> io::Error {
    match error {
        ParquetError::External(source) => match source.downcast::<io::Error>() {
            Ok(error) => *error,
            Err(source) => io::Error::other(source),
        },
        other => io::Error::other(other),
    }
}
