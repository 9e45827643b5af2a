//! What makes the daemon keep its window by itself: lines in logs and journals.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::KILLED;
use super::running::{PATIENCE, Running, json};

pub fn append(path: &Path, text: &str) {
    let file = OpenOptions::new().append(true).create(true).open(path);
    file.and_then(|mut file| file.write_all(text.as_bytes())).expect("it is written");
}

/// How a trigger stands.
pub fn standing(daemon: &Running, name: &str) -> Value {
    let status = daemon.status();
    let all = status["triggers"].as_array().expect("triggers").clone();
    all.into_iter().find(|trigger| trigger["trigger"] == name).expect("it is listed")
}

/// Waits until something holds.
pub fn until(what: &str, holds: impl Fn() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < PATIENCE, "{what}");
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_line_in_a_log_makes_a_dump_that_explains_what_the_line_names() {
    let logs = tempfile::tempdir().expect("a folder");
    let log = logs.path().join("app.log");
    fs::write(&log, "an upstream broke off: client\n").expect("it is written");
    let daemon = Running::start(&format!(
        "cooldown = '1s'\n[[trigger]]\nname = 'Upstream'\nlog = '{}'\n\
         matches = 'upstream broke off: (?<who>\\w+)'\nsymptom = 'comm={{who}} op=recv'\n",
        log.display()
    ));
    daemon.play(KILLED);
    append(&log, "all is well\n");
    append(&log, "an upstream bro");
    append(&log, "ke off: client\n");
    let folder = daemon.wait_for("-Upstream");
    let why = fs::read_to_string(folder.join("why.txt")).expect("an answer");
    assert!(why.starts_with("incident Upstream, told by log\nculprit "), "{why}");
    assert!(why.lines().nth(1).is_some_and(|line| line.contains("murderer[")), "{why}");
    let said = json(&folder.join("trigger.json"));
    assert_eq!(said["said"]["line"], "an upstream broke off: client");
    assert_eq!(said["symptoms"][0], "comm=client op=recv");
    // Rotated: what is written to the next file counts as well.
    thread::sleep(Duration::from_millis(1100));
    fs::rename(&log, logs.path().join("app.log.1")).expect("it is renamed");
    append(&log, "upstream broke off: other\n");
    until("the next file is read", || standing(&daemon, "Upstream")["fired"] == 2);
    let metrics = daemon.http("GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    let counted =
        "wherefore_trigger_fired_total{trigger=\"Upstream\",source=\"log\",outcome=\"admitted\"} 2";
    assert!(metrics.contains(counted), "{metrics}");
}

#[test]
fn a_log_that_is_not_there_is_told_once_and_watched_when_it_comes() {
    let logs = tempfile::tempdir().expect("a folder");
    let log = logs.path().join("late/app.log");
    let daemon = Running::start(&format!(
        "[[trigger]]\nname = 'Late'\nlog = '{}'\nmatches = 'panic'\n",
        log.display()
    ));
    until("it is told", || {
        standing(&daemon, "Late")["trouble"]
            .as_str()
            .is_some_and(|why| why.contains("No such file"))
    });
    assert!(daemon.ask(&["status"]).contains("trigger  Late (log): fired 0, 0 refused; read "));
    fs::create_dir(logs.path().join("late")).expect("a folder");
    append(&log, "panic: out of luck\n");
    daemon.wait_for("-Late");
    let said = daemon.log();
    assert_eq!(said.matches("No such file").count(), 1, "{said}");
    assert!(said.contains("trigger Late: it is watched again"), "{said}");
}

#[test]
fn a_storm_of_lines_makes_one_dump_and_few_words() {
    let logs = tempfile::tempdir().expect("a folder");
    let log = logs.path().join("app.log");
    fs::write(&log, "").expect("it is written");
    let daemon = Running::start(&format!(
        "[[trigger]]\nname = 'Storm'\nlog = '{}'\nmatches = 'error'\n",
        log.display()
    ));
    for _ in 0..25 {
        append(&log, &"error: again\n".repeat(1000));
        thread::sleep(Duration::from_millis(100));
    }
    until("all are seen", || standing(&daemon, "Storm")["seen"] == 25_000);
    let fired = standing(&daemon, "Storm")["fired"].as_u64().expect("a number");
    assert!((2..=6).contains(&fired), "asked {fired} times in 2.5 s");
    assert_eq!(daemon.dumps().iter().filter(|name| name.ends_with("-Storm")).count(), 1);
    assert_eq!(daemon.log().matches("no dump for Storm").count(), 1, "{}", daemon.log());
}

#[test]
fn triggers_come_and_go_when_the_configuration_is_read_again() {
    let logs = tempfile::tempdir().expect("a folder");
    let table = |name: &str| {
        let log = logs.path().join(name);
        fs::write(&log, "").expect("it is written");
        format!("[[trigger]]\nname = '{name}'\nlog = '{}'\nmatches = 'error'\n", log.display())
    };
    let (first, second) = (table("First"), table("Second"));
    let daemon = Running::start(&first);
    let config = daemon.path("config.toml");
    let with_first = fs::read_to_string(&config).expect("it was written");
    let with_second = with_first.replace(&first, &second);
    fs::write(&config, with_first + &second).expect("it is written");
    daemon.ask(&["reload"]);
    append(&logs.path().join("First"), "error\n");
    append(&logs.path().join("Second"), "error\n");
    daemon.wait_for("-First");
    daemon.wait_for("-Second");
    fs::write(&config, with_second).expect("it is written");
    daemon.ask(&["reload"]);
    let status = daemon.ask(&["status"]);
    assert!(
        !status.contains("First") && status.contains("trigger  Second (log): fired 1"),
        "{status}"
    );
}

/// A journal that says two things, and then nothing more.
const JOURNALCTL: &str = "#!/bin/sh
echo \"$@\" > WORDS
echo '{\"MESSAGE\":\"started\",\"_SYSTEMD_UNIT\":\"web.service\"}'
echo '{\"MESSAGE\":\"panic: out of luck\",\"_PID\":\"7\",\"_SYSTEMD_UNIT\":\"web.service\"}'
exec sleep 1000
";

#[test]
fn a_line_in_the_journal_makes_a_dump() {
    let programs = tempfile::tempdir().expect("a folder");
    let (program, words) = (programs.path().join("journalctl"), programs.path().join("words"));
    fs::write(&program, JOURNALCTL.replace("WORDS", &words.display().to_string()))
        .expect("it is written");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("it is ours");
    let config = "[[trigger]]\nname = 'Oops'\njournal = 'web.service'\nmatches = '^panic'\n";
    let path = format!("{}:/usr/bin:/bin", programs.path().display());
    let daemon = Running::with_path(config, Path::new(&path));
    let folder = daemon.wait_for("-Oops");
    let said = json(&folder.join("trigger.json"));
    assert_eq!(
        (&said["said"]["line"], &said["said"]["_PID"]),
        (&"panic: out of luck".into(), &"7".into())
    );
    let words = fs::read_to_string(words).expect("it was started");
    assert!(
        words.contains("--follow --lines=0") && words.contains("--unit=web.service"),
        "{words}"
    );
}

#[test]
fn where_there_is_no_journal_it_is_told() {
    let config = "[[trigger]]\nname = 'Oops'\njournal = '*'\nmatches = 'panic'\n";
    let daemon = Running::with_path(config, Path::new("/nowhere"));
    until("it is told", || {
        let standing = standing(&daemon, "Oops");
        standing["trouble"].as_str().is_some_and(|why| why.contains("start journalctl"))
    });
}

#[test]
fn a_scope_says_whose_failure_is_meant() {
    let logs = tempfile::tempdir().expect("a folder");
    let log = logs.path().join("alerts");
    fs::write(&log, "").expect("it is written");
    let daemon = Running::start(&format!(
        "cooldown = '1ms'\n[[trigger]]\nname = 'Service'\nlog = '{}'\nmatches = 'broken: (?<service>\\w+)'\n\
         scope = 'comm={{service}}'\n",
        log.display()
    ));
    // Both are killed; the later one is the failure of the whole recording.
    daemon.play(&KILLED.replace("'victim'", "'web'").replace("'murderer'", "'somebody'"));
    daemon.play(KILLED);
    append(&log, "broken: web\n");
    let folder = daemon.wait_for("-Service");
    let why = fs::read_to_string(folder.join("why.txt")).expect("an answer");
    assert!(why.lines().nth(1).is_some_and(|line| line.contains("somebody[")), "{why}");
    assert_eq!(json(&folder.join("trigger.json"))["scope"], "comm=web");
}
