//! Cut networks: what goes across is lost, and nothing else; it heals, and traffic goes on; the recording tells.

use recorder::event::{Event, Flags, Op};
use recorder::graph::{EdgeKind, Graph, Proof, event_of};

use super::{Injected, counts, inject_file};
use crate::recorded::of;

/// A thread that begins to listen on an address tells the cut to begin or to heal. The server has a thread for each
/// connection.
pub(super) const TURNS: &str = r#"
def mark(ip):
    with socket.socket() as listener:
        listener.bind((ip, 0))
        listener.listen(1)
cut = lambda: mark('127.0.0.98')
heal = lambda: mark('127.0.0.99')
def serve(at='127.0.0.1'):
    listener = socket.socket()
    listener.bind((at, 0))
    listener.listen(16)
    def answer(client):
        try:
            while data := client.recv(100):
                client.send(data)
        except OSError:
            pass
    def accept():
        while True:
            threading.Thread(target=answer, args=listener.accept()[:1], daemon=True).start()
    threading.Thread(target=accept, daemon=True).start()
    return listener.getsockname()
def heard(s):
    s.settimeout(0.5)
    try:
        return s.recv(9).decode() or 'end'
    except TimeoutError:
        return 'nothing'
    except OSError as error:
        return name(error)
TCP_SYNCNT, TCP_USER_TIMEOUT = 7, 18
def dial(source, to):
    s = socket.socket()
    s.bind((source, 0))
    s.setsockopt(socket.IPPROTO_TCP, TCP_SYNCNT, 1)
    s.connect(to)
    s.setsockopt(socket.IPPROTO_TCP, TCP_USER_TIMEOUT, 1500)
    return s
def ask(s):
    try:
        s.send(b'x')
        return s.recv(1).decode()
    except OSError as error:
        return name(error)
def tried(call, *words):
    try:
        call(*words)
        return 'ok'
    except OSError as error:
        return name(error)
"#;

fn play(fault: &str, script: &str) -> Injected {
    inject_file(fault, &format!("{TURNS}\n{script}"))
}

/// Packets that were lost, as the recording tells them: per socket and way the first, and the first that bore bytes.
fn losses(run: &Injected) -> Vec<&Event> {
    run.history.events.iter().filter(|e| e.flags.has(Flags::LOST)).collect()
}

/// Kinds of events to which edges lead from a cut.
fn made_happen(run: &Injected) -> Vec<Op> {
    let graph = Graph::build(&run.history);
    let edges = graph.nodes.raw_edges().iter().filter(|e| e.weight.kind == EdgeKind::Fault);
    let mut ops: Vec<Op> =
        edges.map(|e| run.history.events[event_of(e.target()).0 as usize].op).collect();
    ops.sort_unstable();
    ops.dedup();
    ops
}

const SPLIT: &str = r#"
[[partition]]
name = "split"
between = ["local=127.0.0.1", "local=127.0.0.2"]
from = "op=listen local=127.0.0.98"
until = "op=listen local=127.0.0.99"
"#;

