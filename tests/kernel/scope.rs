//! Whose events are recorded: the kernel decides, and nobody else's cost a slot.

use std::fs;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::{Child, Stdio};

use recorder::capture::{Capture, Scope};
use recorder::event::{History, Op};

use crate::recorded::{Recorder, SMALL, of, python_command};

/// Starts a script that says when it is ready, goes on when it is told to, and ends.
fn ready(script: &str) -> Child {
    let mut command = python_command(script);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("python starts");
    let mut word = [0; 6];
    let out = child.stdout.as_mut().expect("it is piped");
    out.read_exact(&mut word).expect("it says that it is ready");
    assert_eq!(&word, b"ready\n");
    child
}

/// Tells it to go on; it must end well.
fn go(mut child: Child, recorder: &mut Recorder) {
    child.stdin.take().expect("it is piped").write_all(b"\n").expect("it reads");
    let status = recorder.follow(&mut child);
    assert!(status.success(), "{status}");
}

/// A connection between two threads of one name, made and used when it is told to.
fn talker(comm: &str) -> String {
    format!(
        "
say('ready')
sys.stdin.readline()
def talk():
    rename('{comm}')
    listener = socket.socket()
    listener.bind(('127.0.0.1', 0))
    listener.listen()
    a = socket.create_connection(listener.getsockname())
    b = listener.accept()[0]
    a.send(b'hello')
    b.recv(5)
thread = threading.Thread(target=talk)
thread.start()
thread.join()
"
    )
}

fn comms(history: &History) -> Vec<String> {
    let mut comms: Vec<_> = history.events.iter().map(|e| history.comm(e).to_owned()).collect();
    comms.sort();
    comms.dedup();
    comms
}

#[test]
fn a_command_is_recorded_with_all_below_it_and_nothing_beside_it() {
    let beside = ready(&talker("beside"));
    let mut recorder = Recorder::start(Scope::Command(String::new()));
    let script =
        "finish(child('below', lambda: finish(child('deep', lambda: os.system('/bin/true; :')))))";
    let mut command = recorder.spawn(&mut python_command(script));
    recorder.follow(&mut command);
    go(beside, &mut recorder);
    let history = recorder.finish();
    assert_eq!(of(&history, "beside", Op::Send).len(), 0);
    for comm in ["below", "deep", "true"] {
        assert_eq!(of(&history, comm, Op::Exit).len(), 1, "{comm}: {:?}", comms(&history));
    }
    let strangers: Vec<_> = history.events.iter().filter(|e| e.pid == std::process::id()).collect();
    assert!(strangers.is_empty(), "the recorder is not recorded: {strangers:?}");
}

#[test]
fn a_process_is_recorded_with_its_threads_and_the_children_it_has() {
    let script = "
def worker(comm):
    rename(comm)
    until(lambda: os.path.exists(flag), 'the flag')
    finish(child(comm + ' child', lambda: None))

import tempfile
folder = tempfile.mkdtemp()
flag = folder + '/go'
thread = threading.Thread(target=worker, args=('thread',))
thread.start()
existing = child('existing', lambda: worker('existing'))
say('ready')
sys.stdin.readline()
open(flag, 'w').close()
thread.join()
finish(existing, child('later', lambda: None))
os.unlink(flag), os.rmdir(folder)
";
    let process = ready(script);
    let beside = ready(&talker("beside"));
    let mut recorder = Recorder::start(Scope::Process(process.id()));
    go(beside, &mut recorder);
    go(process, &mut recorder);
    let history = recorder.finish();
    assert_eq!(
        comms(&history),
        ["", "existing", "existing child", "later", "python3", "thread", "thread child"]
            .into_iter()
            .filter(|comm| !comm.is_empty())
            .collect::<Vec<_>>()
    );
    assert_eq!(of(&history, "existing", Op::Fork).len(), 1, "a child older than the recorder");
    assert_eq!(of(&history, "thread", Op::Fork).len(), 1, "a thread older than the recorder");
}

