//! Triggers that the kernel watches for: events, too many of them, and processes that end badly.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, SystemTime};

use jiff::Timestamp;

use super::KILLED;
use super::running::{Running, json};
use super::triggers::{standing, until};

const LIMITS: &str = "cooldown = '1s'\n";

/// Connections that are reset, or not, as many as are asked for: `RESETS` and `OTHERS` stand for the numbers.
const RESETS: &str = "
def server(connection, turn):
    listener = socket.socket()
    listener.bind(('127.0.0.1', 0))
    listener.listen(8)
    turn.give(listener.getsockname()[1])
    for number in range(RESETS + OTHERS):
        accepted, _ = listener.accept()
        if number < RESETS:
            reset_on_close(accepted)
        else:
            accepted.send(b'x')
        accepted.close()

def client(connection, turn):
    port = int(turn.take())
    for number in range(RESETS + OTHERS):
        made = socket.create_connection(('127.0.0.1', port))
        say(seen(made.recv, 1))
        made.close()

play(server, client)
";

pub fn resets(daemon: &Running, resets: usize, others: usize) {
    let script = RESETS.replace("RESETS", &resets.to_string());
    daemon.play(&script.replace("OTHERS", &others.to_string()));
}

fn fired(daemon: &Running, name: &str) -> u64 {
    standing(daemon, name)["fired"].as_u64().expect("a number")
}

fn made(path: &Path) -> SystemTime {
    fs::metadata(path).and_then(|file| file.modified()).expect("it is there")
}

#[test]
fn an_event_makes_a_dump_that_explains_it() {
    let daemon = Running::start(&format!(
        "{LIMITS}[[trigger]]\nname = 'Reset'\nevent = 'comm=client op=recv error=ECONNRESET'\nafter = '0s'\n\
         [[trigger]]\nname = 'Other'\nevent = 'comm=nobody op=recv error=ECONNRESET'\n\
         [[trigger]]\nname = 'Timeout'\nevent = 'comm=client op=recv error=ETIMEDOUT,EPIPE'\n"
    ));
    resets(&daemon, 0, 3);
    resets(&daemon, 1, 0);
    let folder = daemon.wait_for("-Reset");
    let why = fs::read_to_string(folder.join("why.txt")).expect("an answer");
    assert!(why.starts_with("incident Reset, told by event\nculprit "), "{why}");
    assert!(why.contains("symptom") && why.contains("recv ECONNRESET"), "{why}");
    let said = json(&folder.join("trigger.json"));
    let labels = &said["said"]["labels"];
    assert_eq!(labels["comm"], "client", "{said}");
    assert!(labels["remote"].as_str().is_some_and(|a| a.starts_with("127.0.0.1:")), "{said}");
    // Nobody polls: the daemon has heard of it, and written this down, in a moment.
    let began: Timestamp = said["began"].as_str().expect("a time").parse().expect("a time");
    let heard = made(&folder.join("trigger.json"));
    // A file's time is that of the last tick.
    let late = heard.duration_since(began.into()).unwrap_or_default();
    assert!(late < Duration::from_secs(2), "{late:?}");
    assert_eq!((fired(&daemon, "Reset"), fired(&daemon, "Other")), (1, 0));
    assert_eq!(fired(&daemon, "Timeout"), 0);
}

#[test]
fn resets_are_counted_wherever_they_come() {
    let daemon = Running::start(&format!(
        "{LIMITS}[[trigger]]\nname = 'Received'\ncount = 'op=reset_received peer=127.0.0.0/8'\n\
         above = '0.1/s'\nwindow = '60s'\nafter = '0s'\n\
         [[trigger]]\nname = 'Sent'\nevent = 'op=reset_sent'\nafter = '0s'\n"
    ));
    resets(&daemon, 6, 3);
    thread::sleep(Duration::from_millis(300));
    assert_eq!(fired(&daemon, "Received"), 0, "six in a minute are allowed");
    resets(&daemon, 1, 0);
    let why = fs::read_to_string(daemon.wait_for("-Received").join("why.txt")).expect("an answer");
    assert!(why.starts_with("incident Received, told by count\nculprit "), "{why}");
}

