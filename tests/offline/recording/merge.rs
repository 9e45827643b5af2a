//! Several recordings as one history.

use std::path::PathBuf;

use recorder::event::{Event, History, Host, Op, Ring, Window};
use recorder::graph::{Graph, check::check};
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
    assert!(matches!(&read.notes[..], [Note::Namesakes { .. }]), "{:?}", read.notes);
}

#[test]
fn a_clock_that_was_set_between_recordings_is_told() {
    let all = traffic::requests(400);
    let (a, mut b) = (cut(&all, 0..250), cut(&all, 250..400));
    b.hosts[0].wall_offset_ns -= 3_600_000_000_000;
    for read in [open(&[&a, &b]), open(&[&b, &a])] {
        let read = read.expect("two recordings");
        assert_eq!(read.history.hosts[0].wall_offset_ns, a.hosts[0].wall_offset_ns);
        let told: Vec<_> = read.notes.iter().map(ToString::to_string).collect();
        assert_eq!(
            told,
            [
                "the clock of alpha was set back by 3600 s between its recordings; all of its times are by the first one's"
            ]
        );
    }
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
    // Few events that by chance have no position in common are told apart by when the recorders began.
    let (a, b) = (recorder(cut(&a, 0..40), 11, "all"), recorder(cut(&b, 0..40), 22, "all"));
    assert!(a.hosts[0].bulk_window.to_ns > b.hosts[0].attached_ns, "both at work");
    let error = open(&[&a, &b]).expect_err("both saw the same threads").to_string();
    assert!(error.contains("0.parquet") && error.contains("1.parquet"), "{error}");
    assert!(error.contains("open one of them"), "{error}");
}

/// The same as a recorder with rings of its own has it: other positions, other moments.
fn recorder(mut history: History, attached_ns: u64, scope: &str) -> History {
    (history.hosts[0].attached_ns, history.hosts[0].scope) = (attached_ns, scope.to_owned());
    for (number, event) in history.events.iter_mut().enumerate() {
        event.position = attached_ns * 1000 + number as u64;
        event.time_ns += attached_ns;
    }
    history
}

/// Recordings of two recorders, each of which followed some processes.
fn side_by_side() -> (History, History) {
    let all = traffic::requests(400);
    let (mut a, mut b) = (all.clone(), all);
    a.events.retain(|event| event.pid == 4100);
    b.events.retain(|event| event.pid != 4100);
    (recorder(a, 11, "pid 4100"), recorder(b, 22, "cgroup /n"))
}

#[test]
fn two_recorders_that_share_no_thread_and_no_socket() {
    let (a, mut b) = side_by_side();
    b.hosts[0].rare_window.from_ns += 1000;
    for read in [open(&[&a, &b]), open(&[&b, &a])] {
        let read = read.expect("they share nothing");
        let host = &read.history.hosts[0];
        assert_eq!((read.history.hosts.len(), read.history.events.len()), (1, 400));
        assert_eq!(read.notes, []);
        assert_eq!(host.rare_window, b.hosts[0].rare_window, "complete while both were");
        assert_eq!(host.raised, a.hosts[0].raised + b.hosts[0].raised);
        assert_eq!(host.gaps, []);
    }
}

/// Of a thread outside its scope a recorder has the signals that came into it. Each of two recorders counted
/// them for itself.
#[test]
fn two_recorders_saw_one_stranger() {
    let signal = |history: &mut History, target: u32, task_count: u32| {
        let time_ns = history.events[100].time_ns + u64::from(task_count);
        let (pid, tid, signal) = (1, 1, 15);
        let position = 7_000_000 + u64::from(target);
        let blank = Event { ring: Ring::Rare, ..Event::blank(Op::Signal) };
        history.events.push(Event {
            pid,
            tid,
            target,
            signal,
            time_ns,
            begin_ns: 0,
            position,
            task_count,
            ..blank
        });
    };
    let (mut a, mut b) = side_by_side();
    signal(&mut a, 4100, 1);
    signal(&mut b, 4205, 1);
    signal(&mut b, 4206, 2);
    let read = open(&[&a, &b]).expect("each has its own signals").history;
    let graph = Graph::build(&read);
    let lives = graph.threads.iter().filter(|thread| thread.tid == 1).map(|t| t.events.len());
    assert_eq!(lives.collect::<Vec<_>>(), [3], "one life");
    assert_eq!(check(&read, &graph), []);
    // One signal that both saw is one that nobody can tell from two.
    signal(&mut a, 4206, 2);
    assert!(matches!(open(&[&a, &b]), Err(ReadError::TwoRecorders { .. })));
}

