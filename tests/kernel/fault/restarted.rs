//! Processes that are restarted at an event: the same program comes back with the same everything; what cannot come back goes on.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use recorder::event::Op;
use recorder::recording::read;
use serde_json::Value;
use tests::command::wherefore;
use tests::patience;

use super::running::{Inject, wait_for};
use super::{counts, inject, inject_with};
use crate::load::free_port;
use crate::netns::NAMESPACES;
use crate::recorded::{assert_sound, of, require_root};

/// A service that says what it was started with, and then writes over its arguments and its environment. A client says `q`
/// when it has had enough.
const SERVICE: &str = r#"
import ctypes, os, resource, socket, sys
began_as = open('/proc/self/comm').read().strip()
ctypes.CDLL(None).prctl(15, b'service', 0, 0, 0)
numbers = open('/proc/self/stat').read().rsplit(') ', 1)[1].split()
begin, end = int(numbers[45]), int(numbers[48])
cgroup = [line for line in open('/proc/self/cgroup').read().split() if line.startswith('0::')]
print(began_as, sys.argv, os.environ.get('MARK'), os.environ.get('EMPTY'), os.getcwd(), resource.getrlimit(resource.RLIMIT_NOFILE),
    os.getresuid(), os.getresgid(), os.getgroups(), os.readlink('/proc/self/ns/net'), cgroup, os.getsid(0) == os.getpid(),
    os.readlink('/proc/self/fd/0'), flush=True)
os.umask(0o27)
print(os.getpid(), file=sys.stderr, flush=True)
if 'CALM' not in os.environ:
    ctypes.memset(begin, ord('x'), end - begin - 1)
listener = socket.socket()
listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
listener.bind(('127.0.0.1', int(sys.argv[1])))
listener.listen()
while True:
    with listener.accept()[0] as client:
        try:
            while data := client.recv(1):
                if data == b'q':
                    sys.exit()
                client.send(data)
        except OSError:
            pass
"#;

/// `start(...)` starts one; `ask` has so many bytes sent back, and says how often the connection was lost.
const CLIENT: &str = r#"
import atexit, shutil, subprocess, tempfile, time
port = socket.create_server(('127.0.0.1', 0)).getsockname()[1]
folder = tempfile.mkdtemp()
atexit.register(shutil.rmtree, folder, True)
os.chmod(folder, 0o755)
def start(before=(), python=[PYTHON], **more):
    with open(folder + '/service.py', 'w') as file:
        file.write(f'#!{PYTHON} -u\n{SERVICE}')
    os.chmod(folder + '/service.py', 0o755)
    command = [*before, *python, folder + '/service.py', str(port), 'two words', '']
    said, pids = open(folder + '/said', 'a'), open(folder + '/pids', 'a')
    return subprocess.Popen(command, stdin=open(folder + '/service.py'), stdout=said, stderr=pids, **more)
def connect():
    for _ in range(4000):
        try:
            return socket.create_connection(('127.0.0.1', port))
        except OSError:
            time.sleep(0.005)
def ask(count):
    a, lost = connect(), 0
    while count:
        try:
            a.send(b'x')
            answer = a.recv(1)
        except OSError:
            answer = b''
        if answer:
            count -= 1
        else:
            # Another time where a connection was still to be had of one that was dying.
            a, lost = connect(), lost + 1
    a.send(b'q')
    a.recv(1)
    return lost
def told():
    lines = open(folder + '/said').read().splitlines()
    pids = open(folder + '/pids').read().split()
    print(len(lines), 'starts,', len(set(lines)), 'ways,', len(set(pids)), 'processes')
"#;

fn script(play: &str) -> String {
    format!("PYTHON = '/usr/bin/python3'\nSERVICE = {SERVICE:?}\n{CLIENT}\n{play}")
}

#[test]
fn the_same_program_comes_back_with_the_same_everything() {
    let play = "
cgroup = [line.split()[1] for line in open('/proc/mounts') if line.split()[2] == 'cgroup2'][0] + f'/wherefore-restart-{os.getpid()}'
os.mkdir(cgroup)
def before():
    with open(cgroup + '/cgroup.procs', 'w') as file:
        file.write('0')
    import resource
    resource.setrlimit(resource.RLIMIT_NOFILE, (333, 444))
    os.setgroups([7, 8])
    os.setresgid(65533, 65533, 65533)
    os.setresuid(65534, 65534, 65534)
environment = {'MARK': 'a=b c', 'EMPTY': '', 'PATH': '/usr/bin'}
service = start(preexec_fn=before, cwd='/usr', env=environment, start_new_session=True)
print(ask(6) > 0, service.wait())
for _ in range(4000):
    if not open(cgroup + '/cgroup.procs').read():
        break
    time.sleep(0.005)
os.rmdir(cgroup)
told()
";
    let fault = "comm=service op=recv => restart, nth=3, name=anew";
    let run = inject(fault, &script(play));
    assert_eq!(run.said, "True -9\n2 starts, 1 ways, 2 processes\n");
    assert_eq!((&counts(&run.fault)[1..], run.status), (&[1, 1][..], Some(0)), "{}", run.fault);
    let faults = of(&run.history, "service", Op::Fault);
    let [fault] = faults[..] else { panic!("{faults:?}") };
    assert!(fault.is_restart());
    let why = run.why(&["comm=python3 op=recv flag=eof"]);
    let origin = why.lines().find(|line| line.starts_with("origin")).unwrap_or_default();
    assert!(origin.contains("fault `anew`: restart"), "{why}");
    assert!(why.contains(&format!("fault `anew`: in place of {}", fault.pid)), "{why}");
}

