//! From the columns of one row group back to events.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use bytes::{Buf, Bytes};
use parquet::column::reader::{ColumnReaderImpl, get_column_reader, get_typed_column_reader};
use parquet::data_type::{DataType, Int32Type, Int64Type};
use parquet::errors::{ParquetError, Result};
use parquet::file::metadata::RowGroupMetaData;
use parquet::file::reader::{ChunkReader, Length, SerializedPageReader};

use super::PART_ROWS;
use super::columns::{parse_error, parse_signal};
use super::encode::proof_text;
use super::pages::{self, NULL, TextColumn};
use crate::event::{Address, Descriptor, Event, Flags, Name, Names, Op, Proof, Protocol, Ring};

/// A stretch of a file in memory, addressed as in the file.
pub(super) struct Span {
    pub(super) start: u64,
    pub(super) bytes: Bytes,
}

impl Span {
    fn slice(&self, start: u64, len: Option<usize>) -> Result<Bytes> {
        let outside = || ParquetError::EOF("a column lies outside its part".to_owned());
        let from = start.checked_sub(self.start).ok_or_else(outside)? as usize;
        let rest = self.bytes.len().checked_sub(from).ok_or_else(outside)?;
        let len = len.unwrap_or(rest);
        if len > rest { Err(outside()) } else { Ok(self.bytes.slice(from..from + len)) }
    }
}

impl Length for Span {
    fn len(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }
}

impl ChunkReader for Span {
    type T = bytes::buf::Reader<Bytes>;

    fn get_read(&self, start: u64) -> Result<Self::T> {
        Ok(self.slice(start, None)?.reader())
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes> {
        self.slice(start, Some(length))
    }
}

/// A row group's columns, one value per row; nulls of numbers are 0.
pub(super) struct Columns {
    rows: usize,
    time_ns: Vec<i64>,
    begin_ns: Vec<i64>,
    pid: Vec<i32>,
    tid: Vec<i32>,
    comm: TextColumn,
    cgroup: TextColumn,
    fault: TextColumn,
    op: TextColumn,
    protocol: TextColumn,
    local: TextColumn,
    remote: TextColumn,
    netns: Vec<i64>,
    socket: Vec<i64>,
    iss: Vec<i64>,
    irs: Vec<i64>,
    proof: TextColumn,
    stream_start: Vec<i64>,
    stream_end: Vec<i64>,
    result: Vec<i64>,
    error: TextColumn,
    signal: TextColumn,
    target: Vec<i32>,
    task_count: Vec<i32>,
    flags: Vec<i32>,
    cpu: Vec<i32>,
    ring: TextColumn,
    position: Vec<i64>,
    /// Nothing in recordings that are older than these two.
    syscall: Option<TextColumn>,
    fd: Option<Vec<Option<i32>>>,
}

/// Decodes the columns of a row group that `span` holds.
pub(super) fn decode(row_group: &RowGroupMetaData, span: Span) -> Result<Columns> {
    let reader = ColumnsReader { row_group, span: Arc::new(span), rows: rows(row_group)? };
    // The crate checks what it reads, but not everywhere: it has panicked on bytes nobody would write.
    // The part's hash has been compared before, so that this is for a writer gone wrong, not for bit rot.
    catch_unwind(AssertUnwindSafe(|| reader.columns()))
        .unwrap_or_else(|_| Err(ParquetError::General("its columns cannot be decoded".to_owned())))
}

fn rows(row_group: &RowGroupMetaData) -> Result<usize> {
    let rows = usize::try_from(row_group.num_rows()).unwrap_or(usize::MAX);
    if rows > PART_ROWS {
        return Err(ParquetError::General(format!("it claims {} rows", row_group.num_rows())));
    }
    Ok(rows)
}

struct ColumnsReader<'a> {
    row_group: &'a RowGroupMetaData,
    span: Arc<Span>,
    rows: usize,
}

