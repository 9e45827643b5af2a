//! One event in the words that people read: what happened, in which lane, at what time.
//!
//! Everything here is safe to print: control characters in recorded names are written out.

mod offset;

use std::borrow::Cow;
use std::fmt::Write;
use std::ops::Range;

pub use offset::ahead;

use nix::errno::Errno;
use nix::sys::signal::Signal;

use crate::event::{Address, Event, Flags, History, Op, Protocol};
use crate::netns::{HOST, Namespace};

/// What happened: `send 497 B to 127.0.0.1:53122`, `recv EOF from …`, `kill 4301 SIGKILL`.
pub fn describe(history: &History, event: &Event) -> String {
    let act = act(history, event);
    let Some((preposition, end)) = other_end(event) else { return act };
    match (address(history, end), event.protocol) {
        (Some(address), _) => format!("{act} {preposition} {address}"),
        (None, Some(Protocol::Pipe)) => format!("{act} {preposition} a pipe"),
        (None, Some(Protocol::Udp)) => format!("{act} {preposition} an unknown address"),
        (None, Some(protocol)) if protocol.is_local() => {
            format!("{act} {preposition} a Unix socket")
        }
        (None, _) => act,
    }
}

/// An address as people read it: `127.0.0.1:80`, `unix:/run/app.sock`.
pub fn address(history: &History, address: Address) -> Option<String> {
    let address = history.names.socket_address(address)?;
    Some(printable(&address.to_string()).into_owned())
}

/// What happened, without the other end's address: `send 497 B`, `recv ECONNRESET`.
pub fn act(history: &History, event: &Event) -> String {
    let comm = || printable(history.comm(event));
    match event.op {
        Op::Send => transfer("send", event),
        Op::Recv => transfer("recv", event),
        Op::Connect => with_error("connect", event),
        Op::Established => "established".to_owned(),
        Op::Accept => with_error("accept", event),
        Op::Listen => with_error("listen", event),
        Op::Unlisten => "stop listening".to_owned(),
        Op::Close => with_error("close", event),
        Op::Abort => "abort".to_owned(),
        Op::Closed => "connection gone".to_owned(),
        Op::ResetSent => "reset sent".to_owned(),
        Op::ResetReceived => "reset received".to_owned(),
        Op::Retransmit => "retransmit".to_owned(),
        Op::Dropped => format!("packet dropped ({})", drop_reason(history, event)),
        Op::Error => with_error("error", event),
        Op::Fork => format!("fork {}", event.target),
        Op::Exec => format!("exec {}", comm()),
        Op::Exit if event.signal != 0 => format!("died of {}", signal_name(event.signal)),
        Op::Exit => format!("exit {}", event.result),
        Op::Signal => {
            let ignored = if event.flags.has(Flags::IGNORED) { " (ignored)" } else { "" };
            let signal = signal_name(event.signal);
            match i32::from(event.signal) == Signal::SIGCHLD as i32 {
                // Mostly the kernel's notice that a child has ended: nobody means to kill.
                true => format!("{signal} to {}{ignored}", event.target),
                false => format!("kill {} {signal}{ignored}", event.target),
            }
        }
        // No handler can take it, and no thread survives it.
        Op::Deliver if i32::from(event.signal) == Signal::SIGKILL as i32 => {
            "killed by SIGKILL".to_owned()
        }
        Op::Deliver => format!("took {}", signal_name(event.signal)),
        Op::OomKill => format!("out of memory: kill {}", event.target),
        Op::Bind => with_error("bind", event),
        Op::Socket => with_error("socket", event),
        Op::Poll => with_error("poll", event),
        Op::Call => call(history, event),
        Op::Wake => format!("wake {}", event.target),
        Op::Fault => fault(history, event),
    }
}

/// A system call, with its descriptor and what it returned: `epoll_wait(5) = 1`, `futex ETIMEDOUT`.
fn call(history: &History, event: &Event) -> String {
    let name = printable(history.names.text(event.syscall));
    let name = if name.is_empty() { "system call".into() } else { name };
    let fd = event.fd.number().map(|fd| format!("({fd})")).unwrap_or_default();
    match error_name(event) {
        Some(error) => format!("{name}{fd} {error}"),
        None => format!("{name}{fd} = {}", event.result),
    }
}

