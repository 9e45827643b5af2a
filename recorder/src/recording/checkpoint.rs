//! What stands after each row group so that a file cut off anywhere is readable up to its last complete part.
//!
//! ```text
//! Parquet metadata of one row group (none in the first and last checkpoint) │ index │ host │ trailer
//! ```
//!
//! The trailer stands last, so that it is found by looking backwards from the end of a broken file; it
//! leads to the checkpoint before it. Each part is described once: the sum of all checkpoints is linear.

use std::hash::Hasher;
use std::io::{self, Write};
use std::mem::size_of;

use bytemuck::{Pod, Zeroable};
use parquet::file::metadata::RowGroupMetaData;
use serde::{Deserialize, Serialize};
use twox_hash::XxHash64;

/// The last eight bytes of a checkpoint.
pub(super) const MAGIC: [u8; 8] = *b"whypart\n";

/// The end of a checkpoint, little endian as the machines we run on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub(super) struct Trailer {
    pub(super) metadata_len: u32,
    pub(super) index_len: u32,
    pub(super) host_len: u32,
    pub(super) schema_version: u32,
    /// Where the part's row group begins in the file; it ends where the checkpoint begins.
    pub(super) from: u64,
    pub(super) rows: u64,
    /// Rows of all parts before, so that it is known how many a damaged checkpoint hides.
    pub(super) rows_before: u64,
    /// [`part_hash`] of the row group.
    pub(super) part_hash: u64,
    /// Where the checkpoint before this one ends in the file; 0: this is the first.
    pub(super) previous: u64,
    /// xxHash64 of the three blocks and the fields above.
    pub(super) hash: u64,
    pub(super) magic: [u8; 8],
}

pub(super) const TRAILER_SIZE: usize = size_of::<Trailer>();
const _: () = assert!(TRAILER_SIZE == 72 && cfg!(target_endian = "little"));

/// One part as the footer lists it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Part {
    /// First byte of the row group, and first byte after it.
    pub(super) from: u64,
    pub(super) to: u64,
    pub(super) rows: u64,
    pub(super) hash: u64,
    /// First byte after the checkpoint that follows the row group.
    pub(super) checkpoint: u64,
}

/// A checkpoint's three blocks.
#[derive(Clone, Copy, Default)]
pub(super) struct Blocks<'a> {
    pub(super) metadata: &'a [u8],
    pub(super) index: &'a [u8],
    pub(super) host: &'a [u8],
}

/// The bytes of a checkpoint. The lengths, hash and magic of `trailer` are filled in here.
pub(super) fn encode(blocks: Blocks<'_>, mut trailer: Trailer) -> Vec<u8> {
    trailer.metadata_len = blocks.metadata.len() as u32;
    trailer.index_len = blocks.index.len() as u32;
    trailer.host_len = blocks.host.len() as u32;
    trailer.magic = MAGIC;
    let mut bytes = [blocks.metadata, blocks.index, blocks.host].concat();
    trailer.hash = hash(&bytes, &trailer);
    bytes.extend_from_slice(bytemuck::bytes_of(&trailer));
    bytes
}

/// The checkpoint that ends where `bytes` end, and where it begins in them; `None` if there is no intact one.
pub(super) fn decode(bytes: &[u8]) -> Option<(usize, Blocks<'_>, Trailer)> {
    let (before, trailer) = bytes.split_at_checked(bytes.len().checked_sub(TRAILER_SIZE)?)?;
    let trailer: Trailer = bytemuck::pod_read_unaligned(trailer);
    let index_at = trailer.metadata_len as usize;
    let host_at = index_at + trailer.index_len as usize;
    let len = host_at + trailer.host_len as usize;
    let begin = before.len().checked_sub(len)?;
    let payload = &before[begin..];
    if trailer.magic != MAGIC || trailer.hash != hash(payload, &trailer) {
        return None;
    }
    let blocks = Blocks {
        metadata: &payload[..index_at],
        index: &payload[index_at..host_at],
        host: &payload[host_at..],
    };
    Some((begin, blocks, trailer))
}

/// How many bytes the checkpoint with this trailer occupies.
pub(super) fn size(trailer: &Trailer) -> usize {
    trailer.metadata_len as usize
        + trailer.index_len as usize
        + trailer.host_len as usize
        + TRAILER_SIZE
}

fn hash(payload: &[u8], trailer: &Trailer) -> u64 {
    let mut hasher = XxHash64::with_seed(0);
    hasher.write(payload);
    hasher.write(&bytemuck::bytes_of(trailer)[..TRAILER_SIZE - 2 * size_of::<u64>()]);
    hasher.finish()
}

/// xxHash64 of a row group: of its bytes, fed into `hasher` before, and of the numbers in its metadata
/// that say how to read them. One flipped bit in either changes it. (Parquet has page checksums, but few
/// writers write them, and they do not cover the metadata.)
pub(super) fn part_hash(mut hasher: XxHash64, row_group: &RowGroupMetaData) -> u64 {
    hasher.write(&row_group.num_rows().to_le_bytes());
    for column in row_group.columns() {
        for number in [
            column.num_values(),
            column.data_page_offset(),
            column.dictionary_page_offset().unwrap_or(0),
            column.compressed_size(),
            column.uncompressed_size(),
        ] {
            hasher.write(&number.to_le_bytes());
        }
    }
    hasher.finish()
}

/// Passes bytes on, counting and hashing them.
pub(super) struct Hashed<W> {
    pub(super) inner: W,
    pub(super) hasher: XxHash64,
    pub(super) position: u64,
}

impl<W> Hashed<W> {
    pub(super) fn new(inner: W) -> Self {
        Self { inner, hasher: XxHash64::with_seed(0), position: 0 }
    }

    /// The hash of what was written since the last call.
    pub(super) fn take(&mut self) -> XxHash64 {
        std::mem::replace(&mut self.hasher, XxHash64::with_seed(0))
    }
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(buf)?;
        self.hasher.write(&buf[..written]);
        self.position += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