#[test]
fn more_events_than_are_allowed_in_a_window_make_a_dump() {
    let daemon = Running::start(&format!(
        "{LIMITS}[[trigger]]\nname = 'Many'\ncount = 'comm=client op=recv error=*'\n\
         above = '0.1/s'\nwindow = '60s'\nafter = '0s'\n"
    ));
    resets(&daemon, 6, 10);
    thread::sleep(Duration::from_millis(300));
    assert_eq!(fired(&daemon, "Many"), 0, "six in a minute are allowed");
    resets(&daemon, 1, 0);
    let why = fs::read_to_string(daemon.wait_for("-Many").join("why.txt")).expect("an answer");
    assert!(why.starts_with("incident Many, told by count\nculprit "), "{why}");
}

#[test]
fn too_large_a_share_makes_a_dump_when_its_window_is_over() {
    let daemon = Running::start(&format!(
        "{LIMITS}[[trigger]]\nname = 'Share'\ncount = 'comm=client op=recv error=*'\n\
         of = 'comm=client op=recv'\nabove = '30%'\nwindow = '5s'\nafter = '0s'\n"
    ));
    let window = || thread::sleep(Duration::from_millis(5100));
    resets(&daemon, 5, 40);
    window();
    resets(&daemon, 10, 5);
    assert_eq!(fired(&daemon, "Share"), 0, "a ninth is allowed, and of 15 no share is taken yet");
    window();
    resets(&daemon, 20, 10);
    assert_eq!(fired(&daemon, "Share"), 0, "the window is not over");
    window();
    resets(&daemon, 0, 1);
    daemon.wait_for("-Share");
}

#[test]
fn a_process_that_dies_makes_a_dump() {
    let daemon = Running::start(&format!(
        "{LIMITS}[[trigger]]\nname = 'Died'\nexit = 'signal=*'\nafter = '0s'\n\
         [[trigger]]\nname = 'Failed'\nexit = 'comm=quitter'\nafter = '0s'\n"
    ));
    daemon.play("finish(child('quitter', lambda: None))");
    daemon.play(
        "
pid = child('quitter', lambda: threading.Thread(target=lambda: None).start() or os._exit(3))
os.waitpid(pid, 0)
",
    );
    let failed = daemon.wait_for("-Failed");
    let why = fs::read_to_string(failed.join("why.txt")).expect("an answer");
    assert!(why.contains("quitter[") && why.contains("exit"), "{why}");
    assert_eq!((fired(&daemon, "Failed"), fired(&daemon, "Died")), (1, 0));
    daemon.play(KILLED);
    let died = daemon.wait_for("-Died");
    let why = fs::read_to_string(died.join("why.txt")).expect("an answer");
    assert!(why.starts_with("incident Died, told by exit\n"), "{why}");
    assert!(why.lines().take(3).any(|line| line.contains("murderer[")), "{why}");
    assert_eq!(fired(&daemon, "Failed"), 1, "killed ones are not called so");
}

#[test]
fn a_storm_of_events_makes_one_dump_and_raises_the_detail() {
    let daemon = Running::start(
        "[[trigger]]\nname = 'Storm'\nevent = 'comm=client op=recv'\n\
         raise = { detail = '+net', for = '60s' }\n",
    );
    for _ in 0..3 {
        daemon.play(super::running::LOAD);
    }
    daemon.wait_for("-Storm");
    assert_eq!(daemon.dumps().iter().filter(|name| name.ends_with("-Storm")).count(), 1);
    let asked = fired(&daemon, "Storm");
    assert!((1..100).contains(&asked), "180,000 events asked {asked} times");
    assert!(daemon.ask(&["status"]).contains("detail   flow+net"), "{}", daemon.ask(&["status"]));
}

#[test]
fn what_the_kernel_watches_for_changes_with_the_configuration() {
    let table = |name: &str, error: &str| {
        format!("[[trigger]]\nname = '{name}'\nevent = 'op=recv error={error}'\nafter = '0s'\n")
    };
    let (first, second) = (table("First", "ECONNRESET"), table("Second", "ETIMEDOUT"));
    let daemon = Running::start(&format!("{LIMITS}{second}"));
    let config = daemon.path("config.toml");
    let with_second = fs::read_to_string(&config).expect("it was written");
    fs::write(&config, with_second.replace(&second, &format!("{first}{second}")))
        .expect("it is written");
    daemon.ask(&["reload"]);
    resets(&daemon, 1, 0);
    daemon.wait_for("-First");
    assert_eq!(fired(&daemon, "Second"), 0);
    fs::write(&config, with_second.replace(&second, "")).expect("it is written");
    daemon.ask(&["reload"]);
    until("it is not watched any more", || !daemon.ask(&["status"]).contains("First"));
    resets(&daemon, 1, 0);
    assert_eq!(daemon.dumps().len(), 1, "{:?}", daemon.dumps());
}
