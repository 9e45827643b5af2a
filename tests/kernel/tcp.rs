//! Whose act each change of a connection is: one test per row of the table in docs/causality.md. What the
//! kernel does in interrupt context belongs to the endpoint's kernel lane, whoever happens to be current.

use expect_test::{Expect, expect};
use recorder::event::Op;

use crate::recorded::python;

/// Plays a script; `sockets` is what must be recorded.
fn check(script: &str, sockets: Expect) {
    sockets.assert_eq(&python(script).sockets());
}

/// Both ends of a quiet connection; the client closes first.
const QUIET: &str = r"
def server(connection, turn):
    connection.recv(1)
    connection.close()
    turn.give()

def client(connection, turn):
    connection.close()
    turn.take()
";

#[test]
fn connect_and_close_are_their_threads_and_established_is_the_kernels() {
    check(
        &format!("{QUIET}\nplay(server, client)"),
        expect![[r#"
        client
          connect
          close [0..1) eof
        kernel, client's end
          established
          closed
        kernel, server's end
          established
          closed
        server
          listen
          unlisten
          recv 0 [0..1) eof
          close [0..1) eof
    "#]],
    );
}

#[test]
fn the_same_over_ipv6() {
    let run = python(&format!("{QUIET}\nplay(server, client, socket.AF_INET6)"));
    expect![[r#"
        client
          connect
          close [0..1) eof
        kernel, client's end
          established
          closed
        kernel, server's end
          established
          closed
        server
          listen
          unlisten
          recv 0 [0..1) eof
          close [0..1) eof
    "#]]
    .assert_eq(&run.sockets());
    let connects = run.events("client", Op::Established);
    let remote = run.history.names.address(connects[0].remote).expect("an address");
    assert_eq!(remote.to_string(), format!("[::1]:{}", run.number("port")));
}

/// On loopback the client's own thread runs the server's softirq: an event of the server's end must not
/// be blamed on it.
#[test]
fn established_at_the_server_while_the_client_is_current() {
    let run = python(&format!("{ON_ONE_CPU}{QUIET}\nplay(server, client)"));
    let events = run.history.events.iter();
    let established: Vec<_> = events.filter(|e| e.op == Op::Established).collect();
    assert_eq!(established.len(), 2);
    assert!(established.iter().all(|event| event.in_kernel_lane()));
    let accepted = established.iter().find(|e| run.history.comm(e) == "server");
    assert!(accepted.is_some(), "it bears the name of the socket's owner");
}

/// Server and client never run at the same time: whoever sends carries the packet through the other's end.
const ON_ONE_CPU: &str = "os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n";

#[test]
fn a_listener_is_its_threads() {
    check(
        r"
def act():
    listener = socket.socket()
    listener.bind(('127.0.0.1', 0))
    listener.listen()
    say('port', listener.getsockname()[1])
    listener.close()

finish(child('server', act))
",
        expect![[r#"
            server
              listen
              unlisten
        "#]],
    );
}

#[test]
fn shutdown_is_a_close_and_so_is_the_other_sides_later_one() {
    check(
        r"
def server(connection, turn):
    connection.recv(1)
    connection.shutdown(socket.SHUT_WR)
    turn.give()
    turn.take()

def client(connection, turn):
    connection.shutdown(socket.SHUT_WR)
    turn.take()
    connection.recv(1)
    turn.give()

play(server, client)
",
        expect![[r#"
            client
              connect
              close [0..1) eof
              recv 0 [0..1) eof
            kernel, client's end
              established
              closed
            kernel, server's end
              established
              closed
            server
              listen
              unlisten
              recv 0 [0..1) eof
              close [0..1) eof
        "#]],
    );
}

#[test]
fn a_process_that_ends_closes_what_it_holds() {
    check(
        r"
def server(connection, turn):
    turn.give()
    connection.recv(1)

def client(connection, turn):
    turn.take()

play(server, client)
",
        expect![[r#"
            client
              connect
              close [0..1) eof
            kernel, client's end
              established
              closed
            kernel, server's end
              established
              closed
            server
              listen
              unlisten
              recv 0 [0..1) eof
              close [0..1) eof
        "#]],
    );
}

#[test]
fn a_close_with_unread_bytes_is_an_abort_and_a_reset() {
    check(
        r"
def server(connection, turn):
    until(lambda: queued(connection) == 4)
    connection.close()
    turn.give()

def client(connection, turn):
    connection.send(b'lost')
    turn.take()
    until(lambda: state(connection) == CLOSE, 'the reset')
    seen(connection.recv, 1)

play(server, client)
",
        expect![[r#"
            client
              connect
              send 4 [0..4)
              recv ECONNRESET
            kernel, client's end
              established
              reset_received
              closed ECONNRESET
              error ECONNRESET
            kernel, server's end
              established
              reset_sent
            server
              listen
              unlisten
              abort
        "#]],
    );
}

#[test]
fn a_close_without_linger_is_an_abort_and_a_reset() {
    check(
        r"
def server(connection, turn):
    reset_on_close(connection)
    connection.close()
    turn.give()

def client(connection, turn):
    turn.take()
    until(lambda: state(connection) == CLOSE, 'the reset')
    seen(connection.recv, 1)

play(server, client)
",
        expect![[r#"
            client
              connect
              recv ECONNRESET
            kernel, client's end
              established
              reset_received
              closed ECONNRESET
              error ECONNRESET
            kernel, server's end
              established
              reset_sent
              error ECONNRESET
            server
              listen
              unlisten
              abort
        "#]],
    );
}

#[test]
fn an_abort_after_the_peer_closed_is_an_abort() {
    check(
        r"
def server(connection, turn):
    connection.recv(1)
    reset_on_close(connection)
    connection.close()
    turn.give()

def client(connection, turn):
    connection.shutdown(socket.SHUT_WR)
    turn.take()
    until(lambda: state(connection) == CLOSE, 'the reset')

play(server, client)
",
        expect![[r#"
            client
              connect
              close [0..1) eof
            kernel, client's end
              established
              reset_received
              closed ECONNRESET
              error ECONNRESET
            kernel, server's end
              established
              reset_sent
              error ECONNRESET
            server
              listen
              unlisten
              recv 0 [0..1) eof
              abort
        "#]],
    );
}

/// The reset's sender is current while the client's end receives it; its thread has nothing to do with
/// that lane.
#[test]
fn a_received_reset_is_the_receivers_kernels() {
    let run = python(&format!(
        "{ON_ONE_CPU}
def server(connection, turn):
    reset_on_close(connection)
    connection.close()
    turn.give()

def client(connection, turn):
    turn.take()
    until(lambda: state(connection) == CLOSE, 'the reset')

play(server, client)
"
    ));
    for op in [Op::ResetReceived, Op::Error, Op::Closed] {
        let events = run.events("client", op);
        assert_eq!(events.len(), 1, "{op}");
        assert!(events[0].in_kernel_lane(), "{op}");
    }
    let by_threads = run.history.events.iter().filter(|e| {
        e.tid != 0 && matches!(e.op, Op::ResetReceived | Op::ResetSent | Op::Error | Op::Closed)
    });
    assert_eq!(by_threads.count(), 0);
}

#[test]
fn bytes_for_a_connection_that_is_gone_are_answered_by_a_reset() {
    let run = python(
        r"
def server(connection, turn):
    connection.close()
    turn.give()

def client(connection, turn):
    turn.take()
    connection.send(b'too late')
    until(lambda: state(connection) == CLOSE, 'the reset')
    seen(connection.send, b'again')

play(server, client)
",
    );
    // Whether the end that is gone is still a socket then, with a lane of its own, or only an entry in a
    // table, is a race within the kernel.
    let told = run.sockets().replace("  closed\n  reset_sent\n", "  closed\n");
    expect![[r#"
            client
              connect
              send 8 [0..8)
              send EPIPE
            kernel, client's end
              established
              reset_received
              closed EPIPE
              error EPIPE
            kernel, server's end
              established
              closed
            server
              listen
              unlisten
              close [0..1) eof
        "#]]
    .assert_eq(&told);
}

#[test]
fn a_refused_connection_is_an_error_of_the_clients_end() {
    check(
        r"
def act():
    unused = socket.socket()
    unused.bind(('127.0.0.1', 0))
    port = unused.getsockname()[1]
    say('port', port)
    say('saw', seen(socket.socket().connect, ('127.0.0.1', port)))

finish(child('client', act))
",
        expect![[r#"
            client
              connect
            kernel, client's end
              reset_received
              closed ECONNREFUSED
              error ECONNREFUSED
        "#]],
    );
}

#[test]
fn a_listener_that_closes_resets_what_waits_in_its_backlog() {
    check(
        r"
of_server, of_client = turns()

def serve():
    listener = socket.socket()
    listener.bind(('127.0.0.1', 0))
    listener.listen()
    say('port', listener.getsockname()[1])
    of_server.give(listener.getsockname()[1])
    of_server.take()
    listener.close()
    of_server.give()

def connect():
    connection = socket.create_connection(('127.0.0.1', int(of_client.take())))
    of_client.give()
    of_client.take()
    until(lambda: state(connection) == CLOSE, 'the reset')
    seen(connection.recv, 1)

finish(child('server', serve), child('client', connect))
",
        expect![[r#"
            client
              connect
              recv ECONNRESET
            kernel, client's end
              established
              reset_received
              closed ECONNRESET
              error ECONNRESET
            kernel, server's end
              established
              reset_sent
              error ECONNRESET
            server
              listen
              unlisten
              abort
        "#]],
    );
}

#[test]
fn a_segment_that_is_sent_again_is_the_senders_kernels() {
    let run = python(
        "
def server(connection, turn):
    deafen(connection)
    turn.give()
    turn.take()
    hear(connection)
    connection.recv(5)
    turn.give()
    turn.take()

def client(connection, turn):
    turn.take()
    connection.send(b'again')
    until(lambda: retransmits(connection), 'the retransmission')
    turn.give()
    turn.take()
    turn.give()

play(server, client)
",
    );
    let again: Vec<_> = run.history.events.iter().filter(|e| e.op == Op::Retransmit).collect();
    assert!(!again.is_empty());
    assert!(again.iter().all(|e| e.in_kernel_lane() && run.history.comm(e) == "client"));
    let send = run.events("client", Op::Send)[0];
    assert!(again.iter().all(|e| e.time_ns > send.time_ns && e.socket == send.socket));
    assert_eq!(run.events("server", Op::Recv)[0].stream_end, 5);
}

#[test]
fn a_connection_that_times_out_is_an_error_of_its_kernels() {
    let run = python(
        "
def server(connection, turn):
    deafen(connection)
    turn.give()
    turn.take()

def client(connection, turn):
    turn.take()
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 300)
    connection.send(b'never')
    say('saw', seen(connection.recv, 1))
    turn.give()

play(server, client)
",
    );
    assert!(run.said.contains("saw ETIMEDOUT"), "{}", run.said);
    for op in [Op::Error, Op::Closed, Op::Recv] {
        let last = *run.events("client", op).last().expect("recorded");
        assert_eq!(last.errno(), Some(nix::errno::Errno::ETIMEDOUT), "{op}");
        assert_eq!(last.in_kernel_lane(), op != Op::Recv, "{op}");
    }
}

#[test]
fn nothing_is_said_of_a_connection_before_it_is_made_and_after_it_is_gone() {
    // Before: a socket that is only bound; after: an end in TIME_WAIT, which has no owner any more.
    let run = python(&format!(
        "
unused = socket.socket()
unused.bind(('127.0.0.1', 0))
unused.close()
{QUIET}
play(server, client)
time.sleep(0.1)
"
    ));
    assert_eq!(run.events("python3", Op::Close).len(), 0);
    let closed = run.history.events.iter().filter(|e| e.op == Op::Closed).count();
    assert_eq!(closed, 2, "each end once");
}
