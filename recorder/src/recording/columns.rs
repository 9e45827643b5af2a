//! The columns of a recording: their Parquet schema, their encodings, and how numbers are written as names.

use std::sync::Arc;

use nix::errno::Errno;
use nix::sys::signal::Signal;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterPropertiesPtr};
use parquet::schema::parser::parse_message_type;
use parquet::schema::types::{ColumnPath, SchemaDescriptor, TypePtr};

use super::SCHEMA_VERSION;

/// The schema; docs/recording.md says what each column means.
const SCHEMA: &str = "message event {
    REQUIRED INT64 time_ns;
    REQUIRED INT64 wall_ns (TIMESTAMP(NANOS,true));
    REQUIRED INT64 begin_ns;
    REQUIRED BYTE_ARRAY host (STRING);
    REQUIRED INT32 pid;
    OPTIONAL INT32 tid;
    REQUIRED BYTE_ARRAY comm (STRING);
    OPTIONAL BYTE_ARRAY cgroup (STRING);
    OPTIONAL BYTE_ARRAY container (STRING);
    OPTIONAL BYTE_ARRAY pod (STRING);
    REQUIRED BYTE_ARRAY op (STRING);
    OPTIONAL BYTE_ARRAY protocol (STRING);
    OPTIONAL BYTE_ARRAY local (STRING);
    OPTIONAL BYTE_ARRAY remote (STRING);
    OPTIONAL INT64 netns;
    OPTIONAL BYTE_ARRAY netns_name (STRING);
    OPTIONAL INT64 socket;
    OPTIONAL INT64 iss;
    OPTIONAL INT64 irs;
    OPTIONAL BYTE_ARRAY proof (STRING);
    OPTIONAL INT64 stream_start;
    OPTIONAL INT64 stream_end;
    REQUIRED INT64 result;
    OPTIONAL BYTE_ARRAY error (STRING);
    OPTIONAL BYTE_ARRAY signal (STRING);
    OPTIONAL INT32 target;
    REQUIRED INT32 task_count (INTEGER(32,false));
    REQUIRED INT32 flags;
    REQUIRED INT32 cpu;
    REQUIRED BYTE_ARRAY ring (STRING);
    REQUIRED INT64 position;
    OPTIONAL BYTE_ARRAY fault (STRING);
    OPTIONAL BYTE_ARRAY syscall (STRING);
    OPTIONAL INT32 fd;
}";

/// Columns that version 1 did not have. They are for other tools: what they hold follows from other columns and from
/// what the recording says of its host.
const SINCE_2: [&str; 3] = ["container", "pod", "netns_name"];

/// Columns that version 2 did not have: those of system calls, of which it had none.
const SINCE_3: [&str; 2] = ["syscall", "fd"];

/// The version of recordings with these columns.
pub(super) fn version(schema: &SchemaDescriptor) -> u32 {
    let columns = schema.columns().iter();
    columns.map(|column| since(column.name())).max().unwrap_or(SCHEMA_VERSION)
}

/// The version in which a column came to be.
pub(super) fn since(column: &str) -> u32 {
    match column {
        name if SINCE_3.contains(&name) => 3,
        name if SINCE_2.contains(&name) => 2,
        _ => 1,
    }
}

/// Columns that grow from row to row: differences are smaller than the values, and hardly repeat.
const COUNTERS: [&str; 5] = ["time_ns", "wall_ns", "begin_ns", "task_count", "position"];

/// Offsets of many interleaved streams: their differences are as large as they are, but where both ends
/// are recorded the same eight bytes come twice within reach of the compressor (1.8 instead of 2.8 bytes).
const OFFSETS: [&str; 2] = ["stream_start", "stream_end"];

/// What compresses pages: more costs more than it saves.
pub(super) const ZSTD_LEVEL: i32 = 1;

pub(super) fn schema() -> TypePtr {
    Arc::new(parse_message_type(SCHEMA).expect("the schema is a constant and parses"))
}