/// The recorder stays outside.
#[test]
fn it_comes_back_in_its_network_namespace_and_its_root() {
    let play = format!(
        "
libc = ctypes.CDLL(None, use_errno=True)
{NAMESPACES}
def play():
    fresh()
    service = start(['/usr/sbin/chroot', '/proc/self/root'])
    print(ask(4) > 0, service.wait())
    told()
client('elsewhere', play)
"
    );
    let run = inject("comm=service op=recv => restart, nth=2", &script(&play));
    assert_eq!(run.said, "True -9\n2 starts, 1 ways, 2 processes\n");
    assert_eq!(counts(&run.fault)[1..], [1, 1], "{}", run.fault);
}

/// The kernel puts the interpreter and its argument before a script's own, and calls the process by the script.
#[test]
fn a_script_comes_back_as_a_script() {
    let play = "
service = start(python=[])
print(ask(4) > 0, service.wait())
told()
print(open(folder + '/said').read().split()[0])
";
    let run = inject("comm=service op=recv => restart, nth=2", &script(play));
    assert_eq!(run.said, "True -9\n2 starts, 1 ways, 2 processes\nservice.py\n");
    assert_eq!(counts(&run.fault)[1..], [1, 1], "{}", run.fault);
}

/// A service that was there before the recorder, which is run by these words; its first receive restarts it. What became of that.
fn restart_older(recorder: &[&str], calm: bool) -> Value {
    require_root();
    let folder = tempfile::tempdir().expect("a folder");
    let (file, port) = (folder.path().join("service.py"), free_port());
    fs::write(&file, SERVICE).expect("it is ours");
    let mut command = Command::new("/usr/bin/python3");
    command.arg(&file).arg(port.to_string()).stdout(Stdio::null()).stderr(Stdio::null());
    if calm {
        command.env("CALM", "");
    }
    let mut service = command.spawn().expect("it starts");
    let ask = |byte: &[u8]| -> std::io::Result<()> {
        let mut to = TcpStream::connect(("127.0.0.1", port))?;
        to.set_read_timeout(Some(patience::seconds(15)))?;
        to.write_all(byte)?;
        to.read_exact(&mut [0])
    };
    wait_for("the service", || ask(b"x").is_ok());
    let words = ["inject", "--json", "-q", "--fault", "op=recv => restart, count=1", "--for", "4s"];
    let program = wherefore();
    let recorder = [recorder, &[program.to_str().expect("it is text")], &words].concat();
    let mut inject = Command::new(recorder[0]);
    inject.args(&recorder[1..]).args(["--pid", &service.id().to_string(), "-o"]);
    inject.arg(folder.path().join("run.parquet")).stdout(Stdio::piped());
    let mut inject = inject.spawn().expect("it starts");
    while inject.try_wait().expect("it is our child").is_none() {
        let _ = ask(b"x");
        thread::sleep(Duration::from_millis(10));
    }
    let output = inject.wait_with_output().expect("it has ended");
    // Whoever it is, it lives on without the recorder.
    assert!(ask(b"x").is_ok(), "{output:?}");
    let _ = ask(b"q");
    service.wait().expect("it is our child");
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    report["faults"][0].clone()
}

#[test]
fn a_process_that_was_there_before_is_known_by_what_it_shows() {
    let fault = restart_older(&[], true);
    assert_eq!(counts(&fault)[1..], [1, 1], "{fault}");
    let fault = restart_older(&[], false);
    let remark = fault["remark"].as_str().unwrap_or_default();
    assert!(remark.starts_with("1 of 1 not done: it has written over its arguments"), "{fault}");
}

/// What the recorder may not give to another process is found out before that takes the place of any.
#[test]
fn what_a_successor_may_not_have_is_refused_in_time() {
    let recorder = ["setpriv", "--bounding-set=-sys_resource", "prlimit", "--nofile=1000:1000"];
    let fault = restart_older(&recorder, true);
    let remark = fault["remark"].as_str().unwrap_or_default();
    assert!(remark.starts_with("1 of 1 not done: take its limits (/usr/bin/python3"), "{fault}");
    assert_eq!(counts(&fault)[1..], [1, 0], "{fault}");
}

