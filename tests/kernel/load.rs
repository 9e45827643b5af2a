//! Real systems under load, recorded: nothing breaks, every edge holds, every loss is counted.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use recorder::event::{History, Op};
use recorder::recording::read;
use tests::command::wherefore;

use crate::recorded::{assert_sound, require_root};

/// Records a shell script through the command, and lets the command check what it wrote.
fn record(folder: &Path, script: &str) -> History {
    require_root();
    let output = folder.join("run.parquet");
    let run = |command: &mut Command| -> Output {
        let output = command.output().expect("it starts");
        let (out, err) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{}\n{out}\n{err}", output.status);
        output
    };
    run(tests::command::record()
        .args(["--pass-status", "--ring", "256MiB", "-o"])
        .arg(&output)
        .args(["--", "/bin/sh", "-ec", script]));
    let checked = run(Command::new(wherefore()).arg("check").arg(&output));
    assert!(String::from_utf8_lossy(&checked.stdout).ends_with("every edge holds\n"));
    let recording = read::open(&[output]).expect("it can be read");
    assert_eq!(recording.notes, Vec::new());
    assert_sound(&recording.history);
    recording.history
}

/// Threads of these names raised at least so many events of one kind, at both ends.
fn assert_busy(history: &History, comms: [&str; 2], op: Op, least: usize) {
    for comm in comms {
        let of = |e: &&recorder::event::Event| e.op == op && history.comm(e).starts_with(comm);
        let count = history.events.iter().filter(of).count();
        assert!(count >= least, "{comm}: {count} of {op}, {} events", history.events.len());
    }
}

pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("there are free ports");
    listener.local_addr().expect("it is bound").port()
}

/// A server that is ended, and waited for, with the value; it writes its process number to a file.
struct Server(PathBuf);

impl Server {
    fn started(pid_file: PathBuf, port: u16) -> Self {
        let server = Self(pid_file);
        let begun = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() || server.pid().is_none() {
            assert!(begun.elapsed() < Duration::from_secs(20), "the server does not answer");
            std::thread::sleep(Duration::from_millis(20));
        }
        server
    }

