//! Long and rough use: load, alerts of every kind every second, an API that is hammered, a disk that is filled, workers,
//! followers and daemons that are killed. Round by round: nothing leaks, earlier dumps are as they were, limits are kept.
//!
//! `WHEREFORE_SOAK=1h` goes on for so long; otherwise every mishap comes once. `WHEREFORE_SOAK_REPORT=FILE` has a line
//! of JSON per round written there.

mod hammer;
mod kept;
pub mod load;
mod standing;

use std::env;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use recorder::daemon::profile::file;
use serde_json::{Value, json};
use tempfile::TempDir;
use tests::sim::Random;

use super::history::{SmallDisk, follower};
use super::running::{self, Running, Setup, children, new_cgroup, post};
use super::triggers::{append, until};
use super::{KILLED, alert, watched};
use hammer::Hammer;
use kept::Kept;
use load::Load;
use standing::Standing;

/// What befalls the daemon in a round, beside the load and the triggers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mishap {
    /// Its configuration is changed, and changed back.
    Reload,
    /// The process that keeps the history is killed.
    Follower,
    /// The process that makes a dump is killed.
    Worker,
    /// There is no room left for dumps and history, for some seconds.
    Disk,
    /// More is recorded for some seconds.
    Detail,
    /// It is killed itself, and started again.
    Daemon,
}

const MISHAPS: [Mishap; 5] =
    [Mishap::Reload, Mishap::Follower, Mishap::Worker, Mishap::Disk, Mishap::Detail];
/// A round's triggers and load, before everything is looked at.
const ROUND: Duration = Duration::from_secs(5);

/// Several dumps': the newest stays, however large it is, and on a quiet machine one of five seconds has 5 MB.
const QUOTA: u64 = 12 << 20;
const HISTORY: u64 = 16 << 20;
const DISK_MIB: u32 = 64;
/// The daemon's own memory, and by how much it may change from the first round to any other.
const MOST_RESIDENT: u64 = 32 << 20;
const MOST_GROWTH: u64 = 8 << 20;

struct Soak {
    hammer: Hammer,
    load: Load,
    daemon: Running,
    disk: SmallDisk,
    log: PathBuf,
    kept: Kept,
    /// How this daemon stood after its first round.
    base: Option<(Standing, u64)>,
    round: usize,
    /// The daemon is killed in this round: each lives twice as long as the one before.
    next_kill: usize,
    random: Random,
    _place: TempDir,
}

#[test]
fn nothing_leaks_and_nothing_kept_is_lost_however_roughly_it_is_used() {
    let long = env::var("WHEREFORE_SOAK").map_or(Duration::ZERO, |text| {
        recorder::quantity::duration(&text).expect("WHEREFORE_SOAK is a time, as 5m or 1h")
    });
    let begun = Instant::now();
    let mut soak = Soak::begin();
    while soak.round <= MISHAPS.len() + 1 || begun.elapsed() < long {
        soak.go_round();
        soak.round += 1;
    }
    soak.end();
}

/// Everything that makes a dump: what the kernel sees, and a line in a log.
const TRIGGERS: &str = "
[[trigger]]
name = 'Reset'
event = 'comm=client op=recv error=ECONNRESET'
after = '0s'
[[trigger]]
name = 'Died'
exit = 'signal=*'
after = '100ms'
[[trigger]]
name = 'Line'
log = 'LOG'
matches = 'error of (?<who>\\w+)'
symptom = 'comm={who} op=recv'
[[alert]]
labels = { alertname = '*' }
symptom = 'comm={job} op=recv'
lookback = '5s'
";

/// Added and taken away again by a reload.
const ANOTHER: &str =
    "[[trigger]]\nname = 'More'\ncount = 'op=recv error=*'\nabove = '100/s'\nwindow = '1s'\n";

/// Waits for what takes as long as all dumps that may wait.
fn patiently(what: &str, holds: impl Fn() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < 10 * running::PATIENCE, "{what}");
        thread::sleep(Duration::from_millis(50));
    }
}

/// The program for more detail stays loaded from the first time on.
fn raise_once(daemon: &Running) {
    daemon.ask(&["detail", "+net", "--for", "100ms"]);
}