/// What the kernel gave as its reason: `NETFILTER_DROP`.
fn drop_reason(history: &History, event: &Event) -> String {
    let host = history.hosts.get(usize::from(event.host));
    let name = host.and_then(|host| host.drop_reasons.get(&u32::try_from(event.result).ok()?));
    match name {
        Some(name) => printable(name).into_owned(),
        None => format!("reason {}", event.result),
    }
}

/// What was injected: ``fault `db is down`: ECONNREFUSED``.
fn fault(history: &History, event: &Event) -> String {
    let name = printable(history.names.text(event.fault));
    match error_name(event) {
        Some(error) => format!("fault `{name}`: {error}"),
        None if event.is_restart() => format!("fault `{name}`: restart"),
        None if event.takes_place() => format!("fault `{name}`: in place of {}", event.target),
        None if event.is_hole() && event.signal != 0 => format!("fault `{name}`: crash"),
        None if event.signal != 0 => format!("fault `{name}`: {}", signal_name(event.signal)),
        None if event.is_hole() => format!("fault `{name}`: all packets are lost"),
        None if event.flags.has(Flags::LOST) && event.tid != 0 => {
            format!("fault `{name}`: message of {} B lost", event.result)
        }
        None if event.flags.has(Flags::LOST) => format!("fault `{name}`: packet lost"),
        None if event.flags.has(Flags::HEALED) => format!("fault `{name}`: healed"),
        None if event.in_kernel_lane() && event.socket == 0 => format!("fault `{name}`: begins"),
        None => format!("fault `{name}`: return {}", event.result),
    }
}

fn transfer(verb: &str, event: &Event) -> String {
    let mut text = if let Some(error) = error_name(event) {
        format!("{verb} {error}")
    } else if event.flags.has(Flags::EOF) && event.result == 0 {
        format!("{verb} EOF")
    } else if event.flags.has(Flags::EOF) {
        format!("{verb} {} B and EOF", event.result)
    } else {
        format!("{verb} {} B", event.result)
    };
    if event.flags.has(Flags::PEEK) {
        text.push_str(" (peek)");
    }
    if event.flags.has(Flags::URGENT) {
        text.push_str(" (urgent)");
    }
    text
}

fn with_error(verb: &str, event: &Event) -> String {
    error_name(event).map_or_else(|| verb.to_owned(), |error| format!("{verb} {error}"))
}

/// Which address an event is about, and how to say so.
fn other_end(event: &Event) -> Option<(&'static str, Address)> {
    match event.op {
        Op::Send
        | Op::Connect
        | Op::Close
        | Op::Abort
        | Op::ResetSent
        | Op::Retransmit
        | Op::Dropped => Some(("to", event.remote)),
        Op::Recv | Op::Accept | Op::ResetReceived => Some(("from", event.remote)),
        Op::Established | Op::Closed => Some(("with", event.remote)),
        Op::Error => Some(("towards", event.remote)),
        Op::Fault if event.is_hole() => Some(("towards", event.remote)),
        Op::Fault if event.flags.has(Flags::INCOMING) => Some(("from", event.remote)),
        Op::Fault if event.flags.has(Flags::LOST) => Some(("to", event.remote)),
        Op::Fault if event.flags.has(Flags::EOF) => Some(("towards", event.remote)),
        Op::Listen | Op::Unlisten | Op::Bind => Some(("on", event.local)),
        Op::Call if event.remote != Address::NONE => Some(("towards", event.remote)),
        Op::Call if event.protocol.is_some() => Some(("on", event.local)),
        _ => None,
    }
}

/// The bytes of the stream that the event covers: `bytes 0..497`; nothing where they are not known.
pub fn byte_range(event: &Event) -> Option<String> {
    event.has_range().then(|| range(event.protocol, event.stream_start..event.stream_end))
}

