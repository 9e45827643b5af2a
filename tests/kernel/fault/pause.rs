//! Processes that a fault stops go on when their time is up, whoever ends meanwhile.

use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use recorder::event::Op;
use tests::patience;

use super::running::{Inject, wait_for};
use super::{changed, counts, inject};

#[test]
fn a_pause_stops_the_process_for_its_time_and_nobody_else() {
    let script = "
import time
address = serve()
def play():
    a = socket.create_connection(address)
    for i in range(3):
        begun = time.monotonic()
        a.send(b'x')
        a.recv(1)
        seconds = time.monotonic() - begun
        print('stood still' if seconds >= 0.39 else 'went on')
        if seconds > 3 * int(os.environ.get('WHEREFORE_TEST_SLOWNESS', '1')):
            print('for', seconds)
client('bystander', play)
client('victim', play)
";
    let run = inject("comm=victim op=recv => pause=400ms, nth=2, name=nap", script);
    expect_test::expect![[r#"
        went on
        went on
        went on
        went on
        stood still
        went on
    "#]]
    .assert_eq(&run.said);
    assert_eq!((counts(&run.fault), run.status), ([3, 1, 1], Some(0)));
    let [stop] = changed(&run.history)[..] else { panic!("one signal is sent") };
    assert_eq!((stop.op, i32::from(stop.signal)), (Op::Signal, libc::SIGSTOP));
    let continued = run
        .history
        .events
        .iter()
        .filter(|event| event.op == Op::Signal && i32::from(event.signal) == libc::SIGCONT);
    let comms: Vec<_> = continued.map(|event| run.history.comm(event)).collect();
    assert_eq!(comms, ["wherefore"], "the guardian let it go on");
}

/// The signal goes to the process, whichever of its threads raised the event.
#[test]
fn a_pause_in_a_second_thread_is_confirmed() {
    let script = "
address = serve()
def play():
    a = socket.create_connection(address)
    for i in range(3):
        a.send(b'x')
        a.recv(1)
def beside():
    thread = threading.Thread(target=play)
    thread.start()
    thread.join()
client('victim', beside)
";
    let run = inject("comm=victim op=recv => pause=20ms, nth=2", script);
    assert_eq!((counts(&run.fault), run.status), ([3, 1, 1], Some(0)));
    let [stop] = changed(&run.history)[..] else { panic!("one signal is sent") };
    assert_ne!(stop.pid, stop.tid);
}

/// A client that says on its standard output what it does; each receive stops it for a minute.
const LONG: &str = "comm=victim op=recv => pause=60s, every=1, count=100";

const TALK: &str = "
address = serve()
def play():
    a = socket.create_connection(address)
    while True:
        a.send(b'x')
        a.recv(1)
client('victim', play)
";

#[test]
fn the_guardian_holds_no_program_and_is_not_ended_by_what_ends_the_recorder() {
    let inject = Inject::start(&[LONG], TALK);
    let victim = inject.stopped();
    let guardian = inject.guardian().expect("there is one");
    let held = std::fs::read_dir(format!("/proc/{guardian}/fdinfo")).expect("it lives").flatten();
    let held: Vec<String> =
        held.map(|entry| std::fs::read_to_string(entry.path()).unwrap_or_default()).collect();
    let holding = |key: &str| held.iter().filter(|text| text.contains(key)).count();
    assert_eq!((holding("prog_id:"), holding("link_id:"), holding("map_id:")), (0, 0, 4));
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT] {
        kill(Pid::from_raw(guardian as i32), signal).expect("it lives");
    }
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(inject.guardian(), Some(guardian));
    assert_eq!(inject.stopped(), victim);
    inject.kill_and_look();
}

#[test]
fn a_guardian_that_is_killed_is_followed_by_another() {
    let inject = Inject::start(&["comm=victim op=recv => pause=3s, nth=1"], TALK);
    inject.stopped();
    let first = inject.guardian().expect("there is one");
    kill(Pid::from_raw(first as i32), Signal::SIGKILL).expect("it lives");
    wait_for("another guardian", || inject.guardian().is_some_and(|pid| pid != first));
    wait_for("the end of the pause", || inject.all_stopped().is_empty());
    inject.kill_and_look();
}

/// The recorder's normal end, in the middle of a pause.
#[test]
fn nobody_stays_stopped_when_the_recorder_ends() {
    let mut inject = Inject::start(&[LONG], TALK);
    inject.stopped();
    inject.end(Signal::SIGTERM, patience::seconds(20));
    assert_eq!(inject.guardian(), None, "it has ended before the recorder has");
    inject.look();
}
