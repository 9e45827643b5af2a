//! Recordings cut off, damaged, foreign or from the future: the good part, and what is gone, never a panic.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use expect_test::{Expect, expect};
use parquet::file::metadata::KeyValue;
use recorder::event::History;
use recorder::recording::read::{self, Note, ReadError};
use recorder::recording::repair;
use recorder::recording::write::{WriteError, Writer};

use super::{all_written_out, file, open, open_bytes, recorded, traffic};

const PART: usize = 40;

/// Three parts of 40, 40 and 20 events.
fn small() -> (History, Vec<u8>) {
    let history = traffic::requests(100);
    let bytes = recorded(&history, PART);
    (history, bytes)
}

/// Cut off after every single byte: complete parts are found, and their events are the right ones.
#[test]
fn cut_off_anywhere() {
    let (history, bytes) = small();
    let (_folder, path) = file(&[]);
    let expected = all_written_out(&history);
    let mut found = vec![None];
    for len in 0..=bytes.len() {
        std::fs::write(&path, &bytes[..len]).expect("write a file");
        let parts = match read::open_index(&path) {
            Ok((_, index)) => Some(index.parts.len()),
            Err(ReadError::Truncated { .. } | ReadError::NotARecording { .. }) => None,
            Err(error) => panic!("cut at {len}: {error}"),
        };
        // What the parts hold does not depend on what follows them: it is decoded now and then.
        if found.last() != Some(&parts) || len % 64 == 0 {
            check_cut(&path, parts, &expected);
        }
        if found.last() != Some(&parts) {
            found.push(parts);
        }
    }
    assert_eq!(found, [None, Some(0), Some(1), Some(2), Some(3)]);
    let read = open(&path).expect("the whole recording");
    assert_eq!(read.notes, []);
}

fn check_cut(path: &Path, parts: Option<usize>, expected: &[String]) {
    let Some(parts) = parts else {
        assert!(open(path).is_err());
        return;
    };
    let read = open(path).expect("what has parts can be read");
    let events = expected.len().min(parts * PART);
    assert_eq!(all_written_out(&read.history), expected[..events]);
    if let Some(Note::Recovered { complete_rows, .. }) = read.notes.first() {
        assert_eq!(*complete_rows, events as u64);
    }
}

/// One bit flipped anywhere: events are right or missing, and what is missing is said.
#[test]
fn bit_flipped_anywhere() {
    let (history, bytes) = small();
    let expected = all_written_out(&history);
    let (_folder, path) = file(&[]);
    for at in (0..bytes.len()).step_by(11) {
        let mut damaged = bytes.clone();
        damaged[at] ^= 1 << (at % 8);
        std::fs::write(&path, &damaged).expect("write a file");
        let read = match open(&path) {
            Ok(read) => read,
            Err(ReadError::NotARecording { .. }) if at < 4 => continue,
            Err(error) => panic!("flipped at {at}: {error}"),
        };
        let events = all_written_out(&read.history);
        assert!(events.iter().all(|event| expected.contains(event)), "flipped at {at}");
        let lost: u64 = read
            .notes
            .iter()
            .map(|note| if let Note::Damaged { events, .. } = note { *events } else { 0 })
            .sum();
        assert_eq!(events.len() as u64 + lost, 100, "flipped at {at}: {:?}", read.notes);
        let host = &read.history.hosts[0];
        assert_eq!(host.gaps.iter().map(|gap| gap.events).sum::<u64>(), lost, "flipped at {at}");
        assert_eq!(host.bulk_window, history.hosts[0].bulk_window, "flipped at {at}");
    }
}

/// Two wrongs: no footer, and a checkpoint in the middle that cannot be read.
#[test]
fn cut_off_and_damaged() {
    let (_, bytes) = small();
    let magics: Vec<usize> =
        (0..bytes.len() - 8).filter(|&at| &bytes[at..at + 8] == b"whypart\n").collect();
    let mut damaged = bytes[..magics[3] + 8].to_vec();
    damaged[magics[2] - 1] ^= 1;
    let read = open_bytes(&damaged).expect("a recording");
    assert_eq!(read.history.events.len(), 60);
    let lost = |note: &Note| matches!(note, Note::Damaged { part: 1, events: 40, .. });
    assert!(read.notes.iter().any(lost), "{:?}", read.notes);
    let gaps = &read.history.hosts[0].gaps;
    let missing = gaps.iter().map(|gap| gap.events).sum::<u64>();
    assert_eq!((missing, gaps.len()), (40, 4));
    assert!(gaps[0].from_ns < gaps[0].to_ns && gaps[0].to_ns < u64::MAX);
}

