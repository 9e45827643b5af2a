//! Unix sockets: every call once, counted from the first byte, joined with the other end whoever holds it.

use expect_test::{Expect, expect};
use recorder::event::{Event, Flags, Op, Protocol};
use recorder::graph::{EdgeKind, Graph, Proof, event_of};

use crate::recorded::{Run, python};

/// A name in the abstract namespace that no other test has.
const NAMED: &str = r"
name = b'\0wf-' + str(os.getpid()).encode()
say('name', os.getpid())

def pair(kind):
    listener = socket.socket(socket.AF_UNIX, kind)
    listener.bind(name)
    listener.listen(8)
    client = socket.socket(socket.AF_UNIX, kind)
    client.connect(name)
    server, _ = listener.accept()
    listener.close()
    return client, server
";

fn play(script: &str) -> Run {
    python(&format!("{NAMED}\n{script}"))
}

fn line(run: &Run, event: &Event) -> String {
    let names = &run.history.names;
    let address = |a| names.socket_address(a).map_or("-".to_owned(), ToString::to_string);
    let mut text = format!(
        "{} {} {} {} → {}",
        run.history.comm(event),
        event.protocol.map_or("none", Protocol::as_str),
        event.op,
        address(event.local),
        address(event.remote)
    );
    match event.errno() {
        Some(errno) => text += &format!(" {errno:?}"),
        None => text += &format!(" {}", event.result),
    }
    if event.has_range() {
        text += &format!(" [{}..{})", event.stream_start, event.stream_end);
    }
    let flags = [(Flags::PEEK, " peek"), (Flags::EOF, " eof"), (Flags::UNSURE, " unsure")];
    flags.iter().filter(|(flag, _)| event.flags.has(*flag)).for_each(|(_, name)| text += name);
    text.replace(&run.number("name").to_string(), "N")
}

/// Sends and receives, and who got what from whom: `must 0>1` for events 0 and 1. By process, since a send may return
/// after the receive of its bytes.
fn told(run: &Run) -> String {
    let wanted = |e: &&Event| matches!(e.op, Op::Send | Op::Recv | Op::Error);
    let mut events: Vec<&Event> = run.history.events.iter().filter(wanted).collect();
    events.sort_by_key(|e| run.history.comm(e));
    let mut text: String =
        events.iter().enumerate().map(|(n, e)| format!("{n} {}\n", line(run, e))).collect();
    let graph = Graph::build(&run.history);
    let number = |index: u32| {
        let event = &run.history.events[index as usize];
        events.iter().position(|&e| std::ptr::eq(e, event)).unwrap_or(usize::MAX)
    };
    let mut edges: Vec<String> = Vec::new();
    for edge in graph.nodes.raw_edges() {
        if edge.weight.kind == EdgeKind::Bytes {
            let (from, to) = (event_of(edge.source()).0, event_of(edge.target()).0);
            edges.push(format!("{} {}>{}", edge.weight.proof.as_str(), number(from), number(to)));
        }
    }
    edges.sort();
    text += &edges.join(", ");
    text + "\n"
}

fn check(script: &str, expected: Expect) {
    expected.assert_eq(&told(&play(script)));
}

