//! Sends and receives: each call once, with the bytes and errno that the program saw, at the right place
//! in its stream.

use expect_test::{Expect, expect};

use crate::recorded::python;

/// Plays a script; `transfers` is what must be recorded.
fn check(script: &str, transfers: Expect) {
    transfers.assert_eq(&python(script).transfers());
}

/// The same for a script that says what its calls returned, which must be what was recorded.
fn check_seen(script: &str, comm: &str, transfers: Expect) {
    let run = python(script);
    let told = run.transfers();
    transfers.assert_eq(&told);
    let seen: Vec<_> = run.said.lines().filter_map(|line| line.strip_prefix("saw ")).collect();
    let lane = told.split_once(&format!("{comm}\n")).expect("the lane is told").1;
    let lines = lane.lines().map_while(|line| line.strip_prefix("  "));
    let recorded: Vec<_> = lines.filter_map(|line| line.split(' ').nth(1)).collect();
    assert_eq!(recorded, seen, "what the program saw");
    assert!(!seen.is_empty());
}

#[test]
fn sends_and_receives_tile_the_stream() {
    check(
        r"
def server(connection, turn):
    for length in (1, 2, 100):
        connection.recv(length, socket.MSG_WAITALL)
    connection.sendall(b'answer')
    connection.recv(1)

def client(connection, turn):
    connection.sendall(b'x' * 103)
    connection.recv(100)
    connection.close()

play(server, client)
",
        expect![[r#"
            client
              send 103 [0..103)
              recv 6 [0..6)
            server
              recv 1 [0..1)
              recv 2 [1..3)
              recv 100 [3..103)
              send 6 [0..6)
              recv 0 [103..104) eof
        "#]],
    );
}

#[test]
fn every_call_of_a_family_is_one_event() {
    check(
        r"
def server(connection, turn):
    turn.give()
    turn.take()
    a, b = bytearray(2), bytearray(3)
    connection.recv(1)
    connection.recv_into(a)
    connection.recvfrom(1)
    connection.recvmsg(1)
    connection.recvmsg_into([a, b])
    os.read(connection.fileno(), 1)
    os.readv(connection.fileno(), [a, b])
    turn.give()

def client(connection, turn):
    turn.take()
    connection.send(b'1')
    connection.sendall(b'22')
    connection.sendmsg([b'3'])
    os.write(connection.fileno(), b'4')
    os.writev(connection.fileno(), [b'55555', b'666666'])
    turn.give()
    turn.take()

play(server, client)
",
        expect![[r#"
            client
              send 1 [0..1)
              send 2 [1..3)
              send 1 [3..4)
              send 1 [4..5)
              send 11 [5..16)
            server
              recv 1 [0..1)
              recv 2 [1..3)
              recv 1 [3..4)
              recv 1 [4..5)
              recv 5 [5..10)
              recv 1 [10..11)
              recv 5 [11..16)
        "#]],
    );
}

#[test]
fn the_end_of_a_stream_is_a_receive_of_the_position_after_the_last_byte() {
    check_seen(
        r"
def server(connection, turn):
    connection.sendall(b'12345')
    connection.shutdown(socket.SHUT_WR)
    turn.take()

def client(connection, turn):
    until(lambda: state(connection) == CLOSE_WAIT, 'the FIN')
    say('saw', seen(connection.recv, 4))
    say('saw', seen(connection.recv, 4))
    say('saw', seen(connection.recv, 4))
    say('saw', seen(connection.recv, 4))
    turn.give()

play(server, client)
",
        "client",
        expect![[r#"
            client
              recv 4 [0..4)
              recv 1 [4..5)
              recv 0 [5..6) eof
              recv 0 [5..6) eof
            server
              send 5 [0..5)
        "#]],
    );
}

#[test]
fn nothing_to_read_is_eagain() {
    check_seen(
        r"
def server(connection, turn):
    turn.take()
    connection.sendall(b'late')
    turn.give()
    turn.take()

def client(connection, turn):
    connection.setblocking(False)
    say('saw', seen(connection.recv, 10))
    say('saw', seen(connection.recv, 10, socket.MSG_PEEK))
    turn.give()
    turn.take()
    until(lambda: queued(connection) == 4)
    say('saw', seen(connection.recv, 10))
    say('saw', seen(connection.recv, 10))
    turn.give()

play(server, client)
",
        "client",
        expect![[r#"
            client
              recv EAGAIN
              recv EAGAIN peek
              recv 4 [0..4)
              recv EAGAIN
            server
              send 4 [0..4)
        "#]],
    );
}

#[test]
fn a_full_send_buffer_is_a_short_count_and_then_eagain() {
    let run = python(
        r"
def server(connection, turn):
    total = int(turn.take())
    while total:
        total -= len(connection.recv(total))

def client(connection, turn):
    connection.setblocking(False)
    sent = [seen(connection.send, b'x' * 1_000_000)]
    while sent[-1] != 'EAGAIN':
        sent.append(seen(connection.send, b'x' * 1_000_000))
    for result in sent:
        say('saw', result)
    turn.give(sum(sent[:-1]))
    connection.setblocking(True)
    connection.recv(1)

play(server, client)
",
    );
    let seen: Vec<_> = run.said.lines().filter_map(|line| line.strip_prefix("saw ")).collect();
    let sends = run.events("client", recorder::event::Op::Send);
    let recorded: Vec<_> = sends
        .iter()
        .map(|e| e.errno().map_or(e.result.to_string(), |errno| format!("{errno:?}")))
        .collect();
    assert_eq!(recorded, seen);
    assert!(seen.len() > 1 && seen.last() == Some(&"EAGAIN"));
    assert!(sends.iter().any(|e| e.error == 0 && e.result < 1_000_000), "a short count: {seen:?}");
}

#[test]
fn a_send_to_a_peer_that_is_gone_is_epipe() {
    check_seen(
        r"
def server(connection, turn):
    reset_on_close(connection)
    connection.close()
    turn.give()

def client(connection, turn):
    turn.take()
    until(lambda: state(connection) == CLOSE, 'the reset')
    say('saw', seen(connection.send, b'first'))
    say('saw', seen(connection.send, b'second'))

play(server, client)
",
        "client",
        expect![[r#"
            client
              send ECONNRESET
              send EPIPE
        "#]],
    );
}

#[test]
fn a_peek_leaves_the_bytes_where_they_are() {
    check_seen(
        r"
def server(connection, turn):
    connection.sendall(b'0123456789')
    turn.take()

def client(connection, turn):
    until(lambda: queued(connection) == 10)
    say('saw', seen(connection.recv, 4, socket.MSG_PEEK))
    say('saw', seen(connection.recv, 3))
    say('saw', seen(connection.recv, 100, socket.MSG_PEEK))
    say('saw', seen(connection.recv, 100))
    turn.give()

play(server, client)
",
        "client",
        expect![[r#"
            client
              recv 4 [0..4) peek
              recv 3 [0..3)
              recv 7 [3..10) peek
              recv 7 [3..10)
            server
              send 10 [0..10)
        "#]],
    );
}

#[test]
fn urgent_data_is_outside_the_stream() {
    check_seen(
        r"
def server(connection, turn):
    connection.sendall(b'ab')
    connection.send(b'!', socket.MSG_OOB)
    connection.sendall(b'cd')
    turn.take()

def client(connection, turn):
    until(lambda: queued(connection) == 2)
    say('saw', seen(connection.recv, 100))
    say('saw', seen(connection.recv, 1, socket.MSG_OOB))
    say('saw', seen(connection.recv, 1, socket.MSG_OOB))
    say('saw', seen(connection.recv, 2, socket.MSG_WAITALL))
    turn.give()

play(server, client)
",
        "client",
        expect![[r#"
            client
              recv 2 [0..2)
              recv 1 urgent
              recv EINVAL urgent
              recv 2 [3..5)
            server
              send 2 [0..2)
              send 1 [2..3)
              send 2 [3..5)
        "#]],
    );
}

#[test]
fn bytes_thrown_away_are_received() {
    check_seen(
        r"
def server(connection, turn):
    connection.sendall(b'0123456789')
    turn.take()

def client(connection, turn):
    until(lambda: queued(connection) == 10)
    say('saw', libc.recv(connection.fileno(), None, 6, socket.MSG_TRUNC))
    say('saw', seen(connection.recv, 100))
    turn.give()

play(server, client)
",
        "client",
        expect![[r#"
            client
              recv 6 [0..6)
              recv 4 [6..10)
            server
              send 10 [0..10)
        "#]],
    );
}

#[test]
fn sendfile_is_a_send() {
    let run = python(
        r"
def server(connection, turn):
    left = 100_000
    while left:
        left -= len(connection.recv(left))

def client(connection, turn):
    file = os.memfd_create('page')
    os.write(file, b'x' * 100_000)
    offset = 0
    while offset < 100_000:
        offset += os.sendfile(connection.fileno(), file, offset, 100_000 - offset)
    connection.recv(1)

play(server, client)
",
    );
    let sends = run.events("client", recorder::event::Op::Send);
    assert_eq!(sends.first().map(|e| e.stream_start), Some(0));
    assert_eq!(sends.last().map(|e| e.stream_end), Some(100_000));
    assert!(sends.windows(2).all(|pair| pair[0].stream_end == pair[1].stream_start), "a tiling");
}

#[test]
fn each_message_of_sendmmsg_and_recvmmsg_is_one_event() {
    check(
        r"
class Part(ctypes.Structure):
    _fields_ = [('base', ctypes.c_void_p), ('length', ctypes.c_size_t)]

class Message(ctypes.Structure):
    _fields_ = [('name', ctypes.c_void_p), ('namelen', ctypes.c_uint32), ('parts', ctypes.c_void_p),
                ('count', ctypes.c_size_t), ('control', ctypes.c_void_p), ('controllen', ctypes.c_size_t),
                ('flags', ctypes.c_size_t), ('result', ctypes.c_size_t)]

def messages(*lengths):
    made, kept = (Message * len(lengths))(), []
    for message, length in zip(made, lengths):
        buffer = ctypes.create_string_buffer(length)
        part = Part(ctypes.addressof(buffer), length)
        message.parts, message.count = ctypes.addressof(part), 1
        kept += [buffer, part]
    return made, kept

def server(connection, turn):
    until(lambda: queued(connection) == 60)
    made, kept = messages(15, 25, 20)
    assert libc.recvmmsg(connection.fileno(), made, 3, 0, None) == 3
    turn.give()

def client(connection, turn):
    made, kept = messages(10, 20, 30)
    assert libc.sendmmsg(connection.fileno(), made, 3, 0) == 3
    turn.take()

play(server, client)
",
        expect![[r#"
            client
              send 10 [0..10)
              send 20 [10..30)
              send 30 [30..60)
            server
              recv 15 [0..15)
              recv 25 [15..40)
              recv 20 [40..60)
        "#]],
    );
}

#[test]
fn a_receive_that_a_signal_breaks_off_is_eintr() {
    let run = python(
        r"
class Interrupted(Exception):
    pass

def stop(*_):
    raise Interrupted

def server(connection, turn):
    turn.take()

def client(connection, turn):
    signal.signal(signal.SIGALRM, stop)
    signal.siginterrupt(signal.SIGALRM, True)
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    try:
        connection.recv(1)
    except Interrupted:
        pass
    turn.give()

play(server, client)
",
    );
    let receives = run.events("client", recorder::event::Op::Recv);
    let errors: Vec<_> = receives.iter().filter_map(|e| e.errno()).collect();
    // The kernel's own name for "interrupted, and whether to try again depends on the handler".
    assert_eq!(errors.iter().map(|e| format!("{e:?}")).collect::<Vec<_>>(), ["EINTR"]);
}

#[test]
fn sockets_of_other_protocols_raise_nothing() {
    let run = python(
        r"
n = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
n.send(struct.pack('=IHHIIB3x', 20, 18, 0x301, 1, 0, 0)), n.recv(65536)
for protocol in 253, socket.IPPROTO_TCP, socket.IPPROTO_UDP:
    r = socket.socket(socket.AF_INET, socket.SOCK_RAW, protocol)
    r.sendto(b'x', ('127.0.0.1', 0)), r.recv(100), r.close()
say('port', 0)
",
    );
    assert_eq!(run.sockets(), "");
}
