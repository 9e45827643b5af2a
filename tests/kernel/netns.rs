//! Network namespaces, each with a 127.0.0.1 of its own: never taken for one another, and called by their names.

use std::process::{Command, Stdio};

use recorder::event::{Event, History, Op};
use recorder::graph::{EdgeKind, Graph, Proof, event_of};
use recorder::pattern::Pattern;

use crate::recorded::{of, python, python_command, require_root};

/// A namespace as `ip netns` makes it; removed with the value.
pub struct Namespace(String);

impl Namespace {
    pub fn make(name: &str) -> Self {
        require_root();
        let name = format!("wf-{}-{name}", std::process::id());
        ip(&["netns", "add", &name]);
        let namespace = Self(name);
        ip(&["-n", &namespace.0, "link", "set", "lo", "up"]);
        namespace
    }

    pub fn name(&self) -> &str {
        &self.0
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // A test that fails says so itself.
        let _ = Command::new("ip").args(["netns", "delete", &self.0]).status();
    }
}

fn ip(words: &[&str]) {
    let output = Command::new("ip").args(words).output().expect("iproute2 is there");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Functions for scripts that go from one namespace to another.
pub const NAMESPACES: &str = "
def go(name):
    with open('/run/netns/' + name) as file:
        assert libc.setns(file.fileno(), 0x40000000) == 0, os.strerror(ctypes.get_errno())

def fresh():
    assert libc.unshare(0x40000000) == 0, os.strerror(ctypes.get_errno())
    up()

def up():
    import subprocess
    subprocess.run(['/sbin/ip' if os.path.exists('/sbin/ip') else '/usr/sbin/ip', 'link', 'set', 'lo', 'up'], check=True)

def listener(port):
    s = socket.socket()
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind(('127.0.0.1', port))
    s.listen()
    return s

def talk(comm, port):
    rename(comm)
    a = listener(port)
    b = socket.create_connection(('127.0.0.1', port))
    c = a.accept()[0]
    b.send(b'hello')
    assert c.recv(5) == b'hello'
    return a, b, c
";

fn play(script: &str) -> History {
    python(&format!("{NAMESPACES}\n{script}")).history
}

fn label(history: &History, event: &Event) -> String {
    history.namespace(event).expect("it is known").label().into_owned()
}

/// Every edge between two sockets' events, and what it joins.
fn crossings(history: &History, graph: &Graph) -> Vec<(EdgeKind, Proof, u32, u32)> {
    let at = |node| &history.events[event_of(node).0 as usize];
    let edges = graph.nodes.raw_edges().iter();
    let of_sockets = edges.filter(|edge| {
        let (from, to) = (at(edge.source()), at(edge.target()));
        matches!(edge.weight.kind, EdgeKind::Bytes | EdgeKind::Connection | EdgeKind::Close)
            && from.netns != 0
            && to.netns != 0
    });
    let of_sockets = of_sockets.map(|edge| {
        let (from, to) = (at(edge.source()).netns, at(edge.target()).netns);
        (edge.weight.kind, edge.weight.proof, from, to)
    });
    of_sockets.collect()
}

/// The same address and port at the same time, three times over.
#[test]
fn one_address_in_three_namespaces() {
    let (red, blue) = (Namespace::make("red"), Namespace::make("blue"));
    let port = free_port();
    let history = play(&format!(
        "
kept = [talk('host', {port})]
go({:?})
kept.append(talk('red', {port}))
go({:?})
kept.append(talk('blue', {port}))",
        red.0, blue.0
    ));
    let graph = Graph::build(&history);
    for (comm, expected) in [("host", "host"), ("red", red.0.as_str()), ("blue", blue.0.as_str())] {
        let (sends, receives) = (of(&history, comm, Op::Send), of(&history, comm, Op::Recv));
        assert_eq!((sends.len(), receives.len()), (1, 1), "{comm}");
        assert_eq!(label(&history, sends[0]), expected);
        assert_eq!(sends[0].netns, receives[0].netns);
        let pattern: Pattern = format!("netns={expected} op=send").parse().expect("a pattern");
        let bound = pattern.bind(&history);
        assert_eq!(history.events.iter().filter(|e| bound.matches(e)).count(), 1, "{comm}");
        let told = recorder::describe::lane(&history, sends[0]);
        let place = if comm == "host" { String::new() } else { format!(" in netns {expected}") };
        assert!(told.ends_with(&format!("]{place}")), "{told}");
    }
    let crossings = crossings(&history, &graph);
    assert!(crossings.len() >= 9, "{crossings:?}");
    for (kind, proof, from, to) in crossings {
        assert_eq!(from, to, "{kind:?} {proof:?}");
    }
}

/// A namespace is gone, and its inode number is another's: the one's listener is not why the other refuses.
#[test]
fn a_number_that_is_given_again() {
    let port = free_port();
    let history = play(&format!(
        "
def inode():
    return os.stat('/proc/self/ns/net').st_ino
def one():
    fresh()
    listener({port}).close()
    os.write(write, str(inode()).encode())
def other():
    # The kernel frees a namespace a while after it is left, and gives the lowest number that is free.
    until(lambda: libc.unshare(0x40000000) == 0 and inode() == given, 'the number')
    up()
    rename('other')
    seen(socket.create_connection, ('127.0.0.1', {port}))
read, write = os.pipe()
finish(child('one', one))
given = int(os.read(read, 20))
finish(child('other', other))"
    ));
    let inode = |event: &Event| history.namespace(event).expect("it is known").inode;
    let (stops, errors) = (of(&history, "one", Op::Unlisten), refusals(&history));
    assert_eq!((stops.len(), errors.len()), (1, 1));
    assert_eq!(inode(stops[0]), inode(errors[0]));
    assert_ne!(stops[0].netns, errors[0].netns);
    for (kind, proof, from, to) in crossings(&history, &Graph::build(&history)) {
        assert_eq!(from, to, "{kind:?} {proof:?}");
    }
    assert_eq!(blamed(&history), 0, "listeners of other namespaces are to blame");
    // What would be said if inode numbers told namespaces apart.
    let mut by_inode = history.clone();
    by_inode.events.iter_mut().filter(|e| e.netns != 0).for_each(|e| e.netns = inode(e));
    assert!(blamed(&by_inode) > 0);
}

/// Refusals that are laid to somebody who stopped listening.
fn blamed(history: &History) -> usize {
    let graph = Graph::build(history);
    let op = |node| history.events[event_of(node).0 as usize].op;
    let edges = graph.nodes.raw_edges().iter();
    edges.filter(|e| (op(e.source()), op(e.target())) == (Op::Unlisten, Op::Error)).count()
}

fn refusals(history: &History) -> Vec<&Event> {
    history.events.iter().filter(|e| e.op == Op::Error && e.error == 111).collect()
}

/// A namespace without a name is called as the kernel calls it; `lsns` shows the same.
#[test]
fn a_namespace_without_a_name() {
    let mut command = python_command(&format!(
        "{NAMESPACES}
fresh()
kept = talk('fresh', {})
say(os.stat('/proc/self/ns/net').st_ino)",
        free_port()
    ));
    let run = crate::recorded::record(command.stdin(Stdio::null()));
    let send = of(&run.history, "fresh", Op::Send)[0];
    let inode = run.said.trim();
    assert_eq!(label(&run.history, send), format!("net:[{inode}]"));
    for pattern in [format!("netns={inode} op=send"), format!("netns=net:[{inode}] op=send")] {
        let bound = pattern.parse::<Pattern>().expect("a pattern").bind(&run.history);
        assert_eq!(run.history.events.iter().filter(|e| bound.matches(e)).count(), 1, "{pattern}");
    }
}

fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("there are free ports");
    listener.local_addr().expect("it is bound").port()
}