#[test]
fn what_goes_across_is_lost_until_it_heals() {
    let script = "
near, far = serve('127.0.0.1'), serve('127.0.0.2')
across, again, beside = dial('127.0.0.1', far), dial('127.0.0.1', far), dial('127.0.0.1', near)
print('before', ask(across), ask(again), ask(beside))
datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
datagrams.bind(('127.0.0.2', 0))
datagrams.settimeout(0.5)
sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sender.bind(('127.0.0.1', 0))
cut()
print('during', ask(across), tried(dial, '127.0.0.1', far), ask(beside), tried(dial, '127.0.0.1', near))
print('datagram', sender.sendto(b'lost', datagrams.getsockname()))
try:
    datagrams.recv(9)
except TimeoutError:
    print('no datagram')
again.setsockopt(socket.IPPROTO_TCP, TCP_USER_TIMEOUT, 0)
again.send(b'y')
heal()
print('after', again.recv(1).decode(), ask(dial('127.0.0.1', far)))
sender.sendto(b'there', datagrams.getsockname())
print(datagrams.recv(9).decode())
";
    let run = play(SPLIT, script);
    expect_test::expect![[r#"
        before x x x
        during ETIMEDOUT ETIMEDOUT x ok
        datagram 4
        no datagram
        after y x
        there
    "#]]
    .assert_eq(&run.said);
    let [matched, fired, confirmed] = counts(&run.fault);
    assert_eq!((matched, run.fault["healed"].as_bool(), run.status), (fired, Some(true), Some(0)));
    assert!(confirmed >= 4, "two connections, one attempt, one datagram: {}", run.fault);
    assert_eq!(run.fault["contradicted"], 0, "{}", run.fault);
    for lost in losses(&run) {
        let address = |a| run.history.names.address(a).map(|a| a.ip().to_string());
        let mut ends = [address(lost.local), address(lost.remote)];
        ends.sort();
        assert_eq!(ends, ["127.0.0.1", "127.0.0.2"].map(|a| Some(a.to_owned())), "{lost:?}");
    }
    assert_eq!(made_happen(&run), [Op::Retransmit, Op::Error, Op::Fault]);
}

#[test]
fn why_ends_at_the_cut() {
    let script = "
far = serve('127.0.0.2')
across = dial('127.0.0.1', far)
ask(across)
cut()
print(ask(across))
";
    let run = play(SPLIT, script);
    assert_eq!(run.said, "ETIMEDOUT\n");
    assert_eq!(run.fault["healed"].as_bool(), Some(false));
    let said = run.why(&["op=recv error=ETIMEDOUT"]);
    let told: Vec<&str> = said.lines().take(5).collect();
    for (line, text) in told.iter().zip([
        "recv ETIMEDOUT",
        "error ETIMEDOUT",
        "fault `split`: packet lost",
        "fault `split`: begins",
        "it was injected",
    ]) {
        assert!(line.contains(text), "{text}: {said}");
    }
}

#[test]
fn what_is_missing_was_lost_by_the_cut() {
    let script = "
far = serve('127.0.0.2')
def play():
    across = dial('127.0.0.1', far)
    ask(across)
    cut()
    across.settimeout(0.5)
    try:
        across.send(b'x')
        across.recv(1)
    except TimeoutError:
        print('nothing came')
client('asker', play)
";
    let run = play(SPLIT, script);
    assert_eq!(run.said, "nothing came\n");
    let said = run.why(&["--missing", "comm=asker op=recv"]);
    let lost = said.lines().find(|line| line.starts_with("lost")).expect(&said);
    assert!(lost.contains("fault `split`: packet lost from 127.0.0.1:"), "{said}");
}

/// Of the packets that are lost only the first is told, and TCP begins with the last when it sends again.
#[test]
fn what_followed_the_first_lost_packet_may_be_sent_again_because_of_it() {
    let script = "
across = dial('127.0.0.1', serve('127.0.0.2'))
across.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
ask(across)
cut()
across.send(b'first'), across.send(b'second')
print(heard(across))
";
    let run = play(SPLIT, script);
    assert_eq!(run.said, "nothing\n");
    let graph = Graph::build(&run.history);
    let because = |index: usize| {
        let into = graph.nodes.raw_edges().iter().filter(move |e| {
            e.weight.kind == EdgeKind::Fault && event_of(e.target()).0 as usize == index
        });
        into.map(|e| {
            (run.history.events[event_of(e.source()).0 as usize].stream_start, e.weight.proof)
        })
    };
    let mut tail = run.history.events.iter().enumerate().filter(|(_, event)| {
        event.op == Op::Retransmit && [event.stream_start, event.stream_end] == [6, 12]
    });
    let (tail, event) = tail.next().expect("the last first");
    assert_eq!(because(tail).collect::<Vec<_>>(), [(1, Proof::May)], "{event:?}");
    let asked = format!("op=retransmit time_ns={}", event.time_ns);
    let said = run.why(&[&asked, "--exclude-check", "op=fault flag=lost stream_start=1"]);
    assert!(said.starts_with("may"), "{said}");
}

/// One way alone: what comes back goes through.
#[test]
fn one_way_is_one_way() {
    let script = "
a, b = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2)]
a.bind(('127.0.0.1', 0)), b.bind(('127.0.0.2', 0))
a.settimeout(0.5), b.settimeout(0.5)
cut()
a.sendto(b'forth', b.getsockname()), b.sendto(b'back', a.getsockname())
print(a.recv(9).decode())
try:
    print(b.recv(9))
except TimeoutError:
    print('nothing')
";
    let run = play(&format!("{SPLIT}one-way = true\n"), script);
    assert_eq!(run.said, "back\nnothing\n");
    assert_eq!(counts(&run.fault), [1, 1, 1]);
}