impl ColumnsReader<'_> {
    fn columns(&self) -> Result<Columns> {
        Ok(Columns {
            rows: self.rows,
            time_ns: self.numbers::<Int64Type>("time_ns")?,
            begin_ns: self.numbers::<Int64Type>("begin_ns")?,
            pid: self.numbers::<Int32Type>("pid")?,
            tid: self.numbers::<Int32Type>("tid")?,
            comm: self.texts("comm")?,
            cgroup: self.texts("cgroup")?,
            fault: self.texts("fault")?,
            op: self.texts("op")?,
            protocol: self.texts("protocol")?,
            local: self.texts("local")?,
            remote: self.texts("remote")?,
            netns: self.numbers::<Int64Type>("netns")?,
            socket: self.numbers::<Int64Type>("socket")?,
            iss: self.numbers::<Int64Type>("iss")?,
            irs: self.numbers::<Int64Type>("irs")?,
            proof: self.texts("proof")?,
            stream_start: self.numbers::<Int64Type>("stream_start")?,
            stream_end: self.numbers::<Int64Type>("stream_end")?,
            result: self.numbers::<Int64Type>("result")?,
            error: self.texts("error")?,
            signal: self.texts("signal")?,
            target: self.numbers::<Int32Type>("target")?,
            task_count: self.numbers::<Int32Type>("task_count")?,
            flags: self.numbers::<Int32Type>("flags")?,
            cpu: self.numbers::<Int32Type>("cpu")?,
            ring: self.texts("ring")?,
            position: self.numbers::<Int64Type>("position")?,
            syscall: self.has("syscall").then(|| self.texts("syscall")).transpose()?,
            fd: self.has("fd").then(|| self.numbers_or_null::<Int32Type>("fd")).transpose()?,
        })
    }

    fn has(&self, name: &str) -> bool {
        self.row_group.columns().iter().any(|column| column.column_path().string() == name)
    }

    fn pages(&self, name: &str) -> Result<(usize, SerializedPageReader<Span>)> {
        let found = self.row_group.columns().iter().position(|c| c.column_path().string() == name);
        let number = found.ok_or_else(|| missing(name))?;
        let column = self.row_group.column(number);
        let pages = SerializedPageReader::new(Arc::clone(&self.span), column, self.rows, None)?;
        Ok((number, pages))
    }

    fn texts(&self, name: &str) -> Result<TextColumn> {
        let (number, mut pages) = self.pages(name)?;
        let nullable = self.row_group.column(number).column_descr().max_def_level() > 0;
        let column = pages::decode(&mut pages, nullable)?;
        if column.rows.len() == self.rows { Ok(column) } else { Err(missing(name)) }
    }

    fn numbers<T: DataType>(&self, name: &str) -> Result<Vec<T::T>> {
        let (values, levels) = self.read::<T>(name)?;
        if values.len() == self.rows {
            return Ok(values);
        }
        Ok(spread(values, levels).map(Option::unwrap_or_default).collect())
    }

    fn numbers_or_null<T: DataType>(&self, name: &str) -> Result<Vec<Option<T::T>>> {
        let (values, levels) = self.read::<T>(name)?;
        Ok(spread(values, levels).collect())
    }

    /// The values that there are, and of each row whether it has one.
    fn read<T: DataType>(&self, name: &str) -> Result<(Vec<T::T>, Vec<i16>)> {
        let (number, pages) = self.pages(name)?;
        let descriptor = self.row_group.column(number).column_descr_ptr();
        let nullable = descriptor.max_def_level() > 0;
        let mut reader: ColumnReaderImpl<T> =
            get_typed_column_reader(get_column_reader(descriptor, Box::new(pages)));
        let mut values = Vec::with_capacity(self.rows);
        let mut levels = Vec::new();
        let (records, _, _) =
            reader.read_records(self.rows, nullable.then_some(&mut levels), None, &mut values)?;
        if records != self.rows {
            return Err(missing(name));
        }
        Ok((values, levels))
    }
}

/// One value or none for each row.
fn spread<V>(values: Vec<V>, levels: Vec<i16>) -> impl Iterator<Item = Option<V>> {
    let mut values = values.into_iter();
    levels.into_iter().map(move |level| if level == 0 { None } else { values.next() })
}

