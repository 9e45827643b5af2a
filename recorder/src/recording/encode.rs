//! From events to the columns of one row group.

use std::collections::HashMap;
use std::io::Write;
use std::sync::Arc;

use parquet::basic::Type;
use parquet::data_type::{DataType, Int32Type, Int64Type};
use parquet::errors::Result;
use parquet::file::metadata::RowGroupMetaData;
use parquet::file::writer::SerializedRowGroupWriter;
use parquet::schema::types::SchemaDescPtr;

use super::columns::{error_text, signal_text};
use super::pages::{self, Dictionary, NULL, Numbers, Texts};
use crate::container::{self, Container};
use crate::event::{Address, Event, Host, Name, Names, Proof, Protocol};
use crate::hide::Hide;

/// The events of the part to come. Their names and addresses are indices in the dictionaries here.
#[derive(Default)]
pub(super) struct Buffer {
    /// Names that do not get into it.
    pub(super) hide: Hide,
    pub(super) events: Vec<Event>,
    comms: Texts,
    cgroups: Texts,
    faults: Texts,
    syscalls: Texts,
    locals: Texts,
    remotes: Texts,
}

impl Buffer {
    pub(super) fn hiding(hide: Hide) -> Self {
        Self { hide, ..Self::default() }
    }

    pub(super) fn take(&mut self, names: &Names, events: &[Event]) {
        let shown = Shown { names, hide: &self.hide };
        for event in events {
            let mut event = *event;
            event.comm = shown.comm(&mut self.comms, event.comm);
            event.cgroup = shown.name(&mut self.cgroups, event.cgroup);
            event.fault = shown.name(&mut self.faults, event.fault);
            event.syscall = shown.name(&mut self.syscalls, event.syscall);
            event.local = shown.address(&mut self.locals, event.local);
            event.remote = shown.address(&mut self.remotes, event.remote);
            self.events.push(event);
        }
    }

    /// Into the order in which a history has them; also what makes times differ by little.
    pub(super) fn sort(&mut self) {
        let order = |e: &Event| (e.time_ns, e.cpu, e.ring, e.position);
        if !self.events.is_sorted_by_key(order) {
            // Stable, since it is fast on what a few CPUs' sorted runs make.
            self.events.sort_by_key(order);
        }
    }

    pub(super) fn comms(&self) -> Vec<String> {
        self.comms.texts().into_iter().map(str::to_owned).collect()
    }

    pub(super) fn clear(&mut self) {
        self.events.clear();
        let Self { comms, cgroups, faults, syscalls, locals, remotes, .. } = self;
        for texts in [comms, cgroups, faults, syscalls, locals, remotes] {
            texts.clear();
        }
    }
}

/// Names as they may be written down.
struct Shown<'a> {
    names: &'a Names,
    hide: &'a Hide,
}

impl Shown<'_> {
    /// The column has no nulls: a thread without a name has an empty one. Keys are one up to make room for it.
    fn comm(&self, texts: &mut Texts, comm: Name) -> Name {
        Name(texts.index(comm.0.wrapping_add(1), || self.text(comm)))
    }

    fn name(&self, texts: &mut Texts, name: Name) -> Name {
        match name {
            Name::NONE => Name::NONE,
            name => Name(texts.index(name.0, || self.text(name))),
        }
    }

    fn address(&self, texts: &mut Texts, address: Address) -> Address {
        match self.names.socket_address(address) {
            None => Address::NONE,
            Some(socket) => {
                Address(texts.index(address.0, || self.hide.address(socket).to_string()))
            }
        }
    }

    fn text(&self, name: Name) -> String {
        self.hide.name(self.names.text(name)).into_owned()
    }
}