impl Soak {
    fn begin() -> Self {
        let place = tempfile::tempdir().expect("a folder");
        let disk = SmallDisk::mount(&place.path().join("disk"), DISK_MIB);
        let (log, cgroup) = (place.path().join("app.log"), new_cgroup());
        append(&log, "it begins\n");
        let more = format!(
            "quota = '{QUOTA}'\ncooldown = '1s'\n[history]\nsize = '{HISTORY}'\ndirectory = '{}'\n\
             [profile]\ncpu = '0.5%'\n{}",
            disk.0.join("history").display(),
            TRIGGERS.replace("LOG", &log.display().to_string()),
        );
        let daemon = Running::with(Setup {
            more: &more,
            cgroup: Some(cgroup.clone()),
            dumps: Some(disk.0.join("dumps")),
            ring: "4MiB",
            per_hour: 1_000_000,
            ..Setup::default()
        });
        raise_once(&daemon);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is later");
        Self {
            hammer: Hammer::start(daemon.path("socket"), disk.0.join("dumps")),
            load: Load::start(&daemon, cgroup),
            kept: Kept::new(disk.0.join("dumps"), QUOTA),
            daemon,
            disk,
            log,
            base: None,
            round: 0,
            next_kill: MISHAPS.len(),
            random: Random::new(now.as_nanos() as u64),
            _place: place,
        }
    }

    fn go_round(&mut self) {
        let mishap = if self.round == self.next_kill {
            self.next_kill = 2 * self.round + 1;
            Mishap::Daemon
        } else {
            MISHAPS[self.round % MISHAPS.len()]
        };
        let begun = Instant::now();
        let mut befallen = false;
        while begun.elapsed() < ROUND {
            self.trigger();
            if !befallen && begun.elapsed() > ROUND / 3 {
                befallen = true;
                self.befall(mishap);
            }
            thread::sleep(Duration::from_millis(self.random.between(200, 1000)));
        }
        self.hammer.rest();
        let (standing, resident_bytes) = self.settle();
        self.look(mishap, standing, resident_bytes);
        self.hammer.go_on();
    }