/// Who wrote a file, as its metadata says it.
pub(super) fn created_by() -> String {
    format!("wherefore {}", env!("CARGO_PKG_VERSION"))
}

/// One page per column and row group; dictionaries without a limit, since a part bounds them.
pub(super) fn properties() -> WriterPropertiesPtr {
    let zstd = ZstdLevel::try_new(ZSTD_LEVEL).expect("level 1 exists");
    let mut builder = WriterProperties::builder()
        .set_created_by(created_by())
        .set_compression(Compression::ZSTD(zstd))
        .set_statistics_enabled(EnabledStatistics::Chunk)
        .set_offset_index_disabled(true)
        .set_data_page_row_count_limit(usize::MAX)
        .set_data_page_size_limit(usize::MAX)
        .set_dictionary_page_size_limit(usize::MAX)
        .set_write_batch_size(8192);
    let counters = COUNTERS.map(|name| (name, Encoding::DELTA_BINARY_PACKED));
    let offsets = OFFSETS.map(|name| (name, Encoding::PLAIN));
    for (name, encoding) in counters.into_iter().chain(offsets) {
        builder = builder
            .set_column_dictionary_enabled(ColumnPath::from(name), false)
            .set_column_encoding(ColumnPath::from(name), encoding);
    }
    Arc::new(builder.build())
}

/// The errno's name (`ECONNRESET`), or `E` and its number where it has none.
pub fn error_text(error: u16) -> String {
    match Errno::from_raw(i32::from(error)) {
        Errno::UnknownErrno => format!("E{error}"),
        errno => format!("{errno:?}"),
    }
}

/// The inverse of [`error_text`].
pub fn parse_error(text: &str) -> Option<u16> {
    // Linux keeps errnos below 4096 (include/linux/err.h, MAX_ERRNO); a name is one of those.
    let named = (1..4096_u16).find(|&number| {
        let errno = Errno::from_raw(i32::from(number));
        errno != Errno::UnknownErrno && format!("{errno:?}") == text
    });
    named.or_else(|| text.strip_prefix('E')?.parse().ok())
}

/// The first real-time signal of programs: the kernel's 32 and 33 belong to the C library.
const REALTIME: u8 = 34;
const LAST_REALTIME: u8 = 64;

/// The signal's name: `SIGKILL`, `SIGRTMIN+3`, or `SIG` and its number where it has none.
pub fn signal_text(signal: u8) -> String {
    match Signal::try_from(i32::from(signal)) {
        Ok(signal) => signal.as_str().to_owned(),
        Err(_) if (REALTIME..=LAST_REALTIME).contains(&signal) => {
            format!("SIGRTMIN+{}", signal - REALTIME)
        }
        Err(_) => format!("SIG{signal}"),
    }
}

/// The inverse of [`signal_text`].
pub fn parse_signal(text: &str) -> Option<u8> {
    if let Ok(signal) = text.parse::<Signal>() {
        return Some(signal as u8);
    }
    if let Some(offset) = text.strip_prefix("SIGRTMIN+") {
        return REALTIME.checked_add(offset.parse().ok()?);
    }
    text.strip_prefix("SIG")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_has_a_name_of_its_own() {
        assert_eq!(error_text(104), "ECONNRESET");
        for error in (1..300).chain([4095, 4096, u16::MAX]) {
            assert_eq!(parse_error(&error_text(error)), Some(error));
        }
        assert_eq!(parse_error("ENONSENSE"), None);
    }

    #[test]
    fn every_signal_has_a_name_of_its_own() {
        assert_eq!(signal_text(9), "SIGKILL");
        assert_eq!(signal_text(37), "SIGRTMIN+3");
        assert_eq!(signal_text(32), "SIG32");
        for signal in 1..=u8::MAX {
            assert_eq!(parse_signal(&signal_text(signal)), Some(signal));
        }
        assert_eq!(parse_signal("SIGNONSENSE"), None);
    }
}
