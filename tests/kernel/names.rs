//! What is older than the recorder is named all the same: threads, and sockets with their addresses and
//! their initial numbers.

use std::io::{Read, Write};
use std::process::Stdio;

use recorder::capture::Scope;
use recorder::event::{Address, Event, History, Op, Proof};
use recorder::graph::{EdgeKind, Graph, Proof as Certainty, event_of};

use crate::recorded::{Recorder, of, python_command};

/// Two processes whose connection exists, and has carried bytes, before anybody records them.
const OLDER: &str = "
def server(connection, turn):
    connection.sendall(connection.recv(100))
    turn.take()
    connection.sendall(b'older')
    turn.take()
    connection.sendall(b'again')
    connection.recv(1)

def client(connection, turn):
    connection.send(b'before')
    connection.recv(100)
    say('ready')
    sys.stdin.readline()
    turn.give()
    connection.recv(100)
    turn.give()
    connection.recv(100)
    connection.close()
";

fn record_older(play: &str, scope: fn(u32) -> Scope) -> History {
    let mut command = python_command(&format!("{OLDER}\n{play}"));
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("python starts");
    let mut said = String::new();
    let out = child.stdout.as_mut().expect("it is piped");
    let mut byte = [0];
    while !said.ends_with("ready\n") {
        out.read_exact(&mut byte).expect("it says that it is ready");
        said.push(char::from(byte[0]));
    }
    let mut recorder = Recorder::start(scope(child.id()));
    child.stdin.take().expect("it is piped").write_all(b"\n").expect("it reads");
    assert!(recorder.follow(&mut child).success());
    recorder.finish()
}

fn check(play: &str, scope: fn(u32) -> Scope) {
    let history = record_older(play, scope);
    let (sends, receives) = (of(&history, "server", Op::Send), of(&history, "client", Op::Recv));
    let (send, receive) = (sends[0], receives[0]);
    let address = |address: Address| history.names.address(address).expect("it is named");
    assert_eq!(address(send.local), address(receive.remote));
    assert_eq!(address(send.remote), address(receive.local));
    assert_eq!(send.netns, receive.netns);
    let proven = |e: &Event| e.proof >= Proof::Agreed;
    assert!(proven(send) && proven(receive), "{:?} {:?}", send.proof, receive.proof);
    assert_eq!((send.iss, send.irs), (receive.irs, receive.iss), "each end has the other's pair");
    // Six bytes went before, both ways.
    assert_eq!((send.stream_start, send.stream_end), (6, 11));
    assert_eq!((receive.stream_start, receive.stream_end), (6, 11));
    // Where the stream was cut into calls before is not known: the first call's place is likely, the next
    // one's is proven.
    assert_eq!(joined(&history, send, receive), Some(Certainty::May));
    assert_eq!(joined(&history, sends[1], receives[1]), Some(Certainty::Must));
}

/// How certain it is that one call's bytes are the other's.
fn joined(history: &History, send: &Event, receive: &Event) -> Option<Certainty> {
    let graph = Graph::build(history);
    let at = |node| &history.events[event_of(node).0 as usize];
    let edges = graph.nodes.raw_edges().iter().filter(|edge| edge.weight.kind == EdgeKind::Bytes);
    let mut joined = edges.filter(|edge| at(edge.source()) == send && at(edge.target()) == receive);
    joined.next().map(|edge| edge.weight.proof)
}

#[test]
fn a_connection_of_a_process_older_than_the_recorder() {
    check("play(server, client)", Scope::Process);
}

#[test]
fn the_same_when_the_whole_machine_is_recorded() {
    check("play(server, client)", |_| Scope::All);
}

#[test]
fn the_same_over_ipv6() {
    check("play(server, client, socket.AF_INET6)", Scope::Process);
}

#[test]
fn the_same_in_another_network_namespace() {
    check(
        "
import subprocess
assert libc.unshare(0x40000000) == 0
subprocess.run(['ip', 'link', 'set', 'lo', 'up'], check=True)
play(server, client)",
        Scope::Process,
    );
}

/// Its name was set long before: only `/proc` and the first event can tell.
#[test]
fn a_thread_older_than_the_recorder_that_raises_nothing_is_listed() {
    let mut command = python_command(
        "
def wait():
    rename('quiet thread')
    named.set()
    quiet.wait()
named, quiet = threading.Event(), threading.Event()
threading.Thread(target=wait).start()
named.wait()
say('ready')
sys.stdin.readline()
quiet.set()",
    );
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("python starts");
    let out = child.stdout.as_mut().expect("it is piped");
    out.read_exact(&mut [0; 6]).expect("it says that it is ready");
    let recorder = Recorder::start(Scope::Process(child.id()));
    let history = recorder.finish();
    child.stdin.take().expect("it is piped").write_all(b"\n").expect("it reads");
    assert!(child.wait().expect("it is our child").success());
    let tasks = &history.hosts[0].tasks;
    let quiet = tasks.iter().find(|t| t.comm == "quiet thread").expect("it is listed");
    assert_eq!(quiet.pid, child.id());
    assert!(quiet.start_ns > 0);
}
