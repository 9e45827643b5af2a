//! SIGKILL for the recorder at any moment, with faults armed and firing: nothing of them is left.

use std::path::Path;
use std::thread;
use std::time::Duration;

use super::overridden::{assert_refused_as_missing, explain, missing};
use super::running::{Inject, wait_for};

/// Faults of every mechanism that works on every kernel.
const FAULTS: [&str; 4] = [
    "comm=victim op=recv => pause=40ms, every=7, for=3600s, name=nap",
    "comm=victim op=send => pause=10s, probability=0.002, for=3600s, name=sleep",
    "comm=victim op=connect => error=ECONNREFUSED, probability=0.3, for=3600s, name=refuse",
    "comm=shortlived op=recv => kill=SIGKILL, nth=3, name=kill",
];

/// What needs a kernel that lists its TCP sockets.
const BREAK: &str = "comm=victim op=send => destroy, probability=0.02, for=3600s, name=break";

/// What needs a kernel that lets programs override what functions return: all such calls fail.
const OVERRIDES: [&str; 2] = [
    "comm=deceived op=connect => error=ENETDOWN, for=3600s, via=override, name=nowhere",
    "comm=deceived op=recv => error=ENOTCONN, for=3600s, via=override, name=deaf",
];

/// A cut that never heals by itself.
const CUT: &str = "
[[partition]]
name = \"cut\"
between = [\"peer=127.0.0.21\", \"peer=127.0.0.22\"]
limit = { for = \"3600s\" }
";

/// Several victims that talk for as long as they live, and others that come and go. Something tries to get across the
/// cut, and somebody to connect and to receive; each makes a file when it has.
const TALK: &str = "
import time
address = serve()
def talk(count):
    for _ in range(count):
        try:
            with socket.create_connection(address) as a:
                for _ in range(5):
                    a.send(b'x')
                    a.recv(1)
        except OSError:
            pass
def cross():
    far = serve('127.0.0.22')
    while True:
        try:
            with socket.socket() as near:
                near.settimeout(0.2)
                near.bind(('127.0.0.21', 0))
                near.connect(far)
                near.send(b'x')
                near.recv(1)
                open(f'{MADE}-cross', 'wb').close()
        except OSError:
            pass
        time.sleep(0.01)
def deceived(near, far):
    near.send(b'x')
    calls = {'connect': lambda s: s.connect(address), 'recv': lambda s: far.recv(1)}
    while True:
        for name, call in list(calls.items()):
            try:
                with socket.socket() as own:
                    call(own)
                open(f'{MADE}-{name}', 'wb').close()
                del calls[name]
            except OSError:
                pass
        time.sleep(0.01)
if os.fork() == 0:
    rename('deceived')
    deceived(*socket.socketpair())
threading.Thread(target=cross, daemon=True).start()
for _ in range(3):
    if os.fork() == 0:
        rename('victim')
        talk(10**9)
while True:
    client('shortlived', lambda: talk(2))
";

/// Moments from the recorder's start on; those in which it is at work are most of them.
#[test]
fn killed_at_any_moment_it_leaves_nobody_stopped_and_nothing_armed_or_cut() {
    let rounds = std::env::var("WHEREFORE_KILLS").ok().and_then(|text| text.parse().ok());
    let mut chance = 0x2545_f491_4f6c_dd1d_u64 ^ u64::from(std::process::id());
    let mut met = 0;
    // What is refused while the faults are armed.
    let (mut faults, mut refused) = (FAULTS.to_vec(), vec!["cross"]);
    let said = explain(BREAK);
    if !said.contains("this kernel lists no TCP sockets") {
        faults.push(BREAK);
    } else {
        assert!(!Path::new("/sys/module/tcp_diag").exists(), "{said}");
    }
    if missing().is_none() {
        faults.extend(OVERRIDES);
        refused.extend(["connect", "recv"]);
    } else {
        assert_refused_as_missing();
    }
    for round in 0..rounds.unwrap_or(8) {
        chance ^= chance << 13;
        chance ^= chance >> 7;
        chance ^= chance << 17;
        let folder = tempfile::tempdir().expect("a folder");
        let (cut, made) = (folder.path().join("cut.toml"), folder.path().join("made"));
        std::fs::write(&cut, CUT).expect("it is ours");
        let talk = format!("MADE = {made:?}\n{TALK}");
        let has = |call: &&str| folder.path().join(format!("made-{call}")).exists();
        let file = cut.to_str().expect("it is text");
        let inject = Inject::start_with(&[file], &faults, &talk);
        // Every fourth at some moment of its start; the others when somebody has been stopped.
        let at_work = round % 4 != 0;
        if at_work {
            inject.stopped();
            met += 1;
        }
        let microseconds = chance % if at_work { 60_000 } else { 1_500_000 };
        thread::sleep(Duration::from_micros(microseconds));
        let succeeded: Vec<_> = refused.iter().filter(|call| has(call)).collect();
        let inject = inject.kill_and_look();
        if at_work {
            assert!(succeeded.is_empty(), "while it was armed: {succeeded:?}");
            for call in &refused {
                wait_for(call, || has(call));
            }
        }
        drop(inject);
    }
    assert!(met > 0, "the faults were at work");
}
