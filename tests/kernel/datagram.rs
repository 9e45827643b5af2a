//! Datagrams: whom each went to and came from, what failed, and which may be which.

use expect_test::{Expect, expect};
use recorder::event::{Event, Op, Protocol};
use recorder::graph::{EdgeKind, Graph, event_of};

use crate::recorded::{Run, python};

/// Two sockets, of one family, with names for their ports.
const SOCKETS: &str = r"
def two(family=socket.AF_INET):
    pair = [socket.socket(family, socket.SOCK_DGRAM) for _ in range(2)]
    for one, word in zip(pair, ('port', 'other')):
        one.bind((LOOPBACK[family], 0))
        one.settimeout(10)
        say(word, one.getsockname()[1])
    return pair
";

fn play(script: &str) -> Run {
    python(&format!("{SOCKETS}\n{script}"))
}

fn told(run: &Run) -> String {
    let wanted = |e: &&Event| {
        e.protocol.is_some_and(Protocol::is_datagram)
            && matches!(e.op, Op::Send | Op::Recv | Op::Error)
    };
    let events: Vec<&Event> = run.history.events.iter().filter(wanted).collect();
    let names = &run.history.names;
    let address = |a| names.socket_address(a).map_or("-".to_owned(), ToString::to_string);
    let mut text = String::new();
    for (number, event) in events.iter().enumerate() {
        let lane = if event.tid == 0 { "kernel" } else { run.history.comm(event) };
        text += &format!(
            "{number} {lane} {} {} → {} ",
            event.op,
            address(event.local),
            address(event.remote)
        );
        text += &event.errno().map_or(event.result.to_string(), |errno| format!("{errno:?}"));
        text += "\n";
    }
    let graph = Graph::build(&run.history);
    let place = |index: u32| {
        let event = &run.history.events[index as usize];
        events.iter().position(|&e| std::ptr::eq(e, event))
    };
    let mut edges: Vec<String> = Vec::new();
    for edge in graph.nodes.raw_edges() {
        let (from, to) = (event_of(edge.source()).0, event_of(edge.target()).0);
        let told = matches!(edge.weight.kind, EdgeKind::Bytes | EdgeKind::Close);
        if let (true, Some(from), Some(to)) = (told, place(from), place(to)) {
            let (proof, kind) = (edge.weight.proof.as_str(), edge.weight.kind.as_str());
            edges.push(format!("{proof} {kind} {from}>{to}"));
        }
    }
    edges.sort();
    text += &edges.join(", ");
    text += "\n";
    for (word, port) in run.said.lines().filter_map(|line| line.split_once(' ')) {
        text = text.replace(&format!(":{port}"), &format!(":{word}"));
    }
    text
}

fn check(script: &str, expected: Expect) {
    expected.assert_eq(&told(&play(script)));
}

#[test]
fn connected_sockets_know_their_peer() {
    check(
        r"
rename('both')
a, b = two()
a.connect(b.getsockname())
b.connect(a.getsockname())
a.send(b'12345')
a.send(b'678')
b.recv(100)
b.recv(100)
b.send(b'answer')
a.recv(3)
",
        expect![[r#"
            0 both send 127.0.0.1:port → 127.0.0.1:other 5
            1 both send 127.0.0.1:port → 127.0.0.1:other 3
            2 both recv 127.0.0.1:other → 127.0.0.1:port 5
            3 both recv 127.0.0.1:other → 127.0.0.1:port 3
            4 both send 127.0.0.1:other → 127.0.0.1:port 6
            5 both recv 127.0.0.1:port → 127.0.0.1:other 3
            may bytes 0>2, may bytes 1>3, may bytes 4>5
        "#]],
    );
}

#[test]
fn the_peer_of_an_unconnected_socket_is_what_the_call_names() {
    check(
        r"
rename('both')
a, b = two()
a.sendto(b'question', b.getsockname())
_, address = b.recvfrom(100)
b.sendto(b'answer', address)
a.recvfrom(100)
",
        expect![[r#"
            0 both send 127.0.0.1:port → 127.0.0.1:other 8
            1 both recv 127.0.0.1:other → 127.0.0.1:port 8
            2 both send 127.0.0.1:other → 127.0.0.1:port 6
            3 both recv 127.0.0.1:port → 127.0.0.1:other 6
            may bytes 0>1, may bytes 2>3
        "#]],
    );
}

#[test]
fn the_same_with_ipv6() {
    check(
        r"
rename('both')
a, b = two(socket.AF_INET6)
a.sendto(b'question', b.getsockname())
_, address = b.recvfrom(100)
b.sendto(b'answer', address)
a.recvfrom(100)
",
        expect![[r#"
            0 both send [::1]:port → [::1]:other 8
            1 both recv [::1]:other → [::1]:port 8
            2 both send [::1]:other → [::1]:port 6
            3 both recv [::1]:port → [::1]:other 6
            may bytes 0>1, may bytes 2>3
        "#]],
    );
}

#[test]
fn ipv4_through_an_ipv6_socket_is_ipv4() {
    check(
        r"
rename('both')
a, b = two()
c = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
c.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
c.settimeout(10)
c.bind(('::ffff:127.0.0.1', 0))
say('third', c.getsockname()[1])
c.sendto(b'mapped', ('::ffff:127.0.0.1', b.getsockname()[1]))
_, address = b.recvfrom(100)
b.sendto(b'back', address)
c.recvfrom(100)
a.close()
",
        expect![[r#"
            0 both send 127.0.0.1:third → 127.0.0.1:other 6
            1 both recv 127.0.0.1:other → 127.0.0.1:third 6
            2 both send 127.0.0.1:other → 127.0.0.1:third 4
            3 both recv 127.0.0.1:third → 127.0.0.1:other 4
            may bytes 0>1, may bytes 2>3
        "#]],
    );
}

/// Whoever does not ask for the address is not told it, and neither are we.
#[test]
fn a_receive_that_asks_for_no_address_has_an_unknown_peer() {
    check(
        r"
rename('both')
a, b = two()
a.sendto(b'question', b.getsockname())
b.recv(100)
",
        expect![[r#"
            0 both send 127.0.0.1:port → 127.0.0.1:other 8
            1 both recv 127.0.0.1:other → - 8

        "#]],
    );
}

#[test]
fn a_port_that_nobody_has_is_an_error_at_the_next_call() {
    check(
        r"
rename('both')
a, b = two()
a.connect(b.getsockname())
b.close()
a.send(b'lost')
seen(a.recv, 100)
",
        expect![[r#"
            0 both send 127.0.0.1:port → 127.0.0.1:other 4
            1 both recv 127.0.0.1:port → 127.0.0.1:other ECONNREFUSED
            may close 0>1
        "#]],
    );
}
