//! Several recordings as one history.

use std::path::PathBuf;

use recorder::event::{History, Ring, Window};
use recorder::recording::read::{self, Note, ReadError, Recording};

use super::{all_written_out, recorded, traffic};

/// Opens these histories' recordings from one folder, in this order.
fn open(histories: &[&History]) -> Result<Recording, ReadError> {
    let folder = tempfile::tempdir().expect("make a folder");
    let paths: Vec<PathBuf> = histories
        .iter()
        .enumerate()
        .map(|(number, history)| {
            let path = folder.path().join(format!("{number}.parquet"));
            std::fs::write(&path, recorded(history, 50)).expect("write a file");
            path
        })
        .collect();
    let read = read::open(&paths);
    if let Ok(read) = &read {
        let by_folder = read::open(&[folder.path().to_owned()]).expect("the same by folder");
        assert_eq!(all_written_out(&read.history), all_written_out(&by_folder.history));
    }
    read
}

/// The events in `range` of a history, as a recording that saw only these.
fn cut(history: &History, range: std::ops::Range<usize>) -> History {
    let mut part = history.clone();
    part.events = history.events[range].to_vec();
    let ends = (part.events[0].time_ns, part.events[part.events.len() - 1].time_ns);
    let window = Window { from_ns: ends.0, to_ns: ends.1 };
    (part.hosts[0].bulk_window, part.hosts[0].rare_window) = (window, window);
    part.hosts[0].raised = part.events.len() as u64;
    part
}

#[test]
fn two_hosts_in_any_order() {
    let a = traffic::requests(200);
    let mut b = traffic::requests(300);
    b.hosts[0] = traffic::host("beta");
    let forth = open(&[&a, &b]).expect("two recordings").history;
    let back = open(&[&b, &a]).expect("two recordings").history;
    assert_eq!(all_written_out(&forth), all_written_out(&back));
    assert_eq!(forth.hosts, back.hosts);
    assert_eq!(forth.hosts.iter().map(|h| h.name.as_str()).collect::<Vec<_>>(), ["alpha", "beta"]);
    assert_eq!(forth.events.len(), 500);
    assert_eq!(forth.events.iter().filter(|event| event.host == 1).count(), 300);
}

#[test]
fn another_boot_is_another_host() {
    let a = traffic::requests(100);
    let mut b = a.clone();
    b.hosts[0].boot_id = "the next boot".to_owned();
    let read = open(&[&a, &b]).expect("two recordings");
    assert_eq!((read.history.hosts.len(), read.history.events.len()), (2, 200));
    assert_eq!(read.notes, []);
}

#[test]
fn overlap_is_kept_once() {
    let all = traffic::requests(400);
    let (a, b) = (cut(&all, 0..250), cut(&all, 150..400));
    for read in [open(&[&a, &b]), open(&[&b, &a])] {
        let read = read.expect("two recordings");
        assert_eq!(all_written_out(&read.history), all_written_out(&all));
        assert_eq!(read.notes, [Note::Duplicates { host: "alpha".to_owned(), events: 100 }]);
        let host = &read.history.hosts[0];
        assert_eq!((host.raised, host.gaps.len()), (400, 0));
        assert_eq!(host.bulk_window.from_ns, all.events[0].time_ns);
        assert_eq!(host.bulk_window.to_ns, all.events[399].time_ns);
    }
}

#[test]
fn between_two_recordings_is_a_gap() {
    let all = traffic::requests(400);
    let (a, b) = (cut(&all, 0..100), cut(&all, 300..400));
    let read = open(&[&b, &a]).expect("two recordings").history;
    assert_eq!(read.events.len(), 200);
    let host = &read.hosts[0];
    assert_eq!(host.gaps.len(), 4, "two CPUs with two rings");
    for gap in &host.gaps {
        assert_eq!((gap.from_ns, gap.to_ns), (all.events[99].time_ns, all.events[300].time_ns));
    }
    assert!(host.gaps.iter().any(|gap| gap.cpu == 1 && gap.ring == Ring::Rare));
}

#[test]
fn two_recorders_at_once_are_refused() {
    let a = traffic::requests(400);
    let mut b = a.clone();
    for event in &mut b.events {
        event.position += 1_000_000;
        event.time_ns += 40;
    }
    assert!(matches!(open(&[&a, &b]), Err(ReadError::TwoRecorders { .. })));
    for event in &mut b.events {
        event.position -= 1_000_000;
    }
    assert!(matches!(open(&[&a, &b]), Err(ReadError::TwoRecorders { .. })));
}