/// Each time it is restarted it meets the fault anew, as long as that is armed.
#[test]
fn it_is_restarted_as_often_as_the_limit_allows() {
    let play = "
service = start()
print(ask(9) > 2)
told()
";
    let run = inject("comm=service op=recv => restart, every=2, count=3", &script(play));
    assert_eq!(run.said, "True\n4 starts, 1 ways, 4 processes\n");
    assert_eq!(counts(&run.fault)[1..], [3, 3], "{}", run.fault);
}

#[test]
fn what_cannot_be_started_anew_goes_on() {
    let forked = "
service = start()
a = connect()
def play():
    for _ in range(3):
        a.send(b'x')
        print(a.recv(1))
client('copy', play)
a.close()
ask(0)
service.wait()
";
    let replaced = "
import shutil
own = folder + '/python'
shutil.copy(PYTHON, own)
service = start(python=[own])
connect().close()
os.remove(own)
print(ask(3), service.wait())
";
    let contained = "
service = start(['/usr/bin/unshare', '--pid', '--fork'])
print(ask(3), service.wait())
";
    let all = "0 0\n";
    let each = "b'x'\nb'x'\nb'x'\n";
    for (play, comm, said, why) in [
        (forked, "copy", each, "it is a copy of its parent"),
        (replaced, "service", all, "its program has been removed or replaced"),
        (contained, "service", all, "it lives in a pid namespace of its own"),
    ] {
        let fault = format!("comm={comm} op=recv => restart, nth=2");
        let run = inject(&fault, &script(play));
        assert_eq!(run.said, said, "{why}");
        assert_eq!(counts(&run.fault)[1..], [1, 0], "{}", run.fault);
        let remark = run.fault["remark"].as_str().unwrap_or_default();
        assert!(remark.starts_with(&format!("1 of 1 not done: {why}")), "{remark}");
    }
}

/// The command is restarted by its own doing, once, and ends by itself after that.
#[test]
fn a_command_that_is_restarted_is_followed_to_the_successor_s_end() {
    require_root();
    let folder = tempfile::tempdir().expect("a folder");
    let (file, said) = (folder.path().join("run.parquet"), folder.path().join("said"));
    let script = "
import ctypes, os, socket, sys, time
ctypes.CDLL(None).prctl(15, b'command', 0, 0, 0)
a, b = socket.socket(), socket.create_server(('127.0.0.1', 0))
a.connect(b.getsockname())
c = b.accept()[0]
open(sys.argv[1], 'a').write('begins ')
a.send(b'x'), c.recv(1)
time.sleep(0.3)
open(sys.argv[1], 'a').write('ends ')
";
    let fault = ["--fault", "comm=command op=recv => restart, nth=1"];
    let command = ["/usr/bin/python3", "-c", script, said.to_str().expect("it is text")];
    let output = inject_with(&file, &fault, &command);
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(counts(&report["faults"][0])[1..], [1, 1], "{report}");
    assert_eq!(fs::read_to_string(said).expect("it was written"), "begins begins ends ");
    let history = read::open(&[file]).expect("it can be read").history;
    assert_sound(&history);
    let exits = of(&history, "command", Op::Exit);
    let results: Vec<_> = exits.iter().map(|exit| (exit.signal, exit.result)).collect();
    assert_eq!(results, [(libc::SIGKILL as u8, 0), (0, 0)]);
}

/// A client that goes on and on, of a service whose environment can be read. In a session of its own: the kernel lets a stopped
/// process go on by itself when its group is orphaned.
const KEEP: &str = "
start(env={**os.environ, 'CALM': ''}, start_new_session=True)
while True:
    try:
        a = connect()
        while True:
            a.send(b'x')
            if not a.recv(1):
                break
    except OSError:
        pass
";

/// Who was stopped by a recorder that then comes to nothing goes on. The recorder is stopped long before so many receives.
#[test]
fn a_recorder_that_cannot_restart_whom_it_stopped_leaves_nobody_stopped() {
    let inject = Inject::start(&["comm=service op=recv => restart, nth=20000"], &script(KEEP));
    wait_for("the service", || inject.has("service"));
    let recorder = Pid::from_raw(inject.child.id() as i32);
    kill(recorder, Signal::SIGSTOP).expect("it is at work");
    wait_for("the restart's begin", || inject.all_stopped().len() == 2);
    inject.kill_and_look();
}

#[test]
fn a_recorder_that_is_killed_at_any_moment_leaves_nobody_stopped() {
    let mut chance = 0x9e37_79b9_7f4a_7c15_u64 ^ u64::from(std::process::id());
    for _ in 0..6 {
        chance ^= chance << 13;
        chance ^= chance >> 7;
        chance ^= chance << 17;
        let inject = Inject::start(&["comm=service op=recv => restart, for=3600s"], &script(KEEP));
        wait_for("the service", || inject.has("service"));
        thread::sleep(Duration::from_micros(chance % 300_000));
        inject.kill_and_look();
    }
}