    /// One reason for a dump or several.
    fn trigger(&mut self) {
        match self.random.below(8) {
            0 => kill(Pid::from_raw(self.daemon.pid() as i32), Signal::SIGUSR2).expect("it lives"),
            1 => self.asked(r#"{"last_ms": 5000, "symptom": "comm=client op=recv"}"#),
            2 => self.asked(r#"{"missing": "comm=client op=recv"}"#),
            3 => self.daemon.play(KILLED),
            4 => watched::resets(&self.daemon, 1, 3),
            5 => append(&self.log, &"error of client\n".repeat(1 + self.random.index(500))),
            6 => {
                let name = format!("Alert{}", self.random.below(1000));
                for status in ["firing", "firing", "resolved"] {
                    self.daemon.post("/api/v1/alerts", &alert(&name, status, &running::now()));
                }
            }
            // More than may wait.
            _ => thread::scope(|scope| {
                (0..12).for_each(|_| drop(scope.spawn(|| self.asked("{}"))));
            }),
        }
    }

    /// Asks for a dump: it is made, or there is a reason why not.
    fn asked(&self, body: &str) {
        // Eight may wait before it.
        let answer = self.daemon.http_within(10 * running::PATIENCE, &post("/v1/dump", body));
        let status = answer.split(' ').nth(1).unwrap_or_default();
        assert!(["200", "429"].contains(&status), "round {}, {body}: {answer}", self.round);
    }

    fn befall(&mut self, mishap: Mishap) {
        match mishap {
            Mishap::Reload => {
                self.daemon.edit(|text| text + ANOTHER);
                self.daemon.ask(&["reload"]);
                self.trigger();
                self.daemon.edit(|text| text.replace(ANOTHER, "") + "colour = 1\n");
                self.daemon.refused(&["reload"]);
                self.daemon.edit(|text| text.replace("colour = 1\n", ""));
                self.daemon.ask(&["reload"]);
            }
            Mishap::Follower => {
                // None is there while one takes over from another.
                until("there is a follower", || follower(&self.daemon).is_some());
                follower(&self.daemon).map(|pid| kill(pid, Signal::SIGKILL));
            }
            Mishap::Worker => self.kill_a_worker(),
            Mishap::Disk => self.fill_the_disk(),
            Mishap::Detail => {
                self.daemon.ask(&["detail", "+net", "--for", "2s"]);
                self.trigger();
            }
            Mishap::Daemon => self.kill_the_daemon(),
        }
    }

    fn kill_a_worker(&self) {
        let mut asking = self.daemon.start_asking(&["dump"]);
        let worker = || children(self.daemon.pid(), "dump-worker").first().copied();
        // It may have been done before it was seen.
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(5) {
            if let Some(pid) = worker() {
                let _ = kill(Pid::from_raw(pid as i32), Signal::SIGKILL);
                break;
            }
        }
        asking.wait().expect("it is our child");
    }

    /// No dump can be made then, and that is said; as soon as there is room, dumps are made again.
    fn fill_the_disk(&mut self) {
        let ballast = self.disk.0.join("ballast");
        let full = vec![0; (DISK_MIB as usize) << 20];
        // The history and the quota may make room at any time.
        patiently("a dump is refused", || {
            fs::write(&ballast, &full).is_err()
                && self.daemon.post("/v1/dump", "{}").contains("No space left")
        });
        let said = self.daemon.ask(&["status"]);
        assert!(said.contains(" failed, "), "it can be asked: {said}");
        kill(Pid::from_raw(self.daemon.pid() as i32), Signal::SIGUSR2).expect("it lives");
        thread::sleep(Duration::from_secs(2));
        fs::remove_file(&ballast).expect("it is ours");
        self.daemon.dump(&[]);
    }

    /// At any moment; often while it makes a dump.
    fn kill_the_daemon(&mut self) {
        let mut asking = self.daemon.start_asking(&["dump"]);
        thread::sleep(Duration::from_millis(self.random.below(600)));
        let held = standing::held(self.daemon.pid());
        let workers = children(self.daemon.pid(), "");
        let daemon = &mut self.daemon;
        self.hammer.while_it_is_away(|| daemon.kill_and_start_again());
        raise_once(&self.daemon);
        asking.wait().expect("it is our child");
        held.assert_gone();
        until("its workers end with it", || {
            workers.iter().all(|pid| !fs::exists(format!("/proc/{pid}")).unwrap_or(true))
        });
        self.base = None;
    }

    /// Waits until nothing is under way; how the daemon stands then, and its memory.
    fn settle(&self) -> (Standing, u64) {
        let pid = self.daemon.pid();
        let quiet = || {
            let status = self.daemon.status();
            status["dumps"]["waiting"] == 0
                && status["detail"]["left_s"].is_null()
                // It looks for room again some seconds after there was none.
                && status["history"]["state"]["paused"].is_null()
                && children(pid, "dump-worker").is_empty()
                && follower(&self.daemon).is_some()
        };
        patiently("nothing is under way", quiet);
        // One that was seen to fire may yet ask.
        thread::sleep(Duration::from_millis(300));
        patiently("nothing is under way", quiet);
        let standing = match &self.base {
            None => standing::lasting(pid),
            Some((base, _)) => {
                let begun = Instant::now();
                while Standing::of(pid) != *base && begun.elapsed() < running::PATIENCE {
                    thread::sleep(Duration::from_millis(50));
                }
                Standing::of(pid)
            }
        };
        (standing, standing::resident_bytes(pid))
    }

    fn look(&mut self, mishap: Mishap, standing: Standing, resident_bytes: u64) {
        let round = self.round;
        let told = format!("round {round}, {mishap:?}");
        assert_eq!(self.hammer.wrong(), [""; 0], "{told}");
        let (base, base_bytes) =
            self.base.get_or_insert_with(|| (standing.clone(), resident_bytes));
        assert_eq!(standing, *base, "{told}: as after the daemon's first round");
        assert!(resident_bytes < MOST_RESIDENT, "{told}: {resident_bytes} bytes");
        let growth = resident_bytes.saturating_sub(*base_bytes);
        assert!(growth < MOST_GROWTH, "{told}: {growth} bytes more than {base_bytes}");
        self.kept.look(&told);
        let status = self.daemon.status();
        let history = &status["history"];
        assert!(history["bytes"].as_u64() <= Some(HISTORY), "{told}: {history}");
        self.report(mishap, &status);
    }

    fn report(&self, mishap: Mishap, status: &Value) {
        let Ok(path) = env::var("WHEREFORE_SOAK_REPORT") else { return };
        let line = json!({
            "round": self.round,
            "mishap": format!("{mishap:?}"),
            "answers": self.hammer.answered(),
            "dumps_seen": self.kept.seen,
            "standing": self.base.as_ref().map(|(base, _)| format!("{base:?}")),
            "resident_bytes": status["resident_bytes"],
            "uptime_s": status["uptime_s"],
            "dumps": status["dumps"],
            "history": status["history"],
            "slots": status["rings"][0]["written"],
            "lost": status["lost"],
        });
        let file = OpenOptions::new().append(true).create(true).open(&path);
        file.and_then(|mut file| writeln!(file, "{line}")).expect("the report can be written");
    }

    /// Its end in good order leaves nothing either; what was kept stays.
    fn end(self) {
        let Self { hammer, load, daemon, disk, kept, _place, .. } = self;
        drop((hammer, load));
        let held = standing::held(daemon.pid());
        drop(daemon);
        held.assert_gone();
        assert_eq!(standing::left(), [""; 0], "no process is left");
        kept.check_all();
        kept::check_history(&disk.0.join("history"));
        let profile = file::read(&disk.0.join("profile.json")).expect("it is readable");
        assert!(profile.is_some_and(|profile| profile.acts() > 0));
    }
}
