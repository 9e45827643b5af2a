//! Small histories written by hand, one event per line, and their graphs as text.
//!
//! ```text
//! 10..20 nginx[1] send on=7a bytes=0..9      a thread of process 1 sends 9 bytes on end a of connection 7
//! 15..15 kernel established on=7b active     the kernel establishes end b of it
//! 30..31 sh[1.5] signal target=4 sig=9       thread 5 of process 1 kills 4
//! ```
//!
//! Times are ns: the bound of the begin, and the end. `host=1` puts an event on another host.

use std::collections::HashMap;
use std::fmt::Write;
use std::net::SocketAddr;
use std::str::FromStr;

use recorder::event::{Event, Flags, History, Host, Op, Proof, Ring};
use recorder::graph::{EdgeKind, Graph, Side, event_of};

/// The history that lines describe. Events are numbered in the order of the history, from 0.
pub fn history(lines: &str) -> History {
    let mut history = History::default();
    let mut rings: HashMap<(u16, u16, Ring), u64> = HashMap::new();
    let mut counts: HashMap<(u16, u32), u32> = HashMap::new();
    for line in lines.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let mut event = parse(&mut history, line);
        let position = rings.entry((event.host, event.cpu, event.ring)).or_default();
        event.position = *position;
        *position += 1;
        if event.tid != 0 && event.task_count == 0 {
            let count = counts.entry((event.host, event.tid)).or_default();
            *count += 1;
            event.task_count = *count;
        }
        while history.hosts.len() <= usize::from(event.host) {
            let name = format!("host{}", history.hosts.len());
            history.hosts.push(Host { name, ..Host::default() });
        }
        history.events.push(event);
    }
    history.sort();
    history
}

fn parse(history: &mut History, line: &str) -> Event {
    let mut words = line.split_whitespace();
    let mut next = || words.next().unwrap_or_else(|| panic!("too few words: {line}"));
    let (begin_ns, time_ns) = range(next());
    let (who, op) = (next(), next());
    let mut event = Event::blank(Op::parse(op).unwrap_or_else(|| panic!("no such op: {op}")));
    (event.begin_ns, event.time_ns) = (begin_ns, time_ns);
    if !matches!(event.op, Op::Send | Op::Recv) {
        event.ring = Ring::Rare;
    }
    if let Some((comm, task)) = who.trim_end_matches(']').split_once('[') {
        let (pid, tid) = task.split_once('.').unwrap_or((task, task));
        (event.pid, event.tid) = (number(pid), number(tid));
        event.comm = history.names.intern(comm);
    }
    for word in words {
        qualify(history, &mut event, word);
    }
    event
}

fn qualify(history: &mut History, event: &mut Event, word: &str) {
    let (key, value) = word.split_once('=').unwrap_or((word, ""));
    match key {
        "on" => connect(history, event, value),
        "bytes" => {
            (event.stream_start, event.stream_end) = range(value);
            event.result = (event.stream_end - event.stream_start) as i64;
            event.flags = event.flags.with(Flags::RANGE);
        }
        "fin" => {
            event.stream_start = number(value);
            event.stream_end = event.stream_start + 1;
            event.flags = event.flags.with(Flags::RANGE).with(Flags::EOF);
        }
        "at" => event.local = history.names.intern_address(address(value)),
        "to" => event.remote = history.names.intern_address(address(value)),
        "old" => (event.proof, event.iss) = (Proof::Computed, event.iss + number::<u32>(value)),
        "new" => (event.proof, event.iss, event.irs) = (Proof::Unknown, 0, 0),
        "target" => event.target = number(value),
        "sig" => event.signal = number(value),
        "errno" => event.error = number(value),
        "cpu" => event.cpu = number(value),
        "host" => event.host = number(value),
        "owner" => event.pid = number(value),
        "count" => event.task_count = number(value),
        "socket" => event.socket = number(value),
        "active" => event.flags = event.flags.with(Flags::ACTIVE),
        "peek" => event.flags = event.flags.with(Flags::PEEK),
        "process" => event.flags = event.flags.with(Flags::PROCESS),
        "ignored" => event.flags = event.flags.with(Flags::IGNORED),
        "last" => event.flags = event.flags.with(Flags::LAST_THREAD),
        _ => panic!("no such key: {word}"),
    }
}

/// Connection 7's end `a` asks from port 40007 at end `b`, port 80.
fn connect(history: &mut History, event: &mut Event, value: &str) {
    let (connection, end) = value.split_at(value.len() - 1);
    let connection: u32 = number(connection);
    let ports = [40_000 + connection, 80].map(|port| address(&format!("127.0.0.1:{port}")));
    let addresses = ports.map(|a| history.names.intern_address(a));
    let numbers = [connection * 1_000 + 1, connection * 1_000 + 500];
    let (own, other) = if end == "a" { (0, 1) } else { (1, 0) };
    event.socket = u64::from(connection) * 2 + own as u64;
    (event.local, event.remote) = (addresses[own], addresses[other]);
    (event.iss, event.irs) = (numbers[own], numbers[other]);
    event.proof = Proof::Established;
}

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap_or_else(|_| panic!("not an address: {text}"))
}

fn number<T: FromStr>(text: &str) -> T {
    text.parse().unwrap_or_else(|_| panic!("not a number: {text}"))
}

fn range(text: &str) -> (u64, u64) {
    let (from, to) = text.split_once("..").unwrap_or_else(|| panic!("not a range: {text}"));
    (number(from), number(to))
}

/// All edges but those from an event's begin to its own end, in the order of their ends.
pub fn edges(history: &History) -> String {
    let graph = Graph::build(history);
    let mut lines = Vec::new();
    for index in graph.nodes.edge_indices() {
        let edge = graph.nodes[index];
        let (from, to) = graph.nodes.edge_endpoints(index).expect("the edge is there");
        if edge.kind != EdgeKind::Interval {
            lines.push((event_of(to), event_of(from), edge));
        }
    }
    lines.sort_by_key(|&(to, from, edge)| (to, from, edge.kind));
    let mut text = String::new();
    for (to, from, edge) in lines {
        let (kind, proof) = (edge.kind.as_str(), edge.proof.as_str());
        let (from, to) = (name(history, from), name(history, to));
        writeln!(text, "{proof:4} {kind:10} {from} -> {to}").expect("text can be written");
    }
    text
}

/// An event's number, thread, op and side.
pub fn name(history: &History, (index, side): (u32, Side)) -> String {
    let event = &history.events[index as usize];
    let who = match event.tid {
        0 => "kernel".to_owned(),
        tid => format!("{}[{tid}]", history.comm(event)),
    };
    format!("#{index} {who} {} {}", event.op, side.as_str())
}
