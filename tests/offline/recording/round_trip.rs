//! What is written is read back, every field of every event.

use proptest::prelude::*;
use recorder::event::{Address, Descriptor, Event, Flags, History, Host, Name, Op, Proof, Ring};
use recorder::recording::index::{Numbers, User};
use recorder::recording::{PART_ROWS, read, write};

use super::{all_written_out, file, open, open_bytes, recorded, traffic};

/// Any event there can be: what means nothing in it is blank.
fn events() -> impl Strategy<Value = Event> {
    let times = (any::<u64>(), any::<u64>(), any::<u64>(), any::<u64>());
    let numbers = (any::<u64>(), any::<u64>(), any::<i64>(), any::<u32>(), any::<u32>());
    let tasks = (any::<u32>(), any::<u32>(), any::<u32>(), any::<u32>(), any::<u32>());
    let names = (0..5_u32, 0..5_u32, 0..5_u32, 0..5_u32);
    let small = (any::<u16>(), any::<u16>(), 0..Op::ALL.len(), any::<bool>(), any::<u8>());
    let kinds = (0..4_u8, any::<u16>());
    let names = (names, (0..5_u32, any::<u32>()));
    (times, numbers, tasks, names, small, kinds).prop_map(
        |(times, numbers, tasks, names, small, kinds)| {
            let mut event = Event::blank(Op::ALL[small.2]);
            (event.time_ns, event.begin_ns, event.position, event.socket) = times;
            (event.stream_start, event.stream_end, event.result, event.iss, event.irs) = numbers;
            (event.pid, event.tid, event.target, event.task_count, event.netns) = tasks;
            let (names, call) = names;
            (event.syscall, event.fd) = (name(call.0), Descriptor(call.1));
            event.comm = name(names.0);
            event.cgroup = name(names.1);
            event.local = Address(name(names.2).0);
            event.remote = Address(name(names.3).0);
            (event.cpu, event.error) = (small.0, small.1);
            event.ring = if small.3 { Ring::Bulk } else { Ring::Rare };
            event.signal = small.4;
            event.proof = [Proof::Unknown, Proof::Computed, Proof::Agreed, Proof::Established]
                [usize::from(kinds.0)];
            event.flags = Flags(kinds.1);
            if event.proof == Proof::Unknown {
                (event.iss, event.irs) = (0, 0);
            }
            if !event.has_range() {
                (event.stream_start, event.stream_end) = (0, 0);
            }
            event
        },
    )
}

/// Four names, and none.
fn name(number: u32) -> Name {
    if number == 4 { Name::NONE } else { Name(number) }
}

fn history(events: Vec<Event>) -> History {
    let mut history = History { hosts: vec![traffic::host("alpha")], events, ..History::default() };
    for text in ["curl", "a name with ' and \" and ü", "x", "/system.slice/a.service"] {
        history.names.intern(text);
    }
    for address in ["127.0.0.1:80", "[::1]:443", "[fe80::1%3]:8080", "0.0.0.0:0"] {
        history.names.intern_address(address.parse().expect("an address"));
    }
    history.sort();
    history
}

proptest! {
    #[test]
    fn every_field(events in prop::collection::vec(events(), 0..40), part in 1..50_usize) {
        let history = history(events);
        let read = open_bytes(&recorded(&history, part)).expect("a recording");
        prop_assert_eq!(&read.notes, &vec![]);
        prop_assert_eq!(&read.history.hosts, &history.hosts);
        prop_assert_eq!(all_written_out(&read.history), all_written_out(&history));
    }
}

#[test]
fn no_events() {
    let read = open_bytes(&recorded(&history(vec![]), 10)).expect("a recording");
    assert_eq!(read.history.hosts, [traffic::host("alpha")]);
    assert!(read.history.events.is_empty() && read.notes.is_empty());
}

/// The host as it is known at the end is the host that is read, and parts are sorted among each other.
#[test]
fn host_and_order_of_the_end() {
    let mut history = traffic::requests(300);
    let known_first = Host { name: "alpha".to_owned(), ..Host::default() };
    let mut writer =
        write::Writer::new(Vec::new(), "memory", &known_first).expect("write the head");
    for events in history.events.rchunks(70) {
        writer.append(&history.names, events).expect("take events");
        writer.flush().expect("write a part");
    }
    assert_eq!(writer.complete_rows(), history.events.len() as u64);
    let bytes = writer.finish(&history.hosts[0]).expect("write the end");
    let read = open_bytes(&bytes).expect("a recording");
    history.sort();
    assert_eq!(read.history.hosts, history.hosts);
    assert_eq!(all_written_out(&read.history), all_written_out(&history));
}

/// A full part is written without being asked, and what the index promises is what the parts hold.
#[test]
fn parts_and_index() {
    let history = traffic::requests(2 * PART_ROWS + 10);
    let (_folder, path) = file(&recorded(&history, usize::MAX));
    let (host, index) = read::open_index(&path).expect("an index");
    assert_eq!(host, history.hosts[0]);
    assert_eq!(index.parts.len(), 3);
    assert_eq!(index.row_groups_for_time(0, 1), Vec::<usize>::new());
    for (number, part) in index.parts.iter().enumerate() {
        let part = part.as_ref().expect("an intact index");
        let read = read::open_row_groups(&path, &[number]).expect("a part").history;
        assert_eq!(part.events, read.events.len() as u64);
        assert_eq!(part.threads.iter().map(|t| t.events).sum::<u64>(), part.events);
        assert_eq!(part.lanes.iter().map(|l| l.events).sum::<u64>(), part.events);
        for event in &read.events {
            assert!(index.row_groups_for_socket(event.socket).contains(&number));
            assert!(index.row_groups_for_thread(event.pid, event.tid).contains(&number));
            assert!(index.row_groups_for_time(event.time_ns, event.time_ns).contains(&number));
            let at =
                part.sockets.binary_search_by_key(&event.socket, |s| s.cookie).expect("a socket");
            let socket = &part.sockets[at];
            let side = if event.op == Op::Send { &socket.sent } else { &socket.received };
            let hull = side.as_ref().expect("a range");
            assert!(hull.start <= event.stream_start && event.stream_end <= hull.end);
            assert_eq!(socket.ops & part.ops, 1 << Op::Send as u32 | 1 << Op::Recv as u32);
            assert_eq!(socket.numbers, Numbers::Known { iss: event.iss, irs: event.irs });
            let user = if event.op == Op::Send { socket.sender } else { socket.receiver };
            assert_eq!(user, User::Thread(event.tid));
        }
    }
    let all = open(&path).expect("a recording").history;
    let socket = history.events[5].socket;
    let some =
        read::open_row_groups(&path, &index.row_groups_for_socket(socket)).expect("parts").history;
    let of_socket = |h: &History| h.events.iter().filter(|e| e.socket == socket).count();
    assert_eq!(of_socket(&some), of_socket(&all));
    assert!(read::open_row_groups(&path, &[3]).is_err());
}

/// A socket or a thread that is nowhere needs no part.
#[test]
fn index_excludes() {
    let history = traffic::requests(100);
    let (_folder, path) = file(&recorded(&history, 30));
    let (_, index) = read::open_index(&path).expect("an index");
    assert_eq!(index.row_groups_for_socket(9_999), Vec::<usize>::new());
    assert_eq!(index.row_groups_for_thread(1, 1), Vec::<usize>::new());
    let first = &history.events[0];
    assert!(index.row_groups_for_time(first.time_ns, first.time_ns).len() == 1);
}