    fn pid(&self) -> Option<Pid> {
        let text = fs::read_to_string(&self.0).ok()?;
        Some(Pid::from_raw(text.lines().next()?.trim().parse().ok()?))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let Some(pid) = self.pid() else { return };
        for _ in 0..500 {
            // Gone when there is nobody to send it to.
            if kill(pid, Signal::SIGINT).is_err() {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// A folder that servers under another user may use as well.
pub fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let everybody = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    fs::set_permissions(folder.path(), everybody).expect("it is ours");
    folder
}

#[test]
fn redis() {
    let folder = folder();
    let port = free_port();
    let history = record(
        folder.path(),
        &format!(
            "redis-server --port {port} --save '' --dir {} >/dev/null &
            until redis-cli -p {port} ping >/dev/null 2>&1; do sleep 0.05; done
            redis-benchmark -q -p {port} -c 50 -n 60000 -t get,set >/dev/null
            redis-benchmark -q -p {port} -c 20 -n 60000 -P 16 -t get,lpush >/dev/null
            redis-cli -p {port} shutdown nosave
            wait",
            folder.path().display()
        ),
    );
    assert_busy(&history, ["redis-server", "redis-benchmark"], Op::Send, 1000);
}

#[test]
fn nginx() {
    let folder = folder();
    let (path, port) = (folder.path().display(), free_port());
    let configuration = format!(
        "daemon off; worker_processes 2; pid {path}/nginx.pid; error_log {path}/error.log; events {{}}
        http {{ access_log off; client_body_temp_path {path}/b; proxy_temp_path {path}/p;
        fastcgi_temp_path {path}/f; uwsgi_temp_path {path}/u; scgi_temp_path {path}/s;
        server {{ listen 127.0.0.1:{port}; root {path}; }} }}"
    );
    fs::write(folder.path().join("nginx.conf"), configuration).expect("it is ours");
    fs::write(folder.path().join("page"), vec![b'x'; 20_000]).expect("it is ours");
    let history = record(
        folder.path(),
        &format!(
            "nginx -c {path}/nginx.conf 2>/dev/null & server=$!
            until curl -sf -o /dev/null http://127.0.0.1:{port}/page; do sleep 0.05; done
            wrk -t 2 -c 40 -d 3 http://127.0.0.1:{port}/page >/dev/null
            kill -QUIT $server
            wait"
        ),
    );
    assert_busy(&history, ["nginx", "wrk"], Op::Recv, 1000);
}

/// PostgreSQL refuses root, so that it runs as somebody else.
pub const AS_NOBODY: &str = "setpriv --reuid=65534 --regid=65534 --clear-groups";

/// Makes a database in a folder; the shell's words that start it, and wait until it is up.
pub fn new_database(folder: &Path, port: u16) -> String {
    let (path, bin) = (folder.display(), postgresql_programs());
    let bin = bin.display();
    let setup = format!(
        "exec >{path}/log 2>&1 </dev/null
        mkdir {path}/data; chown 65534:65534 {path}/data
        {AS_NOBODY} {bin}/initdb -D {path}/data -U tester --auth=trust -N"
    );
    let done = Command::new("/bin/sh").args(["-ec", &setup]).status().expect("sh is there");
    assert!(done.success(), "{:?}", fs::read_to_string(folder.join("log")));
    format!(
        "{AS_NOBODY} {bin}/pg_ctl -D {path}/data -w -l {path}/data/log -o '-p {port} \\
            -c listen_addresses=127.0.0.1 -c unix_socket_directories={path} -c fsync=off' start"
    )
}

/// The server is older than the recorder.
#[test]
fn postgresql() {
    require_root();
    let folder = folder();
    let (path, port) = (folder.path().display(), free_port());
    let bin = postgresql_programs();
    let bin = bin.display();
    let start = new_database(folder.path(), port);
    let setup = format!(
        "exec >>{path}/log 2>&1 </dev/null
        {start}
        {bin}/pgbench -h 127.0.0.1 -p {port} -U tester -i -q postgres"
    );
    let done = Command::new("/bin/sh").args(["-ec", &setup]).status().expect("sh is there");
    let log = fs::read_to_string(folder.path().join("log")).unwrap_or_default();
    assert!(done.success(), "{log}");
    let server = Server::started(folder.path().join("data/postmaster.pid"), port);
    let postmaster = server.pid().expect("it is up");
    let output = folder.path().join("run.parquet");
    let mut recorder = tests::command::record()
        .args(["--quiet", "--ring", "256MiB", "--all", "-o"])
        .arg(&output)
        .spawn()
        .expect("wherefore starts");
    while fs::metadata(&output).map_or(0, |file| file.len()) == 0 {
        std::thread::sleep(Duration::from_millis(10));
    }
    let load = format!(
        "{bin}/pgbench -h 127.0.0.1 -p {port} -U tester -c 8 -j 2 -T 3 postgres >/dev/null 2>&1"
    );
    assert!(Command::new("/bin/sh").args(["-ec", &load]).status().expect("sh is there").success());
    kill(Pid::from_raw(recorder.id() as i32), Signal::SIGINT).expect("it lives");
    assert!(recorder.wait().expect("it is our child").success());
    let history = read::open(&[output]).expect("it can be read").history;
    assert_sound(&history);
    assert_busy(&history, ["postgres", "pgbench"], Op::Send, 1000);
    let listed = history.hosts[0].tasks.iter().any(|t| t.pid == postmaster.as_raw() as u32);
    assert!(listed, "the postmaster is older than the recorder");
}

/// Debian keeps the server's programs out of `$PATH`.
pub fn postgresql_programs() -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let folders = versions.map(|version| version.path().join("bin"));
    folders.filter(|bin| bin.join("initdb").exists()).max().unwrap_or_else(|| "/usr/bin".into())
}
