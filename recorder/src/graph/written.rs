//! Histories written as text, for tests: one event per line, in order of time.
//!
//! `a send 1 0..9` is thread `a`; `a.t` is thread `t` of process `a`; `k` is the kernel lane. Then the
//! operation, the socket and the range of bytes, and what else there is: `error=ECONNRESET`, `signal=9`,
//! `target=b`, `syscall=futex`, `at=2500`, `begin=10`, `cpu=1`, `host=1`, `iss=7`, `irs=8`, `count=3`, `local=1.2.3.4:5`,
//! `remote=…`, `computed`, `unknown`, and the flags by name. Sockets 1 and 2, 3 and 4, … are the ends of one
//! connection, on which socket n has port n.

use nix::errno::Errno;

use crate::event::{Address, Event, Flags, History, Host, Names, Op, Proof, Protocol};
use crate::graph::{Edge, EdgeKind, Graph, event_of};

/// Nanoseconds between two lines.
const STEP_NS: u64 = 1000;

/// d kills c, which resets the connection to b, whose answer to a is short.
pub(crate) const KILLED: &str = "
    a connect 1
    a send 1 0..9
    b recv 2 0..9
    b send 3 0..9
    c recv 4 0..9
    d signal signal=9 target=c process
    c deliver signal=9
    c exit signal=9
    c abort 4
    k reset_sent 4
    k reset_received 3
    k error 3 error=ECONNRESET
    b recv 3 error=ECONNRESET
    b send 2 0..7
    a recv 1 0..7";

pub(crate) fn history(text: &str) -> History {
    let mut history = History::default();
    let lines = text.split(['\n', '/']).map(str::trim).filter(|l| !l.is_empty());
    for (number, line) in lines.enumerate() {
        let event = event(&mut history.names, line, number as u64, &history.events);
        history.events.push(event);
    }
    let hosts = history.events.iter().map(|e| e.host + 1).max().unwrap_or(0);
    history.hosts = vec![Host::default(); usize::from(hosts)];
    history.sort();
    history
}

fn event(names: &mut Names, line: &str, number: u64, earlier: &[Event]) -> Event {
    let mut words = line.split_whitespace();
    let thread = words.next().expect("a thread");
    let op = words.next().and_then(Op::parse).unwrap_or_else(|| panic!("no operation: {line}"));
    let mut event = Event::blank(op);
    (event.pid, event.tid) = task(thread);
    event.position = number + 1;
    event.time_ns = (number + 1) * STEP_NS;
    event.ring = op.ring();
    let mut begin = None;
    for word in words {
        if let Ok(socket) = word.parse() {
            set_socket(names, &mut event, socket);
        } else if let Some((start, end)) = word.split_once("..") {
            event.stream_start = start.parse().expect("a start");
            event.stream_end = end.parse().expect("an end");
            event.flags = event.flags.with(Flags::RANGE);
            event.result = (event.stream_end - event.stream_start) as i64;
        } else if let Some(("begin", value)) = word.split_once('=') {
            begin = Some(value.parse().expect("a time"));
        } else {
            set(names, &mut event, word);
        }
    }
    let mine = |e: &&Event| (e.host, e.tid) == (event.host, event.tid);
    let previous = earlier.iter().rev().find(mine).map_or(1, |e| e.time_ns);
    event.begin_ns = begin.unwrap_or(if event.tid == 0 { event.time_ns } else { previous });
    event
}

/// Process and thread: letters count from 1, `a.b` is thread b of process a.
fn task(text: &str) -> (u32, u32) {
    let number = |text: &str| text.bytes().next().map_or(0, |b| u32::from(b - b'a') + 1);
    match text.split_once('.') {
        _ if text == "k" => (0, 0),
        Some((process, thread)) => (number(process), number(thread)),
        None => (number(text), number(text)),
    }
}

fn set_socket(names: &mut Names, event: &mut Event, socket: u64) {
    let peer = if socket % 2 == 1 { socket + 1 } else { socket - 1 };
    let iss = |socket: u64| 1_000_000 + socket as u32 * 1000;
    (event.socket, event.iss, event.irs) = (socket, iss(socket), iss(peer));
    event.proof = Proof::Established;
    let mut port = |n: u64| names.intern_address(format!("127.0.0.1:{n}").parse().expect("valid"));
    (event.local, event.remote) = (port(socket), port(peer));
}