/// The same path, another path to it, a link to it, and a copy of it.
#[test]
fn one_recording_many_times() {
    let folder = tempfile::tempdir().expect("make a folder");
    let path = |name: &str| folder.path().join(name);
    let mut history = traffic::requests(200);
    history.hosts[0].lost = 3;
    std::fs::write(path("a.parquet"), recorded(&history, 50)).expect("write a file");
    std::fs::copy(path("a.parquet"), path("copy.parquet")).expect("copy it");
    std::fs::hard_link(path("a.parquet"), path("hard.parquet")).expect("link it");
    std::os::unix::fs::symlink(path("a.parquet"), path("soft.parquet")).expect("link it");
    let one = read::open(&[path("a.parquet")]).expect("a recording").history;
    for (names, notes) in [
        (&["a.parquet", "a.parquet"][..], 1),
        (&["a.parquet", "soft.parquet"], 1),
        (&["hard.parquet", "a.parquet"], 1),
        (&["copy.parquet", "a.parquet"], 1),
        (&["."], 3),
        (&[".", "a.parquet", "soft.parquet"], 5),
    ] {
        let paths: Vec<PathBuf> = names.iter().map(|name| path(name)).collect();
        let read = read::open(&paths).expect("recordings");
        assert_eq!(all_written_out(&read.history), all_written_out(&one), "{names:?}");
        assert_eq!(read.history.hosts, one.hosts, "{names:?}: nothing counted twice");
        assert_eq!(read.notes.len(), notes, "{names:?}");
        assert!(read.notes.iter().all(|note| matches!(note, Note::Same { .. })), "{names:?}");
    }
}

/// Containers and boots: answers have to say which is meant.
#[test]
fn hosts_of_one_name_are_told_apart() {
    let host = |boot: &str| {
        let mut history = traffic::requests(10);
        history.hosts[0].name = "localhost".to_owned();
        history.hosts[0].boot_id = boot.to_owned();
        history
    };
    let read = open(&[&host("3f2a-1"), &host("3f2a-2"), &host("9c00-1")]).expect("three hosts");
    let names: Vec<_> = read.history.hosts.iter().map(|host| host.name.as_str()).collect();
    assert_eq!(names, ["localhost~3f2a-1", "localhost~3f2a-2", "localhost~9c00-1"]);
    let note = "3 hosts, or boots of one, are called localhost; here they are localhost~3f2a-1, \
                localhost~3f2a-2, localhost~9c00-1";
    assert_eq!(read.notes.iter().map(Note::to_string).collect::<Vec<_>>(), [note]);
    let read = open(&[&host("3f2a-1"), &host("9c00-1")]).expect("two hosts");
    assert_eq!(read.history.hosts[1].name, "localhost~9c00");
    // A file that does not say which boot it is from.
    let read = open(&[&host(""), &host("9c00-1")]).expect("two hosts");
    assert_eq!(read.history.hosts[1].name, "localhost~");
}

#[test]
fn empty_recordings_are_hosts_too() {
    let (mut empty, some) = (traffic::requests(10), traffic::requests(20));
    empty.events.clear();
    empty.hosts[0] = traffic::host("beta");
    let read = open(&[&empty, &some]).expect("two hosts").history;
    assert_eq!((read.hosts.len(), read.events.len()), (2, 20));
    empty.hosts[0] = Host { scope: "pid 1".to_owned(), ..traffic::host("alpha") };
    let read = open(&[&empty, &some]).expect("one host").history;
    assert_eq!((read.hosts.len(), read.events.len()), (1, 20));
    let read = open(&[&empty, &empty]).expect("nothing").history;
    assert_eq!((read.hosts.len(), read.events.len()), (1, 0));
}

/// Hundreds of files, of one host one after the other, and of hundreds of hosts.
#[test]
fn hundreds_of_files() {
    let all = traffic::requests(3000);
    let stretches: Vec<History> = (0..300).map(|n| cut(&all, n * 10..n * 10 + 10)).collect();
    let read = open(&stretches.iter().collect::<Vec<_>>()).expect("one host").history;
    assert_eq!((read.hosts.len(), read.events.len()), (1, 3000));
    assert_eq!(all_written_out(&read), all_written_out(&all));
    let host = |(number, history): (usize, &History)| {
        let mut history = history.clone();
        history.hosts[0] = traffic::host(&format!("host-{number:03}"));
        history
    };
    let hosts: Vec<History> = stretches.iter().enumerate().map(host).collect();
    let read = open(&hosts.iter().collect::<Vec<_>>()).expect("300 hosts").history;
    assert_eq!((read.hosts.len(), read.events.len()), (300, 3000));
    assert!(read.events.is_sorted_by_key(|event| (event.host, event.time_ns)));
    assert_eq!(check(&read, &Graph::build(&read)), []);
}

/// Old files and new ones are one history.
#[test]
fn recordings_of_several_versions() {
    let folder = tempfile::tempdir().expect("make a folder");
    let golden = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("data/recording-v1.parquet");
    let new = folder.path().join("new.parquet");
    let mut history = traffic::requests(20);
    history.hosts[0] = traffic::host("beta");
    std::fs::write(&new, recorded(&history, 50)).expect("write a file");
    let old = read::open(std::slice::from_ref(&golden)).expect("the golden file").history;
    let both = read::open(&[golden.clone(), new.clone()]).expect("two recordings").history;
    assert_eq!(both.hosts.len(), 2);
    assert_eq!(both.events.len(), old.events.len() + 20);
}
