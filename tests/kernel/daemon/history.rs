//! The history on disk: dumps that reach further back than the rings, whatever was killed meanwhile, and a disk that is
//! full.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nix::mount::{MsFlags, mount, umount};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use recorder::daemon::history::control::{self, Word};
use recorder::event::{History, Ring};
use recorder::recording::read;

use super::KILLED;
use super::running::{self, LOAD, Running, children};

const SHORT: &str = "[history]\nage = '60s'\nsize = '64MiB'\n";
const PATIENCE: Duration = Duration::from_secs(30);

/// More events than the rings hold, at some ten thousand a second.
const STEADY: &str = "
def server(connection, turn):
    for _ in range(60_000):
        connection.send(connection.recv(1))

def client(connection, turn):
    for number in range(60_000):
        connection.send(b'x')
        connection.recv(1)
        if number % 500 == 0:
            time.sleep(0.03)

play(server, client)
";

fn recording(folder: &Path) -> History {
    let file = folder.join("recording.parquet");
    let recording = read::open(&[file]).expect("it is readable");
    assert_eq!(recording.notes, [], "nothing is said of it");
    recording.history
}

/// What names an event: CPU, ring, position and time.
fn places(history: &History) -> HashSet<(u16, Ring, u64, u64)> {
    let place = |e: &recorder::event::Event| (e.cpu, e.ring, e.position, e.time_ns);
    let places: HashSet<_> = history.events.iter().map(place).collect();
    assert_eq!(places.len(), history.events.len(), "every event is there once");
    places
}

fn wait(what: &str, mut done: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < PATIENCE, "{what}");
        thread::sleep(Duration::from_millis(50));
    }
}

/// The follower of a daemon.
pub fn follower(daemon: &Running) -> Option<Pid> {
    let pid = children(daemon.pid(), "history-follower").first().copied();
    pid.map(|pid| Pid::from_raw(pid as i32))
}

fn segments(daemon: &Running) -> Vec<PathBuf> {
    let entries = fs::read_dir(daemon.path("history")).expect("the folder is there");
    let paths = entries.flatten().map(|entry| entry.path());
    paths.filter(|path| path.extension().is_some_and(|e| e == "parquet")).collect()
}

#[test]
fn a_dump_reaches_further_back_than_the_rings() {
    let daemon = Running::start(SHORT);
    daemon.play(KILLED);
    // More than the rings hold.
    daemon.play(STEADY);
    let short = recording(&daemon.dump(&[]));
    let folder = daemon.dump(&["--last", "60s", "comm=client op=recv flag=eof"]);
    let why = fs::read_to_string(folder.join("why.txt")).expect("an answer");
    assert!(why.lines().take(5).any(|line| line.contains("murderer[")), "{why}");
    let long = recording(&folder);
    let (host, rings) = (&long.hosts[0], &short.hosts[0]);
    assert!(host.bulk_window.from_ns < rings.bulk_window.from_ns, "{:?}", host.bulk_window);
    assert!(long.events.len() > short.events.len() + 50_000, "{}", long.events.len());
    assert_eq!((host.lost, &host.gaps[..]), (0, &[][..]));
    assert!(places(&short).is_subset(&places(&long)), "what the rings held is in it, too");
    let file = folder.join("recording.parquet");
    let checked = running::wherefore(&["check", &file.to_string_lossy()]);
    assert!(checked.contains("every edge holds") && checked.contains(" 0 lost"), "{checked}");
    let names: Vec<_> =
        fs::read_dir(&folder).expect("a folder").flatten().map(|e| e.file_name()).collect();
    assert_eq!(names.len(), 5, "{names:?}");
    let told = daemon.ask(&["status"]);
    assert!(told.contains("history  ") && told.contains("back to "), "{told}");
    assert!(daemon.status()["history"]["reach_s"].as_f64() > Some(1.0), "{told}");
}

#[test]
fn a_follower_that_is_killed_loses_nothing() {
    let daemon = Running::start(SHORT);
    daemon.play(STEADY);
    // What it has not yet written down then is still in the rings.
    let followed = |daemon: &Running| daemon.status()["history"]["state"]["events"].as_u64();
    wait("it has caught up", || {
        let before = followed(&daemon);
        thread::sleep(Duration::from_secs(1));
        before > Some(100_000) && followed(&daemon) == before
    });
    let before = followed(&daemon);
    let first = follower(&daemon).expect("it follows");
    kill(first, Signal::SIGKILL).expect("it lives");
    wait("another follower", || follower(&daemon).is_some_and(|second| second != first));
    daemon.play(KILLED);
    wait("it answers", || daemon.status()["history"]["reach_s"].is_number());
    let rings = recording(&daemon.dump(&[]));
    let long = recording(&daemon.dump(&["--last", "60s"]));
    assert!(long.events.len() > 200_000, "{}", long.events.len());
    assert_eq!((long.hosts[0].lost, &long.hosts[0].gaps[..]), (0, &[][..]));
    assert!(places(&rings).is_subset(&places(&long)), "what the rings held is in it, too");
    assert_eq!(daemon.status()["history"]["restarts"], 1);
    assert!(followed(&daemon) > before, "what the first one counted still counts");
}

