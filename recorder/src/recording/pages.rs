//! Columns as Parquet dictionary pages, written (and texts read) by dictionary index instead of by value.
//!
//! The `parquet` crate hashes and compares the bytes of every row's value. Our names are numbers already,
//! and most columns hold the same value for thousands of rows: encoding the indices directly makes such
//! a column almost free, both ways. The layout is Parquet's own (encodings document, "RLE /
//! bit-packing hybrid" and "dictionary encoding"); any reader reads it.

use std::collections::HashMap;

use bytes::Bytes;
use parquet::basic::{Compression, Encoding, Type, ZstdLevel};
use parquet::column::page::{CompressedPage, Page, PageReader, PageWriter};
use parquet::column::writer::ColumnCloseResult;
use parquet::errors::{ParquetError, Result};
use parquet::file::metadata::ColumnChunkMetaData;
use parquet::file::statistics::Statistics;
use parquet::file::writer::{SerializedPageWriter, TrackedWrite};
use parquet::schema::types::ColumnDescPtr;

use super::columns::ZSTD_LEVEL;
use super::index::Quick;

/// Stands for a null among dictionary indices.
pub(super) const NULL: u32 = u32::MAX;

/// The values of one column of one part, each once, in order of appearance.
#[derive(Default)]
pub(super) struct Dictionary {
    /// Parquet's PLAIN encoding: numbers in little endian; texts after their length as 4 bytes.
    plain: Vec<u8>,
    count: u32,
    /// Lowest and highest of the numbers, so that readers can pass over a part.
    bounds: Option<(i64, i64)>,
}

/// A [`Dictionary`] of texts.
#[derive(Default)]
pub(super) struct Texts {
    /// By the caller's key, [`NULL`] where there is none yet. Keys are small: they are indices too.
    index_of: Vec<u32>,
    pub(super) dictionary: Dictionary,
}

/// A [`Dictionary`] of numbers of `width` bytes.
pub(super) struct Numbers {
    index_of: HashMap<i64, u32, Quick>,
    width: usize,
    pub(super) dictionary: Dictionary,
}

impl Numbers {
    pub(super) fn new(width: usize) -> Self {
        Self { index_of: HashMap::default(), width, dictionary: Dictionary::default() }
    }

    pub(super) fn index(&mut self, number: i64) -> u32 {
        let dictionary = &mut self.dictionary;
        *self.index_of.entry(number).or_insert_with(|| {
            dictionary.plain.extend_from_slice(&number.to_le_bytes()[..self.width]);
            let (low, high) = dictionary.bounds.unwrap_or((number, number));
            dictionary.bounds = Some((low.min(number), high.max(number)));
            dictionary.count += 1;
            dictionary.count - 1
        })
    }
}

impl Texts {
    /// The index of the text that the caller knows as `key`; `text` is asked for once per key.
    pub(super) fn index(&mut self, key: u32, text: impl FnOnce() -> String) -> u32 {
        let key = key as usize;
        if key >= self.index_of.len() {
            self.index_of.resize(key + 1, NULL);
        }
        if self.index_of[key] == NULL {
            let text = text();
            let Dictionary { plain, count, .. } = &mut self.dictionary;
            plain.extend_from_slice(&(text.len() as u32).to_le_bytes());
            plain.extend_from_slice(text.as_bytes());
            self.index_of[key] = *count;
            *count += 1;
        }
        self.index_of[key]
    }

    pub(super) fn clear(&mut self) {
        self.index_of.clear();
        self.dictionary = Dictionary::default();
    }

    pub(super) fn texts(&self) -> Vec<&str> {
        let Dictionary { plain, count, .. } = &self.dictionary;
        split_plain(plain, *count).expect("written by `index`")
    }
}

/// The strings of a PLAIN page of `count` of them; `None` if it is not one.
fn split_plain(mut plain: &[u8], count: u32) -> Option<Vec<&str>> {
    let mut texts = Vec::new();
    for _ in 0..count {
        let (len, rest) = plain.split_first_chunk::<4>()?;
        let (text, rest) = rest.split_at_checked(u32::from_le_bytes(*len) as usize)?;
        texts.push(std::str::from_utf8(text).ok()?);
        plain = rest;
    }
    Some(texts)
}

