//! Rings that are too small for what is raised: what is lost is counted to the event and named, what is kept
//! is true.

use std::process::{Child, Stdio};
use std::thread;
use std::time::Duration;

use recorder::capture::Scope;
use recorder::capture::attach::Settings;
use recorder::event::{History, Op, Ring};
use tests::patience;

use crate::recorded::{Recorder, python_command};

/// As small as rings get.
const TINY: Settings =
    Settings { ring_bytes: 1 << 20, probe_log: false, record_self: false, family: None };

/// Sends and receives as fast as two processes can, and says how many calls there were.
const FLOOD: &str = "
ROUNDS = 30_000

def server(connection, turn):
    for _ in range(ROUNDS):
        connection.sendall(connection.recv(1, socket.MSG_WAITALL))

def client(connection, turn):
    for _ in range(ROUNDS):
        connection.send(b'x')
        connection.recv(1)

play(server, client)
";
const CALLS: usize = 4 * 30_000;

fn flood(recorder: &mut Recorder, turn: Duration) -> Child {
    let mut child = recorder.spawn(python_command(FLOOD).stdout(Stdio::null()));
    while child.try_wait().expect("it is our child").is_none() {
        thread::sleep(turn);
        if !turn.is_zero() {
            recorder.turn();
        }
    }
    child
}

fn transfers(history: &History) -> usize {
    history.events.iter().filter(|e| matches!(e.op, Op::Send | Op::Recv)).count()
}

/// `Recorder::finish` has checked every edge, and that kept and lost are what was raised.
fn lossy() -> History {
    let mut recorder = Recorder::with(Scope::Command(String::new()), TINY);
    // Slower than the flood, on whatever machine.
    let mut child = flood(&mut recorder, Duration::from_millis(200) * patience::slowness());
    assert!(recorder.follow(&mut child).success());
    let losses = recorder.losses().expect("it was too slow");
    assert!(losses.contains(" overwritten before they were read"), "{losses}");
    recorder.finish()
}

#[test]
fn what_a_slow_reader_loses_is_counted_to_the_event() {
    let history = lossy();
    let host = &history.hosts[0];
    let kept = transfers(&history);
    assert!(host.lost > 1000 && kept > 1000, "{} lost, {kept} kept", host.lost);
    let lost = |ring| host.gaps.iter().filter(|g| g.ring == ring).map(|g| g.events).sum::<u64>();
    // The programs know how many calls they made.
    assert_eq!(kept as u64 + lost(Ring::Bulk), CALLS as u64);
    assert_eq!(lost(Ring::Bulk) + lost(Ring::Rare), host.lost);
}

#[test]
fn a_thread_whose_events_are_missing_says_so_and_its_order_holds() {
    let history = lossy();
    let mut last = std::collections::HashMap::<u32, (u64, u32)>::new();
    let mut after_gap = 0;
    for event in history.events.iter().filter(|e| e.tid != 0) {
        let before = last.insert(event.tid, (event.time_ns, event.task_count));
        let Some((time_ns, count)) = before else { continue };
        assert!(event.time_ns >= time_ns && event.task_count > count, "{event:?}");
        let hole = event.task_count != count + 1;
        assert_eq!(event.flags.has(recorder::event::Flags::AFTER_GAP), hole, "{event:?}");
        after_gap += usize::from(hole);
    }
    assert!(after_gap > 0);
}

#[test]
fn gaps_lie_where_nothing_was_kept() {
    let history = lossy();
    let host = &history.hosts[0];
    assert!(!host.gaps.is_empty());
    for gap in &host.gaps {
        assert!(gap.from_ns < gap.to_ns && gap.events > 0, "{gap:?}");
        let inside = history.events.iter().filter(|e| {
            u32::from(e.cpu) == gap.cpu
                && e.ring == gap.ring
                && e.time_ns > gap.from_ns
                && e.time_ns < gap.to_ns
        });
        assert_eq!(inside.count(), 0, "{gap:?}");
    }
    assert!(host.bulk_window.from_ns >= host.gaps.iter().map(|g| g.to_ns).max().unwrap_or(0));
}

#[test]
fn a_snapshot_keeps_the_newest() {
    let mut recorder = Recorder::with(Scope::Command(String::new()), TINY);
    assert!(flood(&mut recorder, Duration::ZERO).wait().expect("it is our child").success());
    let history = recorder.finish();
    let (slots, _) = TINY.slots(history.hosts[0].cpus);
    let kept = transfers(&history);
    assert!(kept >= slots as usize / 2, "{kept} of {slots} slots");
    assert!(kept <= slots as usize * history.hosts[0].cpus as usize);
    let newest = history.events.iter().rfind(|e| e.op == Op::Recv).expect("something was kept");
    assert!(newest.stream_end >= 30_000, "the end of the stream is there: {newest:?}");
}

#[test]
fn nothing_is_lost_by_a_reader_that_keeps_up() {
    let mut recorder = Recorder::start(Scope::Command(String::new()));
    let mut child = flood(&mut recorder, Duration::from_millis(10));
    assert!(recorder.follow(&mut child).success());
    let history = recorder.finish();
    assert_eq!((history.hosts[0].lost, history.hosts[0].gaps.len()), (0, 0));
    assert_eq!(transfers(&history), CALLS);
}

/// A connection is named once, at its beginning; then the ring of names is lapped many times by forks. Who
/// looks only at the end must still know it.
#[test]
fn a_long_lived_connection_keeps_its_name_although_names_were_overwritten() {
    let recorder = Recorder::with(Scope::Command(String::new()), TINY);
    let script = "
def server(connection, turn):
    # Both CPUs, so that both rings are lapped.
    for cpu in os.sched_getaffinity(0):
        os.sched_setaffinity(0, {cpu})
        for _ in range(1_500):
            os.waitpid(os.posix_spawn('/bin/true', ['true'], {}), 0)
            connection.sendall(b'x')
    connection.recv(1)

def client(connection, turn):
    total = 1_500 * len(os.sched_getaffinity(0))
    while total:
        total -= len(connection.recv(100))

play(server, client)
";
    let mut child = recorder.spawn(python_command(script).stdout(Stdio::null()));
    assert!(child.wait().expect("it is our child").success());
    let history = recorder.finish();
    let (_, rare_slots) = TINY.slots(history.hosts[0].cpus);
    let lapped = history.events.iter().filter(|e| e.ring == Ring::Rare).map(|e| e.position).max();
    assert!(lapped > Some(u64::from(rare_slots) * 4), "{lapped:?} of {rare_slots}");
    let sends: Vec<_> = history.events.iter().filter(|e| e.op == Op::Send).collect();
    let nameless = sends.iter().filter(|e| history.names.address(e.remote).is_none()).count();
    assert!(nameless * 10 < sends.len(), "{nameless} of {} have no address", sends.len());
    let last = sends.last().expect("some were kept");
    assert!(history.names.address(last.remote).is_some() && last.has_range(), "{last:?}");
    assert_eq!(history.comm(last), "server");
}
