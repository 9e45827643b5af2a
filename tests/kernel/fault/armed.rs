//! What is armed is told to everybody, and two recorders do not strike the same events unknowingly.

use std::path::Path;
use std::process::{Command, Output};

use nix::sys::signal::Signal;
use serde_json::Value;
use tests::command::wherefore;
use tests::patience;

use super::running::{Inject, wait_for};
use crate::daemon::running::Running;
use crate::recorded::python_path;

/// A fault for programs that only this run of the tests knows.
fn fault() -> String {
    let victim = format!("wf-{}", std::process::id());
    format!("comm={victim} op=connect => error=EIO, nth=3, name=\"the \\\"third\\\"\"")
}

/// Its victim connects five times, twice each second.
fn script() -> String {
    let victim = format!("wf-{}", std::process::id());
    format!(
        "
import time
address = serve()
def play():
    for _ in range(5):
        try: socket.create_connection(address)
        except OSError: pass
    time.sleep(60)
client('{victim}', play)
"
    )
}

/// What `status` says where no daemon answers.
fn status(words: &[&str]) -> String {
    let mut status = Command::new(wherefore());
    status.args(["status", "--socket", "/no/such/socket"]).args(words);
    let output = status.output().expect("it starts");
    assert_eq!(output.status.code(), Some(2), "no daemon answers");
    String::from_utf8(output.stdout).expect("it prints text")
}

/// What a recorder has armed, by `status --json` or the daemon's answer.
fn armed_by(status: &str, pid: u32) -> Option<Value> {
    let status: Value = serde_json::from_str(status).expect("JSON");
    let armed = status["armed"].as_array().expect("a list").clone();
    armed.into_iter().find(|by| by["pid"] == pid)
}

/// Waits until the fault has struck.
fn struck(inject: &Inject) {
    wait_for("the fault", || {
        let armed = armed_by(&status(&["--json"]), inject.child.id());
        armed.is_some_and(|by| by["faults"][0]["fired"] == 1)
    });
}

fn other(words: &[&str]) -> Output {
    let folder = tempfile::tempdir().expect("a folder");
    let mut inject = Command::new(wherefore());
    inject.args(["inject", "--json", "--quiet", "--fault", &fault(), "-o"]);
    inject.arg(folder.path().join("run.parquet")).args(words).output().expect("it starts")
}

#[test]
fn what_is_armed_is_told_with_and_without_a_daemon_and_not_after_the_end() {
    let mut inject = Inject::start(&[&fault()], &script());
    struck(&inject);
    let pid = inject.child.id();
    let text = status(&[]);
    assert!(text.contains(&format!("armed    {}\n", fault())), "{text}");
    let by = text
        .lines()
        .find(|line| line.contains(&format!("in process {pid} ({}) for ", python_path())));
    assert!(by.is_some_and(|by| by.starts_with("         by cgroup, ")), "{text}");
    assert!(by.is_some_and(|by| by.contains("matched ") && by.ends_with(", fired 1")), "{text}");

    let daemon = Running::start("");
    let told = armed_by(&daemon.ask(&["status", "--json"]), pid).expect("the daemon tells it");
    assert_eq!(
        (&told["faults"][0]["mechanism"], &told["faults"][0]["fired"]),
        (&"cgroup".into(), &1.into())
    );
    assert!(
        daemon.ask(&["status"]).contains(&format!("in process {pid} ({}) for ", python_path()))
    );
    let metrics = daemon.http("GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    let metric =
        format!("wherefore_fault_fired_total{{fault=\"the \\\"third\\\"\",pid=\"{pid}\"}} 1\n");
    assert!(metrics.contains(&metric), "{metrics}");

    inject.end(Signal::SIGTERM, patience::seconds(20));
    assert_eq!(armed_by(&status(&["--json"]), pid), None);
    assert_eq!(armed_by(&daemon.ask(&["status", "--json"]), pid), None);
}

#[test]
fn a_killed_recorder_leaves_no_lie() {
    let mut inject = Inject::start(&[&fault()], &script());
    struck(&inject);
    let pid = inject.child.id();
    let file = format!("/run/wherefore/faults/{pid}.json");
    assert!(Path::new(&file).exists());
    inject.end(Signal::SIGKILL, patience::seconds(5));
    assert_eq!(armed_by(&status(&["--json"]), pid), None);
    assert!(!Path::new(&file).exists(), "whoever sees it removes it");
}

#[test]
fn the_same_fault_for_the_same_processes_is_refused_with_who_has_it() {
    let inject = Inject::start(&[&fault()], &script());
    struck(&inject);
    let pid = inject.child.id();
    for scope in [&["--all"][..], &["--pid", &pid.to_string()]] {
        let refused = other(&[scope, &["--for", "300ms"]].concat());
        let said = String::from_utf8_lossy(&refused.stderr);
        assert_eq!(refused.status.code(), Some(2), "{said}");
        let (by, in_scope) = (format!("armed already, by process {pid} "), python_path());
        assert!(said.contains(&format!("{by}(scope: {in_scope})")), "{said}");
    }
    // Where it is meant; and where another command is struck. Neither reaches it.
    for words in [&["--all", "--beside", "--for", "300ms"][..], &["--", "true"]] {
        let output = other(words);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        assert_eq!(report["faults"][0]["not_reached"], true, "{report}");
        assert_eq!(report["faults"][0]["remark"], "no event matched", "{report}");
    }
}