/// The column chunk of `rows`, indices in `dictionary` or [`NULL`].
pub(super) fn encode(
    column: ColumnDescPtr,
    rows: &[u32],
    dictionary: &Dictionary,
) -> Result<(Bytes, ColumnCloseResult)> {
    let mut sink = TrackedWrite::new(Vec::new());
    let mut pages = SerializedPageWriter::new(&mut sink);
    let compressed = zstd::bulk::compress(&dictionary.plain, ZSTD_LEVEL)?;
    let page = Page::DictionaryPage {
        buf: compressed.into(),
        num_values: dictionary.count,
        encoding: Encoding::PLAIN,
        is_sorted: false,
    };
    let head = pages.write_page(CompressedPage::new(page, dictionary.plain.len()))?;
    let data = pages.write_page(data_page(rows, dictionary.count, column.max_def_level() > 0)?)?;
    pages.close()?;
    let mut metadata = ColumnChunkMetaData::builder(column.clone())
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(ZSTD_LEVEL)?))
        .set_encodings(vec![Encoding::PLAIN, Encoding::RLE, Encoding::RLE_DICTIONARY])
        .set_num_values(rows.len() as i64)
        .set_dictionary_page_offset(Some(head.offset as i64))
        .set_data_page_offset(data.offset as i64)
        .set_total_compressed_size((head.compressed_size + data.compressed_size) as i64)
        .set_total_uncompressed_size((head.uncompressed_size + data.uncompressed_size) as i64);
    if let Some(bounds) = dictionary.bounds {
        let nulls = rows.iter().filter(|&&row| row == NULL).count() as u64;
        metadata = metadata.set_statistics(statistics(column.physical_type(), bounds, nulls));
    }
    let metadata = metadata.build()?;
    let close = ColumnCloseResult {
        bytes_written: head.bytes_written + data.bytes_written,
        rows_written: rows.len() as u64,
        metadata,
        bloom_filter: None,
        column_index: None,
        offset_index: None,
    };
    Ok((sink.into_inner()?.into(), close))
}

fn statistics(of: Type, (low, high): (i64, i64), nulls: u64) -> Statistics {
    match of {
        Type::INT32 => {
            Statistics::int32(Some(low as i32), Some(high as i32), None, Some(nulls), false)
        }
        _ => Statistics::int64(Some(low), Some(high), None, Some(nulls), false),
    }
}

/// A version 2 page: its levels stay uncompressed, and so do values that zstd cannot shrink.
fn data_page(rows: &[u32], dictionary: u32, nullable: bool) -> Result<CompressedPage> {
    let mut buf = Vec::new();
    let present: Vec<u32>;
    let mut values = rows;
    if nullable {
        let levels: Vec<u32> = rows.iter().map(|&row| u32::from(row != NULL)).collect();
        hybrid_encode(&levels, 1, &mut buf);
        present = rows.iter().copied().filter(|&row| row != NULL).collect();
        values = &present;
    }
    let levels_len = buf.len();
    let bits = (u32::BITS - dictionary.saturating_sub(1).leading_zeros()) as u8;
    let mut indices = vec![bits];
    hybrid_encode(values, bits, &mut indices);
    let uncompressed_size = levels_len + indices.len();
    let compressed = zstd::bulk::compress(&indices, ZSTD_LEVEL)?;
    let is_compressed = compressed.len() < indices.len();
    buf.extend_from_slice(if is_compressed { &compressed } else { &indices });
    let page = Page::DataPageV2 {
        buf: buf.into(),
        num_values: rows.len() as u32,
        encoding: Encoding::RLE_DICTIONARY,
        num_nulls: (rows.len() - values.len()) as u32,
        num_rows: rows.len() as u32,
        def_levels_byte_len: levels_len as u32,
        rep_levels_byte_len: 0,
        is_compressed,
        statistics: None,
    };
    Ok(CompressedPage::new(page, uncompressed_size))
}

/// Appends `values`, each below 2^`bits`, in Parquet's hybrid of runs and bit-packed groups of eight.
fn hybrid_encode(values: &[u32], bits: u8, out: &mut Vec<u8>) {
    let mut literals = 0; // values[literals..run] wait to be bit-packed
    let mut run = 0;
    while run < values.len() {
        let value = values[run];
        let len = values[run..].iter().take_while(|&&v| v == value).count();
        // Only the last bit-packed group may be short, so a run gives up what fills the one before it.
        let fill = (run - literals).wrapping_neg() % 8;
        if len >= fill + 8 {
            bit_pack(&values[literals..run + fill], bits, out);
            varint(((len - fill) as u64) << 1, out);
            out.extend_from_slice(&value.to_le_bytes()[..usize::from(bits).div_ceil(8)]);
            literals = run + len;
        }
        run += len;
    }
    bit_pack(&values[literals..], bits, out);
}

fn bit_pack(values: &[u32], bits: u8, out: &mut Vec<u8>) {
    if values.is_empty() {
        return;
    }
    varint(((values.len().div_ceil(8) as u64) << 1) | 1, out);
    for group in values.chunks(8) {
        let mut word = 0_u128;
        let mut filled = 0_u32;
        let mut bytes_left = usize::from(bits);
        for slot in 0..8 {
            word |= u128::from(group.get(slot).copied().unwrap_or(0)) << filled;
            filled += u32::from(bits);
            while filled >= 8 {
                out.push(word as u8);
                word >>= 8;
                filled -= 8;
                bytes_left -= 1;
            }
        }
        debug_assert_eq!((filled, bytes_left), (0, 0), "eight values of n bits fill n bytes");
    }
}