#[test]
fn repaired_on_request() {
    let (history, bytes) = small();
    let (_folder, path) = file(&bytes[..bytes.len() - 20]);
    assert_eq!(repair(&path).expect("a recording"), Some(100));
    let read = open(&path).expect("a recording");
    assert_eq!(read.notes, []);
    assert_eq!(read.history.hosts, history.hosts);
    assert_eq!(all_written_out(&read.history), all_written_out(&history));
    assert_eq!(repair(&path).expect("a recording"), None);
    // Any other reader agrees.
    let file = std::fs::File::open(&path).expect("open the file");
    let reader = parquet::file::reader::SerializedFileReader::new(file).expect("a Parquet file");
    let metadata = parquet::file::reader::FileReader::metadata(&reader);
    assert_eq!(metadata.file_metadata().num_rows(), 100);
}

fn check(error: Result<read::Recording, ReadError>, expected: Expect) {
    let text = error.expect_err("it cannot be read").to_string();
    let names = text.split_whitespace().map(|word| match word.rfind('/') {
        Some(at) => &word[at + 1..],
        None => word,
    });
    expected.assert_eq(&names.collect::<Vec<_>>().join(" "));
}

#[test]
fn what_is_no_recording() {
    let (folder, path) = file(b"PNG or whatever it is, but no Parquet");
    check(open(&path), expect!["open a.parquet: not a recording but a file that is not Parquet"]);
    check(open_bytes(b""), expect!["open a.parquet: not a recording but an empty file"]);
    check(
        open_bytes(b"PAR1"),
        expect!["open a.parquet: cut off at 4 bytes, before its first complete part"],
    );
    check(
        open_bytes(&foreign(Vec::new())),
        expect!["open a.parquet: not a recording but a Parquet file of something else"],
    );
    check(open(&folder.path().join("b")), expect!["open b: no such file or folder"]);
    std::fs::remove_file(&path).expect("remove the file");
    let empty = read::open(&[folder.path().to_owned()]);
    assert!(matches!(empty, Err(ReadError::EmptyFolder { .. })));
}

/// A Parquet file with one column of its own.
fn foreign(metadata: Vec<KeyValue>) -> Vec<u8> {
    let schema = parquet::schema::parser::parse_message_type("message m { REQUIRED INT32 n; }");
    let schema = std::sync::Arc::new(schema.expect("a schema"));
    let writer = parquet::file::writer::SerializedFileWriter::new(
        Vec::new(),
        schema,
        std::sync::Arc::default(),
    );
    let mut writer = writer.expect("a writer");
    metadata.into_iter().for_each(|pair| writer.append_key_value_metadata(pair));
    writer.into_inner().expect("a Parquet file")
}

#[test]
fn from_a_newer_wherefore() {
    let version = KeyValue::new("wherefore.schema".to_owned(), "7".to_owned());
    check(
        open_bytes(&foreign(vec![version])),
        expect!["open a.parquet: written by a newer wherefore (schema 7), this one reads up to 3"],
    );
}

/// One that keeps metadata, as most do, and has its own idea of the columns.
#[test]
fn written_anew_by_another_program() {
    let (_folder, path) = file(&small().1);
    let file = std::fs::File::open(&path).expect("open the file");
    let reader = parquet::file::reader::SerializedFileReader::new(file).expect("a Parquet file");
    let metadata = parquet::file::reader::FileReader::metadata(&reader).file_metadata();
    let metadata = metadata.key_value_metadata().expect("it says what it is").clone();
    check(
        open_bytes(&foreign(metadata)),
        expect![
            "open a.parquet: not a recording but what another program has made of one: the column `time_ns` is not as wherefore writes it"
        ],
    );
}

