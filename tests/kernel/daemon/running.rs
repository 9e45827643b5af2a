//! A daemon that runs for a test, with a folder, a socket and limits of its own.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use recorder::capture::procfs;
use serde_json::Value;
use tempfile::TempDir;

use crate::recorded::{python_command, require_root};

pub const TOKEN: &str = "a-token-for-tests-only-0123456789";

/// Many small messages over one connection.
pub const LOAD: &str = "
def server(connection, turn):
    for _ in range(60_000):
        connection.send(connection.recv(1))

def client(connection, turn):
    for _ in range(60_000):
        connection.send(b'x')
        connection.recv(1)

play(server, client)
";

pub const PATIENCE: Duration = Duration::from_secs(30);

pub struct Running {
    home: TempDir,
    child: Child,
    /// What it records: nothing else of this machine.
    cgroup: Option<PathBuf>,
    dumps: PathBuf,
    environment: Environment,
    /// Where it listens for TCP, if it does.
    pub port: u16,
}

pub type Environment = Vec<(&'static str, String)>;

/// How a daemon is started.
pub struct Setup<'a> {
    /// Added to its configuration; `TOKEN` stands for its token's file.
    pub more: &'a str,
    /// Before all tables.
    pub keys: &'a str,
    pub listen: Option<SocketAddr>,
    pub cgroup: Option<PathBuf>,
    /// Where its dumps lie, if not in its home.
    pub dumps: Option<PathBuf>,
    pub ring: &'a str,
    pub per_hour: usize,
    /// Variables that it finds, also when it is started again.
    pub environment: Environment,
    /// Puts it somewhere.
    pub place: &'a dyn Fn(&mut Command),
}

impl Default for Setup<'_> {
    fn default() -> Self {
        let (more, keys, listen, cgroup, dumps, environment) = Default::default();
        let (ring, per_hour, place) = ("16MiB", 3, &|_: &mut Command| {});
        Self { more, keys, listen, cgroup, dumps, ring, per_hour, environment, place }
    }
}

impl Running {
    /// Starts one that records a cgroup of its own; `more` is added to its configuration.
    pub fn start(more: &str) -> Self {
        Self::with(Setup { more, cgroup: Some(new_cgroup()), ..Setup::default() })
    }

    /// One with keys that stand before all tables.
    pub fn with_keys(keys: &str, more: &str) -> Self {
        let cgroup = Some(new_cgroup());
        Self::with(Setup { keys, more, cgroup, ..Setup::default() })
    }

    pub fn with_tcp() -> Self {
        Self::with(Setup { listen: Some(free_address()), ..Setup::default() })
    }

    pub fn with_tcp_and_scope(more: &str) -> Self {
        let (listen, cgroup) = (Some(free_address()), Some(new_cgroup()));
        Self::with(Setup { more, listen, cgroup, ..Setup::default() })
    }

    pub fn on_the_whole_machine() -> Self {
        Self::with(Setup::default())
    }

    /// Starts one that tells a socket what it tells systemd.
    pub fn notifying(socket: &Path) -> Self {
        let place = |command: &mut Command| {
            command.env("NOTIFY_SOCKET", socket);
        };
        Self::with(Setup { cgroup: Some(new_cgroup()), place: &place, ..Setup::default() })
    }

    /// One that finds programs only there.
    pub fn with_path(more: &str, path: &Path) -> Self {
        let place = |command: &mut Command| {
            command.env("PATH", path);
        };
        let cgroup = Some(new_cgroup());
        Self::with(Setup { more, cgroup, place: &place, ..Setup::default() })
    }

    /// Writes another configuration; whoever wants it read has to say so.
    pub fn edit(&self, change: impl FnOnce(String) -> String) {
        let path = self.path("config.toml");
        let text = fs::read_to_string(&path).expect("it was written");
        fs::write(&path, change(text)).expect("it is written");
    }

    /// What it has said.
    pub fn log(&self) -> String {
        fs::read_to_string(self.path("log")).expect("it has a log")
    }

    pub fn with(setup: Setup<'_>) -> Self {
        require_root();
        let home = tempfile::tempdir().expect("a folder");
        let scope = setup.cgroup.as_ref().map(|path| format!("cgroup = '{}'\n", path.display()));
        let path = |name: &str| home.path().join(name).display().to_string();
        fs::write(path("token"), TOKEN).expect("it is written");
        let tcp = setup.listen.map(|listen| {
            format!("tcp = {{ listen = '{listen}', token_file = '{}' }}\n", path("token"))
        });
        let dumps = setup.dumps.unwrap_or_else(|| home.path().join("dumps"));
        let config = format!(
            "ring = '{}'\n{}{}[api]\nsocket = '{}'\n{}\
             [dumps]\ndirectory = '{}'\nper_hour = {}\nafter = '50ms'\n{}",
            setup.ring,
            scope.unwrap_or_default(),
            setup.keys,
            path("socket"),
            tcp.unwrap_or_default(),
            dumps.display(),
            setup.per_hour,
            setup.more.replace("TOKEN", &path("token")),
        );
        fs::write(path("config.toml"), config).expect("it is written");
        let environment = setup.environment;
        let child = spawn(command(home.path()), home.path(), &environment, setup.place);
        let port = setup.listen.map_or(0, |listen| listen.port());
        let running = Self { home, child, cgroup: setup.cgroup, dumps, environment, port };
        running.wait_until_it_answers();
        running
    }

