//! Details that the daemon raises, for a person or a trigger, and lowers by itself.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use tests::patience;

use crate::daemon::running::Running;

/// A process waits for another in a pipe, and fails.
const HAND_OFF: &str = "
r, w = os.pipe()
def waiter():
    os.read(r, 1)
    os._exit(77)
waiting = child('waiter', waiter)
time.sleep(0.3)
os.write(w, b'.')
os.waitpid(waiting, 0)
";

fn until_it_is_flow(running: &Running) {
    let begun = Instant::now();
    while !running.ask(&["status"]).contains("detail   flow\n") {
        assert!(begun.elapsed() < patience::seconds(20), "it goes down by itself");
        thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn a_person_raises_it_for_a_while() {
    let running = Running::start("");
    let told = running.ask(&["detail", "+syscall+sched", "--for", "4s"]);
    assert_eq!(told, "recording flow+syscall+sched, for 4.0 s\n");
    running.play(HAND_OFF);
    until_it_is_flow(&running);
    let folder = running.dump(&["--name", "waited", "op=call syscall=read comm=waiter"]);
    let why = fs::read_to_string(folder.join("why.txt")).expect("an answer");
    assert!(why.contains("read(") && why.contains("woke it"), "{why}");
    assert!(why.contains(": flow+syscall+sched "), "{why}");
}

/// The first failure raises it, so that the next one is told with who waited for whom.
#[test]
fn a_trigger_raises_it() {
    let running = Running::start(
        "[[trigger]]\nname = 'Failed'\nexit = 'comm=waiter result=77'\nafter = '0s'\n\
         raise = { detail = '+syscall+sched', for = '5s' }\n",
    );
    running.play(HAND_OFF);
    let first = running.wait_for("-Failed");
    let begun = Instant::now();
    while !running.ask(&["status"]).contains("detail   flow+syscall+sched, for another ") {
        assert!(begun.elapsed() < patience::seconds(10), "it is raised");
        thread::sleep(Duration::from_millis(50));
    }
    running.play(HAND_OFF);
    let folder = running.dump(&["--name", "next", "op=wake"]);
    let why = fs::read_to_string(folder.join("why.txt")).expect("an answer");
    assert!(why.contains("wake "), "{why}");
    assert_ne!(first, folder);
    until_it_is_flow(&running);
}