/// A stretch of a stream: `bytes 0..497`, or `message 3` where messages are counted.
pub fn range(protocol: Option<Protocol>, range: Range<u64>) -> String {
    match protocol {
        Some(Protocol::UnixSeqpacket) if range.end == range.start + 1 => {
            format!("message {}", range.start)
        }
        Some(Protocol::UnixSeqpacket) => format!("messages {}..{}", range.start, range.end),
        _ => format!("bytes {}..{}", range.start, range.end),
    }
}

/// Where it happened: `nginx[4290]`, `nginx[4290/4291]` (process/thread), `kernel, app 127.0.0.1:9000`; and
/// where that is ([`place`]). With several hosts, the host's name comes first: `web-1:nginx[4290]`.
pub fn lane(history: &History, event: &Event) -> String {
    let mut text = String::new();
    if let Some(host) = history.hosts.get(usize::from(event.host))
        && history.hosts.len() > 1
    {
        let _ = write!(text, "{}:", printable(&host.name));
    }
    match event.in_kernel_lane() {
        true => text.push_str(&kernel_lane(history, event)),
        false => text.push_str(&thread(history, event)),
    }
    text + &place(history, event)
}

fn kernel_lane(history: &History, event: &Event) -> String {
    let mut text = "kernel".to_owned();
    let comm = printable(history.comm(event));
    if !comm.is_empty() {
        let _ = write!(text, ", {comm}");
    }
    if let Some(address) = address(history, event.local) {
        let _ = write!(text, " {address}");
    }
    text
}

/// The container, and, where sockets of a host lie in several, the network namespace: ` in shop/web-0/nginx`,
/// ` in netns red`, ` in web, netns red`. Nothing for what lies just on the host. A namespace that is called
/// as its container is not told twice.
pub fn place(history: &History, event: &Event) -> String {
    let container = history.container(event).unwrap_or_default();
    let label = container.full_label();
    let namespace = history.namespace(event).filter(|namespace| {
        let implied = [HOST, container.label(), container.pod_label()];
        let is_implied = !namespace.name.is_empty() && implied.contains(&namespace.name.as_str());
        history.has_several_namespaces() && !is_implied
    });
    match (label.is_empty(), namespace.map(Namespace::label)) {
        (true, None) => String::new(),
        (false, None) => format!(" in {}", printable(&label)),
        (true, Some(netns)) => format!(" in netns {}", printable(&netns)),
        (false, Some(netns)) => format!(" in {}, netns {}", printable(&label), printable(&netns)),
    }
}

/// The thread: `nginx[4290]`, `nginx[4290/4291]` (process/thread).
pub fn thread(history: &History, event: &Event) -> String {
    let comm = printable(history.comm(event));
    let comm = if comm.is_empty() { "?" } else { &comm };
    match event.tid == event.pid {
        true => format!("{comm}[{}]", event.pid),
        false => format!("{comm}[{}/{}]", event.pid, event.tid),
    }
}

/// The wall clock's time of day, UTC, at the event's end: `12:00:01.204316`.
pub fn clock(history: &History, event: &Event) -> String {
    let us = wall_ns(history, event).rem_euclid(86_400_000_000_000) / 1000;
    let seconds = us / 1_000_000;
    let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
    format!("{hours:02}:{minutes:02}:{:02}.{:06}", seconds % 60, us % 1_000_000)
}

/// The event's end in nanoseconds since 1970, by its host's wall clock.
pub fn wall_ns(history: &History, event: &Event) -> i128 {
    let host = history.hosts.get(usize::from(event.host));
    i128::from(event.time_ns) + host.map_or(0, |host| i128::from(host.wall_offset_ns))
}

/// `ECONNRESET`, or `errno 600`; nothing if there was no error.
pub fn error_name(event: &Event) -> Option<String> {
    match event.errno()? {
        Errno::UnknownErrno => Some(format!("errno {}", event.error)),
        errno => Some(format!("{errno:?}")),
    }
}

/// `SIGKILL`, or `signal 34`.
pub fn signal_name(signal: u8) -> String {
    match Signal::try_from(i32::from(signal)) {
        Ok(signal) => signal.as_str().to_owned(),
        Err(_) => format!("signal {signal}"),
    }
}

