//! Processes that die and fall silent: their peers hear nothing, where a kill would tell them; others go on.

use recorder::event::{Flags, Op};

use super::partition::TURNS;
use super::{Injected, changed, counts, inject};

/// Servers in processes of their own, that answer over TCP and UDP.
const SERVICES: &str = "
def service(comm, port=0):
    ready, told = os.pipe()
    pid = os.fork()
    if pid != 0:
        os.close(told)
        return pid, *eval(os.read(ready, 99))
    rename(comm)
    os.close(ready)
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(('127.0.0.5', port))
    listener.listen()
    datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    datagrams.bind(('0.0.0.0', 0))
    os.write(told, repr((listener.getsockname(), ('127.0.0.5', datagrams.getsockname()[1]))).encode())
    def answer(client):
        while data := client.recv(1):
            client.send(data)
    while True:
        threading.Thread(target=answer, args=listener.accept()[:1], daemon=True).start()
";

fn play(fault: &str, script: &str) -> Injected {
    inject(fault, &format!("{TURNS}{SERVICES}{script}"))
}

/// A client of two connections, one with bytes that the server will not have read, and one of another server.
const CLIENTS: &str = "
server, one, datagrams = service('server')
other, two, _ = service('other')
a, b, c = dial('127.0.0.1', one), dial('127.0.0.1', one), dial('127.0.0.1', two)
d = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
d.connect(datagrams)
print(ask(b), ask(c))
b.setsockopt(socket.IPPROTO_TCP, TCP_USER_TIMEOUT, 0)
a.send(b'last words')
os.waitpid(server, 0)
print(heard(a), heard(b), tried(b.send, b'y'), heard(b))
print(ask(c), tried(dial, '127.0.0.1', one), tried(d.send, b'x'), heard(d))
heal()
b.settimeout(30)
print(tried(b.recv, 1) in ('ok', 'ECONNRESET'), tried(dial, '127.0.0.1', one))
again, one, _ = service('again', one[1])
print(ask(dial('127.0.0.1', one)))
for pid in other, again:
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
";

#[test]
fn who_crashes_is_not_heard_of_until_the_network_heals() {
    let fault =
        "comm=server op=recv => crash, nth=2, until=\"op=listen local=127.0.0.99\", name=down";
    let run = play(fault, CLIENTS);
    expect_test::expect![[r#"
        x x
        nothing nothing ok nothing
        x ETIMEDOUT ok nothing
        True ECONNREFUSED
        x
    "#]]
    .assert_eq(&run.said);
    assert_eq!((counts(&run.fault)[1..].to_vec(), run.status), (vec![1, 1], Some(0)));
    assert_eq!(
        (run.fault["healed"].as_bool(), &run.fault["contradicted"]),
        (Some(true), &0.into())
    );
    let kill = changed(&run.history).into_iter().find(|event| event.op == Op::Signal);
    assert_eq!(kill.map(|kill| i32::from(kill.signal)), Some(libc::SIGKILL));
    let events = &run.history.events;
    let healed = events.iter().find(|e| e.flags.has(Flags::HEALED)).expect("it heals");
    // What the dead still sends is lost where it leaves, also if nobody here would take it in.
    let lost = |e: &&recorder::event::Event| e.flags.has(Flags::LOST) && e.in_kernel_lane();
    let ways: Vec<bool> =
        events.iter().filter(lost).map(|e| e.flags.has(Flags::INCOMING)).collect();
    assert!(ways.contains(&true) && ways.contains(&false), "{ways:?}");
    let reset = |e: &&recorder::event::Event| e.op == Op::ResetReceived;
    assert!(
        events.iter().filter(reset).all(|e| e.time_ns > healed.time_ns),
        "nobody is told before"
    );
}

/// What the same death is like without the silence.
#[test]
fn who_is_killed_is_heard_of() {
    let fault = "comm=server op=recv => kill=SIGKILL, nth=2, name=down";
    let run = play(fault, CLIENTS);
    expect_test::expect![[r#"
        x x
        ECONNRESET end ok end
        x ECONNREFUSED ok ECONNREFUSED
        True ECONNREFUSED
        x
    "#]]
    .assert_eq(&run.said);
    assert_eq!(counts(&run.fault)[1..], [1, 1], "{}", run.fault);
}

#[test]
fn why_leads_to_the_crash() {
    let script = "
server, one, _ = service('server')
a = dial('127.0.0.1', one)
a.send(b'x')
os.waitpid(server, 0)
print(ask(a))
";
    let run = play("comm=server op=recv => crash, nth=1, name=down", script);
    assert_eq!(run.said, "ETIMEDOUT\n");
    let said = run.why(&["op=recv error=ETIMEDOUT"]);
    for text in ["fault `down`: packet lost", "fault `down`: crash", "it was injected"] {
        assert!(said.contains(text), "{text}: {said}");
    }
}
