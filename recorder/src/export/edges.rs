//! Edges as rows of a Parquet file, to be joined with a recording's rows by other tools.

use std::fs::File;
use std::sync::Arc;

use anyhow::Result;
use parquet::basic::{Compression, ZstdLevel};
use parquet::data_type::{ByteArray, ByteArrayType, DataType, Int64Type};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::parser::parse_message_type;

use super::{Excerpt, Link};
use crate::event::{Event, History};

/// An event is named by what identifies it: host, CPU, ring and position.
const SCHEMA: &str = "message edge {
    required binary from_host (utf8); required int64 from_cpu; required binary from_ring (utf8);
    required int64 from_position; required binary from_side (utf8);
    required binary to_host (utf8); required int64 to_cpu; required binary to_ring (utf8);
    required int64 to_position; required binary to_side (utf8);
    required binary kind (utf8); required binary proof (utf8);
}";

/// Edges per row group.
const PART: usize = 1 << 17;

/// Writes the edges among the excerpt's events.
pub fn edges(excerpt: &Excerpt<'_>, file: File) -> Result<()> {
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(1)?))
        .build();
    let schema = Arc::new(parse_message_type(SCHEMA)?);
    let mut writer = SerializedFileWriter::new(file, schema, Arc::new(properties))?;
    let mut links = excerpt.links().peekable();
    while links.peek().is_some() {
        let part: Vec<Link> = links.by_ref().take(PART).collect();
        let mut group = writer.next_row_group()?;
        write_part(excerpt.history, &part, &mut group)?;
        group.close()?;
    }
    writer.close()?;
    Ok(())
}

fn write_part(
    history: &History,
    links: &[Link],
    group: &mut SerializedRowGroupWriter<'_, File>,
) -> Result<()> {
    let event = |index: u32| &history.events[index as usize];
    for side in [true, false] {
        let end = |link: &Link| event(if side { link.from } else { link.to });
        column::<ByteArrayType>(group, links.iter().map(|l| text(host(history, end(l)))))?;
        column::<Int64Type>(group, links.iter().map(|l| i64::from(end(l).cpu)))?;
        column::<ByteArrayType>(group, links.iter().map(|l| text(end(l).ring.as_str())))?;
        column::<Int64Type>(group, links.iter().map(|l| end(l).position as i64))?;
        let name = |l: &Link| text(if side { l.from_side } else { l.to_side }.as_str());
        column::<ByteArrayType>(group, links.iter().map(name))?;
    }
    column::<ByteArrayType>(group, links.iter().map(|l| text(l.edge.kind.as_str())))?;
    column::<ByteArrayType>(group, links.iter().map(|l| text(l.edge.proof.as_str())))
}

fn column<T: DataType>(
    group: &mut SerializedRowGroupWriter<'_, File>,
    values: impl Iterator<Item = T::T>,
) -> Result<()> {
    let Some(mut column) = group.next_column()? else {
        anyhow::bail!("the schema has no such column")
    };
    column.typed::<T>().write_batch(&values.collect::<Vec<_>>(), None, None)?;
    Ok(column.close()?)
}

fn text(text: &str) -> ByteArray {
    ByteArray::from(text)
}

fn host<'a>(history: &'a History, event: &Event) -> &'a str {
    history.hosts.get(usize::from(event.host)).map_or("", |host| &host.name)
}
