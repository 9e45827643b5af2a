//! Return probes by tracefs: room for all who wait at once, and nothing that stays behind.

use std::fs;
use std::io;
use std::net::UdpSocket;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use recorder::capture::Scope;
use recorder::capture::attach::family::Family;
use recorder::capture::attach::{Settings, preempt};
use recorder::event::{Flags, Op};
use tests::command::{doctor, tried, wherefore};

use super::{refused, with};
use crate::detach::wait_for;
use crate::recorded::{Recorder, SMALL, python_command, require_root};

const TRACEFS: &str = "/sys/kernel/tracing";

/// What the recorders of a process have defined in tracefs.
fn defined_by(pid: u32) -> Vec<String> {
    let group = format!(":wherefore_{pid}/");
    lines("kprobe_events").into_iter().filter(|line| line.contains(&group)).collect()
}

/// How often what a process has defined was met; the kernel's columns are name, hits and misses.
fn hits(pid: u32) -> Vec<String> {
    let group = format!("wherefore_{pid}");
    let names: Vec<String> = defined_by(pid)
        .iter()
        .filter_map(|line| Some(line.split_once('/')?.1.split(' ').next()?.to_owned()))
        .collect();
    assert!(!names.is_empty(), "{group} has defined something");
    let met = lines("kprobe_profile").into_iter();
    met.filter(|line| names.iter().any(|name| line.contains(name.as_str()))).collect()
}

fn lines(file: &str) -> Vec<String> {
    let text = fs::read_to_string(Path::new(TRACEFS).join(file)).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

fn own() -> Vec<String> {
    defined_by(std::process::id())
}

/// More than the ten places that the kernel makes by itself on a small machine.
const WAITING: usize = 40;

const ALL_WAIT: &str = "
listener = socket.create_server(('127.0.0.1', 0), backlog=64)
clients = [socket.create_connection(listener.getsockname()) for _ in range(WAITING)]
connections = [listener.accept()[0] for _ in clients]

def wait(connection):
    rename('waiter')
    tids.append(threading.get_native_id())
    assert connection.recv(10) == b'x'
    assert connection.recv(10) == b'yz'

def waits(tid):
    return open(f'/proc/self/task/{tid}/stat').read().rsplit(')', 1)[1].split()[0] == 'S'

tids = []
waiters = [threading.Thread(target=wait, args=(connection,)) for connection in connections]
for waiter in waiters:
    waiter.start()
until(lambda: len(tids) == WAITING)
time.sleep(0.2)
until(lambda: all(map(waits, tids)), 'that all wait')
for word in b'x', b'yz':
    for client in clients:
        client.sendall(word)
    if word == b'x':
        until(lambda: not any(map(queued, connections)), 'that all is read')
        time.sleep(0.2)
for waiter in waiters:
    waiter.join()
";

#[test]
fn as_many_as_wait_at_once_are_seen_to_return() {
    let script = ALL_WAIT.replace("WAITING", &WAITING.to_string());
    for family in Family::ALL {
        let run = match with(family, &script) {
            Ok(run) => run,
            Err(reason) => {
                refused(family, &reason);
                continue;
            }
        };
        let received = run.events("waiter", Op::Recv);
        let lost = run.history.hosts[0].lost;
        // Where programs are preempted, calls may be skipped, and are counted.
        let skipped = if preempt::possible(family.hooks()[0].site) { lost as usize } else { 0 };
        assert!(preempt::possible(family.hooks()[0].site) || lost == 0, "{family}: {lost} lost");
        for size in [1, 2] {
            let once = received.iter().filter(|event| event.result == size).count();
            let enough = once <= WAITING && once + skipped >= WAITING;
            assert!(enough, "{family}: {once} of {WAITING}, {lost} lost");
        }
        if family == Family::Kprobe {
            assert!(received.iter().all(|event| event.flags.has(Flags::BEGAN)));
        }
        assert_eq!(own(), Vec::<String>::new(), "{family}: what was defined is removed");
    }
}

/// A recorder that is about to be killed, which has attached everything.
fn record_by_kprobes(folder: &Path, probes: usize) -> Child {
    let mut command = Command::new(wherefore());
    command.args(["record", "--hooks", "kprobe", "--all", "-o"]).arg(folder.join("run.parquet"));
    let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts");
    wait_for("defining probes", || defined_by(child.id()).len() == probes);
    child
}

/// A call that the probes meet.
fn receive_nothing() {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    socket.set_nonblocking(true).expect("it is ours");
    let nothing = socket.recv(&mut [0]).expect_err("nobody sends");
    assert_eq!(nothing.kind(), io::ErrorKind::WouldBlock);
}

#[test]
fn what_a_killed_recorder_defined_is_off_and_removed_by_the_next() {
    require_root();
    let (works, reason) = doctor(Family::Kprobe.as_str());
    if !works {
        return refused(Family::Kprobe, &reason);
    }
    let settings = Settings { family: Some(Family::Kprobe), ..SMALL };
    let mut beside = Recorder::with(Scope::Command(String::new()), settings);
    let of_beside = own();
    assert!(of_beside.len() >= 3, "sends, receives, accepts: {of_beside:?}");
    let folder = tempfile::tempdir().expect("a folder");
    let look = || drop(Command::new(wherefore()).arg("doctor").output().expect("it starts"));
    let record = || drop(Recorder::with(Scope::Command(String::new()), SMALL).finish());
    for next in [&look as &dyn Fn(), &record] {
        let mut killed = record_by_kprobes(folder.path(), of_beside.len());
        let pid = killed.id();
        let before = hits(pid);
        receive_nothing();
        assert_ne!(hits(pid), before, "they are met while it lives");
        killed.kill().expect("it is our child");
        killed.wait().expect("it is our child");
        let before = hits(pid);
        receive_nothing();
        assert_eq!(hits(pid), before, "nothing meets them any more");
        next();
        assert_eq!(defined_by(pid), Vec::<String>::new());
        assert_eq!(own(), of_beside, "what is in use stays");
    }
    let mut child = beside.spawn(&mut python_command(
        "socket.socketpair()\nplay(lambda c, _: c.recv(1), lambda c, _: c.send(b'x'))",
    ));
    assert!(beside.follow(&mut child).success());
    let history = beside.finish();
    assert_eq!(crate::recorded::of(&history, "server", Op::Recv).len(), 1);
    assert_eq!(own(), Vec::<String>::new());
}

#[test]
fn without_tracefs_there_are_a_few_places_as_doctor_says() {
    require_root();
    let (works, there) = doctor(Family::Kprobe.as_str());
    if !works {
        return refused(Family::Kprobe, &there);
    }
    assert!(there.ends_with("places for each function: 4096"), "{there}");
    let hide =
        "umount -l /sys/kernel/debug; umount -l /sys/kernel/tracing; exec \"$0\" doctor --json";
    let output = Command::new("unshare").args(["-m", "sh", "-c", hide]).arg(wherefore()).output();
    let (works, note) = tried(&output.expect("it starts"), "kprobe");
    assert!(works, "{note}");
    assert!(note.contains("places for each function: 10, since it cannot be defined"), "{note}");
}