    fn wait_until_it_answers(&self) {
        let begun = Instant::now();
        while UnixStream::connect(self.path("socket")).is_err()
            || !self
                .http("GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
                .contains("200 OK")
        {
            assert!(begun.elapsed() < PATIENCE, "the daemon does not answer");
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// A play in its scope.
    pub fn player(&self, script: &str) -> Command {
        self.in_scope(&python_command(script))
    }

    /// A program in its scope.
    pub fn in_scope(&self, program: &Command) -> Command {
        let mut command = Command::new("sh");
        if let Some(cgroup) = &self.cgroup {
            command.args(["-c", "echo $$ > $0/cgroup.procs && exec \"$@\""]).arg(cgroup);
        } else {
            command.args(["-c", "exec \"$@\"", "sh"]);
        }
        command.arg(program.get_program()).args(program.get_args());
        command
    }

    /// Runs a play in its scope; it must end well.
    pub fn play(&self, script: &str) {
        let output = self.player(script).output().expect("a shell starts");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// What the kernel calls its cgroup.
    pub fn cgroup_name(&self) -> String {
        let cgroup = self.cgroup.as_ref().expect("it has one of its own");
        format!("/{}", cgroup.file_name().expect("a name").to_string_lossy())
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Runs a client; it must be answered.
    pub fn ask(&self, words: &[&str]) -> String {
        let output = self.client(words).output().expect("it starts");
        let (out, err) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{words:?}: {out}{err}");
        out.into_owned()
    }

    /// How it stands.
    pub fn status(&self) -> Value {
        serde_json::from_str(&self.ask(&["status", "--json"])).expect("JSON")
    }

    /// Runs a client; it must be refused.
    pub fn refused(&self, words: &[&str]) -> String {
        let output = self.client(words).output().expect("it starts");
        assert_eq!(output.status.code(), Some(2), "{}", String::from_utf8_lossy(&output.stdout));
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    /// Starts a client whose answer nobody looks at.
    pub fn start_asking(&self, words: &[&str]) -> Child {
        let mut command = self.client(words);
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts")
    }

    /// Waits for its end.
    pub fn wait(&mut self) {
        self.child.wait().expect("it is our child");
    }

    fn client(&self, words: &[&str]) -> Command {
        let mut command = Command::new(tests::command::wherefore());
        command.arg(words[0]).arg("--socket").arg(self.path("socket")).args(&words[1..]);
        command
    }

    /// Has it make a dump; its folder.
    pub fn dump(&self, words: &[&str]) -> PathBuf {
        let words: Vec<&str> = ["dump"].iter().chain(words).copied().collect();
        let said = self.ask(&words);
        PathBuf::from(said.lines().next().expect("a folder"))
    }

    /// Names of all that lies in the folder of dumps.
    pub fn dumps(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.dumps).expect("the folder is there");
        entries.flatten().map(|e| e.file_name().to_string_lossy().into_owned()).collect()
    }

    /// A dump whose name ends so.
    pub fn wait_for(&self, end: &str) -> PathBuf {
        let begun = Instant::now();
        loop {
            if let Some(name) =
                self.dumps().into_iter().find(|n| n.ends_with(end) && !n.starts_with('.'))
            {
                return self.dumps.join(name);
            }
            assert!(begun.elapsed() < PATIENCE, "no dump {end}: {:?}", self.dumps());
            thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn connect(&self) -> UnixStream {
        let stream = UnixStream::connect(self.path("socket")).expect("it listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a time");
        stream
    }

    pub fn http(&self, request: &str) -> String {
        self.http_within(PATIENCE, request)
    }

    /// Asks for what may take longer.
    pub fn http_within(&self, patience: Duration, request: &str) -> String {
        let mut stream = self.connect();
        stream.set_read_timeout(Some(patience)).expect("a time");
        // A body that is refused need not be read to its end.
        let _ = stream.write_all(request.as_bytes());
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8_lossy(&answer).into_owned()
    }

    pub fn post(&self, path: &str, body: &str) -> String {
        self.http(&post(path, body))
    }

    /// CPU time used so far, in the kernel's ticks.
    pub fn cpu_ticks(&self) -> u64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid())).expect("it lives");
        let fields: Vec<&str> =
            stat.rsplit(')').next().expect("fields").split_whitespace().collect();
        fields[11..13].iter().map(|ticks| ticks.parse::<u64>().expect("a number")).sum()
    }

    /// What a second daemon with the same configuration says.
    pub fn start_again_refused(&self) -> String {
        let output = command(self.home.path()).output().expect("it starts");
        assert_eq!(output.status.code(), Some(2));
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    pub fn kill_and_start_again(&mut self) {
        self.child.kill().expect("it lives");
        self.child.wait().expect("it is our child");
        self.child = spawn(command(self.home.path()), self.home.path(), &self.environment, &|_| {});
        self.wait_until_it_answers();
    }
}

/// Its children that were started with this word, or all.
pub fn children(pid: u32, word: &str) -> Vec<u32> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
    let children = children.unwrap_or_default();
    let pids = children.split_whitespace().filter_map(|child| child.parse().ok());
    pids.filter(|child| word.is_empty() || words(*child).iter().any(|w| w == word)).collect()
}

/// How a process was started.
pub fn words(pid: u32) -> Vec<String> {
    let line = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    line.split('\0').map(str::to_owned).collect()
}

/// A request with a body.
pub fn post(path: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
    )
}

fn command(home: &Path) -> Command {
    let mut command = Command::new(tests::command::wherefore());
    command.arg("daemon").arg("--config").arg(home.join("config.toml"));
    command
}

fn spawn(
    mut command: Command,
    home: &Path,
    environment: &Environment,
    place: &dyn Fn(&mut Command),
) -> Child {
    let log = fs::File::create(home.join("log")).expect("a file");
    place(&mut command);
    command.envs(environment.iter().cloned());
    command.stdin(Stdio::null()).stderr(log).spawn().expect("it starts")
}

/// Has a program take itself to be on another machine: by name, and by the number of its boot.
pub fn as_a_host_of_its_own(command: &mut Command, folder: &Path, name: &str) {
    let boot = folder.join(name);
    fs::write(&boot, format!("boot-of-{name}\n")).expect("it is written");
    let script = "mount --bind \"$0\" /proc/sys/kernel/random/boot_id && \
                  echo \"$1\" > /proc/sys/kernel/hostname && shift && exec \"$@\"";
    let mut outer = Command::new("unshare");
    outer.args(["--mount", "--uts", "sh", "-c", script]).arg(boot).arg(name);
    outer.arg(command.get_program()).args(command.get_args());
    *command = outer;
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = kill(Pid::from_raw(self.pid() as i32), Signal::SIGTERM);
        let status = self.child.wait();
        if let Some(cgroup) = &self.cgroup {
            remove(cgroup);
        }
        if thread::panicking() {
            let log = fs::read_to_string(self.path("log")).unwrap_or_default();
            eprint_log(&log);
        } else {
            assert!(status.is_ok_and(|status| status.success()), "SIGTERM ends it in good order");
            assert!(!self.path("socket").exists(), "the socket is removed");
        }
    }
}

#[expect(clippy::print_stderr, reason = "what a daemon said helps where its test failed")]
fn eprint_log(log: &str) {
    eprintln!("the daemon said:\n{log}");
}

/// Ends what a play left in its cgroup, and removes it.
pub fn remove(cgroup: &Path) {
    fs::write(cgroup.join("cgroup.kill"), "1").expect("the cgroup is ours");
    let begun = Instant::now();
    while fs::remove_dir(cgroup).is_err() && begun.elapsed() < PATIENCE {
        thread::sleep(Duration::from_millis(10));
    }
}

pub fn free_address() -> SocketAddr {
    let free = TcpListener::bind("127.0.0.1:0").expect("a free port");
    free.local_addr().expect("it has one")
}

/// Each test has another.
pub fn new_cgroup() -> PathBuf {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let mount = procfs::cgroup_mount().expect("a cgroup2 mount");
    let path = mount.join(format!("wf-daemon-{}-{number}", std::process::id()));
    fs::create_dir(&path).expect("a cgroup");
    path
}

pub fn wherefore(words: &[&str]) -> String {
    let output = Command::new(tests::command::wherefore()).args(words).output().expect("it starts");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub fn json(path: &Path) -> Value {
    let text =
        fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).expect("JSON")
}

/// The time now, as Alertmanager writes it.
pub fn now() -> String {
    let output = Command::new("date").args(["-u", "+%Y-%m-%dT%H:%M:%SZ"]).output();
    String::from_utf8_lossy(&output.expect("date starts").stdout).trim().to_owned()
}