/// Nobody writes to it: whoever opened it would wait.
#[test]
fn a_fifo_and_a_folder_are_not_opened() {
    let folder = tempfile::tempdir().expect("make a folder");
    let path = folder.path().join("a.parquet");
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).expect("make a FIFO");
    check(
        read::open(&[folder.path().to_owned()]),
        expect!["open a.parquet: not a recording but no regular file"],
    );
    std::fs::remove_file(&path).expect("remove the FIFO");
    std::fs::create_dir(&path).expect("make a folder");
    check(
        read::open(&[folder.path().to_owned()]),
        expect!["open a.parquet: not a recording but a folder"],
    );
}

/// Gaps are told CPU by CPU.
#[test]
fn what_a_host_claims_takes_no_memory() {
    let mut history = traffic::requests(100);
    history.hosts[0].cpus = u32::MAX;
    let read = open_bytes(&recorded(&history, PART)).expect("a recording");
    assert_eq!(read.history.hosts[0].cpus, 1 << 16);
}

/// Takes so many bytes, and no more.
struct Full<'a> {
    bytes: &'a mut Vec<u8>,
    room: usize,
}

impl Write for Full<'_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let len = buf.len().min(self.room - self.bytes.len());
        if len == 0 && !buf.is_empty() {
            return Err(io::Error::from_raw_os_error(libc::ENOSPC));
        }
        self.bytes.extend_from_slice(&buf[..len]);
        Ok(len)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn write_into(room: usize, bytes: &mut Vec<u8>, history: &History) -> Result<(), WriteError> {
    let host = &history.hosts[0];
    let mut writer = Writer::new(Full { bytes, room }, "a.parquet", host)?;
    for events in history.events.chunks(PART) {
        writer.append(&history.names, events)?;
        writer.flush()?;
    }
    writer.finish(host).map(drop)
}

/// A disk that fills up after any number of bytes: what the error calls safe is in the file.
#[test]
fn disk_full_anywhere() {
    let (history, complete) = small();
    for room in (0..complete.len()).step_by(97) {
        let mut bytes = Vec::new();
        let error = write_into(room, &mut bytes, &history).expect_err("the disk is full");
        assert_eq!(error.source.raw_os_error(), Some(libc::ENOSPC), "{error}");
        let rows = open_bytes(&bytes).map_or(0, |read| read.history.events.len() as u64);
        assert!(rows >= error.complete_rows, "room for {room}: {error}, but {rows} are read");
        assert!(rows <= error.complete_rows + PART as u64);
    }
    let mut bytes = Vec::new();
    let error = write_into(complete.len() / 2, &mut bytes, &history).expect_err("the disk is full");
    expect!["write part 3 (20 events) of a.parquet; the 80 events before it are safe"]
        .assert_eq(&error.to_string());
}

#[test]
fn device_full() {
    let full = OpenOptions::new().write(true).open("/dev/full").expect("open /dev/full");
    let error = Writer::new(full, "/dev/full", &traffic::host("alpha")).map(drop);
    let error = error.expect_err("the device is full");
    assert_eq!((error.act.as_str(), error.source.raw_os_error()), ("the head", Some(libc::ENOSPC)));
    let nowhere = Writer::create(&PathBuf::from("/nowhere/a.parquet"), &traffic::host("alpha"));
    assert_eq!(
        nowhere.map(drop).expect_err("no such folder").source.kind(),
        io::ErrorKind::NotFound
    );
}

/// A recorder that dies leaves what it had flushed.
#[test]
fn dropped_unfinished() {
    let history = traffic::requests(100);
    let (_folder, path) = file(&[]);
    let mut writer = Writer::create(&path, &history.hosts[0]).expect("write the head");
    writer.append(&history.names, &history.events[..60]).expect("take events");
    writer.flush().expect("write a part");
    writer.append(&history.names, &history.events[60..]).expect("take events");
    drop(writer);
    let read = open(&path).expect("a recording");
    assert_eq!(read.history.events.len(), 60);
    let whole = Note::Recovered { path, complete_rows: 60, bytes_after: 0 };
    assert_eq!(read.notes, [whole]);
}