fn set(names: &mut Names, event: &mut Event, word: &str) {
    let Some((key, value)) = word.split_once('=') else {
        match word {
            "computed" => event.proof = Proof::Computed,
            "unknown" => event.proof = Proof::Unknown,
            flag => event.flags = event.flags.with(self::flag(flag)),
        }
        return;
    };
    let number = || value.parse::<u64>().expect("a number");
    match key {
        "error" => event.error = errno(value),
        "fault" => event.fault = names.intern(value),
        "signal" => event.signal = number() as u8,
        "target" => event.target = task(value).1,
        "syscall" => event.syscall = names.intern(value),
        "at" => event.time_ns = number(),
        "cpu" => event.cpu = number() as u16,
        "host" => event.host = number() as u16,
        "iss" => event.iss = number() as u32,
        "irs" => event.irs = number() as u32,
        "count" => event.task_count = number() as u32,
        "netns" => event.netns = number() as u32,
        "protocol" => event.protocol = Protocol::parse(value),
        "result" => event.result = number() as i64,
        "local" => event.local = names.intern_socket_address(value.parse().expect("an address")),
        "remote" if value == "none" => event.remote = Address::NONE,
        "remote" => event.remote = names.intern_socket_address(value.parse().expect("an address")),
        _ => panic!("no such key: {word}"),
    }
}

fn flag(name: &str) -> Flags {
    match name {
        "peek" => Flags::PEEK,
        "eof" => Flags::EOF,
        "urgent" => Flags::URGENT,
        "process" => Flags::PROCESS,
        "ignored" => Flags::IGNORED,
        "last" => Flags::LAST_THREAD,
        "gap" => Flags::AFTER_GAP,
        "active" => Flags::ACTIVE,
        "unsure" => Flags::UNSURE,
        "lost" => Flags::LOST,
        "incoming" => Flags::INCOMING,
        "healed" => Flags::HEALED,
        _ => panic!("no such flag: {name}"),
    }
}

fn errno(name: &str) -> u16 {
    let known = [
        Errno::ECONNRESET,
        Errno::EPIPE,
        Errno::ECONNREFUSED,
        Errno::ECONNABORTED,
        Errno::EAGAIN,
        Errno::ETIMEDOUT,
    ];
    let named = known.into_iter().find(|errno| format!("{errno:?}") == name);
    named.unwrap_or_else(|| panic!("no such error: {name}")) as u16
}

/// The event as it was written, without what is of no interest.
pub(crate) fn show(event: &Event) -> String {
    let letter = |n: u32| char::from(b'a' + (n - 1) as u8);
    let mut text = match (event.pid, event.tid) {
        (_, 0) => "k".to_owned(),
        (pid, tid) if pid == tid => letter(tid).to_string(),
        (pid, tid) => format!("{}.{}", letter(pid), letter(tid)),
    };
    text += &format!(" {}", event.op);
    if event.socket != 0 {
        text += &format!(" {}", event.socket);
    }
    if event.has_range() {
        text += &format!(" {}..{}", event.stream_start, event.stream_end);
    }
    if event.error != 0 {
        text += &format!(" {:?}", Errno::from_raw(i32::from(event.error)));
    }
    text
}

/// All edges but those within an event, one per line; program order only between threads' neighbours that
/// are not in the order in which they are written.
pub(crate) fn show_edges(history: &History, graph: &Graph, kinds: &[EdgeKind]) -> String {
    let mut lines: Vec<(u32, u32, String)> = Vec::new();
    for edge in graph.nodes.raw_edges() {
        let (from, to) = (event_of(edge.source()), event_of(edge.target()));
        let Edge { kind, proof } = edge.weight;
        if kinds.contains(&kind) {
            let one = show(&history.events[from.0 as usize]);
            let other = show(&history.events[to.0 as usize]);
            let sides = format!("{}→{}", from.1.as_str(), to.1.as_str());
            let line = format!("{one} → {other}  {} {} {sides}\n", proof.as_str(), kind.as_str());
            lines.push((to.0, from.0, line));
        }
    }
    lines.sort();
    for hole in &graph.holes {
        let before = show(&history.events[hole.before as usize]);
        lines.push((0, 0, format!("hole {}..{} before {before}\n", hole.start, hole.end)));
    }
    lines.into_iter().map(|(_, _, line)| line).collect()
}
