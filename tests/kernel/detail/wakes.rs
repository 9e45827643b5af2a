//! Who woke whom (detail `sched`): hand-offs between processes that know who waited for whom, and a crowd that does not.

use std::collections::HashMap;
use std::time::Duration;

use recorder::capture::Scope;
use recorder::capture::attach::family::Site;
use recorder::capture::attach::{Settings, preempt};
use recorder::capture::detail::{Detail, More};
use recorder::event::{Event, EventIndex, Flags, History, Op};
use recorder::graph::{EdgeKind, Graph, Proof, Side, event_of};

use super::calls::{NOTED, Note, SYSCALL, notes, play, play_in};
use crate::recorded::{Recorder, SMALL, of, python_command};

const SCHED: Detail = Detail::of(More::Sched);
const BOTH: Detail = SYSCALL.with(SCHED);

/// `hand_off(wait, wake)` has one process wait, and another end that, surely asleep.
const HAND_OFF: &str = "
def hand_off(wait, wake):
    def waiter():
        noted('wait', wait)
        tell()
    def setter():
        until(lambda: open(f'/proc/{waiting}/stat').read().split()[2] == 'S')
        time.sleep(0.05)
        noted('wake', wake)
        tell()
    waiting = child('waiter', waiter)
    finish(child('setter', setter), waiting)
";

/// A hand-off that was recorded: its history, when it was waited and woken, and the edges from wakes.
struct HandOff {
    history: History,
    wait: Note,
    wake: Note,
    woken: Vec<(EventIndex, EventIndex)>,
}

impl HandOff {
    fn play(detail: Detail, script: &str) -> Self {
        let (history, said) = play(detail, &format!("{HAND_OFF}{script}"));
        let noted = |name: &str| notes(&said).into_iter().find(|note| note.name == name);
        let [wake, wait] = ["wake", "wait"].map(|name| noted(name).expect("it was noted"));
        let woken = woken(&history);
        Self { history, wait, wake, woken }
    }

    /// The wakes of the waiter while the setter made its call.
    fn wakes(&self) -> Vec<&Event> {
        let waiter = self.tid("waiter");
        let mut wakes = of(&self.history, "setter", Op::Wake);
        let inside = |e: &&Event| (self.wake.begin_ns..=self.wake.end_ns).contains(&e.time_ns);
        wakes.retain(|wake| wake.target == waiter && inside(wake));
        wakes
    }

    fn tid(&self, comm: &str) -> u32 {
        let task = self.history.hosts[0].tasks.iter().find(|task| task.comm == comm);
        task.expect("it was there").tid
    }

    /// What the one wake of the waiter led to: exactly one event, of the waiter, that had begun before.
    fn led_to(&self) -> &Event {
        let wakes = self.wakes();
        assert_eq!(wakes.len(), 1, "{wakes:?}");
        let position = |e: &Event| (e.cpu, e.ring, e.position);
        let event = |index: EventIndex| &self.history.events[index as usize];
        let mut led = self.woken.iter().filter(|(w, _)| position(event(*w)) == position(wakes[0]));
        let (_, next) = led.next().expect("it leads somewhere");
        let next = event(*next);
        assert!(led.next().is_none());
        assert_eq!(next.tid, self.tid("waiter"));
        let begins = if next.flags.has(Flags::BEGAN) { self.wait.begin_ns } else { 0 };
        assert!((begins..wakes[0].time_ns).contains(&next.begin_ns));
        assert!(wakes[0].time_ns <= next.time_ns && next.time_ns <= self.wait.end_ns);
        next
    }
}

/// All edges from wakes; they lead from an end to an end, and are proven where nothing was lost: a kernel that preempts
/// programs may skip some, of whatever threads.
fn woken(history: &History) -> Vec<(EventIndex, EventIndex)> {
    let graph = Graph::build(history);
    let edges = graph.nodes.raw_edges().iter().filter(|e| e.weight.kind == EdgeKind::Wake);
    let points = edges.map(|edge| {
        let lossless = history.hosts[0].lost == 0;
        assert_eq!(edge.weight.proof == Proof::Must, lossless);
        let (from, to) = (event_of(edge.source()), event_of(edge.target()));
        assert_eq!((from.1, to.1), (Side::End, Side::End));
        (from.0, to.0)
    });
    points.collect()
}

