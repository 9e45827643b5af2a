//! Snapshots of rings that go on filling: each is complete for the window it claims, knows all names by itself,
//! and costs the next one nothing.

use std::collections::BTreeSet;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use recorder::capture::attach::Settings;
use recorder::capture::snapshot::Cut;
use recorder::capture::{Scope, clock};
use recorder::event::{Address, Event, History, Name, Op, Ring};

use tests::patience;

use crate::recorded::{Recorder, SMALL, python_command};

/// As small as rings get: they turn over within a few milliseconds of this load.
const TINY: Settings =
    Settings { ring_bytes: 1 << 20, probe_log: false, record_self: false, family: None };

/// They hold all of this load, on a fast machine as well.
const LARGE: Settings = Settings { ring_bytes: 64 << 20, ..SMALL };

/// Two connections: one as old as the program, and one after another that live short.
const TALK: &str = "
import time

def server(connection, turn):
    while connection.recv(1):
        connection.send(b'x')

def client(connection, turn):
    until = time.monotonic() + LASTING
    while time.monotonic() < until:
        for _ in range(50):
            connection.send(b'x')
            connection.recv(1)
        with socket.create_server(('127.0.0.1', 0)) as other:
            a = socket.create_connection(other.getsockname())
            b = other.accept()[0]
            a.send(b'short')
            b.recv(5)
            a.close()
            b.close()

play(server, client)
";

const SHORT: Duration = Duration::from_millis(1200);

fn talk(lasting: Duration) -> Command {
    python_command(&TALK.replace("LASTING", &lasting.as_secs_f64().to_string()))
}

type Identity = (u16, Ring, u64);

fn identities(events: &[Event], host: &recorder::event::Host) -> BTreeSet<Identity> {
    let within = |event: &&Event| {
        let window = if event.ring == Ring::Bulk { host.bulk_window } else { host.rare_window };
        window.from_ns <= event.time_ns && event.time_ns <= window.to_ns
    };
    events.iter().filter(within).map(|e| (e.cpu, e.ring, e.position)).collect()
}

/// Takes snapshots while `TALK` runs and a second recorder follows everything; what the follower lost it
/// says itself.
fn snapshots(settings: Settings, lasting: Duration) -> (Vec<History>, History) {
    let mut recorder = Recorder::with(Scope::Command(String::new()), settings);
    let mut child = recorder.spawn(talk(lasting).stdout(Stdio::null()));
    let mut taken = Vec::new();
    while child.try_wait().expect("it is our child").is_none() {
        for _ in 0..40 {
            recorder.turn();
            thread::sleep(Duration::from_micros(500));
        }
        taken.push(recorder.snapshot(Cut::ALL));
        recorder.turn();
    }
    assert!(recorder.follow(&mut child).success());
    (taken, recorder.finish())
}

#[test]
fn a_snapshot_holds_all_of_its_window_and_nothing_else() {
    let (taken, all) = snapshots(LARGE, SHORT);
    assert_eq!(all.hosts[0].lost, 0, "the follower keeps up");
    assert!(taken.len() > 2, "{} snapshots", taken.len());
    for snapshot in &taken {
        let host = &snapshot.hosts[0];
        assert_eq!(host.lost, 0);
        let held = identities(&snapshot.events, host);
        assert_eq!(held.len(), snapshot.events.len(), "events outside the window");
        assert_eq!(held, identities(&all.events, host));
    }
    let windows = taken.iter().map(|s| s.hosts[0].bulk_window.to_ns).collect::<Vec<_>>();
    assert!(windows.is_sorted(), "{windows:?}");
}

#[test]
fn rings_that_turn_over_leave_a_shorter_window_that_is_complete() {
    let (taken, all) = snapshots(TINY, patience::seconds(1));
    let lossless = all.hosts[0].lost == 0;
    let turned = taken.iter().filter(|s| s.hosts[0].bulk_window.from_ns > all.events[0].time_ns);
    assert!(turned.count() > 3, "the rings turned over");
    let mut compared = 0;
    for snapshot in &taken {
        let host = &snapshot.hosts[0];
        assert_eq!(host.lost, 0, "what was overwritten is not lost but before the window");
        let (held, followed) = (identities(&snapshot.events, host), identities(&all.events, host));
        assert!(!lossless || held == followed, "{:?}", held.symmetric_difference(&followed).next());
        assert!(held.is_superset(&followed), "the follower has what the snapshot lacks");
        compared += held.len();
    }
    assert!(compared > 5_000, "{compared} events compared");
}

#[test]
fn every_name_is_in_every_snapshot_however_old_what_it_names() {
    let (taken, _) = snapshots(TINY, patience::seconds(1));
    let last = taken.last().expect("there were some");
    let transfers = last.events.iter().filter(|e| matches!(e.op, Op::Send | Op::Recv));
    let transfers: Vec<&Event> = transfers.collect();
    assert!(transfers.len() > 500, "{}", transfers.len());
    for event in transfers {
        assert_ne!(event.comm, Name::NONE, "{event:?}");
        assert_ne!(event.local, Address::NONE, "{event:?}");
        assert!(event.error != 0 || event.has_range(), "{event:?}");
    }
}

#[test]
fn what_was_before_is_left_out_where_that_is_asked() {
    let recorder = Recorder::with(Scope::Command(String::new()), LARGE);
    let mut child = recorder.spawn(talk(SHORT).stdout(Stdio::null()));
    thread::sleep(Duration::from_millis(900));
    let since_ns = clock::monotonic_ns() - 200_000_000;
    let (all, last) =
        (recorder.snapshot(Cut::ALL), recorder.snapshot(Cut { since_ns, ..Cut::ALL }));
    assert!(child.wait().expect("it is our child").success());
    assert_eq!(last.hosts[0].bulk_window.from_ns, since_ns);
    assert!(last.events.iter().all(|e| e.time_ns >= since_ns), "an older event");
    let to_ns = all.hosts[0].bulk_window.to_ns;
    let common = |h: &History| {
        let events = h.events.iter().filter(|e| since_ns <= e.time_ns && e.time_ns <= to_ns);
        events.map(|e| (e.cpu, e.ring, e.position)).collect::<BTreeSet<_>>()
    };
    assert_eq!(common(&all), common(&last));
    assert!(common(&last).len() > 100);
}
