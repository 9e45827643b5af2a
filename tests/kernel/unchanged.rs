//! Recorded programs see what they would see unrecorded: the same bytes, the same errno values, and short
//! counts that are distributed alike.

use std::process::{Command, Stdio};

use recorder::capture::Scope;

use crate::recorded::{Recorder, printed, python_command};

/// Says every errno it saw, a sum of all bytes, and how long each receive was.
const PROGRAM: &str = "
import hashlib
import zlib

def server(connection, turn):
    block = bytes(i * 7 % 251 for i in range(65_536))
    for i in range(400):
        connection.sendall(block[: 1 + i * 977 % 65_536])
    connection.shutdown(socket.SHUT_WR)
    errors = [seen(connection.send, b'x')]
    turn.take()
    connection.setblocking(False)
    errors += [seen(connection.recv, 1), seen(connection.recv, 1, socket.MSG_OOB)]
    reset_on_close(connection)
    connection.close()
    turn.give()
    say('server errors', *errors)

def client(connection, turn):
    total = hashlib.sha256()
    while data := connection.recv(16_384):
        say('length', len(data))
        total.update(data)
    errors = [seen(connection.recv, 1), seen(connection.recv, 1, 0x10000)]
    turn.give()
    turn.take()
    until(lambda: state(connection) == CLOSE, 'the reset')
    errors += [seen(connection.recv, 1), seen(connection.send, b'x'), seen(connection.send, b'x')]
    unused = socket.socket()
    unused.bind(('127.0.0.1', 0))
    errors.append(seen(socket.socket().connect, unused.getsockname()))
    errors.append(seen(unused.recv, 1))
    say('client errors', *errors)
    say('bytes', total.hexdigest())

def resetter(connection, turn):
    connection.close() if turn.take() == 'unread' else None
    turn.give()

def reset(connection, turn):
    connection.send(b'never read')
    turn.give('unread')
    turn.take()
    until(lambda: state(connection) == CLOSE, 'the reset')
    say('reset errors', *[seen(connection.recv, 1), seen(connection.recv, 1), seen(connection.send, b'x')])

play(server, client)
play(resetter, reset)
";

/// What one run of the program saw.
struct Seen {
    /// Everything but the lengths, which differ from run to run.
    lines: Vec<String>,
    lengths: Vec<u32>,
}

fn parse(said: &str) -> Seen {
    let (mut lines, mut lengths) = (Vec::new(), Vec::new());
    for line in said.lines().filter(|line| !line.starts_with("port ")) {
        match line.strip_prefix("length ") {
            Some(length) => lengths.push(length.parse().expect("a number")),
            None => lines.push(line.to_owned()),
        }
    }
    lines.sort();
    Seen { lines, lengths }
}

fn unrecorded() -> Seen {
    let mut command: Command = python_command(PROGRAM);
    let output = command.stderr(Stdio::inherit()).output().expect("python starts");
    assert!(output.status.success());
    parse(&String::from_utf8_lossy(&output.stdout))
}

fn recorded() -> Seen {
    let mut recorder = Recorder::start(Scope::Command(String::new()));
    let mut child = recorder.spawn(python_command(PROGRAM).stdout(Stdio::piped()));
    let out = child.stdout.take().expect("it is piped");
    let reader = std::thread::spawn(|| std::io::read_to_string(out).expect("text"));
    assert!(recorder.follow(&mut child).success());
    assert_eq!(printed(child), "", "the reader has it");
    let history = recorder.finish();
    let seen = parse(&reader.join().expect("it read"));
    let receives = crate::recorded::of(&history, "client", recorder::event::Op::Recv);
    let lengths: Vec<_> = receives.iter().map(|e| e.result as u32).filter(|l| *l > 0).collect();
    assert_eq!(lengths, seen.lengths, "recorded lengths are those that the program saw");
    seen
}

const PAIRS: usize = 10;

#[test]
fn bytes_errors_and_short_counts() {
    let mut shares = (Vec::new(), Vec::new());
    let mut expected = None;
    for _ in 0..PAIRS {
        for (seen, shares) in [(unrecorded(), &mut shares.0), (recorded(), &mut shares.1)] {
            let lines = expected.get_or_insert_with(|| seen.lines.clone());
            assert_eq!(*lines, seen.lines, "bytes and errors");
            let short = seen.lengths.iter().filter(|&&length| length < 16_384).count();
            shares.push(short as f64 / seen.lengths.len() as f64);
        }
    }
    let lines = expected.expect("there were runs").join("\n");
    for errno in ["EPIPE", "ECONNRESET", "ECONNREFUSED", "ENOTCONN"] {
        assert!(lines.contains(errno), "the program meets {errno}: {lines}");
    }
    // Scheduling decides how much has come when a receive looks; recording must not move that further than
    // runs differ anyway: a rank test (Mann–Whitney), far out at p < 0.001.
    let higher = |a: &[f64], b: &[f64]| {
        let pairs = a.iter().flat_map(|x| b.iter().map(move |y| (x, y)));
        pairs.map(|(x, y)| f64::from(x > y) + 0.5 * f64::from(x == y)).sum::<f64>()
    };
    let u = higher(&shares.0, &shares.1);
    let apart = (median(&mut shares.0) - median(&mut shares.1)).abs();
    assert!(
        (8.0..=92.0).contains(&u) || apart < 0.1,
        "unrecorded {:?}, recorded {:?}: U = {u}",
        shares.0,
        shares.1
    );
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