#[test]
fn a_stream_is_counted_from_its_first_byte() {
    check(
        r"
rename('both')
a, b = pair(socket.SOCK_STREAM)
a.send(b'12345')
b.recv(2)
b.recv(10, socket.MSG_PEEK)
b.recv(10)
b.send(b'answer')
a.recv(100)
try:
    b.recv(1, socket.MSG_DONTWAIT)
except BlockingIOError:
    pass
a.close()
b.recv(1)
",
        expect![[r#"
            0 both unix_stream send - → unix:@wf-N 5 [0..5)
            1 both unix_stream recv unix:@wf-N → - 2 [0..2)
            2 both unix_stream recv unix:@wf-N → - 3 [2..5) peek
            3 both unix_stream recv unix:@wf-N → - 3 [2..5)
            4 both unix_stream send unix:@wf-N → - 6 [0..6)
            5 both unix_stream recv - → unix:@wf-N 6 [0..6)
            6 both unix_stream recv unix:@wf-N → - EAGAIN
            7 both unix_stream recv unix:@wf-N → - 0 eof
            must 0>1, must 0>2, must 0>3, must 4>5
        "#]],
    );
}

#[test]
fn messages_are_counted_one_by_one() {
    check(
        r"
rename('both')
a, b = pair(socket.SOCK_SEQPACKET)
a.send(b'12345')
a.send(b'678')
b.recv(2)
b.recv(10)
a.close()
b.recv(1)
",
        expect![[r#"
            0 both unix_seqpacket send - → unix:@wf-N 5 [0..1)
            1 both unix_seqpacket send - → unix:@wf-N 3 [1..2)
            2 both unix_seqpacket recv unix:@wf-N → - 2 [0..1)
            3 both unix_seqpacket recv unix:@wf-N → - 3 [1..2)
            4 both unix_seqpacket recv unix:@wf-N → - 0 eof
            must 0>2, must 1>3
        "#]],
    );
}

#[test]
fn what_fails_says_so() {
    check(
        r"
rename('both')
signal.signal(signal.SIGPIPE, signal.SIG_IGN)
a, b = pair(socket.SOCK_STREAM)
b.send(b'unread')
a.close()
seen(b.send, b'x')
c, d = socket.socketpair()
c.send(b'unread')
d.close()
seen(c.recv, 1)
",
        expect![[r#"
            0 both unix_stream send unix:@wf-N → - 6 [0..6)
            1 both unix_stream send unix:@wf-N → - EPIPE
            2 both unix_stream send - → - 6 [0..6)
            3 both unix_stream recv - → - ECONNRESET

        "#]],
    );
}

#[test]
fn a_pair_is_joined_across_a_fork() {
    check(
        r"
rename('parent')
a, b = socket.socketpair()

def act():
    a.close()
    b.send(b'from the child')
    b.recv(100)

pid = child('child', act)
b.close()
a.recv(100)
a.send(b'from the parent')
finish(pid)
",
        expect![[r#"
            0 child unix_stream send - → - 14 [0..14)
            1 child unix_stream recv - → - 15 [0..15)
            2 parent unix_stream recv - → - 14 [0..14)
            3 parent unix_stream send - → - 15 [0..15)
            must 0>2, must 3>1
        "#]],
    );
}

#[test]
fn a_descriptor_that_was_passed_on_keeps_its_count() {
    let run = play(
        r"
rename('first')
a, b = socket.socketpair()
way, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)

def act():
    _, fds, _, _ = socket.recv_fds(other, 10, 1)
    passed = socket.socket(fileno=fds[0])
    passed.send(b'second')

pid = child('second', act)
b.send(b'first')
socket.send_fds(way, [b'fd'], [b.fileno()])
b.close()
a.recv(5)
finish(pid)
a.recv(100)
",
    );
    let streams = |comm: &str, op| -> Vec<(u64, u64)> {
        let events = run.events(comm, op).into_iter();
        let streams = events.filter(|e| e.protocol == Some(Protocol::UnixStream));
        streams.map(|e| (e.stream_start, e.stream_end)).collect()
    };
    assert_eq!(streams("first", Op::Send), [(0, 5)]);
    assert_eq!(streams("second", Op::Send), [(5, 11)]);
    assert_eq!(streams("first", Op::Recv), [(0, 5), (5, 11)]);
}

/// Bytes that were taken where no probe sees it make what follows only possible.
#[test]
fn after_a_splice_nothing_is_proven() {
    let run = play(
        r"
rename('both')
a, b = pair(socket.SOCK_STREAM)
a.send(b'spliced')
read, write = os.pipe()
os.splice(b.fileno(), write, 100) if hasattr(os, 'splice') else libc.splice(b.fileno(), None, write, None, 100, 0)
a.send(b'more')
b.recv(100)
a.send(b'and more')
b.recv(100)
",
    );
    let graph = Graph::build(&run.history);
    let edges = graph.nodes.raw_edges().iter();
    let proven =
        edges.filter(|e| e.weight.kind == EdgeKind::Bytes && e.weight.proof == Proof::Must);
    assert_eq!(proven.count(), 0, "{}", told(&run));
    let receives = run.events("both", Op::Recv);
    assert!(receives.iter().all(|e| e.flags.has(Flags::UNSURE)), "{}", told(&run));
}

#[test]
fn a_path_is_the_address() {
    let run = play(
        r"
import tempfile
rename('both')
with tempfile.TemporaryDirectory() as folder:
    # Longer than one record's part.
    path = os.path.join(folder, 'x' * 60 + '.sock')
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()
    client = socket.socket(socket.AF_UNIX)
    client.connect(path)
    server, _ = listener.accept()
    client.send(b'1')
    server.recv(1)
    say(path)
",
    );
    let path = format!("unix:{}", run.said.lines().last().expect("it said the path"));
    let address = |a| run.history.names.socket_address(a).map(ToString::to_string);
    let (send, recv) = (run.events("both", Op::Send)[0], run.events("both", Op::Recv)[0]);
    assert_eq!((address(send.local), address(send.remote)), (None, Some(path.clone())));
    assert_eq!((address(recv.local), address(recv.remote)), (Some(path), None));
}
