//! Containers: control groups named as runtimes name them, made while the recorder runs.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use recorder::capture::snapshot::Cut;
use recorder::capture::{Scope, procfs};
use recorder::container::{Container, Runtime};
use recorder::describe;
use recorder::event::{History, Op};

use crate::recorded::{Recorder, Run, of, python_command, record, require_root};

const ID: &str = "3f4b1c2d5e6f70819a2b3c4d5e6f708192a3b4c5d6e7f8091a2b3c4d5e6f7081";
const UID: &str = "5b3c0e4e-3f8e-11e9-8d3c-0a580af40123";

/// Functions for scripts that live in cgroups below `base`, which is removed when they are done.
const CGROUPS: &str = "

def make(path):
    os.makedirs(base + path)
    return base + path

def enter(folder):
    with open(folder + '/cgroup.procs', 'w') as procs:
        procs.write('0')

def clean():
    enter(home)
    for folder, _, _ in os.walk(base, topdown=False):
        for _ in range(100):
            try:
                os.rmdir(folder)
                break
            except OSError:
                time.sleep(0.01)

def talk(comm):
    rename(comm)
    a, b = socket.socket(), socket.socket()
    a.bind(('127.0.0.1', 0))
    a.listen()
    b.connect(a.getsockname())
    b.send(b'hello')
";

/// A script below a fresh cgroup of the hierarchy that is mounted at `mount`.
fn script(mount: &Path, play: &str) -> (String, PathBuf) {
    static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let number = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let base = mount.join(format!("wf-{}-{number}", std::process::id()));
    let text = format!(
        "{CGROUPS}\nhome, base = {:?}, {:?}\nos.mkdir(base)\ntry:\n{}\nfinally:\n    clean()\n",
        mount.display().to_string(),
        base.display().to_string(),
        play.lines().map(|line| format!("    {line}\n")).collect::<String>()
    );
    (text, base)
}

fn version_2() -> PathBuf {
    procfs::cgroup_mount().expect("cgroup2 is mounted")
}

/// Plays it below a fresh cgroup; what was recorded, and the cgroup's path below the mount.
fn play(mount: &Path, play: &str) -> (History, String) {
    let (text, base) = script(mount, play);
    let Run { history, .. } = record(&mut python_command(&text));
    assert!(!base.exists(), "nothing is left behind");
    let below = base.strip_prefix(mount).expect("it lies there");
    (history, format!("/{}", below.display()))
}

/// Plays a script that says when it is ready to be looked at, and waits until it has been: what was recorded by then,
/// as a snapshot, and all.
fn looked_at(text: &str) -> [History; 2] {
    let mut recorder = Recorder::start(Scope::Command(String::new()));
    let mut command = python_command(text);
    let mut child = recorder.spawn(command.stdin(Stdio::piped()).stdout(Stdio::piped()));
    child.stdout.as_mut().expect("it is piped").read_exact(&mut [0; 6]).expect("it says so");
    // The newest two milliseconds are read in the next turn.
    std::thread::sleep(Duration::from_millis(50));
    recorder.turn();
    let snapshot = recorder.snapshot(Cut::ALL);
    child.stdin.take().expect("it is piped").write_all(b"\n").expect("it reads");
    assert!(child.wait().expect("it is our child").success());
    [snapshot, recorder.finish()]
}

/// The cgroup and the container of what threads of a name sent.
fn place(history: &History, comm: &str) -> (String, Option<Container>) {
    let [send] = of(history, comm, Op::Send)[..] else { panic!("{comm} sends once") };
    (history.names.text(send.cgroup).to_owned(), history.container(send))
}

fn container(runtime: Option<Runtime>, pod: &str) -> Option<Container> {
    Some(Container { runtime, id: ID.into(), pod: pod.into(), ..Container::default() })
}

/// Before: a process outside. During: it goes in, by itself, and is looked at there. After: it is out again.
#[test]
fn a_process_that_goes_into_a_container_and_out_again() {
    let mount = version_2();
    let (text, base) = script(
        &mount,
        &format!(
            "
folder = make('/docker-{ID}.scope')
talk('before')
enter(folder)
talk('within')
other = threading.Thread(target=talk, args=('thread',))
other.start()
other.join()
say('ready')
sys.stdin.readline()
enter(home)
talk('after')"
        ),
    );
    let looked_at = looked_at(&text);
    let below = base.strip_prefix(mount).expect("it lies there").display();
    let within = (format!("/{below}/docker-{ID}.scope"), container(Some(Runtime::Docker), ""));
    for history in &looked_at {
        assert_eq!(place(history, "before"), ("/".to_owned(), None));
        assert_eq!(place(history, "within"), within);
        assert_eq!(place(history, "thread"), within);
    }
    assert_eq!(place(&looked_at[1], "after"), ("/".to_owned(), None));
}

