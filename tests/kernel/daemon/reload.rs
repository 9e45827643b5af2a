//! A changed configuration while the rings fill on, and the daemon's end while it is at work.

use std::fs;
use std::io::Read;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::KILLED;
use super::running::{self, Running, TOKEN, children};

impl Running {
    fn window_s(&self) -> f64 {
        self.status()["rings"][0]["window_s"].as_f64().expect("a number")
    }

    /// The worker that makes a dump, as soon as there is one.
    fn worker(&self) -> Pid {
        let begun = Instant::now();
        loop {
            // A child that is stopped before it is the worker would keep its parent from going on.
            if let Some(&pid) = children(self.pid(), "dump-worker").first() {
                return Pid::from_raw(pid as i32);
            }
            assert!(begun.elapsed() < Duration::from_secs(10), "no worker");
            thread::sleep(Duration::from_millis(1));
        }
    }

    fn terminate(&self) {
        kill(Pid::from_raw(self.pid() as i32), Signal::SIGTERM).expect("it lives");
    }
}

#[test]
fn a_reload_changes_limits_rules_and_token_and_keeps_the_window() {
    let daemon = Running::with_tcp_and_scope("");
    daemon.play(KILLED);
    let before = daemon.window_s();
    thread::sleep(Duration::from_millis(200));
    let other = "another-token-for-tests-0123456789";
    fs::write(daemon.path("token"), other).expect("it is written");
    daemon.edit(|text| {
        text.replace("per_hour = 3", "per_hour = 1").replace("ring = '16MiB'", "ring = '32MiB'")
            + "[[alert]]\nlabels = { alertname = 'New' }\nsymptom = 'comm={job} op=recv'\n"
    });
    let said = daemon.ask(&["reload"]);
    assert_eq!(said, "in effect but for ring: these need a restart\n");
    assert!(daemon.window_s() > before + 0.2, "the window goes on");
    daemon.post("/api/v1/alerts", &super::alert("New", "firing", &running::now()));
    let folder = daemon.wait_for("-New");
    let why = fs::read_to_string(folder.join("why.txt")).expect("an answer");
    assert!(why.lines().nth(1).is_some_and(|line| line.contains("murderer[")), "{why}");
    let refused = daemon.refused(&["dump"]);
    assert!(refused.contains("1 dumps were made in the last hour"), "{refused}");
    assert!(super::asked_by_tcp(daemon.port, TOKEN).contains("401"));
    assert!(super::asked_by_tcp(daemon.port, other).contains("200"));
}

#[test]
fn a_wrong_configuration_changes_nothing_and_is_logged_once() {
    let daemon = Running::start("");
    daemon.edit(|text| text.replace("per_hour = 3", "per_hour = 1\nper_huor = 1"));
    let refused = daemon.refused(&["reload"]);
    assert!(refused.contains("unknown field `per_huor`"), "{refused}");
    assert!(refused.contains("at line 8, column 1"), "{refused}");
    assert_eq!(daemon.log().matches("the configuration stays as it was").count(), 1);
    daemon.dump(&[]);
    daemon.dump(&[]);
    // And by the signal.
    kill(Pid::from_raw(daemon.pid() as i32), Signal::SIGHUP).expect("it lives");
    let begun = Instant::now();
    while daemon.log().matches("the configuration stays as it was").count() < 2 {
        assert!(begun.elapsed() < Duration::from_secs(10), "{}", daemon.log());
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_token_or_folder_that_cannot_be_used_changes_nothing() {
    let daemon = Running::with_tcp();
    fs::write(daemon.path("token"), "short").expect("it is written");
    daemon.edit(|text| text.replace("per_hour = 3", "per_hour = 1"));
    let refused = daemon.refused(&["reload"]);
    assert!(refused.contains("has 5 characters") && !refused.contains("short"), "{refused}");
    fs::write(daemon.path("token"), TOKEN).expect("it is written");
    let file = daemon.path("config.toml").display().to_string();
    let folder = daemon.path("dumps").display().to_string();
    daemon.edit(|text| text.replace(&folder, &file));
    let refused = daemon.refused(&["reload"]);
    assert!(refused.contains("make the folder"), "{refused}");
    assert!(super::asked_by_tcp(daemon.port, TOKEN).contains("200"));
    daemon.dump(&[]);
    daemon.dump(&[]);
}

#[test]
fn the_end_waits_for_the_dump_that_is_being_made() {
    let daemon = Running::start("");
    daemon.play(KILLED);
    let mut asking = daemon.start_asking(&["dump", "--name", "last"]);
    let worker = daemon.worker();
    kill(worker, Signal::SIGSTOP).expect("it is there");
    daemon.terminate();
    thread::sleep(Duration::from_millis(300));
    kill(worker, Signal::SIGCONT).expect("it is there");
    assert!(asking.wait().expect("it is our child").success(), "it is told of its dump");
    let folder = daemon.wait_for("-last");
    assert!(folder.join("why.txt").exists());
}

#[test]
fn a_dump_that_takes_too_long_at_the_end_leaves_nothing() {
    let mut daemon = Running::start("");
    let mut asking = daemon.start_asking(&["dump"]);
    let worker = daemon.worker();
    kill(worker, Signal::SIGSTOP).expect("it is there");
    let idle = daemon.connect();
    daemon.terminate();
    let begun = Instant::now();
    daemon.wait();
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
    assert_eq!(daemon.dumps(), [""; 0]);
    assert!(!asking.wait().expect("it is our child").success());
    assert!(!PathBuf::from(format!("/proc/{worker}")).exists(), "the worker is gone");
    assert_eq!((&idle).read(&mut [0]).expect("it is closed in good order"), 0);
}

#[test]
fn systemd_is_told_when_it_is_ready_reloads_and_stops() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("notify");
    let heard = UnixDatagram::bind(&path).expect("a socket");
    heard.set_read_timeout(Some(Duration::from_secs(30))).expect("a time");
    let hear = || {
        let mut text = [0; 256];
        let length = heard.recv(&mut text).expect("it says something");
        String::from_utf8_lossy(&text[..length]).into_owned()
    };
    let daemon = Running::notifying(&path);
    assert_eq!(hear(), "READY=1\n");
    daemon.ask(&["reload"]);
    let said = hear();
    assert!(said.starts_with("RELOADING=1\nMONOTONIC_USEC="), "{said}");
    assert_eq!(hear(), "READY=1\n");
    daemon.terminate();
    assert_eq!(hear(), "STOPPING=1\n");
}
