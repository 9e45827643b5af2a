//! `why --confirm`: a cause that is one is confirmed by running the system again, with it and without it; one that is
//! none is not.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;
use tests::command::wherefore;

use crate::recorded::{python_path, require_root};

/// A client asks a proxy, and this a backend, which is not there where the second word says so. `logger` connects
/// somewhere, and nobody minds.
const SYSTEM: &str = r#"
import ctypes, os, signal, socket, sys
front, back = (('127.0.0.1', int(port)) for port in sys.argv[1:3])
def listen(address):
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(address)
    listener.listen(5)
    return listener
def start(name, play, *words):
    child = os.fork()
    if child == 0:
        signal.alarm(20)
        ctypes.CDLL(None).prctl(15, name.encode(), 0, 0, 0)
        try:
            play(*words)
        finally:
            os._exit(0)
    return child
def serve(listener):
    while True:
        client = listener.accept()[0]
        client.send(client.recv(100))
        client.close()
def proxy(listener):
    while True:
        client = listener.accept()[0]
        question = client.recv(100)
        try:
            if not question:
                continue
            server = socket.create_connection(back)
            server.send(question)
            client.send(server.recv(100))
            server.close()
        except OSError:
            pass
        client.close()
def ask(address):
    server = socket.create_connection(address)
    server.send(b'question')
    print(server.recv(100).decode() or 'nothing')
    sys.stdout.flush()
started = []
if sys.argv[3] == 'up':
    listener = listen(back)
    started.append(start('backend', serve, listener))
    listener.close()
listener = listen(front)
started.append(start('proxy', proxy, listener))
os.waitpid(start('logger', lambda: socket.create_connection(front)), 0)
for i in range(2):
    os.waitpid(start('client', ask, front), 0)
for child in started:
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
"#;

struct Stage {
    folder: TempDir,
    ports: [String; 2],
}

impl Stage {
    fn new() -> Self {
        require_root();
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("system.py"), SYSTEM).expect("it can be written");
        // Below those that the kernel hands out: services have ports that last.
        let free = (20_000..32_000).filter(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok());
        let skipped = std::process::id() as usize % 500;
        let ports: Vec<String> = free.skip(skipped).take(2).map(|port| port.to_string()).collect();
        Self { folder, ports: ports.try_into().expect("there are free ports") }
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("run.parquet")
    }

    /// The system, with its backend `up` or `down`.
    fn system(&self, backend: &str) -> Vec<String> {
        let script = self.folder.path().join("system.py").display().to_string();
        let [front, back] = self.ports.clone();
        vec![python_path().to_owned(), script, front, back, backend.to_owned()]
    }

    fn make(&self, words: &[&str], backend: &str) -> Output {
        let mut command = Command::new(wherefore());
        command.args(words).arg("-o").arg(self.file()).arg("--").args(self.system(backend));
        let output = command.output().expect("it starts");
        assert!(output.status.success(), "{output:?}");
        output
    }

    /// What `why --confirm` says of a symptom, as JSON, and its exit status.
    fn confirm(&self, more: &[&str], backend: &str) -> (Value, Option<i32>) {
        let mut why = Command::new(wherefore());
        why.arg("why").arg(self.file()).arg("comm=client op=recv").args(["--confirm", "--json"]);
        let output = why.args(more).arg("--").args(self.system(backend)).output().expect("run");
        let text = String::from_utf8_lossy(&output.stdout);
        let answer = serde_json::from_str(&text).unwrap_or_else(|_| panic!("{output:?}"));
        (answer, output.status.code())
    }
}

/// Verdict and exit status; in how many runs the cause was there, the symptom came with it, and without.
fn told((answer, status): &(Value, Option<i32>)) -> (&str, Option<i32>, [u64; 3]) {
    let verdict = answer["verdict"].as_str().expect("there is one");
    let count = |arm: &str, key: &str| answer[arm][key].as_u64().expect("a number");
    (verdict, *status, [count("with", "fired"), count("with", "came"), count("without", "came")])
}

fn fault(answer: &(Value, Option<i32>)) -> &str {
    answer.0["fault"].as_str().expect("it is told")
}

#[test]
fn a_backend_that_was_down_is_confirmed_by_refusing_the_connection() {
    let stage = Stage::new();
    stage.make(&["record", "--quiet"], "down");
    let answer = stage.confirm(&["--runs", "2"], "up");
    assert_eq!(told(&answer), ("confirmed", Some(0), [2, 2, 0]), "{:#}", answer.0);
    let line = format!(
        "comm=proxy op=connect protocol=tcp remote=:{} => error=ECONNREFUSED, nth=2, name=\"suspected cause\"",
        stage.ports[1]
    );
    assert_eq!(fault(&answer), line);
    assert_eq!(answer.0["pattern"], "comm=client op=recv flag=eof");

    // Where the backend is down anyway, the symptom comes by itself.
    let answer = stage.confirm(&[], "down");
    assert_eq!(told(&answer), ("not_confirmed", Some(1), [1, 1, 1]), "{:#}", answer.0);
}

#[test]
fn an_injected_cause_is_left_out_for_comparison() {
    let stage = Stage::new();
    let armed = "comm=backend op=recv => kill=SIGKILL, nth=2, name=gone";
    let other = "comm=logger op=connect => error=EIO, nth=1, name=beside";
    stage.make(&["inject", "--quiet", "--fault", other, "--fault", armed], "up");
    let answer = stage.confirm(&[], "up");
    assert_eq!(told(&answer), ("confirmed", Some(0), [1, 1, 0]), "{:#}", answer.0);
    assert_eq!(fault(&answer), armed);
}

#[test]
fn what_does_not_matter_is_not_confirmed() {
    let stage = Stage::new();
    stage.make(&["record", "--quiet"], "down");
    let beside = "comm=logger op=connect => error=ECONNREFUSED, nth=1";
    let answer = stage.confirm(&["--cause", beside], "up");
    assert_eq!(told(&answer), ("not_confirmed", Some(1), [1, 0, 0]), "{:#}", answer.0);
    let never = "comm=logger op=connect => error=ECONNREFUSED, nth=7";
    let answer = stage.confirm(&["--cause", never], "up");
    assert_eq!(told(&answer), ("cannot_tell", Some(1), [0, 0, 0]), "{:#}", answer.0);
}

#[test]
fn what_cannot_be_injected_is_refused_before_anything_runs() {
    let stage = Stage::new();
    stage.make(&["record", "--quiet"], "down");
    let mark = stage.folder.path().join("ran");
    let why = |more: &[&str]| {
        let mut why = Command::new(wherefore());
        why.arg("why").arg(stage.file()).args(more).args(["--confirm", "--", "touch"]).arg(&mark);
        let output = why.output().expect("it starts");
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let impossible = why(&["--cause", "comm=proxy op=recv => delay=1s, nth=1"]);
    assert!(impossible.contains("no mechanism can do this here"), "{impossible}");
    let harmless = why(&["comm=logger op=connect"]);
    assert!(harmless.contains("nothing that led to"), "{harmless}");
    assert!(!Path::new(&mark).exists(), "the command did not run");
}
