//! What is usual is learnt, and a dump says what is not: with real programs, of which one stays as it is.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use super::running::{PATIENCE, Running, Setup, json, new_cgroup};
use super::soak::load::Load;
use super::triggers::until;

/// As often as a sampler can be started: what that costs is measured elsewhere.
const OFTEN: &str = "[profile]\ncpu = '50%'\n";

/// Who calls two servers, over and over: one that is steady, and one that does what a file says. Their ports are
/// written beside it.
const SERVICES: &str = "
import sys
MOOD = 'FILE'

def mood():
    return open(MOOD).read()

def serve(listener, answer):
    while True:
        connection, _ = listener.accept()
        connection.recv(9)
        answer(connection)
        connection.close()

def steady(connection):
    time.sleep(0.02)
    connection.send(b'answer')

def moody(connection):
    if mood() == 'reset':
        reset_on_close(connection)
        return
    time.sleep(0.5 if mood() == 'slow' else 0.02)
    connection.send(b'answer')

def call(port):
    while True:
        connection = socket.create_connection(('127.0.0.1', port))
        connection.send(b'a request')
        seen(connection.recv, 9)
        connection.close()
        # Names of sockets stay in the rings for longer than a dump takes.
        time.sleep(0.005)

listeners = [socket.create_server(('127.0.0.1', 0)) for _ in range(2)]
ports = [listener.getsockname()[1] for listener in listeners]
child('steady', lambda: serve(listeners[0], steady))
child('moody', lambda: serve(listeners[1], moody))

def caller():
    threading.Thread(target=call, args=(ports[0],), daemon=True).start()
    call(ports[1])

child('caller', caller)
open(MOOD + '.ports', 'w').write(' '.join(map(str, ports)) + '\\n')
time.sleep(1000)
";

struct Services {
    mood: PathBuf,
    play: Child,
    steady: String,
    moody: String,
}

impl Services {
    fn start(daemon: &Running, folder: &Path) -> Self {
        let mood = folder.join("mood");
        fs::write(&mood, "usual").expect("it is written");
        let script = SERVICES.replace("FILE", &mood.display().to_string());
        let mut player = daemon.player(&script);
        let play = player.stdout(Stdio::null()).spawn().expect("a shell starts");
        let ports = mood.with_extension("ports");
        until("they serve", || fs::read_to_string(&ports).is_ok_and(|text| text.ends_with('\n')));
        let text = fs::read_to_string(&ports).expect("it is there");
        let mut ports = text.split_whitespace().map(|port| format!("caller to :{port} "));
        let mut next = || ports.next().expect("two ports");
        Self { mood, play, steady: next(), moody: next() }
    }

    fn are(&self, mood: &str) {
        // As a whole: it is read at any time.
        let new = self.mood.with_extension("new");
        fs::write(&new, mood).expect("it is written");
        fs::rename(&new, &self.mood).expect("it is ours");
    }
}

impl Drop for Services {
    fn drop(&mut self) {
        // What it started ends with its cgroup.
        let _ = kill(Pid::from_raw(self.play.id() as i32), Signal::SIGKILL);
        let _ = self.play.wait();
    }
}

fn profile(daemon: &Running) -> Value {
    daemon.status()["profile"].clone()
}

fn samples(daemon: &Running) -> u64 {
    profile(daemon)["samples"].as_u64().unwrap_or(0)
}

/// Waits for some more samples.
fn learn(daemon: &Running, more: u64) {
    let wanted = samples(daemon) + more;
    let begun = Instant::now();
    while samples(daemon) < wanted {
        assert!(begun.elapsed() < 6 * PATIENCE, "{}", profile(daemon));
        thread::sleep(Duration::from_millis(200));
    }
}

/// A dump of the last seconds: its folder, and the lines that say what is not as usual, to whoever asked and in `why.txt`.
fn unusual(daemon: &Running) -> (PathBuf, Vec<String>) {
    let said = daemon.ask(&["dump", "--last", "4s"]);
    let folder = PathBuf::from(said.lines().next().expect("a folder"));
    let why = fs::read_to_string(folder.join("why.txt")).expect("an answer");
    let is_it = |line: &&str| ["new ", "slow ", "more "].iter().any(|kind| line.starts_with(kind));
    let lines = |text: &str| -> Vec<String> {
        let first = text.lines().take_while(|line| !line.is_empty());
        first.filter(is_it).map(str::to_owned).collect()
    };
    assert_eq!(lines(&said), lines(&why));
    (folder, lines(&why))
}

