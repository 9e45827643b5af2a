//! Injected faults: they strike the event that was meant, in the process that was meant, and nobody else; the
//! recording holds them, and `why` names them.

mod armed;
mod crash;
mod destroyed;
mod doctor;
mod hole;
mod killed;
mod lost;
mod overridden;
mod partition;
mod pause;
mod restarted;
mod running;
mod targeted;

use std::path::Path;
use std::process::{Command, Output};

use expect_test::expect;
use recorder::event::{Event, History, Op};
use recorder::fault::{line, parse};
use recorder::graph::{EdgeKind, Graph, event_of};
use recorder::recording::read;
use serde_json::Value;
use tempfile::TempDir;
use tests::command::{self, wherefore};

use crate::recorded::{assert_sound, of, python_path, require_root};

/// A server of many short connections in a thread, and clients in processes of their own name.
const STAGE: &str = r#"
import ctypes, errno, os, signal, socket, sys, threading
def rename(name):
    ctypes.CDLL(None).prctl(15, name.encode(), 0, 0, 0)
def serve(at='127.0.0.1'):
    listener = socket.socket()
    listener.bind((at, 0))
    listener.listen(16)
    def answer():
        while True:
            client = listener.accept()[0]
            with client:
                try:
                    while data := client.recv(100):
                        client.send(data)
                except OSError:
                    pass
    threading.Thread(target=answer, daemon=True).start()
    return listener.getsockname()
def name(error):
    return errno.errorcode[error.errno]
def client(comm, play):
    child = os.fork()
    if child == 0:
        rename(comm)
        try:
            play()
        finally:
            sys.stdout.flush()
            os._exit(0)
    status = os.waitpid(child, 0)[1]
    if os.WIFSIGNALED(status):
        print(comm, 'died of', signal.Signals(os.WTERMSIG(status)).name)
    sys.stdout.flush()
"#;

struct Injected {
    folder: TempDir,
    history: History,
    /// What the program printed.
    said: String,
    /// What `inject --json` said of the first fault.
    fault: Value,
    status: Option<i32>,
}