fn missing(name: &str) -> ParquetError {
    ParquetError::General(format!("values of column {name} are missing"))
}

impl Columns {
    /// Appends the events, with their names interned in `names`.
    pub(super) fn events(&self, host: u16, names: &mut Names, out: &mut Vec<Event>) -> Result<()> {
        let comms = interned(&self.comm, |text| match text {
            "" => Some(Name::NONE),
            text => Some(names.intern(text)),
        })?;
        let cgroups = interned(&self.cgroup, |text| Some(names.intern(text)))?;
        let faults = interned(&self.fault, |text| Some(names.intern(text)))?;
        let calls = self.syscall.as_ref();
        let calls = calls.map(|column| interned(column, |text| Some(names.intern(text))));
        let calls = calls.transpose()?.unwrap_or_default();
        let call = |row: usize| self.syscall.as_ref().map_or(NULL, |column| column.rows[row]);
        let fd = |row: usize| self.fd.as_ref().and_then(|column| column[row]);
        let mut address = |text: &str| Some(names.intern_socket_address(text.parse().ok()?));
        let locals = interned(&self.local, &mut address)?;
        let remotes = interned(&self.remote, &mut address)?;
        let ops = interned(&self.op, Op::parse)?;
        let protocols = interned(&self.protocol, |text| Protocol::parse(text).map(Some))?;
        let rings = interned(&self.ring, parse_ring)?;
        let proofs = interned(&self.proof, parse_proof)?;
        let errors = interned(&self.error, parse_error)?;
        let signals = interned(&self.signal, parse_signal)?;
        out.extend((0..self.rows).map(|row| Event {
            time_ns: self.time_ns[row] as u64,
            begin_ns: self.begin_ns[row] as u64,
            position: self.position[row] as u64,
            socket: self.socket[row] as u64,
            stream_start: self.stream_start[row] as u64,
            stream_end: self.stream_end[row] as u64,
            result: self.result[row],
            iss: self.iss[row] as u32,
            irs: self.irs[row] as u32,
            pid: self.pid[row] as u32,
            tid: self.tid[row] as u32,
            target: self.target[row] as u32,
            task_count: self.task_count[row] as u32,
            netns: self.netns[row] as u32,
            comm: pick(&comms, self.comm.rows[row], Name::NONE),
            cgroup: pick(&cgroups, self.cgroup.rows[row], Name::NONE),
            fault: pick(&faults, self.fault.rows[row], Name::NONE),
            syscall: pick(&calls, call(row), Name::NONE),
            fd: fd(row).map_or(Descriptor::NONE, |fd| Descriptor(fd as u32)),
            local: pick(&locals, self.local.rows[row], Address::NONE),
            remote: pick(&remotes, self.remote.rows[row], Address::NONE),
            host,
            cpu: self.cpu[row] as u16,
            error: pick(&errors, self.error.rows[row], 0),
            op: ops[self.op.rows[row] as usize],
            protocol: pick(&protocols, self.protocol.rows[row], None),
            ring: rings[self.ring.rows[row] as usize],
            signal: pick(&signals, self.signal.rows[row], 0),
            proof: pick(&proofs, self.proof.rows[row], Proof::Unknown),
            flags: Flags(self.flags[row] as u16),
        }));
        Ok(())
    }
}

/// What each distinct text of a column stands for.
fn interned<V>(column: &TextColumn, mut value: impl FnMut(&str) -> Option<V>) -> Result<Vec<V>> {
    let values = column.texts.iter().map(|text| {
        value(text).ok_or_else(|| ParquetError::General(format!("it holds an unknown '{text}'")))
    });
    values.collect()
}

fn pick<V: Copy>(values: &[V], row: u32, null: V) -> V {
    if row == NULL { null } else { values[row as usize] }
}

fn parse_ring(text: &str) -> Option<Ring> {
    [Ring::Bulk, Ring::Rare].into_iter().find(|&ring| ring.as_str() == text)
}

fn parse_proof(text: &str) -> Option<Proof> {
    [Proof::Computed, Proof::Agreed, Proof::Established]
        .into_iter()
        .find(|&proof| proof_text(proof) == Some(text))
}
