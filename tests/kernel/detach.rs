//! Nothing of the recorder stays in the kernel when it ends, however it ends, and what it wrote can be read.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use recorder::event::{Op, Ring};
use recorder::recording::read::{self, Note};
use tests::patience;

use crate::recorded::{assert_sound, python_path, require_root};

/// Numbers of the BPF programs and maps that a process holds.
pub fn held(pid: u32) -> (Vec<u32>, Vec<u32>) {
    let mut found = (Vec::new(), Vec::new());
    let folder = format!("/proc/{pid}/fdinfo");
    for entry in std::fs::read_dir(folder).expect("it lives").flatten() {
        let text = std::fs::read_to_string(entry.path()).unwrap_or_default();
        let number = |key: &str| {
            let value = text.lines().find_map(|line| line.strip_prefix(key));
            value.and_then(|value| value.trim().parse::<u32>().ok())
        };
        found.0.extend(number("prog_id:"));
        found.1.extend(number("map_id:"));
    }
    found
}

/// `bpf_attr` of the calls that open a program or a map by its number.
#[repr(C)]
struct ById {
    id: u32,
    next_id: u32,
    open_flags: u32,
}

/// Whether the kernel still has a program or map of this number.
pub fn exists(command: libc::c_long, id: u32) -> bool {
    let attributes = ById { id, next_id: 0, open_flags: 0 };
    // SAFETY: the attributes live until the call returns; the descriptor it may return is closed here.
    unsafe {
        let fd = libc::syscall(libc::SYS_bpf, command, &raw const attributes, size_of::<ById>());
        if fd >= 0 {
            libc::close(fd as i32);
        }
        fd >= 0
    }
}

pub const BPF_PROG_GET_FD_BY_ID: libc::c_long = 13;
pub const BPF_MAP_GET_FD_BY_ID: libc::c_long = 14;

pub fn wait_for(what: &str, ready: impl Fn() -> bool) {
    let begun = Instant::now();
    while !ready() {
        assert!(begun.elapsed() < patience::seconds(20), "{what} took too long");
        thread::sleep(Duration::from_millis(5));
    }
}

/// A recorder of the command given, that has begun to record.
fn recording(output: &Path, words: &[&str]) -> Child {
    require_root();
    let mut command = tests::command::record();
    command.args(["--ring", "4MiB", "-o"]).arg(output).args(words);
    let child = command.stderr(Stdio::piped()).spawn().expect("wherefore starts");
    // Written as soon as everything is attached and the command runs.
    wait_for("the recording's beginning", || {
        std::fs::metadata(output).is_ok_and(|file| file.len() > 0)
    });
    child
}

/// A server that answers itself for as long as it lives, and makes a file when it has begun to.
const TALK: &str = "
import socket, sys, time
l = socket.socket(); l.bind(('127.0.0.1', 0)); l.listen()
a = socket.create_connection(l.getsockname()); b = l.accept()[0]
def talk():
    a.send(b'hello'); b.recv(5); time.sleep(0.001)
for _ in range(20):
    talk()
open(sys.argv[1], 'w').close()
while True:
    talk()
";

/// A recorder of that server, which is at it.
fn talking(output: &Path) -> Child {
    let begun = output.with_extension("begun");
    let name = begun.to_str().expect("a plain name");
    let child = recording(output, &["--", python_path(), "-c", TALK, name]);
    wait_for("the server's beginning", || begun.exists());
    child
}