/// What a call is called, and what it returned.
fn call(hand_off: &HandOff, event: &Event) -> String {
    format!("{} {}", hand_off.history.names.text(event.syscall), event.result)
}

#[test]
fn a_futex_is_handed_on() {
    let played = HandOff::play(
        BOTH,
        "
import mmap
shared = mmap.mmap(-1, 4096)
word = ctypes.c_int.from_buffer(shared)
hand_off(lambda: libc.syscall(202, ctypes.byref(word), 0, 0, None),
         lambda: libc.syscall(202, ctypes.byref(word), 1, 1))
",
    );
    assert_eq!(call(&played, played.led_to()), "futex 0");
}

/// The call that wakes is told as well: it raised nothing but the wake.
#[test]
fn a_pipe_is_handed_on() {
    let played = HandOff::play(
        BOTH,
        "
r, w = os.pipe()
hand_off(lambda: os.read(r, 10), lambda: os.write(w, b'four'))
",
    );
    assert_eq!(call(&played, played.led_to()), "read 4");
    let wake = played.wakes()[0];
    let writes = of(&played.history, "setter", Op::Call);
    let around = |e: &&&Event| (e.begin_ns..=e.time_ns).contains(&wake.time_ns);
    let write = writes.iter().find(around).expect("the wake lies inside of it");
    assert_eq!(call(&played, write), "write 4");
    assert!(write.flags.has(Flags::BEGAN) && write.begin_ns < wake.time_ns);
}

/// A send that slept lets others in between its bytes, whomever it wakes when it goes on. The reader sleeps again by then:
/// the sender cannot come in between.
#[test]
fn a_wake_hides_no_sleep() {
    let (history, _) = play(
        SCHED,
        "
a, b = socket.socketpair(type=socket.SOCK_DGRAM)
os.sched_setaffinity(0, {0})
sending = os.getpid()
def reader():
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    until(lambda: open(f'/proc/{sending}/stat').read().split()[2] == 'S')
    for _ in range(2000):
        b.recv(1)
reading = child('reader', reader)
rename('sender')
for _ in range(2000):
    a.send(b'.')
finish(reading)
",
    );
    let reader = history.hosts[0].tasks.iter().find(|task| task.comm == "reader").expect("it was");
    let mut wakes = of(&history, "sender", Op::Wake);
    wakes.retain(|wake| wake.target == reader.tid);
    let sends = of(&history, "sender", Op::Send);
    let slept = sends.windows(2).find(|pair| {
        let between = pair[0].time_ns..pair[1].time_ns;
        let long = pair[1].time_ns - pair[0].time_ns > 500_000;
        long && wakes.iter().any(|wake| between.contains(&wake.time_ns))
    });
    let slept = slept.expect("one had to wait, and woke the reader");
    assert!(slept[1].flags.has(Flags::SPLIT), "{slept:?}");
}

#[test]
fn a_message_on_a_unix_socket_wakes_its_receiver() {
    let played = HandOff::play(
        SCHED,
        "
a, b = socket.socketpair()
hand_off(lambda: b.recv(10), lambda: a.send(b'four'))
",
    );
    // Its begin is only bounded, by what the waiter did before.
    let led_to = played.led_to();
    assert_eq!((led_to.op, led_to.result), (Op::Recv, 4));
}

#[test]
fn a_child_that_ends_wakes_its_parent() {
    let (history, _) =
        play(BOTH, "rename('parent')\nfinish(child('worker', lambda: time.sleep(0.1)))");
    let parent = of(&history, "parent", Op::Call);
    let wait = parent.iter().find(|e| history.names.text(e.syscall) == "wait4").expect("it waited");
    let event = |index: EventIndex| &history.events[index as usize];
    let woken = woken(&history);
    let by = woken
        .iter()
        .find(|(_, next)| event(*next).position == wait.position && event(*next).op == Op::Call);
    let (wake, _) = by.expect("it was woken");
    assert_eq!(history.comm(event(*wake)), "worker");
}

