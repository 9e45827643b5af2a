//! Connections that are destroyed at an event: both ends see them break, the recording says by what, and other connections
//! stay.

use std::process::Command;

use expect_test::expect;
use recorder::event::Op;
use recorder::graph::{EdgeKind, Graph, event_of};

use super::overridden::explain;
use super::{counts, inject};
use crate::netns::NAMESPACES;
use crate::recorded::{of, python_path};

/// Asks the kernel for its TCP sockets, as `ss` does, and prints what it says.
const LIST: &str = "
import errno, socket, struct
s = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 4)
s.send(struct.pack('=LHHLL', 72, 20, 0x301, 1, 0) + struct.pack('=BBBxL', 2, 6, 0, 0xffffffff) + bytes(48))
_, kind, _, _, _, error = struct.unpack_from('=LHHLLi', s.recv(65536))
print(errno.errorcode[-error] if kind in (2, 3) and error else 'lists them')
";

/// What the kernel lacks, by its own answer and not by what the command finds.
pub(super) fn missing() -> Option<String> {
    let output = Command::new(python_path()).args(["-c", LIST]).output().expect("it starts");
    let said = String::from_utf8_lossy(&output.stdout);
    match said.trim() {
        "lists them" => None,
        "ENOENT" => {
            Some("no tcp_diag: asked for its TCP sockets, the kernel says ENOENT".to_owned())
        }
        said => panic!("{said}{}", String::from_utf8_lossy(&output.stderr)),
    }
}

/// Ends a test on a kernel that cannot destroy connections, after it has shown that the command knows.
macro_rules! need_destroy {
    ($test:literal) => {
        if let Some(why) = missing() {
            let said = explain("comm=app op=recv => destroy, nth=1");
            assert!(
                said.contains("destroy   not on this kernel: ") && said.contains("tcp_diag"),
                "{said}"
            );
            println!("fault::destroyed::{}  skipped: {why}", $test);
            return;
        }
    };
}

/// Two ends in one process; after the first send they wait for the connection to break.
const ENDS: &str = "
def ends(family, address):
    listener = socket.socket(family)
    listener.bind((address, 0))
    listener.listen()
    port = listener.getsockname()[1]
    mapped = family == socket.AF_INET6 and address == '::'
    a = socket.create_connection(('127.0.0.1' if mapped else address, port))
    return listener.accept()[0], a
def fate(end):
    try:
        end.settimeout(20 * int(os.environ.get('WHEREFORE_TEST_SLOWNESS', '1')))
        return end.recv(1)
    except OSError as error:
        return name(error) if error.errno else error
";

#[test]
fn the_third_receive_s_connection_breaks_at_both_ends_and_no_other() {
    need_destroy!("the_third_receive_s_connection_breaks_at_both_ends_and_no_other");
    let script = format!(
        "{ENDS}
def play():
    pairs = [ends(socket.AF_INET, '127.0.0.1') for _ in range(3)]
    for i in range(5):
        for a, b in pairs:
            try:
                a.send(b'x'), b.recv(1)
            except OSError:
                pass
        if i == 0:
            broken = pairs[2]
            print([fate(end) for end in reversed(broken)])
    print([a.send(b'x') + len(b.recv(1)) for a, b in pairs[:2]])
client('bystander', lambda: [a.send(b'x') + len(b.recv(1)) for a, b in [ends(socket.AF_INET, '127.0.0.1')]])
client('victim', play)
"
    );
    let run = inject("comm=victim op=recv => destroy, nth=3, name=gone", &script);
    expect![[r#"
        ['ECONNABORTED', 'ECONNRESET']
        [2, 2]
    "#]]
    .assert_eq(&run.said);
    assert_eq!((counts(&run.fault)[1..].to_vec(), run.status), (vec![1, 1], Some(0)));
    assert_eq!(run.fault["done"], 1);

    let [fault] = of(&run.history, "victim", Op::Fault)[..] else { panic!("one fault") };
    let graph = Graph::build(&run.history);
    let edges = graph.nodes.raw_edges().iter().filter(|e| e.weight.kind == EdgeKind::Fault);
    let events = &run.history.events;
    let effects: Vec<_> = edges
        .inspect(|edge| assert_eq!(events[event_of(edge.source()).0 as usize], *fault))
        .map(|edge| events[event_of(edge.target()).0 as usize])
        .map(|event| (event.op, event.socket == fault.socket, i32::from(event.error)))
        .collect();
    let aborted = (Op::Error, true, libc::ECONNABORTED);
    assert!(effects.contains(&aborted), "{effects:?}");
    assert!(effects.iter().any(|&(op, own, _)| (op, own) == (Op::ResetSent, true)), "{effects:?}");
    assert_eq!(effects.len(), 2);
    for symptom in
        ["comm=victim op=recv error=ECONNABORTED", "comm=victim op=recv error=ECONNRESET"]
    {
        let why = run.why(&[symptom]);
        let origin = why.lines().find(|line| line.starts_with("origin")).unwrap_or_default();
        assert!(origin.contains("fault `gone`: ECONNABORTED towards"), "{symptom}: {why}");
    }
}

/// Addresses of both families, one of them dressed as the other, and network namespaces: the cookie tells which socket is meant.
#[test]
fn any_connection_of_tcp_can_be_destroyed() {
    need_destroy!("any_connection_of_tcp_can_be_destroyed");
    let script = format!(
        "libc = ctypes.CDLL(None, use_errno=True)
{NAMESPACES}
{ENDS}
def play():
    for family, address in (socket.AF_INET, '127.0.0.1'), (socket.AF_INET6, '::1'), (socket.AF_INET6, '::'):
        a, b = ends(family, address)
        b.send(b'x')
        print(address, fate(b), fate(a), fate(a))
def elsewhere():
    fresh()
    play()
client('victim', play)
client('victim', elsewhere)
"
    );
    let run = inject("comm=victim op=send => destroy, count=6", &script);
    let one = "\
127.0.0.1 ECONNABORTED b'x' ECONNRESET
::1 ECONNABORTED b'x' ECONNRESET
:: ECONNABORTED b'x' ECONNRESET
";
    assert_eq!(run.said, one.repeat(2));
    assert_eq!(counts(&run.fault), [6, 6, 6], "{}", run.fault);
}

/// Where a connection is asked for it has no local port yet.
#[test]
fn a_connection_is_destroyed_as_soon_as_it_is_made() {
    need_destroy!("a_connection_is_destroyed_as_soon_as_it_is_made");
    let script = format!(
        "{ENDS}
def play():
    try:
        a, b = ends(socket.AF_INET, '127.0.0.1')
        print(fate(b))
    except OSError as error:
        print(name(error))
client('victim', play)
"
    );
    let run = inject("comm=victim op=connect => destroy, nth=1", &script);
    assert_eq!((run.said.as_str(), counts(&run.fault)), ("ECONNABORTED\n", [1, 1, 1]));
}

#[test]
fn a_connection_that_is_gone_is_not_destroyed() {
    need_destroy!("a_connection_that_is_gone_is_not_destroyed");
    let gone = recorder::fault::sock_diag::destroy(u64::MAX, 0, 0);
    let error = gone.expect_err("no socket has this cookie");
    assert_eq!(format!("{error:#}"), "the connection was gone");
}
