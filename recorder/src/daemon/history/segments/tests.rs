use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::*;
use crate::event::{Event, Host, Names, Op, Window};
use crate::recording::write::Writer;

const RECORDER: u64 = 5;

fn host(from_ns: u64, to_ns: u64) -> Host {
    let window = Window { from_ns, to_ns };
    let boot_id = "boot".to_owned();
    let (bulk_window, rare_window) = (window, window);
    Host { boot_id, attached_ns: RECORDER, bulk_window, rare_window, ..Host::default() }
}

fn event(time_ns: u64) -> Event {
    Event { time_ns, begin_ns: time_ns, position: time_ns, ..Event::blank(Op::Exec) }
}

/// A segment that is finished, with one event in its middle.
fn add(segments: &mut Segments, from_ns: u64, to_ns: u64) -> PathBuf {
    let path = segments.new_path();
    let host = host(from_ns, to_ns);
    let mut writer = Writer::create(&path, &host).expect("it is written");
    writer.append(&Names::default(), &[event((from_ns + to_ns) / 2)]).expect("it is written");
    writer.finish(&host).expect("it is written");
    segments.complete(&path).expect("it is there");
    path.with_extension("")
}

fn open(directory: &Path, age: Option<Duration>, size: u64) -> Segments {
    Segments::open(directory, age, size).expect("a folder")
}

#[test]
fn the_oldest_make_room() {
    let home = tempfile::tempdir().expect("a folder");
    let directory = home.path().join("history");
    let mut segments = open(&directory, None, u64::MAX);
    let paths: Vec<PathBuf> = (0..4).map(|n| add(&mut segments, n * 10, n * 10 + 10)).collect();
    let size: u64 =
        paths[2..].iter().map(|path| fs::metadata(path).expect("it is there").len()).sum();
    segments.make_room().expect("it works");
    assert!(paths.iter().all(|path| path.exists()));
    segments.size = size;
    segments.make_room().expect("it works");
    assert_eq!(
        paths.iter().map(|path| path.exists()).collect::<Vec<_>>(),
        [false, false, true, true]
    );
    assert_eq!(segments.complete_from_ns(RECORDER, 40), 20);
    segments.age = Some(Duration::ZERO);
    std::thread::sleep(Duration::from_millis(10));
    segments.make_room().expect("it works");
    assert_eq!(held(&directory).expect("a folder"), (0, 0));
}

#[test]
fn it_reaches_back_to_the_last_break() {
    let home = tempfile::tempdir().expect("a folder");
    let mut segments = open(home.path(), None, u64::MAX);
    for (from_ns, to_ns) in [(0, 10), (10, 20), (25, 30), (30, 40)] {
        add(&mut segments, from_ns, to_ns);
    }
    assert_eq!(segments.complete_from_ns(RECORDER, 40), 25);
    assert_eq!(segments.complete_from_ns(RECORDER, 41), 41, "nothing up to then");
    assert_eq!(segments.complete_from_ns(RECORDER + 1, 40), 40, "another recorder's");
    assert_eq!(segments.kept_to_ns(RECORDER), Some(40));
    assert_eq!(segments.kept_to_ns(RECORDER + 1), None);
}

#[test]
fn what_was_cut_off_is_mended_and_what_holds_nothing_goes() {
    let home = tempfile::tempdir().expect("a folder");
    let mut segments = open(home.path(), None, u64::MAX);
    let half = segments.new_path();
    let mut writer = Writer::create(&half, &host(0, 0)).expect("it is written");
    writer.append(&Names::default(), &[event(7)]).expect("it is written");
    writer.set_host(&host(0, 9));
    writer.flush().expect("it is written");
    writer.append(&Names::default(), &[event(11)]).expect("it is buffered, and lost");
    drop(writer);
    let empty = segments.new_path();
    drop(Writer::create(&empty, &host(9, 9)).expect("it is written"));
    let torn = segments.new_path();
    fs::write(&torn, b"PA").expect("it is written");
    drop(segments);
    let segments = open(home.path(), None, u64::MAX);
    let names = fs::read_dir(home.path()).expect("a folder").flatten().map(|entry| entry.path());
    let left: Vec<PathBuf> = names.filter(|path| number(path) > 0).collect();
    assert_eq!(left, [half.with_extension("")]);
    assert_eq!(segments.kept_to_ns(RECORDER), Some(9));
}

#[test]
fn wherever_a_segment_was_torn_its_complete_parts_are_read() {
    const PARTS: u64 = 3;
    let home = tempfile::tempdir().expect("a folder");
    let path = home.path().join("whole");
    let mut writer = Writer::create(&path, &host(0, 0)).expect("it is written");
    let mut ends = Vec::new();
    for time_ns in 1..=PARTS {
        writer.append(&Names::default(), &[event(time_ns)]).expect("it is written");
        writer.set_host(&host(0, time_ns + 1));
        writer.flush().expect("it is written");
        ends.push(fs::metadata(&path).expect("it is there").len() as usize);
    }
    writer.finish(&host(0, PARTS + 1)).expect("it is written");
    let bytes = fs::read(&path).expect("it is readable");
    let lengths = (0..bytes.len()).step_by(61).chain(ends.iter().flat_map(|&end| [end - 1, end]));
    for length in lengths {
        let folder = home.path().join(length.to_string());
        let mut segments = open(&folder, None, u64::MAX);
        let torn = segments.new_path();
        fs::write(&torn, &bytes[..length]).expect("it is written");
        drop(segments);
        let segments = open(&folder, None, u64::MAX);
        let whole = ends.iter().filter(|&&end| end <= length).count();
        let kept = torn.with_extension("");
        assert_eq!(kept.exists(), whole > 0, "{length} bytes of {}", bytes.len());
        assert_eq!(
            segments.kept_to_ns(RECORDER),
            (whole > 0).then_some(whole as u64 + 1),
            "{length} bytes"
        );
        if whole > 0 {
            let recording = recording::read::open(&[kept]).expect("it is readable");
            assert_eq!(recording.history.events.len(), whole, "{length} bytes");
        }
    }
}

#[test]
fn one_daemon_alone_keeps_a_history_in_a_folder() {
    let home = tempfile::tempdir().expect("a folder");
    let _first = open(home.path(), None, u64::MAX);
    let second = Segments::open(home.path(), None, u64::MAX).err().expect("it is taken");
    assert!(second.to_string().contains("another daemon keeps its history there"), "{second}");
}

#[test]
fn only_what_reaches_into_the_time_is_taken() {
    let home = tempfile::tempdir().expect("a folder");
    let mut segments = open(home.path(), None, u64::MAX);
    for n in 0..3 {
        add(&mut segments, n * 10, n * 10 + 10);
    }
    let from = |since_ns| {
        let pieces = since(home.path(), "boot", since_ns).expect("a folder");
        pieces.iter().map(Piece::from_ns).collect::<Vec<_>>()
    };
    assert_eq!(from(0), [0, 10, 20]);
    assert_eq!(from(15), [10, 20]);
    assert_eq!(from(31), [0; 0]);
    assert_eq!(since(home.path(), "another boot", 0).expect("a folder").len(), 0);
}
