//! Families of hooks: what each adds to what the others see, and why one cannot be used where it cannot.

use recorder::capture::attach::Settings;
use recorder::capture::attach::family::{ACCEPT, Family};
use recorder::capture::{Capture, Scope};
use recorder::event::{Flags, Op};
use recorder::graph::{EdgeKind, Graph, Proof, Side, event_of, node};
use tests::command::doctor;

use crate::recorded::{Recorder, Run, SMALL, python, python_command, require_root};

mod returns;

/// Records a script with one family; why not, where `doctor` says the same.
fn with(family: Family, script: &str) -> Result<Run, String> {
    require_root();
    let settings = Settings { family: Some(family), ..SMALL };
    let (works, reason) = doctor(family.as_str());
    if !works {
        let Err(error) = Capture::start(Scope::All, settings) else {
            panic!("doctor says that {family} does not work, and it does");
        };
        let said = format!("{error:#}");
        assert!(said.starts_with(&format!("use hooks of the family {family}: attach ")), "{said}");
        return Err(reason);
    }
    let mut recorder = Recorder::with(Scope::Command(String::new()), settings);
    let mut command = python_command(script);
    let mut child = recorder.spawn(command.stdout(std::process::Stdio::piped()));
    let status = recorder.follow(&mut child);
    let said = crate::recorded::printed(child);
    assert!(status.success(), "{status}\n{said}");
    let history = recorder.finish();
    assert_eq!(history.hosts[0].family, family.as_str());
    Ok(Run { history, said })
}

/// A family may be missing only for a reason that names the hook that was refused.
fn refused(family: Family, reason: &str) {
    assert_ne!(family, Family::Tracepoint, "every kernel that is tested has these");
    let hook = family.hooks()[0].to_string();
    assert!(reason.starts_with(&format!("attach {hook}")), "{reason}");
}

const WAITS: &str = "
def server(connection, turn):
    say('server-before', time.monotonic_ns())
    connection.recv(10)
    say('server-after', time.monotonic_ns())

def client(connection, turn):
    time.sleep(0.2)
    connection.sendall(b'x')

play(server, client)
";

#[test]
fn a_call_that_waits_begins_when_it_was_made() {
    for family in Family::ALL {
        let run = match with(family, WAITS) {
            Ok(run) => run,
            Err(reason) => {
                refused(family, &reason);
                continue;
            }
        };
        let [recv] = run.events("server", Op::Recv)[..] else { panic!("one receive") };
        if family == Family::Tracepoint {
            assert!(!recv.flags.has(Flags::BEGAN), "no tracepoint sees a begin");
            continue;
        }
        let told = |word| -> u64 {
            let line = run.said.lines().find_map(|line| line.strip_prefix(word)?.strip_prefix(' '));
            line.and_then(|number| number.parse().ok()).expect("the program tells it")
        };
        assert!(recv.flags.has(Flags::BEGAN), "{recv:?}");
        assert!(told("server-before") < recv.begin_ns && recv.time_ns < told("server-after"));
        assert!(recv.time_ns - recv.begin_ns > 100_000_000, "it waited: {recv:?}");
    }
}

#[test]
fn every_family_records_the_same_calls() {
    let script = "
def server(connection, turn):
    connection.recv(3, socket.MSG_PEEK)
    connection.recv(3)
    connection.sendall(b'12345')
    connection.setblocking(False)
    seen(connection.recv, 1)
    turn.give()
    until(lambda: state(connection) == CLOSE_WAIT, 'the FIN')
    connection.recv(1)
    reset_on_close(connection)

def client(connection, turn):
    connection.sendall(b'123')
    turn.take()
    connection.recv(5, socket.MSG_WAITALL)
    connection.shutdown(socket.SHUT_WR)
    seen(connection.recv, 1)

play(server, client)
";
    let expected = with(Family::Tracepoint, script).expect("every kernel has these").transfers();
    assert!(expected.contains("recv EAGAIN") && expected.contains("eof"), "{expected}");
    for family in Family::ALL {
        match with(family, script) {
            Ok(run) => assert_eq!(run.transfers(), expected, "{family}"),
            Err(reason) => refused(family, &reason),
        }
    }
}

