//! System calls whose result is overridden: each of them, with errnos of all kinds, for the victim and for nobody else;
//! real programs; and the one call among many that was meant.
//!
//! They need a kernel that lets programs override what functions return. Where it does not, each test shows that.

use std::fmt::Write;
use std::path::Path;
use std::process::Command;

use recorder::event::{Event, History, Op};
use recorder::fault::spec::Syscall;
use recorder::recording::read;
use serde_json::Value;
use tests::command::wherefore;

use super::changed;
use crate::recorded::{assert_sound, of, python_path, require_root};

/// Ends a test on a kernel that cannot override, after it has shown that.
macro_rules! need_override {
    ($test:literal) => {
        if let Some(why) = missing() {
            assert_refused_as_missing();
            println!("{}  skipped: {why}", $test);
            return;
        }
    };
}
pub(super) use need_override;

mod skipped;
mod swallowed;

/// What the kernel lacks, by what it says of itself and not by what the command finds.
pub(super) fn missing() -> Option<String> {
    if !Path::new("/sys/bus/event_source/devices/kprobe").exists() {
        return Some("no kprobes: there is no /sys/bus/event_source/devices/kprobe".to_owned());
    }
    let debug = Path::new("/sys/kernel/debug");
    assert!(debug.join("kprobes").exists(), "debugfs is mounted where there are kprobes");
    (!debug.join("error_injection/list").exists()).then(|| {
        "no function may be overridden: there is no /sys/kernel/debug/error_injection".to_owned()
    })
}

/// The command knows as well.
pub(super) fn assert_refused_as_missing() {
    let said = explain("comm=app op=recv => error=ECONNRESET, nth=1, via=override");
    assert!(said.contains("override  not on this kernel: "), "{said}");
}

/// What `--explain` says of a fault, or why it is refused.
pub(super) fn explain(fault: &str) -> String {
    let mut command = Command::new(wherefore());
    let output = command.args(["inject", "--explain", "--fault", fault]).output();
    let output = output.expect("it starts");
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}

pub(super) struct Run {
    pub(super) history: History,
    pub(super) said: String,
    /// By fault: how often it matched, fired and was confirmed.
    pub(super) counts: Vec<[u64; 3]>,
    /// Calls that were made past the override.
    skipped: u64,
    pub(super) status: Option<i32>,
}

/// Runs a command with faults armed.
pub(super) fn inject(faults: &[String], command: &[&str]) -> Run {
    require_root();
    let folder = tempfile::tempdir().expect("a folder");
    let (file, report) = (folder.path().join("run.parquet"), folder.path().join("report"));
    let mut inject = Command::new(wherefore());
    inject.args(["inject", "--json", "--quiet", "--seed", "7", "-o"]).arg(&file);
    for fault in faults {
        inject.arg("--fault").arg(fault);
    }
    // The command's words, and `inject`'s own, apart.
    let shell = format!("exec \"$@\" >'{}'", report.display());
    let output = inject.args(["--", "/bin/sh", "-c", &shell, "sh"]).args(command).output();
    let output = output.expect("it starts");
    let told = String::from_utf8_lossy(&output.stdout);
    let told: Value = serde_json::from_str(&told).unwrap_or_else(|_| panic!("{output:?}"));
    let recording = read::open(&[file]).expect("it can be read");
    assert_sound(&recording.history);
    let count = |fault: &Value| {
        ["matched", "fired", "confirmed"].map(|key| fault[key].as_u64().expect("a number"))
    };
    Run {
        history: recording.history,
        said: std::fs::read_to_string(report).expect("the command wrote it"),
        counts: told["faults"].as_array().expect("faults").iter().map(count).collect(),
        skipped: told["skipped"].as_u64().expect("a number"),
        status: output.status.code(),
    }
}

/// Errnos of all kinds: what these calls return of themselves, what only others do, small and large ones.
const ERRNOS: [&str; 12] = [
    "EPERM",
    "EINTR",
    "EIO",
    "EAGAIN",
    "ENOMEM",
    "EMFILE",
    "EPIPE",
    "ENETUNREACH",
    "ECONNRESET",
    "ETIMEDOUT",
    "ECONNREFUSED",
    "ENOTRECOVERABLE",
];

