//! What a recording says of itself in Parquet's metadata: its version, its host, its parts.

use std::hash::Hasher;
use std::sync::Arc;

use parquet::errors::Result;
use parquet::file::metadata::{
    FileMetaData, KeyValue, ParquetMetaData, ParquetMetaDataReader, ParquetMetaDataWriter,
    RowGroupMetaData,
};
use parquet::schema::types::{ColumnDescPtr, SchemaDescPtr, SchemaDescriptor};
use twox_hash::XxHash64;

use super::checkpoint::Part;
use super::{SCHEMA_VERSION, columns};
use crate::event::Host;

const SCHEMA: &str = "wherefore.schema";
const HOST: &str = "wherefore.host";
const PARTS: &str = "wherefore.parts";
/// xxHash64 of the three above, in hexadecimal: Parquet's footer has no checksum.
const CHECK: &str = "wherefore.check";

/// A Parquet footer's tail: the length of the metadata, and `PAR1`.
pub(super) const TAIL: usize = 8;

pub(super) fn encode_host(host: &Host) -> String {
    serde_json::to_string(host).expect("a host is plain data")
}

fn key_values(version: u32, host: &Host, parts: &[Part]) -> Vec<KeyValue> {
    let schema = version.to_string();
    let host = encode_host(host);
    let parts = serde_json::to_string(parts).expect("parts are plain data");
    let check = check(&schema, &host, &parts);
    [(SCHEMA, schema), (HOST, host), (PARTS, parts), (CHECK, check)]
        .map(|(key, value)| KeyValue::new(key.to_owned(), value))
        .to_vec()
}

fn check(schema: &str, host: &str, parts: &str) -> String {
    let mut hasher = XxHash64::with_seed(0);
    for text in [schema, host, parts] {
        hasher.write(&(text.len() as u64).to_le_bytes());
        hasher.write(text.as_bytes());
    }
    format!("{:016x}", hasher.finish())
}

/// The metadata of one row group as a file with only this one would have it, without the tail.
pub(super) fn encode_row_group(
    schema: &SchemaDescPtr,
    row_group: &RowGroupMetaData,
) -> Result<Vec<u8>> {
    let rows = row_group.num_rows();
    let file = FileMetaData::new(1, rows, None, None, schema.clone(), None);
    let mut bytes = encode(file, vec![row_group.clone()])?;
    // Without it, a file cut off just here would look like a finished one.
    bytes.truncate(bytes.len() - TAIL);
    Ok(bytes)
}

fn encode(file: FileMetaData, row_groups: Vec<RowGroupMetaData>) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    ParquetMetaDataWriter::new(&mut bytes, &ParquetMetaData::new(file, row_groups)).finish()?;
    Ok(bytes)
}

/// What the metadata of a recording says.
pub(super) struct Footer {
    pub(super) host: Host,
    pub(super) parts: Vec<(RowGroupMetaData, Part)>,
}

/// Why a footer does not give a [`Footer`].
pub(super) enum Unusable {
    /// There is none, or it is damaged.
    Damaged,
    /// It is that of another Parquet file.
    Foreign,
    /// It is whole, and another program has changed this.
    Changed(String),
    Newer(u32),
}

/// Reads a footer's metadata (without the tail).
pub(super) fn decode(bytes: &[u8]) -> std::result::Result<Footer, Unusable> {
    let metadata = decode_metadata(bytes).ok_or(Unusable::Damaged)?;
    let value = |key: &str| {
        let pairs = metadata.file_metadata().key_value_metadata()?;
        pairs.iter().find(|pair| pair.key == key)?.value.as_deref()
    };
    let version = value(SCHEMA).ok_or(Unusable::Foreign)?;
    let (host, parts) = (value(HOST).unwrap_or_default(), value(PARTS).unwrap_or_default());
    // Later versions keep these keys and the rule of the check, or have none.
    let intact = value(CHECK).is_none_or(|found| found == check(version, host, parts));
    let version: u32 = version.parse().map_err(|_| Unusable::Damaged)?;
    if version > SCHEMA_VERSION && intact {
        return Err(Unusable::Newer(version));
    }
    if !intact {
        return Err(Unusable::Damaged);
    }
    if !schema_fits(&metadata) {
        return Err(Unusable::Changed(misfit(&metadata)));
    }
    let not_ours = |key: &'static str| Unusable::Changed(format!("the metadata `{key}`"));
    let host = serde_json::from_str(host).map_err(|_| not_ours(HOST))?;
    let parts: Vec<Part> = serde_json::from_str(parts).map_err(|_| not_ours(PARTS))?;
    if parts.len() != metadata.num_row_groups() {
        return Err(Unusable::Changed("the row groups".to_owned()));
    }
    Ok(Footer { host, parts: metadata.row_groups().iter().cloned().zip(parts).collect() })
}