/// Both sides by control group: the sender's is known where a packet leaves, the receiver's where it comes in.
#[test]
fn between_control_groups_on_one_address() {
    let mount = recorder::capture::procfs::cgroup_mount().expect("cgroup2 is mounted");
    let names = ["a", "b"].map(|side| format!("wf-cut-{}-{side}", std::process::id()));
    let folders = names.clone().map(|name| mount.join(name));
    folders.iter().for_each(|folder| std::fs::create_dir(folder).expect("root makes cgroups"));
    let fault = SPLIT
        .replace("local=127.0.0.1", &format!("cgroup=/{}", names[0]))
        .replace("local=127.0.0.2", &format!("cgroup=/{}", names[1]));
    let script = format!(
        "
def enter(folder):
    open(folder + '/cgroup.procs', 'w').write(str(os.getpid()))
a, b = {:?}, {:?}
ready, told = os.pipe(), os.pipe()
server = os.fork()
if server == 0:
    enter(b)
    os.write(ready[1], repr(serve()).encode())
    os.read(told[0], 1)
    os._exit(0)
far = eval(os.read(ready[0], 99))
def play():
    inside = dial('127.0.0.1', far)
    enter(a)
    across = dial('127.0.0.1', far)
    print('before', ask(across), ask(inside))
    cut()
    print('during', ask(across), ask(inside), tried(dial, '127.0.0.1', far))
    heal()
    print('after', ask(dial('127.0.0.1', far)))
client('asker', play)
os.write(told[1], b'x')
os.waitpid(server, 0)
",
        folders[0].display(),
        folders[1].display()
    );
    let run = play(&fault, &script);
    folders.iter().for_each(|folder| std::fs::remove_dir(folder).expect("nobody is in it"));
    // (A socket stays in the cgroup in which it was made.)
    expect_test::expect![[r#"
        before x x
        during ETIMEDOUT x ETIMEDOUT
        after x
    "#]]
    .assert_eq(&run.said);
    assert_eq!(run.fault["healed"].as_bool(), Some(true));
}

/// Two network namespaces, a redis primary in one and its replica in the other: cut off, the replica keeps what it
/// had; healed, it catches up.
#[test]
fn a_redis_replica_in_another_network_namespace_catches_up() {
    let spaces = ["p", "r"].map(|side| format!("wf-cut-{}-{side}", std::process::id()));
    let script = format!(
        "
import subprocess, tempfile, time
primary, replica = {:?}, {:?}
def run(*words):
    return subprocess.run(words, capture_output=True, text=True).stdout.strip()
def cli(space, ip, *words):
    return run('ip', 'netns', 'exec', space, 'redis-cli', '-h', ip, *words)
def until(what):
    for _ in range(600):
        if what(): return
        time.sleep(0.05)
    raise Exception('it takes too long')
link = lambda: [l for l in cli(replica, '10.97.3.2', 'info', 'replication').splitlines() if l.startswith('master_link_status')]
servers = []
folder = tempfile.TemporaryDirectory()
def redis(space, ip, *words):
    common = ['--bind', ip, '--save', '', '--appendonly', 'no', '--protected-mode', 'no', '--repl-timeout', '2', '--repl-ping-replica-period', '1', '--dir', folder.name]
    servers.append(subprocess.Popen(['ip', 'netns', 'exec', space, 'redis-server', *common, *words], stdout=subprocess.DEVNULL))
try:
    for space in (primary, replica):
        run('ip', 'netns', 'add', space)
    run('ip', 'link', 'add', 'cut0', 'netns', primary, 'type', 'veth', 'peer', 'name', 'cut0', 'netns', replica)
    for space, ip in ((primary, '10.97.3.1'), (replica, '10.97.3.2')):
        run('ip', '-n', space, 'address', 'add', ip + '/24', 'dev', 'cut0')
        for device in ('lo', 'cut0'):
            run('ip', '-n', space, 'link', 'set', device, 'up')
    redis(primary, '10.97.3.1')
    redis(replica, '10.97.3.2', '--replicaof', '10.97.3.1', '6379')
    until(lambda: link() == ['master_link_status:up'])
    cli(primary, '10.97.3.1', 'set', 'color', 'red')
    until(lambda: cli(replica, '10.97.3.2', 'get', 'color') == 'red')
    cut()
    print(cli(primary, '10.97.3.1', 'set', 'color', 'blue'))
    until(lambda: link() == ['master_link_status:down'])
    print('cut off:', cli(replica, '10.97.3.2', 'get', 'color'))
    heal()
    until(lambda: cli(replica, '10.97.3.2', 'get', 'color') == 'blue')
    print('caught up')
finally:
    for server in servers:
        server.kill()
        server.wait()
    for space in (primary, replica):
        run('ip', 'netns', 'delete', space)
",
        spaces[0], spaces[1]
    );
    let fault =
        SPLIT.replace("local=127.0.0.1", "local=10.97.3.1").replace("127.0.0.2", "10.97.3.2");
    let run = play(&fault, &script);
    assert_eq!(run.said, "OK\ncut off: red\ncaught up\n");
    assert_eq!((run.fault["healed"].as_bool(), run.status), (Some(true), Some(0)));
    assert_eq!(run.fault["contradicted"], 0, "{}", run.fault);
    let turned = |flag| {
        let mut turns = run.history.events.iter().filter(|e| e.op == Op::Fault && e.socket == 0);
        turns.find(|e| e.flags.has(Flags::HEALED) == flag).expect("told").time_ns
    };
    let (begun_ns, healed_ns) = (turned(false), turned(true));
    let sent_again = of(&run.history, "redis-server", Op::Retransmit);
    // The last: by then an acknowledgement or a ping was lost on the way to the same socket, or these very bytes. The
    // first may be of the last of several packets that were lost, which is not proven; of those that came after it
    // healed, some are of bytes that were sent later.
    let again =
        sent_again.iter().rfind(|e| e.has_range() && (begun_ns..healed_ns).contains(&e.time_ns));
    let asked = format!("op=retransmit time_ns={}", again.expect("while it was cut").time_ns);
    let said = run.why(&[&asked]);
    assert!(said.contains("fault `split`: begins"), "{said}");
}

#[test]
fn a_cut_that_nothing_crosses_is_not_reached() {
    let run = play(&SPLIT.replace("127.0.0.2", "127.0.0.77"), "ask(dial('127.0.0.1', serve()))");
    assert_eq!((counts(&run.fault), run.status), ([0, 0, 0], Some(1)));
    let told = (&run.fault["not_reached"], &run.fault["remark"]);
    assert_eq!(told, (&true.into(), &"no packet went across".into()));
}
