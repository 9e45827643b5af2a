//! System calls (detail `syscall`): those that a program knows it made, between the moments that it noted.

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::thread;
use std::time::Duration;

use recorder::capture::Scope;
use recorder::capture::attach::Settings;
use recorder::capture::detail::{Detail, More};
use recorder::event::{Event, Flags, History, Op, Protocol};
use recorder::graph::{EdgeKind, Graph, Proof, event_of};

use crate::recorded::{Recorder, SMALL, of, printed, python_command};

pub const SYSCALL: Detail = Detail::of(More::Syscall);

/// `noted(name, call, …)` makes a call and notes what it gave and when, by the recording's clock.
pub const NOTED: &str = "
notes = []
def noted(name, call, *arguments):
    now = lambda: time.clock_gettime_ns(time.CLOCK_MONOTONIC)
    begin = now()
    result = seen(call, *arguments)
    notes.append((name, begin, now(), result))
    return result
def tell():
    say('\\n'.join(f'noted {name} {begin} {end} {result}' for name, begin, end, result in notes))
";

/// Calls of each kind, and some that are not told: on files, on a futex without waiting, and what has an event of
/// its own.
const VICTIM: &str = "
import tempfile
def futex(operation, expected, timeout=None):
    if libc.syscall(202, ctypes.byref(word), operation, expected, timeout) < 0:
        raise OSError(ctypes.get_errno(), '')
    return 0
word, FUTEX_WAIT, FUTEX_WAKE = ctypes.c_int(5), 0, 1
nanoseconds = (ctypes.c_long * 2)(0, 20_000_000)
rename('victim')
epoll = select.epoll()
# (`time.sleep` sleeps until a moment that it has fixed before the call.)
noted('clock_nanosleep', libc.syscall, 230, time.CLOCK_MONOTONIC, 0, nanoseconds, None)
noted('poll', lambda: len(select.poll().poll(20)))
noted('epoll_wait', lambda: len(epoll.poll(0.02)))
noted('pselect6', lambda: len(select.select([], [], [], 0)[0]))
ends = []
noted('pipe2', lambda: ends.extend(os.pipe()) or 0)
noted('write', os.write, ends[1], b'hello')
noted('read', os.read, ends[0], 100)
with tempfile.TemporaryFile() as file:
    os.write(file.fileno(), b'untold')
    noted('fsync', lambda: os.fsync(file) or 0)
pair = []
noted('socketpair', lambda: pair.extend(socket.socketpair()) or 0)
pair[0].send(b'untold')
pair[1].recv(6)
futex(FUTEX_WAKE, 1)
seen(futex, FUTEX_WAIT, 4)
noted('futex', futex, FUTEX_WAIT, 5, nanoseconds)
noted('rt_sigtimedwait', lambda: signal.sigtimedwait([signal.SIGUSR1], 0.02) or 'EAGAIN')
name = []
noted('socket', lambda: name.append(socket.socket()) or name[0].fileno())
noted('bind', lambda: name[0].bind(('127.0.0.1', 0)) or 0)
tell()
";

/// A call as the program noted it.
pub struct Note {
    pub name: String,
    pub begin_ns: u64,
    pub end_ns: u64,
    result: String,
}

/// What the program noted, in order.
pub fn notes(said: &str) -> Vec<Note> {
    let lines = said.lines().filter_map(|line| line.strip_prefix("noted "));
    let note = |line: &str| {
        let words: Vec<&str> = line.split(' ').collect();
        let time = |word: &str| word.parse().expect("nanoseconds");
        let (begin_ns, end_ns) = (time(words[1]), time(words[2]));
        Note { name: words[0].to_owned(), begin_ns, end_ns, result: words[3].to_owned() }
    };
    lines.map(note).collect()
}

/// Plays a script with some detail; what was recorded, and what it said.
pub fn play(detail: Detail, script: &str) -> (History, String) {
    play_in(SMALL, detail, script)
}