/// Writes the events' columns, in the schema's order, and closes the row group.
pub(super) fn write<W: Write + Send>(
    row_group: SerializedRowGroupWriter<'_, W>,
    schema: &SchemaDescPtr,
    buffer: &Buffer,
    host: &Host,
) -> Result<Arc<RowGroupMetaData>> {
    let mut columns = Columns { row_group, schema, events: &buffer.events, next: 0 };
    let offset = host.wall_offset_ns;
    columns.int64(|e| e.time_ns as i64)?;
    columns.int64(|e| (e.time_ns as i64).wrapping_add(offset))?;
    columns.int64(|e| e.begin_ns as i64)?;
    columns.constant(&host.name)?;
    columns.repeated(|e| Some(i64::from(e.pid as i32)))?;
    columns.repeated(|e| (e.tid != 0).then_some(i64::from(e.tid as i32)))?;
    columns.text(&buffer.comms, |e| e.comm.0)?;
    columns.text(&buffer.cgroups, |e| e.cgroup.0)?;
    let of = |path| container::of(path).unwrap_or_default().called(&host.containers);
    let containers: Vec<Container> = buffer.cgroups.texts().into_iter().map(of).collect();
    for label in [Container::label, Container::pod_label] {
        let labels = Labels::new(&containers, label);
        let text = |e: &Event| labels.number(e).map(|number| labels.texts[number as usize].clone());
        columns.named(|e| labels.number(e), |e| text(e).unwrap_or_default())?;
    }
    columns.named(|e| Some(e.op as u32), |e| e.op.to_string())?;
    columns.named(
        |e| e.protocol.map(|protocol| protocol as u32),
        |e| e.protocol.map_or("", Protocol::as_str).to_owned(),
    )?;
    columns.text(&buffer.locals, |e| e.local.0)?;
    columns.text(&buffer.remotes, |e| e.remote.0)?;
    columns.repeated(|e| (e.netns != 0).then_some(i64::from(e.netns)))?;
    // By place: a namespace's own number may be an inode's, which is large.
    let places =
        host.namespaces.iter().zip(0..).map(|(namespace, place)| (namespace.number, place));
    let places: HashMap<u32, u32> = places.collect();
    let label = |place: u32| host.namespaces[place as usize].label().into_owned();
    columns.named(
        |e| places.get(&e.netns).copied(),
        |e| places.get(&e.netns).map_or(String::new(), |&place| label(place)),
    )?;
    columns.repeated(|e| (e.socket != 0).then_some(e.socket as i64))?;
    let known = |e: &Event| e.proof != Proof::Unknown;
    columns.repeated(|e| known(e).then_some(i64::from(e.iss)))?;
    columns.repeated(|e| known(e).then_some(i64::from(e.irs)))?;
    columns.named(
        |e| proof_text(e.proof).map(|_| e.proof as u32),
        |e| proof_text(e.proof).unwrap_or_default().to_owned(),
    )?;
    columns.int64_or_null(|e| e.has_range().then_some(e.stream_start as i64))?;
    columns.int64_or_null(|e| e.has_range().then_some(e.stream_end as i64))?;
    columns.repeated(|e| Some(e.result))?;
    columns.named(|e| (e.error != 0).then_some(u32::from(e.error)), |e| error_text(e.error))?;
    columns.named(|e| (e.signal != 0).then_some(u32::from(e.signal)), |e| signal_text(e.signal))?;
    columns.repeated(|e| (e.target != 0).then_some(i64::from(e.target as i32)))?;
    columns.int32(|e| e.task_count as i32)?;
    columns.repeated(|e| Some(i64::from(e.flags.0)))?;
    columns.repeated(|e| Some(i64::from(e.cpu)))?;
    columns.named(|e| Some(e.ring as u32), |e| e.ring.as_str().to_owned())?;
    columns.int64(|e| e.position as i64)?;
    columns.text(&buffer.faults, |e| e.fault.0)?;
    columns.text(&buffer.syscalls, |e| e.syscall.0)?;
    columns.repeated(|e| e.fd.number().map(|fd| i64::from(fd as i32)))?;
    columns.row_group.close()
}

/// One text per control group of a part, each text numbered once.
#[derive(Default)]
struct Labels {
    by_cgroup: Vec<Option<u32>>,
    texts: Vec<String>,
}

