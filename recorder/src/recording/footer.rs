//! What a recording says of itself in Parquet's metadata: its version, its host, its parts.

use std::hash::Hasher;

use parquet::errors::Result;
use parquet::file::metadata::{
    FileMetaData, KeyValue, ParquetMetaData, ParquetMetaDataWriter, RowGroupMetaData,
};
use parquet::schema::types::SchemaDescPtr;
use twox_hash::XxHash64;

use super::SCHEMA_VERSION;
use super::checkpoint::Part;
use crate::event::Host;

pub(super) const SCHEMA: &str = "wherefore.schema";
pub(super) const HOST: &str = "wherefore.host";
pub(super) const PARTS: &str = "wherefore.parts";
/// xxHash64 of the three above, in hexadecimal: Parquet's footer has no checksum.
pub(super) const CHECK: &str = "wherefore.check";

/// A Parquet footer's tail: the length of the metadata, and `PAR1`.
pub(super) const TAIL: usize = 8;

pub(super) fn encode_host(host: &Host) -> String {
    serde_json::to_string(host).expect("a host is plain data")
}

pub(super) fn key_values(host: &Host, parts: &[Part]) -> Vec<KeyValue> {
    let schema = SCHEMA_VERSION.to_string();
    let host = encode_host(host);
    let parts = serde_json::to_string(parts).expect("parts are plain data");
    let check = check(&schema, &host, &parts);
    [(SCHEMA, schema), (HOST, host), (PARTS, parts), (CHECK, check)]
        .map(|(key, value)| KeyValue::new(key.to_owned(), value))
        .to_vec()
}

pub(super) fn check(schema: &str, host: &str, parts: &str) -> String {
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