/// The row group that [`encode_row_group`] described.
pub(super) fn decode_row_group(bytes: &[u8]) -> Option<RowGroupMetaData> {
    let metadata = decode_metadata(bytes)?;
    (metadata.num_row_groups() == 1 && schema_fits(&metadata))
        .then(|| metadata.row_group(0).clone())
}

fn decode_metadata(bytes: &[u8]) -> Option<ParquetMetaData> {
    // Thrift of unknown origin goes into a parser that has panicked on such before.
    std::panic::catch_unwind(|| ParquetMetaDataReader::decode_metadata(bytes)).ok()?.ok()
}

/// The first column that is not as this version writes it, or is missing, or is too many.
fn misfit(metadata: &ParquetMetaData) -> String {
    let ours = SchemaDescriptor::new(columns::schema());
    let theirs = metadata.file_metadata().schema_descr().columns();
    let ours = ours.columns();
    let differs = ours.iter().find(|a| !theirs.iter().any(|b| fits(a, b)));
    let more = || theirs.iter().find(|b| !ours.iter().any(|a| fits(a, b)));
    match differs.or_else(more) {
        Some(column) => format!("the column `{}`", column.name()),
        None => "the columns' number or order".to_owned(),
    }
}

fn fits(one: &ColumnDescPtr, other: &ColumnDescPtr) -> bool {
    let levels = |column: &ColumnDescPtr| (column.max_def_level(), column.max_rep_level());
    one.path() == other.path()
        && one.physical_type() == other.physical_type()
        && levels(one) == levels(other)
}

/// Whether the columns are those this program writes, or wrote in an earlier version, by name, type and whether
/// they may be null.
fn schema_fits(metadata: &ParquetMetaData) -> bool {
    let ours = SchemaDescriptor::new(columns::schema());
    let theirs = metadata.file_metadata().schema_descr().columns();
    let all_fit = |ours: &[ColumnDescPtr]| {
        ours.len() == theirs.len() && ours.iter().zip(theirs).all(|(a, b)| fits(a, b))
    };
    let of = |version: u32| -> Vec<ColumnDescPtr> {
        let ours = ours.columns().iter();
        ours.filter(|column| columns::since(column.name()) <= version).cloned().collect()
    };
    (1..=SCHEMA_VERSION).any(|version| all_fit(&of(version)))
}

/// A footer for row groups that have none, with its tail: what makes a cut-off recording whole again.
pub(super) fn encode_footer(host: &Host, parts: &[(RowGroupMetaData, Part)]) -> Result<Vec<u8>> {
    // Parts of an earlier version keep its columns.
    let schema = match parts.first() {
        Some((row_group, _)) => row_group.schema_descr_ptr(),
        None => Arc::new(SchemaDescriptor::new(columns::schema())),
    };
    let listed: Vec<Part> = parts.iter().map(|(_, part)| part.clone()).collect();
    let rows = parts.iter().map(|(row_group, _)| row_group.num_rows()).sum();
    let pairs = Some(key_values(columns::version(&schema), host, &listed));
    let numbered = parts.iter().enumerate().map(|(ordinal, (row_group, _))| {
        row_group.clone().into_builder().set_ordinal(ordinal as i32).build()
    });
    let created_by = Some(columns::created_by());
    let file = FileMetaData::new(1, rows, created_by, pairs, schema, None);
    encode(file, numbered.collect::<Result<_>>()?)
}