/// What each process was answered, by the play in calls.py.
fn play(faults: &[String], calls: &[Syscall]) -> Run {
    let mut numbers = Vec::new();
    for &call in calls {
        numbers.push(format!("{}:{}", call.as_str(), number(call)));
    }
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/kernel/fault/calls.py");
    inject(faults, &[python_path(), script, &numbers.join(",")])
}

fn number(call: Syscall) -> i64 {
    recorder::fault::arm::calls::number(call).expect("the machine has it")
}

/// All calls that this machine has.
fn calls() -> Vec<Syscall> {
    let all = Syscall::ALL.into_iter().map(|(call, _)| call);
    all.filter(|call| recorder::fault::arm::calls::number(*call).is_some()).collect()
}

/// For each call and each errno: it succeeds; fails with that errno, for the victim and not for the process that makes it at the
/// same time; and succeeds again.
#[test]
fn each_call_fails_with_each_errno_for_the_victim_alone() {
    need_override!("each_call_fails_with_each_errno_for_the_victim_alone");
    let calls = calls();
    for errno in ERRNOS {
        let fault = |call: &Syscall| {
            let call = call.as_str();
            format!("comm=victim => error={errno}, syscall={call}, nth=2, name={call}")
        };
        let run = play(&calls.iter().map(fault).collect::<Vec<_>>(), &calls);
        let mut wanted = String::new();
        for (who, second) in [("bystander", "ok"), ("victim", errno)] {
            for call in &calls {
                writeln!(wanted, "{who} {} ok {second} ok", call.as_str()).expect("strings grow");
            }
        }
        assert_eq!(answers(&run.said), sorted(&wanted), "{errno}");
        assert_eq!(run.counts, vec![[3, 1, 1]; calls.len()], "{errno}");
        assert_eq!(run.status, Some(0));
        assert_recorded(&run.history, &calls, errno);
    }
}

/// Without the values that calls returned.
fn answers(said: &str) -> Vec<String> {
    sorted(
        &said
            .lines()
            .map(|l| l.split(" =").next().unwrap_or(l).to_owned() + "\n")
            .collect::<String>(),
    )
}