/// What a thread makes before the recorder knows it is found, and what it makes later has its mark.
#[test]
fn threads_that_are_made_while_the_recorder_starts_are_recorded() {
    let script = "
over = threading.Event()
def born():
    over.wait()
    rename('born')
    talk_to_oneself()
def bear():
    while not over.is_set() and len(threads) < 4000:
        threads.append(threading.Thread(target=born))
        threads[-1].start()
        time.sleep(0.001)
def talk_to_oneself():
    own = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    own.bind(('127.0.0.1', 0))
    own.sendto(b'x', own.getsockname())
threads = []
mother = threading.Thread(target=bear)
mother.start()
say('ready')
sys.stdin.readline()
over.set()
mother.join()
for thread in threads:
    thread.join()
say(len(threads))
";
    let mut process = ready(script);
    let mut recorder = Recorder::start(Scope::Process(process.id()));
    let mut said = process.stdout.take().expect("it is piped");
    go(process, &mut recorder);
    let mut made = String::new();
    said.read_to_string(&mut made).expect("it says how many");
    let history = recorder.finish();
    let made: usize = made.trim().parse().expect("a number");
    assert!(made > 10, "{made} threads while the recorder started");
    assert_eq!(of(&history, "born", Op::Send).len(), made);
}

/// A cgroup of the second version; removed with the value.
pub struct Cgroup(PathBuf);

impl Cgroup {
    pub fn make(name: &str) -> Self {
        let mount = recorder::capture::procfs::cgroup_mount().expect("cgroup2 is mounted");
        let path = mount.join(format!("wf-{}-{name}", std::process::id()));
        fs::create_dir(&path).expect("root makes cgroups");
        Self(path)
    }

    pub fn below(&self, name: &str) -> Self {
        let path = self.0.join(name);
        fs::create_dir(&path).expect("root makes cgroups");
        Self(path)
    }

    pub fn take(&self, child: &Child) {
        fs::write(self.0.join("cgroup.procs"), child.id().to_string()).expect("it can be moved");
    }

    pub fn name(&self) -> PathBuf {
        let mount = recorder::capture::procfs::cgroup_mount().expect("cgroup2 is mounted");
        self.0.strip_prefix(mount).expect("it lies there").to_owned()
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // What failed keeps its processes; the test says so itself.
        let _ = fs::remove_dir(&self.0);
    }
}

#[test]
fn a_cgroup_is_recorded_with_what_is_below_it() {
    let cgroup = Cgroup::make("scope");
    let below = cgroup.below("below");
    let other = Cgroup::make("other");
    let (member, lower, beside) =
        (ready(&talker("member")), ready(&talker("lower")), ready(&talker("beside")));
    cgroup.take(&member);
    below.take(&lower);
    other.take(&beside);
    let mut recorder = Recorder::start(Scope::Cgroup(cgroup.name()));
    for child in [member, lower, beside] {
        go(child, &mut recorder);
    }
    let history = recorder.finish();
    for (comm, path) in [("member", cgroup.name()), ("lower", below.name())] {
        let sends = of(&history, comm, Op::Send);
        assert_eq!(sends.len(), 1, "{comm}");
        assert_eq!(history.names.text(sends[0].cgroup), format!("/{}", path.display()));
        let lanes =
            history.events.iter().filter(|e| e.op == Op::Established && e.pid == sends[0].pid);
        assert_eq!(lanes.count(), 2, "{comm}: kernel lanes too");
    }
    assert!(!comms(&history).contains(&"beside".to_owned()), "{:?}", comms(&history));
    drop((below, cgroup, other));
}

/// They are recorded from when the hooks are there, and marked after that.
#[test]
fn a_thread_of_a_cgroup_counts_on_while_the_recorder_starts() {
    let cgroup = Cgroup::make("busy");
    let script = "
over = False
def talk():
    own = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    own.bind(('127.0.0.1', 0))
    rename('busy')
    while not over:
        own.sendto(b'x', own.getsockname())
        own.recv(1)
        time.sleep(0.0002)
thread = threading.Thread(target=talk)
thread.start()
say('ready')
sys.stdin.readline()
over = True
thread.join()
";
    let process = ready(script);
    cgroup.take(&process);
    let mut recorder = Recorder::start(Scope::Cgroup(cgroup.name()));
    go(process, &mut recorder);
    let history = recorder.finish();
    let sends = of(&history, "busy", Op::Send);
    assert!(!sends.is_empty());
    let tid = sends[0].tid;
    let counts: Vec<_> =
        history.events.iter().filter(|e| e.tid == tid).map(|e| e.task_count).collect();
    let breaks: Vec<_> = counts.windows(2).filter(|pair| pair[1] != pair[0] + 1).collect();
    assert_eq!((counts[0], breaks), (1, vec![]), "of {} counts", counts.len());
}