impl Labels {
    fn new(containers: &[Container], label: fn(&Container) -> &str) -> Self {
        let mut labels = Self::default();
        for text in containers.iter().map(label) {
            let known = labels.texts.iter().position(|known| known == text);
            labels.by_cgroup.push(match (text.is_empty(), known) {
                (true, _) => None,
                (false, Some(place)) => Some(place as u32),
                (false, None) => {
                    labels.texts.push(text.to_owned());
                    Some(labels.texts.len() as u32 - 1)
                }
            });
        }
        labels
    }

    fn number(&self, event: &Event) -> Option<u32> {
        *self.by_cgroup.get(event.cgroup.0 as usize)?
    }
}

/// `None`: the numbers mean nothing, and neither would a word.
pub(super) const fn proof_text(proof: Proof) -> Option<&'static str> {
    match proof {
        Proof::Unknown => None,
        Proof::Computed => Some("computed"),
        Proof::Agreed => Some("agreed"),
        Proof::Established => Some("established"),
    }
}

/// A row group being written, column after column.
struct Columns<'a, 'w, W: Write> {
    row_group: SerializedRowGroupWriter<'w, W>,
    schema: &'a SchemaDescPtr,
    events: &'a [Event],
    next: usize,
}

impl<W: Write + Send> Columns<'_, '_, W> {
    /// A column whose numbers hardly repeat; encoded as [`columns::properties`](super::columns) says.
    fn int64(&mut self, value: impl Fn(&Event) -> i64) -> Result<()> {
        let values: Vec<i64> = self.events.iter().map(value).collect();
        self.number::<Int64Type>(&values, None)
    }

    fn int32(&mut self, value: impl Fn(&Event) -> i32) -> Result<()> {
        let values: Vec<i32> = self.events.iter().map(value).collect();
        self.number::<Int32Type>(&values, None)
    }

    fn int64_or_null(&mut self, value: impl Fn(&Event) -> Option<i64>) -> Result<()> {
        let levels: Vec<i16> = self.events.iter().map(|e| value(e).is_some().into()).collect();
        let values: Vec<i64> = self.events.iter().filter_map(value).collect();
        self.number::<Int64Type>(&values, Some(&levels))
    }

    fn number<T: DataType>(&mut self, values: &[T::T], levels: Option<&[i16]>) -> Result<()> {
        self.next += 1;
        let mut column = self.row_group.next_column()?.expect("the schema has as many columns");
        column.typed::<T>().write_batch(values, levels, None)?;
        column.close()
    }

    /// A column of numbers that repeat.
    fn repeated(&mut self, value: impl Fn(&Event) -> Option<i64>) -> Result<()> {
        let width =
            if self.schema.column(self.next).physical_type() == Type::INT32 { 4 } else { 8 };
        let mut numbers = Numbers::new(width);
        let rows =
            self.events.iter().map(|e| value(e).map_or(NULL, |number| numbers.index(number)));
        let rows: Vec<u32> = rows.collect();
        self.dictionary(&rows, &numbers.dictionary)
    }

    /// A column whose texts the caller has numbered; `NULL` has none.
    fn text(&mut self, texts: &Texts, row: impl Fn(&Event) -> u32) -> Result<()> {
        let rows: Vec<u32> = self.events.iter().map(row).collect();
        self.dictionary(&rows, &texts.dictionary)
    }

    /// A column with one text per small number.
    fn named(
        &mut self,
        key: impl Fn(&Event) -> Option<u32>,
        text: impl Fn(&Event) -> String,
    ) -> Result<()> {
        let mut texts = Texts::default();
        let rows =
            self.events.iter().map(|e| key(e).map_or(NULL, |key| texts.index(key, || text(e))));
        let rows: Vec<u32> = rows.collect();
        self.dictionary(&rows, &texts.dictionary)
    }

    fn constant(&mut self, text: &str) -> Result<()> {
        self.named(|_| Some(0), |_| text.to_owned())
    }

    fn dictionary(&mut self, rows: &[u32], dictionary: &Dictionary) -> Result<()> {
        let (chunk, close) = pages::encode(self.schema.column(self.next), rows, dictionary)?;
        self.next += 1;
        self.row_group.append_column(&chunk, close)
    }
}