/// The text with control characters, and those that reorder what follows, written out as `\u{1b}`: any
/// program can name itself so that it would take over the reader's terminal.
pub fn printable(text: &str) -> Cow<'_, str> {
    let hides = |c: char| {
        c.is_control()
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
    };
    if !text.contains(hides) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::new();
    for c in text.chars() {
        match hides(c) {
            true => shown.extend(c.escape_default()),
            false => shown.push(c),
        }
    }
    Cow::Owned(shown)
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use expect_test::expect;

    use super::*;
    use crate::container::Called;
    use crate::event::{Descriptor, Host, Name};

    fn history() -> (History, Event) {
        let mut history = History { hosts: vec![Host::default()], ..History::default() };
        let address = |text: &str| text.parse::<SocketAddr>().unwrap();
        let event = Event {
            pid: 4290,
            tid: 4290,
            comm: history.names.intern("nginx"),
            local: history.names.intern_address(address("127.0.0.1:8080")),
            remote: history.names.intern_address(address("[::1]:53122")),
            ..Event::blank(Op::Recv)
        };
        (history, event)
    }

    #[test]
    fn every_op_has_its_words() {
        let (mut history, blank) = history();
        let name = history.names.intern("epoll_wait");
        let called = Event { syscall: name, fd: Descriptor(5), ..blank };
        let texts = Op::ALL.map(|op| {
            describe(&history, &Event { op, target: 4301, result: 7, signal: 15, ..called })
        });
        expect![[r#"
            send 7 B to [::1]:53122
            recv 7 B from [::1]:53122
            connect to [::1]:53122
            established with [::1]:53122
            accept from [::1]:53122
            listen on 127.0.0.1:8080
            stop listening on 127.0.0.1:8080
            close to [::1]:53122
            abort to [::1]:53122
            connection gone with [::1]:53122
            reset sent to [::1]:53122
            reset received from [::1]:53122
            retransmit to [::1]:53122
            error towards [::1]:53122
            fork 4301
            exec nginx
            died of SIGTERM
            kill 4301 SIGTERM
            took SIGTERM
            out of memory: kill 4301
            bind on 127.0.0.1:8080
            fault ``: in place of 4301
            packet dropped (reason 7) to [::1]:53122
            socket
            poll
            epoll_wait(5) = 7 towards [::1]:53122
            wake 4301"#]]
        .assert_eq(&texts.join("\n"));
    }

    #[test]
    fn results_errors_and_flags_are_told() {
        let (history, blank) = history();
        let flagged = |flags: Flags| Event { flags, ..blank };
        let texts = [
            Event { result: 497, ..flagged(Flags::EOF) },
            flagged(Flags::EOF),
            Event { result: 5, ..flagged(Flags::PEEK.with(Flags::URGENT)) },
            Event { error: 104, ..blank },
            Event { error: 600, ..blank },
            Event { op: Op::Connect, error: 111, ..blank },
            Event { op: Op::Error, error: 104, remote: Address::NONE, ..blank },
            Event { op: Op::Signal, target: 1, signal: 34, ..flagged(Flags::IGNORED) },
            Event { op: Op::Deliver, signal: 9, ..blank },
            Event { op: Op::Exit, result: 1, ..blank },
        ]
        .map(|event| describe(&history, &event));
        expect![[r#"
            recv 497 B and EOF from [::1]:53122
            recv EOF from [::1]:53122
            recv 5 B (peek) (urgent) from [::1]:53122
            recv ECONNRESET from [::1]:53122
            recv errno 600 from [::1]:53122
            connect ECONNREFUSED to [::1]:53122
            error ECONNRESET
            kill 1 signal 34 (ignored)
            killed by SIGKILL
            exit 1"#]]
        .assert_eq(&texts.join("\n"));
    }

    #[test]
    fn lanes_are_named_by_process_thread_or_socket() {
        let (mut history, blank) = history();
        let lanes = |history: &History| {
            [
                blank,
                Event { tid: 4291, ..blank },
                Event { comm: Name::NONE, ..blank },
                Event { tid: 0, ..blank },
                Event { tid: 0, comm: Name::NONE, ..blank },
                Event { tid: 0, comm: Name::NONE, local: Address::NONE, ..blank },
            ]
            .map(|event| lane(history, &event))
            .join("\n")
        };
        expect![[r#"
            nginx[4290]
            nginx[4290/4291]
            ?[4290]
            kernel, nginx 127.0.0.1:8080
            kernel 127.0.0.1:8080
            kernel"#]]
        .assert_eq(&lanes(&history));
        history.hosts =
            ["web-1", "web-2"].map(|n| Host { name: n.into(), ..Host::default() }).into();
        expect![[r#"
            web-1:nginx[4290]
            web-1:nginx[4290/4291]
            web-1:?[4290]
            web-1:kernel, nginx 127.0.0.1:8080
            web-1:kernel 127.0.0.1:8080
            web-1:kernel"#]]
        .assert_eq(&lanes(&history));
    }

    #[test]
    fn places_are_told_where_they_are_not_just_the_host() {
        let (mut history, blank) = history();
        let id = "3f4b1c2d5e6f70819a2b3c4d5e6f708192a3b4c5d6e7f8091a2b3c4d5e6f7081";
        let uid = "5b3c0e4e-3f8e-11e9-8d3c-0a580af40123";
        let docker = history.names.intern(&format!("/system.slice/docker-{id}.scope"));
        let pod = history.names.intern(&format!("/kubepods/besteffort/pod{uid}/{id}"));
        let places = |history: &History| {
            let places = [Name::NONE, docker, pod].map(|cgroup| {
                [1, 2, 3, 4]
                    .map(|netns| place(history, &Event { cgroup, netns, ..blank }))
                    .join("|")
            });
            places.join("\n")
        };
        expect![[r#"
            |||
             in 3f4b1c2d5e6f| in 3f4b1c2d5e6f| in 3f4b1c2d5e6f| in 3f4b1c2d5e6f
             in 3f4b1c2d5e6f| in 3f4b1c2d5e6f| in 3f4b1c2d5e6f| in 3f4b1c2d5e6f"#]]
        .assert_eq(&places(&history));
        let called = [(id, "web"), (uid, "shop/web-0")];
        history.hosts[0].containers =
            called.map(|(id, name)| Called { id: id.into(), name: name.into() }).into();
        let namespaces = [(1, "host"), (2, "red"), (3, "shop/web-0"), (4, "")];
        history.hosts[0].namespaces = namespaces
            .map(|(number, name)| Namespace { number, inode: 70 + number, name: name.into() })
            .into();
        expect![[r#"
            | in netns red| in netns shop/web-0| in netns net:[74]
             in web| in web, netns red| in web, netns shop/web-0| in web, netns net:[74]
             in shop/web-0/web| in shop/web-0/web, netns red| in shop/web-0/web| in shop/web-0/web, netns net:[74]"#]]
        .assert_eq(&places(&history));
        history.hosts[0].namespaces.truncate(1);
        assert_eq!(place(&history, &Event { netns: 1, ..blank }), "");
    }

    #[test]
    fn the_clock_is_the_hosts_time_of_day() {
        let (mut history, blank) = history();
        let event = Event { time_ns: 1_204_316_999, ..blank };
        expect!["00:00:01.204316"].assert_eq(&clock(&history, &event));
        history.hosts[0].wall_offset_ns = (20_000 * 86_400 + 43_200) * 1_000_000_000;
        expect!["12:00:01.204316"].assert_eq(&clock(&history, &event));
        history.hosts[0].wall_offset_ns = -2_000_000_000;
        expect!["23:59:59.204316"].assert_eq(&clock(&history, &event));
    }

    #[test]
    fn byte_ranges_are_told_where_known() {
        let event = Event { stream_start: 3, stream_end: 500, ..Event::blank(Op::Send) };
        assert_eq!(byte_range(&event), None);
        let event = Event { flags: Flags::RANGE, ..event };
        assert_eq!(byte_range(&event).as_deref(), Some("bytes 3..500"));
    }

    #[test]
    fn names_cannot_take_over_the_terminal() {
        assert_eq!(printable("my app <é>"), "my app <é>");
        assert_eq!(printable("a\u{1b}[2Jb\n\u{202e}"), "a\\u{1b}[2Jb\\n\\u{202e}");
    }
}