#[test]
fn a_dump_says_what_is_new_and_what_is_slow() {
    let mut daemon = Running::start(OFTEN);
    let folder = tempfile::tempdir().expect("a folder");
    let services = Services::start(&daemon, folder.path());
    learn(&daemon, 24);
    assert_eq!(unusual(&daemon).1, [""; 0], "all is as usual");
    // What was learnt stays, whatever becomes of the daemon.
    let before = samples(&daemon);
    daemon.kill_and_start_again();
    learn(&daemon, 2);
    assert!(samples(&daemon) >= before, "{before} before: {}", profile(&daemon));

    services.are("slow");
    thread::sleep(Duration::from_millis(4500));
    let (folder, told) = unusual(&daemon);
    let slow = format!("slow     {}", services.moody);
    assert!(told.iter().any(|line| line.starts_with(&slow)), "{told:?}");
    assert!(!told.iter().any(|line| line.contains(&services.steady)), "{told:?}");
    // Nothing failed: then there is no why.json.
    let last = &daemon.status()["dumps"]["last"]["kept"];
    assert_eq!(last["folder"], folder.display().to_string());
    assert_eq!(last["done"]["unusual"].as_array().map(Vec::len), Some(told.len()), "{last}");

    services.are("usual");
    thread::sleep(Duration::from_millis(600));
    services.are("reset");
    thread::sleep(Duration::from_secs(1));
    let (folder, told) = unusual(&daemon);
    let new = format!("new      {} recv ECONNRESET, ", services.moody);
    let why = fs::read_to_string(folder.join("why.txt")).expect("an answer");
    assert!(told.first().is_some_and(|line| line.starts_with(&new)), "{why}");
    assert!(!told.iter().any(|line| line.contains(&services.steady)), "{told:?}");
    let first = &json(&folder.join("why.json"))["unusual"][0];
    assert_eq!((&first["unusual"], &first["who"]), (&"new_failure".into(), &"caller".into()));
    let status = daemon.ask(&["status"]);
    assert!(status.contains("\nprofile  ") && status.contains(" samples in "), "{status}");
}

#[test]
fn a_profile_that_cannot_be_read_is_put_aside() {
    let daemon = Running::start(OFTEN);
    until("there is a profile", || daemon.path("profile.json").exists());
    learn(&daemon, 1);
    // Between two samples, or just before one replaces it.
    until("it is noticed", || {
        fs::write(daemon.path("profile.json"), "{").expect("it is written");
        thread::sleep(Duration::from_millis(500));
        daemon.path("profile.unreadable").exists()
    });
    until("it begins anew", || daemon.log().contains("the profile begins anew: read the profile "));
    learn(&daemon, 1);
    assert_eq!(profile(&daemon)["failed"], 0, "{}", profile(&daemon));
}

/// What it has used so far, and its children that have ended, in the kernel's ticks of 10 ms.
fn cpu_ticks(pid: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("it lives");
    let fields: Vec<&str> = stat.rsplit(')').next().expect("fields").split_whitespace().collect();
    fields[11..15].iter().map(|ticks| ticks.parse::<u64>().expect("a number")).sum()
}

/// `WHEREFORE_IDLE=10m` measures for so long, and then holds it to its budget, a thousandth of a CPU;
/// `WHEREFORE_IDLE_REPORT=FILE` has what came of it written there.
#[test]
fn learning_costs_what_it_says() {
    let long = env::var("WHEREFORE_IDLE")
        .ok()
        .map(|text| recorder::quantity::duration(&text).expect("WHEREFORE_IDLE is a time, as 10m"));
    let cgroup = new_cgroup();
    // As with `profile = true`.
    let more = "[profile]\ncpu = '0.05%'\n";
    let daemon = Running::with(Setup { more, cgroup: Some(cgroup.clone()), ..Setup::default() });
    let _load = Load::start(&daemon, cgroup);
    let (begun, before) = (Instant::now(), cpu_ticks(daemon.pid()));
    thread::sleep(long.unwrap_or(Duration::from_secs(6)));
    let (took, ticks) = (begun.elapsed(), cpu_ticks(daemon.pid()) - before);
    let status = daemon.status();
    let profile = &status["profile"];
    assert!(profile["taken"].as_u64() >= Some(1) && profile["failed"] == 0, "{profile}");
    assert!(profile["acts"].as_u64() > Some(0), "{profile}");
    let told_ticks = profile["cpu_s"].as_f64().expect("a number") * 100.0;
    assert!(ticks as f64 <= 2.0 * told_ticks + 5.0, "{ticks} ticks, {profile}");
    let resident = status["resident_bytes"].as_u64().expect("a number");
    assert!(resident < 32 << 20, "{resident} bytes");
    let share = ticks as f64 / 100.0 / took.as_secs_f64();
    if let Ok(path) = env::var("WHEREFORE_IDLE_REPORT") {
        let slots = &status["rings"][0]["written"];
        let told = format!(
            "{:.4} % of a CPU in {took:?}, {slots} sends and receives, {resident} bytes: {profile}\n",
            share * 100.0
        );
        fs::write(path, told).expect("it can be written");
    }
    assert!(long.is_none() || share <= 0.001, "{share}");
}