#[test]
fn the_thread_that_accepts_is_known() {
    let run = python(
        "
listener = socket.create_server(('127.0.0.1', 0))
say('port', listener.getsockname()[1])

def use(connection):
    rename('user')
    connection.recv(1)

def accept():
    rename('acceptor')
    connection, _ = listener.accept()
    user = threading.Thread(target=use, args=(connection,))
    user.start()
    user.join()

acceptor = threading.Thread(target=accept)
acceptor.start()
client = socket.create_connection(listener.getsockname())
client.send(b'x')
acceptor.join()
",
    );
    let missing = &run.history.hosts[0].missing_hooks;
    if let Some(reason) = missing.iter().find_map(|hook| hook.strip_prefix("accept: ")) {
        // What could have told was tried, and `doctor` finds it refused by itself.
        for hook in ACCEPT.iter().map(ToString::to_string) {
            let (works, why) = doctor(&hook);
            assert!(!works && reason.contains(&format!("{hook}: ")), "{reason}; {why}");
        }
        assert!(run.history.events.iter().all(|event| event.op != Op::Accept));
        return;
    }
    let accepts: Vec<_> = run.history.events.iter().filter(|e| e.op == Op::Accept).collect();
    let [accept] = accepts[..] else { panic!("one connection was accepted: {accepts:?}") };
    assert_eq!(run.history.comm(accept), "acceptor");
    let graph = Graph::build(&run.history);
    let index = |event| run.history.events.iter().position(|e| e == event).expect("there") as u32;
    let [recv] = run.events("user", Op::Recv)[..] else { panic!("one receive") };
    assert_eq!(recv.socket, accept.socket);
    let (from, to) = (node(index(accept), Side::End), node(index(recv), Side::Begin));
    let edge =
        graph.nodes.edges_connecting(from, to).next().expect("who uses it has it from there");
    assert_eq!((edge.weight().kind, edge.weight().proof), (EdgeKind::Connection, Proof::Must));
    let causes = graph.nodes.neighbors_directed(node(index(accept), Side::End), petgraph::Incoming);
    let causes: Vec<_> = causes.map(|n| run.history.events[event_of(n).0 as usize].op).collect();
    assert!(causes.contains(&Op::Established), "{causes:?}");
}

/// Eight pairs of processes that talk without pause, so that many are preempted inside a program. What each family
/// records of that is never more than what was called, and less by at most one in 200, which is counted as lost.
#[test]
#[expect(clippy::print_stdout, reason = "what a kernel that preempts programs makes them miss")]
fn the_calls_of_many_are_recorded_once_each() {
    let script = "
pairs, rounds = 8, 300
for _ in range(pairs):
    listener = socket.create_server(('127.0.0.1', 0))
    def ask():
        connection = socket.create_connection(listener.getsockname())
        for _ in range(rounds):
            connection.send(b'x')
            connection.recv(1)
    def answer():
        connection, _ = listener.accept()
        for _ in range(rounds):
            connection.recv(1)
            connection.send(b'y')
    child('ask', ask)
    child('answer', answer)
for _ in range(2 * pairs):
    os.wait()
say(4 * pairs * rounds)
";
    for family in Family::ALL {
        let run = match with(family, script) {
            Ok(run) => run,
            Err(reason) => {
                refused(family, &reason);
                continue;
            }
        };
        let called: u64 = run.said.trim().parse().expect("it says how many calls it made");
        let moved = |e: &&recorder::event::Event| {
            matches!(e.op, Op::Send | Op::Recv) && e.result == 1 && run.history.comm(e) != "python3"
        };
        let recorded = run.history.events.iter().filter(moved).count() as u64;
        let lost = run.history.hosts[0].lost;
        assert!(recorded <= called, "{family}: {recorded} of {called}: some twice");
        let missing = called - recorded;
        println!("{family}: of {called} calls {missing} are missing, {lost} counted as lost");
        assert!(missing <= lost && missing <= called / 200, "{family}: {missing}, {lost} lost");
    }
}

/// What `doctor` says that kprobes do not see, and the truth suite leaves out with them.
#[test]
fn kprobes_do_not_see_everything() {
    let unix = "
one, other = socket.socketpair()
child('unix', lambda: one.send(b'x'))
os.wait()
other.recv(1)
";
    let run = match with(Family::Kprobe, unix) {
        Ok(run) => run,
        Err(reason) => return refused(Family::Kprobe, &reason),
    };
    assert!(run.events("unix", Op::Send).is_empty());
    assert!(doctor(Family::Kprobe.as_str()).1.contains("Unix sockets"));
    // Trampolines do.
    let run = with(Family::Trampoline, unix).expect("a kernel that has kprobes has these");
    assert_eq!(run.events("unix", Op::Send).len(), 1);
}
