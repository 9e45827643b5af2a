//! Names that the configuration hides are in nothing that the daemon leaves on disk, and what happened is told
//! without them.

use std::fs;
use std::path::{Path, PathBuf};

use recorder::recording::read;

use super::running::{self, Running};

/// A server that dies while it answers, all of whose names are somebody's secret.
const SECRET: &str = "
import tempfile
path = tempfile.mkdtemp() + '/acme.sock'
listener = socket.socket(socket.AF_UNIX)
listener.bind(path)
listener.listen()
here, there = turns()

def answer():
    connection, _ = listener.accept()
    connection.recv(9)
    here.give()
    time.sleep(5)

def murder():
    there.take()
    os.kill(victim, signal.SIGKILL)

victim = child('payroll-server', answer)
murderer = child('payroll-killer', murder)
rename('payroll-client')
connection = socket.socket(socket.AF_UNIX)
connection.connect(path)
listener.close()
connection.send(b'a request')
os.waitpid(victim, 0)
os.waitpid(murderer, 0)
connection.recv(1)
os.unlink(path)
os.rmdir(os.path.dirname(path))
";

/// Of a program, a path, a cgroup and a line in a log.
const KEYS: &str =
    "history = '10m'\nhide = ['payroll*', '*acme*', '*wf-daemon*', '*python*', '*card number*']\n";
const SECRETS: [&str; 5] = ["payroll", "acme", "wf-daemon", "python", "card number"];

/// All that lies in a folder and below.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("a folder").flatten().map(|entry| entry.path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

/// What a file says; a recording is decoded.
fn said(path: &Path) -> String {
    match path.extension().is_some_and(|extension| extension == "parquet") {
        true => format!("{:?}", read::open(&[path.to_owned()]).expect("a recording").history),
        false => String::from_utf8_lossy(&fs::read(path).expect("a file")).into_owned(),
    }
}

#[test]
fn hidden_names_reach_no_file() {
    let scratch = tempfile::tempdir().expect("a folder");
    let log = scratch.path().join("log");
    fs::write(&log, "").expect("it is written");
    let daemon = Running::with_keys(
        KEYS,
        &format!(
            "[[trigger]]\nname = 'Died'\nexit = 'comm=payroll-server'\n\
             [[trigger]]\nname = 'Told'\nlog = '{}'\nmatches = 'refused: (?<what>.*)'\nsymptom = 'comm={{what}}'\n",
            log.display()
        ),
    );
    daemon.play(SECRET);
    let told = daemon.wait_for("-Died");
    let why = fs::read_to_string(told.join("why.txt")).expect("an answer");
    assert!(why.lines().nth(1).is_some_and(|line| line.contains(" hidden[")), "{why}");
    assert!(why.contains("SIGKILL") && why.contains("certain"), "{why}");
    fs::write(&log, "refused: the card number 4929 of acme\n").expect("it is written");
    daemon.wait_for("-Told");
    // Also what the history has.
    let joined = daemon.dump(&["--last", "1h", "comm=hidden op=recv"]);
    let events = read::open(&[joined.join("recording.parquet")]).expect("a recording").history;
    assert!(format!("{events:?}").matches("hidden").count() > 3);
    let found: Vec<PathBuf> =
        files(&daemon.path("dumps")).into_iter().chain(files(&daemon.path("history"))).collect();
    assert!(found.iter().filter(|path| path.ends_with("recording.parquet")).count() == 3);
    assert!(found.iter().any(|path| path.starts_with(daemon.path("history"))), "{found:?}");
    for path in &found {
        // The socket by which the follower is asked.
        if !path.is_file() {
            continue;
        }
        let said = said(path);
        for secret in SECRETS {
            assert!(!said.contains(secret), "{} says {secret}: {said}", path.display());
        }
    }
    assert!(running::wherefore(&["check", &joined.to_string_lossy()]).contains("every edge holds"));
}