/// Ends a recorder; nothing that it held may stay. What it said on stderr.
fn end(child: Child, end: impl FnOnce(Pid)) -> (Option<i32>, String) {
    let (programs, maps) = held(child.id());
    assert!(programs.len() >= 14, "it holds its programs: {programs:?}");
    assert!(maps.len() >= 5, "it holds its maps: {maps:?}");
    assert!(programs.iter().all(|&id| exists(BPF_PROG_GET_FD_BY_ID, id)), "during");
    end(Pid::from_raw(child.id() as i32));
    let output = child.wait_with_output().expect("it is our child");
    // The kernel frees them after a grace period.
    wait_for("the end of the programs", || {
        !programs.iter().any(|&id| exists(BPF_PROG_GET_FD_BY_ID, id))
    });
    wait_for("the end of the maps", || !maps.iter().any(|&id| exists(BPF_MAP_GET_FD_BY_ID, id)));
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

fn send(signal: Signal) -> impl FnOnce(Pid) {
    move |pid| kill(pid, signal).expect("it lives")
}

#[test]
fn after_the_command_has_ended() {
    let folder = tempfile::tempdir().expect("a folder");
    let output = folder.path().join("run.parquet");
    let child = recording(&output, &["--", "/bin/sh", "-c", "sleep 0.3; exit 3"]);
    let (code, said) = end(child, |_| {});
    assert_eq!(code, Some(0), "{said}");
    assert!(said.starts_with("recorded "), "{said}");
    let history = read::open(&[output]).expect("it can be read").history;
    assert_sound(&history);
    let statuses: Vec<_> = history.events.iter().filter(|e| e.op == Op::Exit).collect();
    assert_eq!(statuses.last().map(|e| e.result), Some(3));
}

/// Ctrl-C and SIGTERM: the command is asked to end, and the file is finished.
fn stopped_by(signal: Signal) {
    let folder = tempfile::tempdir().expect("a folder");
    let output = folder.path().join("run.parquet");
    let child = talking(&output);
    let (code, said) = end(child, send(signal));
    assert_eq!(code, Some(0), "{said}");
    let recording = read::open(&[output]).expect("it can be read");
    assert_eq!(recording.notes, Vec::new(), "it is whole");
    assert_sound(&recording.history);
    let events = &recording.history.events;
    assert!(events.iter().filter(|e| e.op == Op::Send).count() > 10, "it was at it");
    let last = events.iter().rfind(|e| e.op == Op::Exit).expect("the command ended");
    assert_eq!(last.signal, 15, "the command was asked to end: {last:?}");
}

#[test]
fn after_ctrl_c() {
    stopped_by(Signal::SIGINT);
}

#[test]
fn after_sigterm() {
    stopped_by(Signal::SIGTERM);
}

#[test]
fn ctrl_c_ends_a_recording_of_the_whole_machine() {
    let folder = tempfile::tempdir().expect("a folder");
    let output = folder.path().join("run.parquet");
    let child = recording(&output, &["--all"]);
    thread::sleep(Duration::from_millis(200));
    let (code, said) = end(child, send(Signal::SIGINT));
    assert_eq!(code, Some(0), "{said}");
    let recording = read::open(&[output]).expect("it can be read");
    assert_eq!(recording.notes, Vec::new(), "it is whole");
    let host = &recording.history.hosts[0];
    assert_eq!(recording.history.events.len() as u64 + host.lost, host.raised);
}

/// What was flushed before is there, the rest is said to be missing.
#[test]
fn a_recording_cut_off_by_sigkill_can_be_read() {
    let folder = tempfile::tempdir().expect("a folder");
    let output = folder.path().join("run.parquet");
    let child = talking(&output);
    // Flushed every five seconds, and not all at one stroke.
    let length = || std::fs::metadata(&output).expect("it is there").len();
    let begun = length();
    wait_for("the first flush", || length() > begun);
    thread::sleep(Duration::from_millis(500));
    let command = children(child.id());
    let (code, _) = end(child, |recorder| {
        kill(recorder, Signal::SIGKILL).expect("it lives");
        // The command goes on, and holds the recorder's stderr.
        command.into_iter().for_each(|pid| kill(pid, Signal::SIGKILL).expect("it went on"));
    });
    assert_eq!(code, None);
    let recording = read::open(&[output]).expect("it can be read");
    assert!(
        matches!(&recording.notes[..], [Note::Recovered { complete_rows, .. }] if *complete_rows > 1000),
        "{:?}",
        recording.notes
    );
    let events = &recording.history.events;
    assert!(
        events.iter().any(|e| e.ring == Ring::Bulk) && events.iter().any(|e| e.ring == Ring::Rare)
    );
    let graph = recorder::graph::Graph::build(&recording.history);
    let violations = recorder::graph::check::check(&recording.history, &graph);
    assert!(violations.is_empty(), "{:#?}", &violations[..violations.len().min(5)]);
}

fn children(pid: u32) -> Vec<Pid> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
    let text = text.expect("it lives");
    text.split_whitespace().filter_map(|pid| pid.parse().ok()).map(Pid::from_raw).collect()
}

#[test]
fn two_recorders_at_once_both_record_all_of_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let outputs = [folder.path().join("a.parquet"), folder.path().join("b.parquet")];
    let recorders = outputs.each_ref().map(|output| recording(output, &["--all"]));
    let status = Command::new(python_path())
        .args(["-c", &TALK.replace("while True", "for _ in range(100)")])
        .arg(folder.path().join("begun"))
        .status()
        .expect("python starts");
    assert!(status.success());
    for child in recorders {
        assert_eq!(end(child, send(Signal::SIGINT)).0, Some(0));
    }
    for output in &outputs {
        let history = read::open(std::slice::from_ref(output)).expect("it can be read").history;
        let five = |e: &&recorder::event::Event| e.op == Op::Recv && e.result == 5;
        assert!(history.events.iter().filter(five).count() >= 100, "{}", output.display());
    }
    let both = read::open(&outputs).expect_err("one host, twice, under different names");
    assert!(both.to_string().contains("two recorders made them"), "{both}");
}
