//! One recording's file: finds its parts through the footer, or through the checkpoints if there is none.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use parquet::file::metadata::RowGroupMetaData;

use super::checkpoint::{self, MAGIC, Part, TRAILER_SIZE, Trailer};
use super::footer::{self, Footer, TAIL, Unusable};
use super::index;
use super::read::ReadError;
use super::{PART_ROWS, SCHEMA_VERSION};
use crate::event::Host;

const PARQUET: [u8; 4] = *b"PAR1";

/// Events have no room for the numbers of more. (What a file claims is what memory is taken for.)
const MOST_CPUS: u32 = 1 << 16;

/// How much is looked at in one go when a checkpoint is searched.
const SEARCH_BYTES: u64 = 1 << 20;

/// A file and where its parts are.
pub(super) struct RecordingFile {
    pub(super) path: PathBuf,
    pub(super) file: File,
    pub(super) host: Host,
    pub(super) parts: Vec<(RowGroupMetaData, Part)>,
    /// Set if there was no usable footer.
    pub(super) recovery: Option<Recovery>,
}

/// What came of reading a file without its footer.
#[derive(Default)]
pub(super) struct Recovery {
    /// Bytes that follow what could be read.
    pub(super) bytes_after: u64,
    pub(super) holes: Vec<Hole>,
}

/// Parts whose description is damaged: they stood before this part, and held so many events.
pub(super) struct Hole {
    pub(super) before: usize,
    pub(super) events: u64,
}

impl RecordingFile {
    pub(super) fn open(path: &Path) -> Result<Self, ReadError> {
        let metadata = fs::metadata(path).map_err(|source| ReadError::io(path, source))?;
        if !metadata.is_file() {
            // To open a FIFO is to wait for somebody at its other end.
            let what = if metadata.is_dir() { "a folder" } else { "no regular file" };
            return Err(ReadError::NotARecording { path: path.to_owned(), what: what.to_owned() });
        }
        let file = File::open(path).map_err(|source| ReadError::io(path, source))?;
        let len = file.metadata().map_err(|source| ReadError::io(path, source))?.len();
        let found = find(&file, len).map_err(|source| ReadError::io(path, source))?;
        let (Footer { mut host, parts }, recovery) =
            found.map_err(|reason| reason.error(path, len))?;
        host.cpus = host.cpus.min(MOST_CPUS);
        Ok(Self { path: path.to_owned(), file, host, parts, recovery })
    }

    /// The bytes of a part's row group.
    pub(super) fn part_bytes(&self, part: &Part) -> io::Result<Vec<u8>> {
        let len = part.to.checked_sub(part.from).ok_or(io::ErrorKind::InvalidData)?;
        read(&self.file, part.from, len)
    }

    /// What a part's checkpoint says of its events; `None` if the checkpoint is damaged.
    pub(super) fn part_index(&self, part: &Part) -> io::Result<Option<index::Part>> {
        let bytes = checkpoint_bytes(&self.file, part.checkpoint)?;
        let decoded = bytes.as_deref().and_then(checkpoint::decode);
        Ok(decoded.and_then(|(_, blocks, _)| index::Part::decode(blocks.index)))
    }
}

/// Why nothing can be read from a file.
enum Nothing {
    Empty,
    NotParquet,
    Foreign,
    Changed(String),
    Newer(u32),
    Truncated,
}

impl Nothing {
    fn error(self, path: &Path, bytes: u64) -> ReadError {
        let path = path.to_owned();
        let not_but =
            |what: &str| ReadError::NotARecording { path: path.clone(), what: what.to_owned() };
        match self {
            Self::Empty => not_but("an empty file"),
            Self::NotParquet => not_but("a file that is not Parquet"),
            Self::Foreign => not_but("a Parquet file of something else"),
            Self::Changed(what) => not_but(&format!(
                "what another program has made of one: {what} is not as wherefore writes it"
            )),
            Self::Newer(version) => ReadError::Newer { path, version },
            Self::Truncated => ReadError::Truncated { path, bytes },
        }
    }
}

type Found = Result<(Footer, Option<Recovery>), Nothing>;

fn find(file: &File, len: u64) -> io::Result<Found> {
    if len < PARQUET.len() as u64 || read(file, 0, PARQUET.len() as u64)? != PARQUET {
        // Cut within the magic, it is a recording that never began, or anything.
        let begun = len > 0 && len < 4 && PARQUET.starts_with(&read(file, 0, len)?);
        return Ok(Err(match len {
            0 => Nothing::Empty,
            _ if begun => Nothing::Truncated,
            _ => Nothing::NotParquet,
        }));
    }
    let reason = match read_footer(file, len)? {
        Ok(footer) if fits(&footer, len) => return Ok(Ok((footer, None))),
        Err(Unusable::Newer(version)) => return Ok(Err(Nothing::Newer(version))),
        Err(Unusable::Foreign) => Nothing::Foreign,
        Err(Unusable::Changed(what)) => Nothing::Changed(what),
        Ok(_) | Err(Unusable::Damaged) => Nothing::Truncated,
    };
    recover(file, len, reason)
}