impl Injected {
    /// What `why` says of the recording.
    fn why(&self, words: &[&str]) -> String {
        let mut why = Command::new(wherefore());
        let why = why.arg("why").arg(self.folder.path().join("run.parquet")).args(words);
        let output = why.output().expect("it starts");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

/// Runs a Python script with one fault armed.
fn inject(fault: &str, script: &str) -> Injected {
    inject_any(&["--fault", fault], script)
}

/// The same with the faults of a file.
fn inject_file(faults: &str, script: &str) -> Injected {
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(&file, faults).expect("it is written");
    inject_any(&[file.path().to_str().expect("it is text")], script)
}

fn inject_any(faults: &[&str], script: &str) -> Injected {
    require_root();
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("run.parquet");
    let said = folder.path().join("said");
    let script = format!("import sys\nsys.stdout = open({said:?}, 'w')\n{STAGE}\n{script}");
    let output = inject_with(&file, faults, &[python_path(), "-c", &script]);
    let text = String::from_utf8_lossy(&output.stdout);
    let report: Value = serde_json::from_str(&text).unwrap_or_else(|_| panic!("{output:?}"));
    let recording = read::open(&[file]).expect("it can be read");
    assert_sound(&recording.history);
    Injected {
        folder,
        history: recording.history,
        said: std::fs::read_to_string(said).expect("the script wrote it"),
        fault: report["faults"][0].clone(),
        status: output.status.code(),
    }
}

fn inject_into(file: &Path, fault: &str, command: &[&str]) -> Output {
    inject_with(file, &["--fault", fault], command)
}

fn inject_with(file: &Path, faults: &[&str], command: &[&str]) -> Output {
    let mut inject = Command::new(wherefore());
    inject.args(["inject", "--json", "--quiet", "--seed", "7", "-o"]).arg(file).args(faults);
    inject.arg("--").args(command).output().expect("it starts")
}

/// How often the fault matched, fired and was confirmed.
fn counts(fault: &Value) -> [u64; 3] {
    ["matched", "fired", "confirmed"].map(|key| fault[key].as_u64().expect("a number"))
}

/// The events that faults changed, by the graph's edges.
fn changed(history: &History) -> Vec<Event> {
    let graph = Graph::build(history);
    let edges = graph.nodes.raw_edges().iter().filter(|e| e.weight.kind == EdgeKind::Fault);
    edges.map(|edge| history.events[event_of(edge.target()).0 as usize]).collect()
}

#[test]
fn the_third_connect_is_refused_for_the_victim_and_nobody_else() {
    let fault = "comm=victim op=connect peer=127.0.0.0/8 => error=ECONNREFUSED, nth=3, name=down";
    let script = "
address = serve()
def play():
    for i in range(5):
        try:
            socket.create_connection(address).close()
            print('ok', end=' ')
        except OSError as error:
            print(name(error), end=' ')
    print()
client('victim', play)
client('bystander', play)
";
    let run = inject(fault, script);
    expect![[r#"
        ok ok ECONNREFUSED ok ok 
        ok ok ok ok ok 
    "#]]
    .assert_eq(&run.said);
    assert_eq!((counts(&run.fault), run.status), ([5, 1, 1], Some(0)));
    let [call] = changed(&run.history)[..] else { panic!("one call is changed") };
    assert_eq!((call.op, i32::from(call.error)), (Op::Connect, libc::ECONNREFUSED));
    assert_eq!((run.history.comm(&call), run.history.names.text(call.fault)), ("victim", "down"));
    assert_eq!(of(&run.history, "victim", Op::Fault).len(), 1);
    assert_eq!(of(&run.history, "bystander", Op::Connect).len(), 5);
}

/// Ten errnos, each by each of the calls that a control group's programs see: one call fails in each round.
#[test]
fn any_errno_is_what_the_program_gets() {
    const ERRNOS: [&str; 10] = [
        "EPERM",
        "EIO",
        "EAGAIN",
        "EACCES",
        "EADDRINUSE",
        "ENETUNREACH",
        "ETIMEDOUT",
        "ECONNRESET",
        "ECONNREFUSED",
        "EHOSTUNREACH",
    ];
    const CALLS: [(&str, &str, &str); 4] = [
        ("connect", "op=connect", ""),
        ("bind", "local=127.0.0.1", ", syscall=bind"),
        ("bind6", "local=::1", ", syscall=bind"),
        ("sendto", "op=send protocol=udp", ""),
    ];
    let script = "
def ask(call):
    try:
        call()
        return 'ok'
    except OSError as error:
        return name(error)
address = serve()
def connect(): socket.create_connection(address).close()
def bind(): socket.socket().bind(('127.0.0.1', 0))
def bind6(): socket.socket(socket.AF_INET6).bind(('::1', 0))
def sendto(): socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', 9))
def play():
    for round in range(1, 21):
        for call in (connect, bind, bind6, sendto):
            print(round, call.__name__, ask(call))
client('victim', play)
";
    for errnos in ERRNOS.chunks(5) {
        let each = errnos.iter().flat_map(|errno| CALLS.iter().map(move |call| (errno, call)));
        let (mut faults, mut wanted) = (Vec::new(), Vec::new());
        for (round, (errno, (call, target, syscall))) in (1..).zip(each) {
            let fault = format!("comm=victim {target} => error={errno}, nth={round}{syscall}");
            faults.extend(["--fault".to_owned(), fault]);
            wanted.push(format!("{round} {call} {errno}"));
        }
        let run = inject_any(&faults.iter().map(String::as_str).collect::<Vec<_>>(), script);
        let failed: Vec<_> = run.said.lines().filter(|line| !line.ends_with(" ok")).collect();
        assert_eq!(failed, wanted);
        assert_eq!((counts(&run.fault), run.status), ([20, 1, 1], Some(0)), "each has fired");
    }
}

#[test]
fn after_counts_from_then_on_in_the_same_process() {
    let script = "
one, other = serve('127.0.0.1'), serve('127.0.0.2')
def play():
    a = socket.create_connection(one)
    for i in range(3):
        a.send(b'x'), a.recv(1)
    print('before', flush=True)
    b = socket.create_connection(other)
    for i in range(5):
        a.send(b'x'), a.recv(1)
        print('after', i, flush=True)
client('bystander', play)
client('victim', play)
";
    let fault = "comm=victim op=recv peer=127.0.0.1 => kill=SIGKILL, nth=3, after=\"op=connect peer=127.0.0.2\", name=gone";
    let run = inject(fault, script);
    expect![[r#"
        before
        after 0
        after 1
        after 2
        after 3
        after 4
        before
        after 0
        after 1
        victim died of SIGKILL
    "#]]
    .assert_eq(&run.said);
    assert_eq!((counts(&run.fault), run.status), ([3, 1, 1], Some(0)));
    let [kill] = changed(&run.history)[..] else { panic!("one signal is sent") };
    assert_eq!((kill.op, i32::from(kill.signal)), (Op::Signal, libc::SIGKILL));
}

#[test]
fn what_was_armed_is_in_the_recording() {
    let fault = "comm=victim op=connect => error=EIO, nth=1, name=armed";
    let run = inject(fault, "client('victim', lambda: socket.create_connection(serve()))");
    let [file] = &run.history.hosts[0].faults[..] else { panic!("{:?}", run.history.hosts) };
    let faults = parse::file("the recording's", file).expect("it is a fault file");
    assert_eq!((faults.seed, faults.faults), (Some(7), vec![line::parse(fault, "").unwrap()]));
}

#[test]
fn what_the_command_prints_is_no_part_of_the_json() {
    require_root();
    let folder = tempfile::tempdir().expect("a folder");
    let fault = "comm=curl op=connect => error=EIO, nth=1";
    let output = inject_into(&folder.path().join("f"), fault, &["echo", "hello"]);
    serde_json::from_slice::<Value>(&output.stdout).expect("JSON alone");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "hello\n");
}

#[test]
fn a_fault_that_never_fires_is_told_and_counts_as_failure() {
    let fault = "comm=victim op=connect => error=EIO, nth=2, name=never";
    let run = inject(fault, "client('victim', lambda: socket.create_connection(serve()))");
    assert_eq!((counts(&run.fault), run.status), ([1, 0, 0], Some(1)));
}

#[test]
fn why_names_the_fault_as_the_origin() {
    require_root();
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("run.parquet");
    let fault = "comm=curl op=connect peer=:9 => error=EHOSTUNREACH, nth=1, name=\"no route\"";
    let output = inject_into(&file, fault, &["curl", "-s", "http://127.0.0.1:9/"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let why = Command::new(wherefore()).arg("why").arg(&file).output().expect("it starts");
    let said = String::from_utf8_lossy(&why.stdout);
    let words: Vec<Vec<&str>> =
        said.lines().take(3).map(|l| l.split_whitespace().collect()).collect();
    let told = |line: usize, word: usize| words[line][word..].join(" ");
    assert_eq!(told(0, 3), "connect EHOSTUNREACH to 127.0.0.1:9", "{said}");
    assert_eq!(told(1, 3), "fault `no route`: EHOSTUNREACH injected", "{said}");
    assert_eq!(told(2, 0), "it was injected", "{said}");
}

#[test]
fn what_cannot_be_done_is_refused_before_anything_runs() {
    require_root();
    let folder = tempfile::tempdir().expect("a folder");
    let mark = folder.path().join("ran");
    let fault = "comm=app op=recv => delay=1s, nth=1";
    let output = inject_into(
        &folder.path().join("f"),
        fault,
        &["touch", mark.to_str().expect("it is text")],
    );
    assert_eq!(output.status.code(), Some(2));
    assert!(!mark.exists(), "the command did not run");
    expect![[r#"
        wherefore: fault `fault 1`: no mechanism can do this here
            cgroup    it can only refuse calls, and lose packets
            destroy   it can only destroy connections
            signal    it strikes whole processes, and cannot delay one call
            override  a program in the kernel cannot wait
    "#]]
    .assert_eq(&String::from_utf8_lossy(&output.stderr));
}

/// Every mechanism that stands at a call and works here is measured.
#[test]
fn what_an_armed_fault_costs_others_is_measured() {
    require_root();
    let wanted: Vec<_> = ["cgroup", "signal", "override"]
        .into_iter()
        .filter(|name| command::doctor(name).0)
        .collect();
    let mut measure = Command::new(wherefore());
    let output = measure.args(["doctor", "--json", "--measure", "1", "--faults"]).output();
    let output = output.expect("it starts");
    let measured: Value = serde_json::from_slice(&output.stdout).expect("it is JSON");
    let costs = measured["faults"].as_array().expect("costs");
    let told: Vec<_> =
        costs.iter().map(|cost| cost["mechanism"].as_str().expect("a name")).collect();
    assert!(told == wanted && told.contains(&"cgroup"), "{measured}");
    for key in ["bare_ns", "idle_ns", "outside_ns", "spared_ns"] {
        assert!(
            costs.iter().all(|cost| cost[key].as_f64().is_some_and(|ns| ns > 0.0)),
            "{measured}"
        );
    }
}