fn sorted(text: &str) -> Vec<String> {
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

/// Each call is there once as a fault and once as the event that it changed, of the kind that it is.
fn assert_recorded(history: &History, calls: &[Syscall], errno: &str) {
    let changed = changed(history);
    assert_eq!(changed.len(), calls.len(), "{errno}: one event is changed by each fault");
    for call in calls {
        let name = call.as_str();
        let event = changed.iter().find(|e| history.names.text(e.fault) == name).expect(name);
        assert_eq!((event.op, history.comm(event)), (call.op(), "victim"), "{name}");
        let error = event.errno().expect("it failed").to_string();
        assert!(error.starts_with(&format!("{errno}:")), "{name}: {error}");
        assert_eq!(event.protocol.is_some(), call.has_socket(), "{name}: {event:?}");
    }
    assert_eq!(of(history, "victim", Op::Fault).len(), calls.len());
}

/// What is returned instead is what the program sees, and the recording holds; nothing is done.
#[test]
fn a_call_returns_what_it_is_told_without_being_made() {
    need_override!("a_call_returns_what_it_is_told_without_being_made");
    let calls = calls();
    let value = |call: &Syscall| 11 + *call as i64;
    let fault = |call: &Syscall| {
        let (name, value) = (call.as_str(), value(call));
        format!("comm=victim => return={value}, syscall={name}, nth=2, name={name}")
    };
    let run = play(&calls.iter().map(fault).collect::<Vec<_>>(), &calls);
    for call in &calls {
        let name = call.as_str();
        let told = |who: &str| {
            let line = run.said.lines().find(|l| l.starts_with(&format!("{who} {name} ")));
            let (_, values) = line.expect(name).split_once(" = ").expect("values");
            values.split(' ').nth(1).expect("three").parse::<i64>().expect("a number")
        };
        assert_eq!(told("victim"), value(call), "{name}");
        assert_ne!(told("bystander"), value(call), "{name}");
    }
    assert_eq!(run.counts, vec![[3, 1, 1]; calls.len()]);
    for event in changed(&run.history) {
        let name = run.history.names.text(event.fault);
        let call = calls.iter().find(|call| call.as_str() == name).expect("a call");
        assert_eq!((event.error, event.result), (0, value(call)), "{name}");
    }
}

/// A pattern that says `op=recv` means sockets: reads of files under the same name are not counted, nor changed.
#[test]
fn a_read_of_a_file_is_no_receive() {
    need_override!("a_read_of_a_file_is_no_receive");
    let script = "
import ctypes, os, socket
a, b = socket.socketpair()
a.send(b'xyz')
pipe = os.pipe()
os.write(pipe[1], b'xyz')
file = os.open('/etc/passwd', os.O_RDONLY)
ctypes.CDLL(None).prctl(15, b'victim', 0, 0, 0)
def read(fd):
    try:
        return str(len(os.read(fd, 1)))
    except OSError as error:
        return os.strerror(error.errno)
answers = [read(fd) for fd in (file, pipe[0], b.fileno(), file, b.fileno(), pipe[0], b.fileno())]
ctypes.CDLL(None).prctl(15, b'done', 0, 0, 0)
print(*answers, sep='\\n')
";
    let fault = "comm=victim op=recv => error=ENOTCONN, nth=2".to_owned();
    let run = inject(&[fault], &[python_path(), "-c", script]);
    let wanted = "1 1 1 1 Transport_endpoint_is_not_connected 1 1".split(' ');
    let wanted: Vec<String> = wanted.map(|word| word.replace('_', " ")).collect();
    assert_eq!(run.said.lines().collect::<Vec<_>>(), wanted);
    assert_eq!(run.counts, [[3, 1, 1]]);
}

/// What is asked of addresses is compared with the socket's own, v4 and v6, and with the port.
#[test]
fn addresses_are_the_sockets_own() {
    need_override!("addresses_are_the_sockets_own");
    let script = "
import ctypes, errno, os, socket
def pair(family, at):
    server = socket.socket(family)
    server.bind((at, 0))
    server.listen()
    client = socket.create_connection(server.getsockname()[:2])
    return client, server.accept()[0]
ends = [pair(socket.AF_INET, '127.0.0.1'), pair(socket.AF_INET, '127.0.0.9'), pair(socket.AF_INET6, '::1')]
def send(end):
    try:
        return end.send(b'x')
    except OSError as error:
        return errno.errorcode[error.errno]
ctypes.CDLL(None).prctl(15, b'victim', 0, 0, 0)
answers = [(send(one), send(other)) for one, other in ends]
ctypes.CDLL(None).prctl(15, b'done', 0, 0, 0)
for answer in answers:
    print(*answer)
";
    let faults = [
        "comm=victim op=send peer=127.0.0.9 => error=ENETDOWN, count=5, name=peer",
        "comm=victim op=send local=::1 protocol=tcp => error=ENOLINK, count=5, name=local",
        "comm=victim op=send peer=127.0.0.1:1 => error=EBADMSG, count=5, name=port",
    ];
    let run = inject(&faults.map(str::to_owned), &[python_path(), "-c", script]);
    assert_eq!(run.said, "1 1\nENETDOWN 1\nENOLINK ENOLINK\n");
    assert_eq!(run.counts, [[1, 1, 1], [2, 2, 2], [0, 0, 0]]);
    let changed = changed(&run.history);
    let told =
        |event: &Event| run.history.names.socket_address(event.remote).map(|a| a.to_string());
    assert!(told(&changed[0]).is_some_and(|text| text.starts_with("127.0.0.9:")));
}

/// Where it can, it is taken; where it cannot, every reason is given, and what would work instead.
#[test]
fn what_it_cannot_do_here_is_refused_with_what_can() {
    require_root();
    let said = explain("comm=app op=recv peer=:6379 => error=ECONNRESET, nth=1");
    if missing().is_none() {
        assert!(said.contains("override  recvfrom, recvmsg"), "{said}");
    } else {
        let lines: Vec<&str> = said.lines().collect();
        assert!(said.contains("no mechanism can do this here"), "{said}");
        assert!(said.contains("override  not on this kernel: it "), "{said}");
        let last = *lines.last().expect("it says something");
        assert!(last.contains("instead") && last.contains("`kill=SIGKILL` (signal)"), "{said}");
    }
    // What `cgroup` does as well is done everywhere.
    let said = explain("comm=app op=connect => error=ECONNRESET, nth=1");
    assert!(said.contains("cgroup    connect4, connect6"), "{said}");
}