fn read_footer(file: &File, len: u64) -> io::Result<Result<Footer, Unusable>> {
    let tail = read(file, len.saturating_sub(TAIL as u64), len.min(TAIL as u64))?;
    let Some((size, magic)) = tail.split_first_chunk::<4>() else {
        return Ok(Err(Unusable::Damaged));
    };
    let size = u64::from(u32::from_le_bytes(*size));
    let begin = len.checked_sub(TAIL as u64 + size);
    Ok(match begin {
        Some(begin) if magic == PARQUET => footer::decode(&read(file, begin, size)?),
        _ => Err(Unusable::Damaged),
    })
}

fn fits(footer: &Footer, len: u64) -> bool {
    let holds =
        |part: &Part| part.from <= part.to && part.to <= len && part.rows <= PART_ROWS as u64;
    footer.parts.iter().all(|(_, part)| holds(part))
}

/// Walks from the last intact checkpoint to the first. Where one is damaged, the one before it is searched.
fn recover(file: &File, len: u64, reason: Nothing) -> io::Result<Found> {
    let mut footer = Footer { host: Host::default(), parts: Vec::new() };
    let mut counted = Vec::new();
    let mut host = None;
    let mut last = None;
    let mut before = len;
    while let Some((end, bytes)) = last_checkpoint(file, before)? {
        let (begin, blocks, trailer) =
            checkpoint::decode(&bytes).ok_or(io::ErrorKind::InvalidData)?;
        if trailer.schema_version > SCHEMA_VERSION {
            return Ok(Err(Nothing::Newer(trailer.schema_version)));
        }
        last.get_or_insert(end);
        if host.is_none() && !blocks.host.is_empty() {
            host = serde_json::from_slice(blocks.host).ok();
        }
        let begin = end - (bytes.len() - begin) as u64;
        counted.push((trailer.rows_before, trailer.rows));
        let is_part = trailer.rows <= PART_ROWS as u64;
        if let Some(row_group) = footer::decode_row_group(blocks.metadata).filter(|_| is_part) {
            footer.parts.push((row_group, listed(&trailer, begin, end)));
        }
        before = next_before(file, &trailer, begin)?;
    }
    let Some((found, end)) = host.zip(last) else {
        return Ok(Err(reason));
    };
    footer.host = found;
    footer.parts.reverse();
    counted.reverse();
    Ok(Ok((footer, Some(Recovery { bytes_after: len - end, holes: holes(&counted) }))))
}

/// Where the checkpoints' counts (rows before, and of the part itself) do not follow on each other.
fn holes(counted: &[(u64, u64)]) -> Vec<Hole> {
    let mut holes = Vec::new();
    let (mut expected, mut before) = (0, 0);
    for &(rows_before, rows) in counted {
        if rows_before > expected {
            holes.push(Hole { before, events: rows_before - expected });
        }
        expected = rows_before.saturating_add(rows);
        before += usize::from(rows > 0);
    }
    holes
}

fn listed(trailer: &Trailer, begin: u64, end: u64) -> Part {
    Part {
        from: trailer.from,
        to: begin,
        rows: trailer.rows,
        hash: trailer.part_hash,
        checkpoint: end,
    }
}

/// Where the checkpoint before one that begins at `begin` ends, if the chain is whole; else where to search.
fn next_before(file: &File, trailer: &Trailer, begin: u64) -> io::Result<u64> {
    if trailer.previous < begin && intact(file, trailer.previous)?.is_some() {
        return Ok(trailer.previous);
    }
    Ok(begin)
}

/// The last intact checkpoint that ends at or before `before`: its end and its bytes.
fn last_checkpoint(file: &File, before: u64) -> io::Result<Option<(u64, Vec<u8>)>> {
    if let Some(bytes) = intact(file, before)? {
        return Ok(Some((before, bytes)));
    }
    let mut end = before;
    while end > 0 {
        let begin = end.saturating_sub(SEARCH_BYTES);
        let bytes = read(file, begin, end - begin)?;
        for at in (0..=bytes.len().saturating_sub(MAGIC.len())).rev() {
            if bytes[at..].starts_with(&MAGIC) {
                let candidate = begin + (at + MAGIC.len()) as u64;
                if let Some(bytes) = intact(file, candidate)? {
                    return Ok(Some((candidate, bytes)));
                }
            }
        }
        // The magic may straddle the border of what was looked at.
        end = if begin == 0 { 0 } else { begin + MAGIC.len() as u64 - 1 };
    }
    Ok(None)
}

/// The bytes of the checkpoint that ends at `end`, if there is an intact one.
fn intact(file: &File, end: u64) -> io::Result<Option<Vec<u8>>> {
    let bytes = checkpoint_bytes(file, end)?;
    Ok(bytes.filter(|bytes| checkpoint::decode(bytes).is_some()))
}

/// The bytes of the checkpoint that ends at `end`, if its trailer may be one.
fn checkpoint_bytes(file: &File, end: u64) -> io::Result<Option<Vec<u8>>> {
    let Some(begin) = end.checked_sub(TRAILER_SIZE as u64) else {
        return Ok(None);
    };
    let trailer: Trailer = bytemuck::pod_read_unaligned(&read(file, begin, TRAILER_SIZE as u64)?);
    if trailer.magic != MAGIC {
        return Ok(None);
    }
    let size = checkpoint::size(&trailer) as u64;
    match end.checked_sub(size) {
        Some(begin) => Ok(Some(read(file, begin, size)?)),
        None => Ok(None),
    }
}

fn read(file: &File, at: u64, len: u64) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(len).map_err(io::Error::other)?];
    file.read_exact_at(&mut bytes, at)?;
    Ok(bytes)
}