/// The same in rings of a certain size.
pub fn play_in(settings: Settings, detail: Detail, script: &str) -> (History, String) {
    let mut recorder = Recorder::with(Scope::Command(String::new()), settings);
    recorder.detail(detail);
    let script = format!("{NOTED}{script}");
    let mut child = recorder.spawn(python_command(&script).stdout(Stdio::piped()));
    let status = recorder.follow(&mut child);
    let said = printed(child);
    assert!(status.success(), "{status}\n{said}");
    (recorder.finish(), said)
}

/// What an event says that its call gave.
fn result(event: &Event) -> String {
    event.errno().map_or_else(|| event.result.to_string(), |errno| format!("{errno:?}"))
}

fn name<'a>(history: &'a History, event: &Event) -> &'a str {
    history.names.text(event.syscall)
}

#[test]
fn calls_are_told_as_the_program_made_them() {
    let (history, said) = play(SYSCALL, VICTIM);
    let notes = notes(&said);
    let (from_ns, to_ns) = (notes[0].begin_ns, notes.last().expect("it made some").end_ns);
    let mut calls = of(&history, "victim", Op::Call);
    calls.retain(|call| (from_ns..=to_ns).contains(&call.time_ns));
    let told: Vec<_> = calls.iter().map(|call| (name(&history, call), result(call))).collect();
    let made: Vec<_> = notes.iter().map(|n| (n.name.as_str(), n.result.clone())).collect();
    assert_eq!(told, made);
    for (call, note) in calls.iter().zip(&notes) {
        assert!(call.flags.has(Flags::BEGAN), "{}", note.name);
        assert!(note.begin_ns <= call.begin_ns && call.begin_ns <= call.time_ns, "{}", note.name);
        assert!(call.time_ns <= note.end_ns, "{}", note.name);
    }
    let lasted = |name: &str| {
        let place = notes.iter().position(|note| note.name == name).expect("it was made");
        Duration::from_nanos(calls[place].time_ns - calls[place].begin_ns)
    };
    for name in ["clock_nanosleep", "poll", "epoll_wait", "futex", "rt_sigtimedwait"] {
        assert!(lasted(name) >= Duration::from_millis(20), "{name}: {:?}", lasted(name));
    }
    let of_pipe =
        |name| calls.iter().find(|call| self::name(&history, call) == name).expect("told");
    assert_eq!(of_pipe("read").protocol, Some(Protocol::Pipe));
    assert_eq!(of_pipe("write").fd.number(), of_pipe("read").fd.number().map(|fd| fd + 1));
    assert_eq!(of_pipe("bind").protocol, Some(Protocol::Tcp));
    assert_eq!(of_pipe("poll").fd.number(), None);
}

#[test]
fn without_the_detail_no_call_is_told() {
    let (history, _) = play(Detail::FLOW, VICTIM);
    assert!(!history.events.iter().any(|event| event.op == Op::Call));
}

#[test]
fn a_wait_tells_whose_end_it_was() {
    let (history, _) = play(
        SYSCALL,
        "
rename('parent')
first = child('first', lambda: time.sleep(0.05))
assert os.waitpid(first, 0)[0] == first
second = child('second', lambda: os._exit(3))
assert os.waitid(os.P_PID, second, os.WEXITED).si_status == 3
# One that stops has not ended.
third = child('third', lambda: os.kill(os.getpid(), signal.SIGSTOP))
assert os.WIFSTOPPED(os.waitpid(third, os.WUNTRACED)[1])
os.kill(third, signal.SIGCONT)
os.waitpid(third, 0)
",
    );
    let graph = Graph::build(&history);
    let mut told = Vec::new();
    for edge in graph.nodes.raw_edges().iter().filter(|e| e.weight.kind == EdgeKind::Task) {
        let (from, to) = (event_of(edge.source()).0, event_of(edge.target()).0);
        let (exit, wait) = (&history.events[from as usize], &history.events[to as usize]);
        if exit.op == Op::Exit {
            assert_eq!(edge.weight.proof, Proof::Must);
            assert_eq!((wait.op, wait.target), (Op::Call, exit.pid));
            told.push((history.comm(exit), name(&history, wait), history.comm(wait)));
        }
    }
    let expected = ["first", "second", "third"]
        .map(|child| (child, if child == "second" { "waitid" } else { "wait4" }, "parent"));
    assert_eq!(told, expected);
    let waits = of(&history, "parent", Op::Call);
    let waits = waits.iter().filter(|call| name(&history, call).starts_with("wait"));
    let targets: Vec<bool> = waits.map(|wait| wait.target != 0).collect();
    assert_eq!(targets, [true, true, false, true]);
}

