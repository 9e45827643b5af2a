//! Recordings of every version there has been stay readable. Their files are never edited.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use expect_test::expect_file;
use recorder::container::Called;
use recorder::event::{
    Descriptor, Event, Flags, Gap, History, Op, Proof, Protocol, Ring, SocketAddress,
};
use recorder::netns::Namespace;

use super::{open, recorded, traffic};

fn golden(version: u32) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("data/recording-v{version}.parquet"))
}

#[test]
fn version_1() {
    let read = open(&golden(1)).expect("the golden recording");
    assert_eq!(read.notes, []);
    expect_file!["../../data/recording-v1.txt"].assert_eq(&text(&read.history));
}

/// One that was cut off is mended as what it is.
#[test]
fn version_1_without_its_end() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("cut.parquet");
    let whole = std::fs::read(golden(1)).expect("the golden recording");
    std::fs::write(&path, &whole[..whole.len() - 100]).expect("it can be written");
    let events = recorder::recording::repair(&path).expect("it has complete parts");
    assert!(events.is_some_and(|events| events > 0), "{events:?}");
    let read = open(&path).expect("it is whole");
    assert_eq!(read.notes, []);
    assert_eq!(Some(read.history.events.len() as u64), events);
}

/// Protocols other than TCP, and names of Unix sockets.
#[test]
fn version_2() {
    let read = open(&golden(2)).expect("the golden recording");
    assert_eq!(read.notes, []);
    let mut all = text(&read.history);
    let names = &read.history.names;
    for e in read.history.events.iter().filter(|e| e.protocol != Some(Protocol::Tcp)) {
        let address = |a| names.socket_address(a).map_or("-".to_owned(), ToString::to_string);
        let protocol = e.protocol.map_or("none", Protocol::as_str);
        writeln!(all, "{} {protocol} {} {}", e.op, address(e.local), address(e.remote))
            .expect("text");
    }
    for host in &read.history.hosts {
        writeln!(all, "{:?}\n{:?}", host.containers, host.namespaces).expect("text");
    }
    expect_file!["../../data/recording-v2.txt"].assert_eq(&all);
}

/// System calls, with their names and descriptors.
#[test]
fn version_3() {
    let read = open(&golden(3)).expect("the golden recording");
    assert_eq!(read.notes, []);
    let mut all = text(&read.history);
    for e in read.history.events.iter().filter(|e| e.op == Op::Call) {
        let name = read.history.names.text(e.syscall);
        writeln!(all, "{} {:?} from {}", name, e.fd.number(), e.begin_ns).expect("text");
    }
    expect_file!["../../data/recording-v3.txt"].assert_eq(&all);
}

/// The fields that version 1 had. Later versions get a text of their own.
fn text(history: &History) -> String {
    let mut text = String::new();
    for host in &history.hosts {
        writeln!(text, "{} {} {} {:?}", host.name, host.boot_id, host.kernel, host.gaps)
            .expect("text");
    }
    for e in &history.events {
        let (comm, cgroup) = (history.comm(e), history.names.text(e.cgroup));
        let address = |a| history.names.address(a).map_or("-".to_owned(), |a| a.to_string());
        writeln!(
            text,
            "{} {} {}/{} {comm} {cgroup} {} {} {} netns {} socket {} {:?} {}/{} bytes {}..{} = {} \
             error {} signal {} target {} count {} flags {} cpu {} {:?} {}",
            e.begin_ns,
            e.time_ns,
            e.pid,
            e.tid,
            e.op,
            address(e.local),
            address(e.remote),
            e.netns,
            e.socket,
            e.proof,
            e.iss,
            e.irs,
            e.stream_start,
            e.stream_end,
            e.result,
            e.error,
            e.signal,
            e.target,
            e.task_count,
            e.flags.0,
            e.cpu,
            e.ring,
            e.position
        )
        .expect("text");
    }
    text
}

/// Traffic, and one event of each kind with different things in it.
fn history() -> History {
    let mut history = traffic::requests(12);
    let begin = history.events[11];
    let local = history.names.intern_address("[::1]:443".parse().expect("an address"));
    for (number, op) in Op::ALL.into_iter().enumerate() {
        let n = number as u32;
        history.events.push(Event {
            time_ns: begin.time_ns + u64::from(n),
            position: u64::from(n),
            ring: Ring::Rare,
            local: if n.is_multiple_of(3) { local } else { begin.local },
            tid: if n.is_multiple_of(4) { 0 } else { begin.tid },
            socket: if n > 12 { 0 } else { begin.socket },
            protocol: Event::blank(op).protocol,
            proof: [Proof::Computed, Proof::Agreed][number % 2],
            error: [0, 104, 4000][number % 3],
            signal: [0, 9, 32, 40][number % 4],
            target: n % 5,
            result: i64::from(n) - 5,
            flags: Flags(1 << (number % 9)).with(Flags::RANGE),
            ..Event { op, ..begin }
        });
    }
    let name = |name: &str| SocketAddress::Unix(name.to_owned());
    let path = history.names.intern_socket_address(name("/run/a b.sock"));
    let hidden = history.names.intern_socket_address(name("@bus,\u{1b}"));
    for (number, protocol) in Protocol::ALL.into_iter().enumerate() {
        history.events.push(Event {
            time_ns: begin.time_ns + 100 + number as u64,
            position: 100 + number as u64,
            protocol: Some(protocol),
            local: if protocol.is_local() { path } else { begin.local },
            remote: if protocol.is_local() { hidden } else { begin.remote },
            flags: Flags::UNSURE.with(Flags::RANGE),
            ..begin
        });
    }
    let calls = [("epoll_wait", Descriptor(7)), ("futex", Descriptor::NONE)];
    for ((name, fd), number) in calls.into_iter().zip(200..) {
        history.events.push(Event {
            time_ns: begin.time_ns + number,
            position: number,
            op: Op::Call,
            protocol: None,
            syscall: history.names.intern(name),
            fd,
            flags: Flags::BEGAN,
            ..begin
        });
    }
    let gap = Gap { cpu: 1, ring: Ring::Bulk, from_ns: 5, to_ns: 7, events: 3 };
    history.hosts[0].gaps.push(gap);
    let id = "3f4b1c2d5e6f70819a2b3c4d5e6f708192a3b4c5d6e7f8091a2b3c4d5e6f7081";
    let container = history.names.intern(&format!("/system.slice/docker-{id}.scope"));
    history.events.iter_mut().filter(|e| e.pid == begin.pid).for_each(|e| e.cgroup = container);
    let called = Called { id: id.to_owned(), name: "web".to_owned() };
    history.hosts[0].containers.push(called);
    let host = Namespace { number: begin.netns, inode: 4_026_531_840, name: "host".to_owned() };
    history.hosts[0].namespaces.push(host);
    history
}

/// A new version needs a golden file, which is made once and then never changed:
/// `WHEREFORE_GOLDEN=make cargo test -p tests --test offline golden`.
#[test]
fn the_newest_version_has_a_golden_file() {
    let path = golden(recorder::recording::SCHEMA_VERSION);
    if std::env::var_os("WHEREFORE_GOLDEN").is_some() && !path.exists() {
        std::fs::write(&path, recorded(&history(), 20)).expect("write the golden file");
    }
    assert!(path.exists(), "{} is missing", path.display());
}
