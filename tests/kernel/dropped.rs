//! Packets that the kernel drops (detail `net`): seen while it is asked for, told with the reason, and their sender's.

use std::thread;
use std::time::{Duration, Instant};

use recorder::capture::Scope;
use recorder::capture::detail::{Detail, More};
use recorder::event::{Event, History, Op};

use tests::patience;

use crate::daemon;
use crate::daemon::running::{self, Running};
use crate::netns::{NAMESPACES, Namespace};
use crate::recorded::{Recorder, python_command};

const NET: Detail = Detail::of(More::Net);

/// A client and a server that hears nothing until the first packet with data was sent again.
const LOSSY: &str = "
rename('client')
server = socket.create_server(('127.0.0.1', 7788))
client = socket.create_connection(('127.0.0.1', 7788))
accepted = server.accept()[0]
deafen(accepted)
client.send(b'hello')
until(lambda: retransmits(client), 'the retransmission')
hear(accepted)
assert accepted.recv(5) == b'hello'
";

const FLOOD: &str = "
deaf = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
deaf.bind(('127.0.0.1', 7789))
deafen(deaf)
flood = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
flood.connect(('127.0.0.1', 7789))
for _ in range(5000):
    flood.send(b'x')
";

fn scripted(namespace: &Namespace, script: &str) -> String {
    format!("{NAMESPACES}\ngo('{}')\n{script}", namespace.name())
}

/// Plays a script in a namespace of its own, and returns what was recorded of it.
fn play(recorder: &mut Recorder, namespace: &Namespace, script: &str) -> History {
    let script = scripted(namespace, script);
    let mut child = recorder.spawn(&mut python_command(&script));
    assert!(recorder.follow(&mut child).success());
    recorder.take()
}

fn dropped(history: &History) -> Vec<&Event> {
    history.events.iter().filter(|event| event.op == Op::Dropped).collect()
}

#[test]
fn dropped_packets_are_seen_while_they_are_asked_for() {
    let namespace = Namespace::make("drops");
    let mut recorder = Recorder::start(Scope::Command("python3".to_owned()));
    let before = play(&mut recorder, &namespace, LOSSY);
    assert_eq!(dropped(&before), Vec::<&Event>::new());
    recorder.detail(NET);
    let during = play(&mut recorder, &namespace, LOSSY);
    recorder.detail(Detail::FLOW);
    let after = play(&mut recorder, &namespace, LOSSY);
    assert_eq!(dropped(&after), Vec::<&Event>::new());

    let drops = dropped(&during);
    let reason = |event: &Event| {
        during.hosts[0].drop_reasons[&u32::try_from(event.result).unwrap()].as_str()
    };
    let first =
        drops.iter().find(|event| reason(event) == "SOCKET_FILTER").expect("one was dropped");
    // It is its sender's: the socket that connected, and that had to send it again.
    let connect = during.events.iter().find(|e| e.op == Op::Connect).expect("it connected");
    assert_eq!((first.socket, first.pid, first.tid), (connect.socket, connect.pid, 0));
    let again = |e: &&Event| e.op == Op::Retransmit && e.socket == first.socket;
    let again = during.events.iter().find(again).expect("it was sent again");
    assert!(again.time_ns > first.time_ns);

    let stretches = &after.hosts[0].details;
    assert_eq!(stretches.len(), 1, "{stretches:?}");
    assert_eq!(stretches[0].detail, "flow+net");
    assert!(stretches[0].from_ns < first.time_ns && first.time_ns < stretches[0].to_ns);
}

#[test]
fn of_a_flood_of_drops_some_are_told_and_the_others_counted() {
    let namespace = Namespace::make("flood");
    let mut recorder = Recorder::start(Scope::Command("python3".to_owned()));
    recorder.detail(NET);
    let history = play(&mut recorder, &namespace, FLOOD);
    let told = dropped(&history).iter().filter(|e| e.remote != e.local).count() as u64;
    let untold = history.hosts[0].drops_untold;
    assert!(told >= 64 && untold > 0, "{told} told, {untold} not");
    assert!(told + untold >= 5000, "{told} told, {untold} not");
}

/// What an alert raises is recorded at the next occurrence, and goes down by itself.
#[test]
fn an_alert_raises_the_detail_for_a_while() {
    let running = Running::start("[[alert]]\nraise = { detail = '+net', for = '6s' }\n");
    assert!(running.ask(&["status"]).contains("detail   flow\n"));
    let alert = daemon::alert("Lossy", "firing", &running::now());
    assert!(running.post("/api/v1/alerts", &alert).contains("200 OK"));
    assert!(running.ask(&["status"]).contains("detail   flow+net, for another "));
    running.wait_for("-Lossy");
    let namespace = Namespace::make("raised");
    running.play(&scripted(&namespace, LOSSY));
    let folder = running.dump(&["--name", "next", "op=dropped"]);
    let why = std::fs::read_to_string(folder.join("why.txt")).expect("an answer");
    assert!(why.contains("packet dropped (SOCKET_FILTER)"), "{why}");
    assert!(why.contains("detail   ") && why.contains(": flow+net "), "{why}");
    let begun = Instant::now();
    while running.ask(&["status"]).contains("flow+net") {
        assert!(begun.elapsed() < patience::seconds(20), "it goes down by itself");
        thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(running.ask(&["detail", "+net", "--for", "1m"]), "recording flow+net, for 60.0 s\n");
    assert_eq!(running.ask(&["detail", "flow"]), "recording flow\n");
    let refused = running.post("/v1/detail", "{\"detail\":\"+payload\"}");
    assert!(refused.contains("there is no detail `payload`"), "{refused}");
}