/// Appends a number in groups of seven bits, least significant first (LEB128).
pub(super) fn varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Takes a number as [`varint`] wrote it off the front of `from`; `None` if there is none.
pub(super) fn take_varint(from: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = from.split_first()?;
        *from = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

/// Decodes exactly `count` values that [`hybrid_encode`] (or any Parquet writer) encoded.
fn hybrid_decode(mut from: &[u8], bits: u8, count: usize, out: &mut Vec<u32>) -> Option<()> {
    let end = out.len() + count;
    let width = usize::from(bits);
    while out.len() < end {
        let header = take_varint(&mut from)?;
        let len = usize::try_from(header >> 1).ok()?;
        if header & 1 == 0 {
            let (bytes, rest) = from.split_at_checked(width.div_ceil(8))?;
            let mut value = [0; 4];
            value[..bytes.len()].copy_from_slice(bytes);
            out.resize(out.len() + len.min(end - out.len()), u32::from_le_bytes(value));
            from = rest;
            continue;
        }
        let (groups, rest) = from.split_at_checked(len.checked_mul(width)?.min(from.len()))?;
        if width == 0 {
            out.resize(end.min(out.len() + len.checked_mul(8)?), 0);
        } else {
            bit_unpack(groups, bits, end, out);
        }
        if rest.is_empty() && out.len() < end {
            return None;
        }
        from = rest;
    }
    Some(())
}

fn bit_unpack(groups: &[u8], bits: u8, end: usize, out: &mut Vec<u32>) {
    let mask = (1_u64 << bits) - 1;
    let (mut word, mut filled) = (0_u64, 0_u8);
    for &byte in groups {
        word |= u64::from(byte) << filled;
        filled += 8;
        while filled >= bits {
            if out.len() == end {
                return;
            }
            out.push((word & mask) as u32);
            word >>= bits;
            filled -= bits;
        }
    }
}

/// A decoded text column: its distinct texts, and for each row an index in them or [`NULL`].
pub(super) struct TextColumn {
    pub(super) texts: Vec<String>,
    pub(super) rows: Vec<u32>,
}

/// Reads a column chunk that [`encode`] wrote.
pub(super) fn decode(pages: &mut dyn PageReader, nullable: bool) -> Result<TextColumn> {
    let mut column = TextColumn { texts: Vec::new(), rows: Vec::new() };
    while let Some(page) = pages.get_next_page()? {
        match page {
            Page::DictionaryPage { buf, num_values, .. } => {
                let texts = split_plain(&buf, num_values).ok_or_else(|| bad("dictionary page"))?;
                column.texts = texts.into_iter().map(str::to_owned).collect();
            }
            Page::DataPageV2 {
                buf,
                num_values,
                num_nulls,
                encoding: Encoding::RLE_DICTIONARY,
                def_levels_byte_len,
                rep_levels_byte_len: 0,
                ..
            } => {
                let (levels, indices) = buf
                    .split_at_checked(def_levels_byte_len as usize)
                    .ok_or_else(|| bad("data page"))?;
                let count = num_values as usize;
                let present =
                    count.checked_sub(num_nulls as usize).ok_or_else(|| bad("data page"))?;
                decode_page(levels, indices, count, present, nullable, &mut column)
                    .ok_or_else(|| bad("data page"))?;
            }
            _ => return Err(bad("kind of page")),
        }
    }
    Ok(column)
}

fn decode_page(
    levels: &[u8],
    indices: &[u8],
    count: usize,
    present: usize,
    nullable: bool,
    column: &mut TextColumn,
) -> Option<()> {
    let (&bits, indices) = indices.split_first()?;
    if bits > 32 || count > super::PART_ROWS {
        return None;
    }
    let mut values = Vec::with_capacity(present);
    hybrid_decode(indices, bits, present, &mut values)?;
    if values.iter().any(|&value| value as usize >= column.texts.len()) {
        return None;
    }
    if !nullable || present == count {
        column.rows.append(&mut values);
        return Some(());
    }
    let mut present = Vec::with_capacity(count);
    hybrid_decode(levels, 1, count, &mut present)?;
    let mut values = values.into_iter();
    for is_present in present {
        column.rows.push(if is_present == 1 { values.next()? } else { NULL });
    }
    Some(())
}

fn bad(what: &str) -> ParquetError {
    ParquetError::General(format!("a text column holds an unexpected {what}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn hybrid_round_trip(
            runs in prop::collection::vec((any::<u32>(), 1..40_usize), 0..30),
            bits in 0..=32_u8,
        ) {
            let mask = if bits == 32 { u32::MAX } else { (1 << bits) - 1 };
            let values: Vec<u32> =
                runs.iter().flat_map(|&(value, len)| vec![value & mask; len]).collect();
            let mut encoded = Vec::new();
            hybrid_encode(&values, bits, &mut encoded);
            let mut decoded = Vec::new();
            hybrid_decode(&encoded, bits, values.len(), &mut decoded).expect("what was encoded");
            prop_assert_eq!(&decoded, &values);
            // Never a panic, and never more values than asked for, whatever the bytes.
            for cut in 0..encoded.len() {
                decoded.clear();
                let _ = hybrid_decode(&encoded[..cut], bits, values.len(), &mut decoded);
                prop_assert!(decoded.len() <= values.len());
            }
        }

        #[test]
        fn varint_round_trip(value: u64) {
            let mut encoded = Vec::new();
            varint(value, &mut encoded);
            prop_assert_eq!(take_varint(&mut encoded.as_slice()), Some(value));
        }
    }
}
