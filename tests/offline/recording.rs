//! Recordings: written, read back, cut off, damaged, merged, and opened by other tools.

mod broken;
mod cost;
mod duckdb;
mod golden;
mod merge;
mod round_trip;
pub mod traffic;

use std::path::{Path, PathBuf};

use recorder::event::{Event, History};
use recorder::recording::read::{self, ReadError, Recording};
use recorder::recording::write::Writer;

/// The recording of a history of one host, in memory, in parts of at most `part` events.
pub fn recorded(history: &History, part: usize) -> Vec<u8> {
    let host = &history.hosts[0];
    let mut writer = Writer::new(Vec::new(), "memory", host).expect("write the head");
    for events in history.events.chunks(part) {
        writer.append(&history.names, events).expect("take events");
        writer.flush().expect("write a part");
    }
    writer.finish(host).expect("write the end")
}

/// A file with these bytes, in a folder of its own.
pub fn file(bytes: &[u8]) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("make a folder");
    let path = folder.path().join("a.parquet");
    std::fs::write(&path, bytes).expect("write a file");
    (folder, path)
}

fn open(path: &Path) -> Result<Recording, ReadError> {
    read::open(&[path.to_owned()])
}

fn open_bytes(bytes: &[u8]) -> Result<Recording, ReadError> {
    let (_folder, path) = file(bytes);
    open(&path)
}

/// An event with its names written out, so that events of histories with different names compare.
fn written_out(history: &History, event: &Event) -> String {
    let names = &history.names;
    let (comm, cgroup) = (names.text(event.comm), names.text(event.cgroup));
    let (local, remote) = (names.address(event.local), names.address(event.remote));
    let blank = Event::blank(event.op);
    let numbers = Event {
        comm: blank.comm,
        cgroup: blank.cgroup,
        local: blank.local,
        remote: blank.remote,
        syscall: blank.syscall,
        ..*event
    };
    let call = names.text(event.syscall);
    format!("{comm} {cgroup} {local:?} {remote:?} {call} {numbers:?}")
}

fn all_written_out(history: &History) -> Vec<String> {
    history.events.iter().map(|event| written_out(history, event)).collect()
}