/// Of threads in a cgroup it is known that they are in scope, also when somebody outside kills them.
#[test]
fn a_sender_outside_the_cgroup_is_recorded() {
    let cgroup = Cgroup::make("victim");
    let mut victim = ready("say('ready')\ntime.sleep(60)");
    cgroup.take(&victim);
    let mut recorder = Recorder::start(Scope::Cgroup(cgroup.name()));
    let script = format!("rename('outsider')\nos.kill({}, signal.SIGKILL)", victim.id());
    let mut killer = python_command(&script).spawn().expect("python starts");
    assert!(killer.wait().expect("it is our child").success());
    recorder.follow(&mut victim);
    let history = recorder.finish();
    let kills = of(&history, "outsider", Op::Signal);
    assert_eq!(kills.iter().map(|e| e.target).collect::<Vec<_>>(), [victim.id()]);
}

#[test]
fn the_whole_machine_is_everybody_but_the_recorder() {
    let (one, two) = (ready(&talker("one")), ready(&talker("two")));
    let mut recorder = Recorder::with(Scope::All, SMALL);
    // Connections of the recorder itself are not recorded.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    let mut stream = std::net::TcpStream::connect(address).expect("it listens");
    stream.write_all(b"unseen").expect("it is connected");
    go(one, &mut recorder);
    go(two, &mut recorder);
    let history = recorder.finish();
    for comm in ["one", "two"] {
        assert_eq!(of(&history, comm, Op::Send).len(), 1, "{comm}");
        assert_eq!(of(&history, comm, Op::Recv).len(), 1, "{comm}");
    }
    let own = history.events.iter().filter(|e| e.pid == std::process::id() && e.tid != 0);
    assert_eq!(own.count(), 0, "the recorder is not recorded");
}

/// A child of an accepted connection belongs to the scope from its first packet on.
#[test]
fn an_accepted_socket_is_in_scope_before_anybody_uses_it() {
    let mut recorder = Recorder::start(Scope::Command(String::new()));
    let server = "
listener = socket.socket()
listener.bind(('127.0.0.1', 0))
listener.listen()
say('port', '%05d' % listener.getsockname()[1])
sys.stdin.readline()
";
    let mut command = python_command(server);
    let mut server = recorder.spawn(command.stdin(Stdio::piped()).stdout(Stdio::piped()));
    let mut line = [0; 11];
    server.stdout.as_mut().expect("it is piped").read_exact(&mut line).expect("it says so");
    let port = String::from_utf8_lossy(&line[5..10]).parse::<u16>().expect("a number");
    // A stranger connects; nobody ever accepts.
    let stranger = std::net::TcpStream::connect(("127.0.0.1", port)).expect("it listens");
    let local = stranger.local_addr().expect("it is connected");
    go(server, &mut recorder);
    let history = recorder.finish();
    let established: Vec<_> = history.events.iter().filter(|e| e.op == Op::Established).collect();
    assert_eq!(established.len(), 1, "the server's end, not the stranger's");
    assert_eq!(history.names.address(established[0].remote), Some(local));
}

#[test]
fn a_scope_that_is_not_there_is_refused() {
    let refused = |scope| match Capture::start(scope, SMALL) {
        Ok(_) => panic!("it was recorded"),
        Err(error) => format!("{error:#}"),
    };
    assert_eq!(refused(Scope::Process(0x7fff_fff0)), "there is no process 2147483632");
    let mount = recorder::capture::procfs::cgroup_mount().expect("cgroup2 is mounted");
    assert_eq!(
        refused(Scope::Cgroup("/no/such".into())),
        format!("there is no cgroup /no/such below {}", mount.display())
    );
}