/// What an interrupt wakes has no waker: neither a timer, nor a packet that came over loopback while its sender was current.
#[test]
fn interrupts_wake_in_nobodys_name() {
    let (history, said) = play(
        BOTH,
        "
def server(connection, turns):
    rename('receiver')
    time.sleep(0.05)
    noted('recv', connection.recv, 10)
    tell()
def client(connection, turns):
    rename('sender')
    time.sleep(0.2)
    connection.send(b'four')
play(server, client)
",
    );
    let note = &notes(&said)[0];
    let receiver = of(&history, "receiver", Op::Recv)[0].tid;
    let wakes = history.events.iter().filter(|e| e.op == Op::Wake && e.target == receiver);
    let inside = |e: &&Event| (note.begin_ns..=note.end_ns).contains(&e.time_ns);
    assert_eq!(wakes.filter(inside).count(), 0);
}

/// Threads that hand locks and turns to each other as fast as they can, for as long as the rings have room for it
/// whoever reads them. `play` has every edge checked.
#[test]
fn a_crowd_keeps_every_rule() {
    let (history, _) = play_in(
        Settings { ring_bytes: 256 << 20, ..SMALL },
        BOTH,
        "
rename('crowd')
ends = time.monotonic() + 3
TURNS, ROUNDS = 20_000, 10_000
condition, turn = threading.Condition(), [0]
def take_turns(own, all):
    with condition:
        while turn[0] < TURNS and time.monotonic() < ends:
            condition.wait_for(lambda: turn[0] % all == own, timeout=0.1)
            turn[0] += 1
            condition.notify_all()
def echo(r, w):
    while os.read(r, 1) == b'.':
        os.write(w, b'.')
    os.write(w, b'x')
def drive(r, w):
    for _ in range(ROUNDS):
        if time.monotonic() >= ends:
            break
        os.write(w, b'.')
        os.read(r, 1)
    os.write(w, b'x')
threads = [threading.Thread(target=take_turns, args=(own, 8)) for own in range(8)]
pairs = []
for _ in range(4):
    (a, b), (c, d) = os.pipe(), os.pipe()
    pairs.append(child('echo', lambda: echo(a, d)))
    pairs.append(child('drive', lambda: drive(c, b)))
[thread.start() for thread in threads]
[thread.join() for thread in threads]
finish(*pairs)
",
    );
    // Programs that are skipped since one is preempted are counted too.
    let lost = history.hosts[0].lost as usize;
    let skipped = if preempt::possible(Site::Tracepoint) { history.events.len() / 100 } else { 0 };
    assert!(lost <= skipped, "the rings hold all of it: {lost} lost");
    let woken = woken(&history);
    let wakes = history.events.iter().filter(|e| e.op == Op::Wake).count();
    assert!(woken.len() > 5000, "{} of {wakes}", woken.len());
    // Almost all of those who are woken do something afterwards.
    assert!(woken.len() * 10 > wakes * 9, "{} of {wakes}", woken.len());
    let mut last: HashMap<u32, u64> = HashMap::new();
    for event in &history.events {
        last.insert(event.tid, event.time_ns);
    }
    for (wake, next) in woken {
        let (wake, next) = (&history.events[wake as usize], &history.events[next as usize]);
        assert!(wake.time_ns <= next.time_ns, "{wake:?} {next:?}");
        assert!(Duration::from_nanos(next.time_ns - wake.time_ns) < Duration::from_secs(5));
    }
}

/// Each detail for itself, and what is detached tells nothing any more.
#[test]
fn details_come_and_go_one_by_one() {
    let mut recorder = Recorder::start(Scope::Command(String::new()));
    let mut counts = Vec::new();
    for detail in [Detail::FLOW, SYSCALL, BOTH, SCHED, Detail::FLOW] {
        recorder.detail(detail);
        let script = format!(
            "{NOTED}{HAND_OFF}r, w = os.pipe()\nhand_off(lambda: os.read(r, 1), lambda: os.write(w, b'.'))"
        );
        let mut child = recorder.spawn(&mut python_command(&script));
        assert!(recorder.follow(&mut child).success());
        let history = recorder.take();
        let has = |op| history.events.iter().any(|event| event.op == op);
        counts.push((has(Op::Call), has(Op::Wake)));
    }
    let expected = [(false, false), (true, false), (true, true), (false, true), (false, false)];
    assert_eq!(counts, expected);
    let stretches = recorder.take().hosts[0].details.clone();
    let details: Vec<_> = stretches.iter().map(|stretch| stretch.detail.as_str()).collect();
    assert_eq!(details, ["flow+syscall", "flow+syscall+sched", "flow+sched"]);
    assert!(stretches.iter().all(|stretch| stretch.from_ns < stretch.to_ns));
}