#[test]
fn what_a_killed_daemon_kept_stays_and_the_hole_is_known() {
    let mut daemon = Running::start(SHORT);
    daemon.play(KILLED);
    daemon.play(STEADY);
    // The newest part is written down every few seconds.
    daemon.dump(&["--last", "60s"]);
    let before = follower(&daemon).expect("it follows");
    daemon.kill_and_start_again();
    wait("the follower ends with its daemon", || kill(before, None).is_err());
    wait("it answers", || daemon.status()["history"]["reach_s"].is_number());
    assert!(!segments(&daemon).is_empty(), "what was cut off is mended");
    for segment in segments(&daemon) {
        let recording = read::open(&[segment]).expect("it is readable");
        assert_eq!(recording.notes, []);
    }
    let folder = daemon.dump(&["--last", "60s", "comm=client op=recv flag=eof"]);
    let why = fs::read_to_string(folder.join("why.txt")).expect("an answer");
    assert!(why.lines().take(5).any(|line| line.contains("murderer[")), "{why}");
    assert!(!recording(&folder).hosts[0].gaps.is_empty(), "nobody recorded meanwhile");
    assert!(!why.contains("excluded "), "nothing is excluded over a hole: {why}");
}

/// All events that lie on disk by now.
fn on_disk(daemon: &Running) -> HashSet<(u16, Ring, u64, u64)> {
    if control::ask(&daemon.path("history"), Word::Flush).is_err() {
        return HashSet::new();
    }
    let entries = fs::read_dir(daemon.path("history")).expect("the folder is there").flatten();
    let files = entries.map(|entry| entry.path());
    let files = files.filter(|path| path.to_string_lossy().contains(".parquet"));
    // One may be given its name meanwhile.
    files.filter_map(|file| read::open(&[file]).ok()).flat_map(|r| places(&r.history)).collect()
}

#[test]
fn killed_at_any_moment_a_daemon_leaves_what_was_on_disk() {
    const KILLS: u32 = 4;
    let mut daemon = Running::start("[history]\nsize = '64MiB'\n");
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is later");
    let mut safe = HashSet::new();
    for kill_number in 1..=KILLS {
        let mut load = daemon.player(LOAD).stderr(Stdio::null()).spawn().expect("a shell starts");
        wait("there are more events", || {
            let known = safe.len();
            safe.extend(on_disk(&daemon));
            safe.len() > known
        });
        thread::sleep(Duration::from_millis((now.subsec_nanos() / kill_number % 1000).into()));
        let before = follower(&daemon).expect("it follows");
        // By itself it ends in good order when its daemon is gone.
        kill(before, Signal::SIGKILL).expect("it lives");
        daemon.kill_and_start_again();
        load.wait().expect("it is our child");
    }
    for segment in segments(&daemon) {
        let recording = read::open(&[segment]).expect("it is readable");
        assert_eq!(recording.notes, [], "{now:?}");
    }
    let folder = daemon.dump(&["--last", "10m"]);
    let kept = places(&recording(&folder));
    assert!(safe.is_subset(&kept), "{now:?}: {} of {}", safe.difference(&kept).count(), safe.len());
    let file = folder.join("recording.parquet");
    let checked = running::wherefore(&["check", &file.to_string_lossy()]);
    assert!(checked.contains("every edge holds"), "{now:?}: {checked}");
}

/// A small disk.
pub struct SmallDisk(pub PathBuf);

impl SmallDisk {
    pub fn mount(path: &Path, mib: u32) -> Self {
        fs::create_dir_all(path).expect("a folder");
        let size = format!("size={mib}m");
        let (kind, size) = (Some("tmpfs"), Some(&*size));
        mount(kind, path, kind, MsFlags::empty(), size).expect("a small disk");
        Self(path.to_owned())
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        umount(&self.0).expect("nobody uses it any more");
    }
}

#[test]
fn on_a_full_disk_the_history_pauses_and_dumps_go_on() {
    let place = tempfile::tempdir().expect("a folder");
    let disk = SmallDisk::mount(&place.path().join("disk"), 8);
    let daemon =
        Running::start(&format!("[history]\nsize = '64MiB'\ndirectory = '{}'\n", disk.0.display()));
    daemon.play(KILLED);
    let ballast = disk.0.join("ballast");
    wait("the disk is full", || fs::write(&ballast, vec![0; 16 << 20]).is_err());
    daemon.play(STEADY);
    daemon.dump(&["--last", "60s"]);
    let paused = |daemon: &Running| daemon.status()["history"]["state"]["paused"].is_string();
    wait("it pauses", || paused(&daemon));
    let state = daemon.status()["history"]["state"].clone();
    assert!(state["missed"].as_u64() > Some(10_000), "{state}");
    let told = daemon.ask(&["status"]);
    assert!(told.contains("pauses") && told.contains("No space left"), "{told}");
    let folder = daemon.dump(&["comm=client op=recv flag=eof"]);
    assert!(folder.join("why.txt").exists());
    fs::remove_file(&ballast).expect("it is ours");
    wait("it goes on", || !paused(&daemon));
    daemon.play(KILLED);
    let long = recording(&daemon.dump(&["--last", "60s"]));
    assert!(long.events.iter().any(|event| event.result > 0));
    drop(daemon);
    for entry in fs::read_dir(&disk.0).expect("a folder").flatten().map(|entry| entry.path()) {
        assert!(entry.extension().is_none_or(|e| e != "part"), "{}", entry.display());
    }
}