/// Where processes have numbers of their own, those are nobody's on the machine.
#[test]
fn a_wait_in_a_namespace_of_numbers_names_nobody() {
    let (history, _) = play(
        SYSCALL,
        "
libc.unshare(0x20000000)
def first():
    rename('inside')
    os.waitpid(child('worker', lambda: None), 0)
finish(child('inside', first))
",
    );
    let waits = of(&history, "inside", Op::Call);
    let wait = waits.iter().find(|call| name(&history, call) == "wait4").expect("it waited");
    assert_eq!((wait.result, wait.target), (2, 0));
}

/// The numbers of 32-bit programs' calls mean others: 35 is not `nanosleep` there.
#[test]
fn calls_of_another_table_are_not_told() {
    let (history, _) = play(
        SYSCALL,
        r"
import mmap
rename('victim')
code = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
code.write(b'\xb8\x23\0\0\0\xcd\x80\xc3')
call = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(code)))
assert call() == -errno.ENOSYS
nothing = (ctypes.c_long * 2)(0, 0)
assert libc.syscall(35, nothing, None) == 0
",
    );
    let calls = of(&history, "victim", Op::Call);
    let slept: Vec<_> = calls.iter().filter(|call| name(&history, call) == "nanosleep").collect();
    assert_eq!(slept.len(), 1, "{slept:?}");
    assert_eq!(slept[0].errno(), None);
}

/// Of a call that was under way when the detail was raised or lowered only one side was seen.
#[test]
fn a_call_under_way_while_the_detail_changes_is_not_told() {
    let mut recorder = Recorder::start(Scope::Command(String::new()));
    let script = "
rename('sleeper')
for _ in range(6):
    say('next')
    time.sleep(1)
";
    let mut child = recorder.spawn(python_command(script).stdout(Stdio::piped()));
    let mut said = BufReader::new(child.stdout.take().expect("it is piped")).lines();
    let mut times = Vec::new();
    // In its second sleep it is raised, in the third lowered, and in the fourth raised again.
    for detail in [None, Some(SYSCALL), Some(Detail::FLOW), Some(SYSCALL), None, None] {
        said.next().expect("it goes on").expect("text");
        thread::sleep(Duration::from_millis(300));
        if let Some(detail) = detail {
            recorder.detail(detail);
        }
        times.push(recorder::capture::clock::monotonic_ns());
    }
    assert!(recorder.follow(&mut child).success());
    let history = recorder.finish();
    let slept = of(&history, "sleeper", Op::Call).into_iter();
    let slept: Vec<_> = slept.filter(|e| name(&history, e) == "clock_nanosleep").collect();
    assert_eq!(slept.len(), 2, "{slept:?}");
    for (event, inside_ns) in slept.iter().zip(&times[4..]) {
        assert!((event.begin_ns..event.time_ns).contains(inside_ns), "{event:?}");
    }
    let stretches = &history.hosts[0].details;
    let details: Vec<_> = stretches.iter().map(|stretch| stretch.detail.as_str()).collect();
    assert_eq!(details, ["flow+syscall", "flow+syscall"]);
}