/// Gone before the recorder looks: only the kernel's own word of it remains. The paths are longer than a record.
#[test]
fn containers_that_live_for_a_moment() {
    let pod = UID.replace('-', "_");
    let slice = format!(
        "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{pod}.slice/cri-containerd-{ID}.scope"
    );
    let (text, base) = script(
        &version_2(),
        &format!(
            "
def short(number):
    folder = make('/%d{slice}' % number)
    def within():
        enter(folder)
        os.execv('/bin/sh', ['short-%d' % number, '-c', ':'])
    finish(child('short', within))
    os.rmdir(folder)
for number in range(20):
    short(number)"
        ),
    );
    // The rings are read at the end only.
    let mut recorder = Recorder::start(Scope::Command(String::new()));
    let mut child = recorder.spawn(&mut python_command(&text));
    assert!(child.wait().expect("it is our child").success());
    recorder.turn();
    let history = recorder.finish();
    assert!(!base.exists(), "nothing is left behind");
    let shells: Vec<_> =
        history.events.iter().filter(|e| e.op == Op::Exec && history.comm(e) == "sh").collect();
    let paths: BTreeSet<&str> = shells.iter().map(|e| history.names.text(e.cgroup)).collect();
    let name = base.file_name().expect("it has one").to_string_lossy().into_owned();
    let expected: BTreeSet<String> = (0..20).map(|n| format!("/{name}/{n}{slice}")).collect();
    assert_eq!(paths, expected.iter().map(String::as_str).collect());
    for shell in shells {
        assert_eq!(history.container(shell), container(Some(Runtime::Containerd), UID));
    }
}

/// A child that is born into another cgroup than its parent's was never moved there.
#[test]
fn a_child_that_is_born_in_a_container() {
    let (history, base) = play(
        &version_2(),
        &format!(
            "
folder = os.open(make('/libpod-{ID}.scope'), os.O_RDONLY)
CLONE_INTO_CGROUP, SYS_clone3 = 0x200000000, 435
arguments = struct.pack('11Q', CLONE_INTO_CGROUP, 0, 0, 0, signal.SIGCHLD, 0, 0, 0, 0, 0, folder)
pid = libc.syscall(SYS_clone3, ctypes.create_string_buffer(arguments), 88)
if pid == 0:
    talk('born')
    os._exit(0)
assert pid > 0
finish(pid)"
        ),
    );
    let expected = (format!("{base}/libpod-{ID}.scope"), container(Some(Runtime::Podman), ""));
    assert_eq!(place(&history, "born"), expected);
}

/// In a hierarchy of version 1, of which the kernel's number says nothing.
#[test]
fn a_container_in_a_hierarchy_of_version_1() {
    require_root();
    let mounts = fs::read_to_string("/proc/mounts").expect("procfs is mounted");
    let mut fields = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    let Some(mount) = fields.find(|f| f[2] == "cgroup" && f[3].contains("pids")) else {
        // The proof that there is none.
        assert!(!procfs::has_legacy_cgroups(), "version 1, but no hierarchy with `pids`");
        return;
    };
    let mount = Path::new(mount[1]);
    let (text, base) = script(
        mount,
        &format!(
            "
folder = make('/docker/{ID}')
enter(folder)
talk('within')
say('ready')
sys.stdin.readline()
finish(child('child', lambda: talk('child')))"
        ),
    );
    // It is looked at while it is there; its child goes by what is known of it.
    let [_, history] = looked_at(&text);
    let below = base.strip_prefix(mount).expect("it lies there").display();
    let within = (format!("/{below}/docker/{ID}"), container(Some(Runtime::Docker), ""));
    assert_eq!(place(&history, "within"), within);
    assert_eq!(place(&history, "child"), within);
}

/// A network namespace that nobody gave a name is called as the container that lives in it.
#[test]
fn the_network_namespace_of_a_container() {
    let (text, _) = script(
        &version_2(),
        &format!(
            "
def within():
    enter(make('/docker-{ID}.scope'))
    assert libc.unshare(0x40000000) == 0
    os.system('ip link set lo up')
    talk('within')
    say('ready')
    sys.stdin.readline()
talk('before')
finish(child('child', within))"
        ),
    );
    let [_, history] = looked_at(&text);
    let label = |comm| {
        let send = of(&history, comm, Op::Send)[0];
        (history.namespace(send).map(|n| n.name.clone()), describe::place(&history, send))
    };
    assert_eq!(label("before"), (Some("host".to_owned()), String::new()));
    assert_eq!(label("within"), (Some(ID[..12].to_owned()), format!(" in {}", &ID[..12])));
}
