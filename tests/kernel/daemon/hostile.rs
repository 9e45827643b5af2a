//! Whoever may reach the daemon's door cannot harm it, its folder or its other clients, nor fill its log.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use recorder::recording::{read, write};
use serde_json::json;

use super::peers::{hostile, parts, with_peers};
use super::running::{self, Running, TOKEN};
use super::{KILLED, alert};

/// What a daemon may say while it is pestered: a few lines, not one for each request.
const MOST_LINES: usize = 20;

fn status_of(answer: &str) -> u16 {
    answer.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0)
}

/// Posts bytes, whatever they are.
fn post(daemon: &Running, body: &[u8]) -> String {
    let mut stream = daemon.connect();
    let head = format!(
        "POST /api/v1/alerts HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    // Whoever is refused early need not be heard to the end.
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body));
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

/// A sequence that is the same each time (Knuth's MMIX generator).
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % end.max(1)
    }
}

/// One change of the kinds that break parsers.
fn mutate(body: &mut Vec<u8>, random: &mut Random) {
    let at = random.below(body.len());
    match random.below(6) {
        0 => body.truncate(at),
        1 => body.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1 << random.below(8)),
        2 => body.splice(at..at, *b"{[\"").for_each(drop),
        3 => body.splice(at..at, b"9".repeat(400)).for_each(drop),
        4 => body.splice(at..at, b"[".repeat(5000)).for_each(drop),
        _ => body.extend_from_within(at..),
    }
}

/// Names that would lead elsewhere as a path, take over a terminal, or pass for a line of an answer.
const NAMES: [&str; 5] =
    ["../../escaped", "/tmp/escaped", "..", "a\u{1b}[2J\u{202e}", "a\nculprit  nobody[1]  nothing"];

fn home(daemon: &Running) -> BTreeSet<String> {
    let entries = fs::read_dir(daemon.path("")).expect("a folder").flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

#[test]
fn broken_webhooks_are_refused_and_make_no_more_dumps_than_others() {
    let daemon = Running::start("");
    let mut random = Random(7);
    for round in 0..400 {
        let mut body = alert("Fuzzed", "firing", "2026-01-01T00:00:00Z").into_bytes();
        for _ in 0..=random.below(3) {
            mutate(&mut body, &mut random);
        }
        let answer = post(&daemon, &body);
        let known = [200, 400, 413, 422, 429];
        assert!(known.contains(&status_of(&answer)), "round {round}: {answer}");
    }
    assert!(daemon.ask(&["status"]).contains("recording cgroup "));
    assert!(daemon.dumps().len() <= 3, "{:?}", daemon.dumps());
    assert!(daemon.log().lines().count() < MOST_LINES, "{}", daemon.log());
}

#[test]
fn names_in_alerts_stay_in_the_folder_of_dumps() {
    let daemon = Running::start("");
    daemon.edit(|text| text.replace("per_hour = 3", "per_hour = 100"));
    daemon.ask(&["reload"]);
    let before = home(&daemon);
    let long = "x/".repeat(5000);
    let names =
        ["../../escaped", "/tmp/escaped", ".", "..", ".making", "a\0b", "a\nb\u{1b}[2J", "", &long];
    for name in names {
        let answer = daemon.post("/api/v1/alerts", &alert(name, "firing", &running::now()));
        assert_eq!(status_of(&answer), 200, "{name:?}: {answer}");
    }
    super::triggers::until("all are made", || {
        let status = daemon.status();
        let dumps = &status["dumps"];
        let number = |key: &str| dumps[key].as_u64().expect("a number");
        number("waiting") == 0 && number("kept") + number("refused") >= names.len() as u64
    });
    for dump in daemon.dumps() {
        let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        assert!(dump.starts_with("20") && dump.chars().all(plain) && dump.len() < 128, "{dump:?}");
        assert!(daemon.path("dumps").join(&dump).join("why.txt").exists(), "{dump:?}");
    }
    assert_eq!(home(&daemon), before);
    assert!(!fs::exists("/tmp/escaped").expect("a path"));
    assert!(!daemon.log().contains('\u{1b}'), "{:?}", daemon.log());
}

#[test]
fn who_has_no_token_or_no_haste_holds_up_nobody() {
    let daemon = Running::with_tcp();
    let ask = |token: &str| {
        let mut stream = TcpStream::connect(("127.0.0.1", daemon.port)).expect("it listens");
        let request = format!(
            "GET /v1/status HTTP/1.1\r\nhost: x\r\nconnection: close\r\nauthorization: Bearer {token}\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).expect("it is sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("it answers");
        status_of(&answer)
    };
    for length in 0..TOKEN.len() {
        assert_eq!(ask(&TOKEN[..length]), 401, "{length} bytes of the token");
    }
    assert_eq!(ask(&format!("{TOKEN}x")), 401);
    let slow: Vec<TcpStream> = (0..200)
        .map(|_| {
            let mut stream = TcpStream::connect(("127.0.0.1", daemon.port)).expect("it listens");
            stream.write_all(b"POST /api/v1/alerts HTTP/1.1\r\nhost").expect("it is sent");
            stream
        })
        .collect();
    thread::sleep(Duration::from_millis(200));
    assert_eq!(ask(TOKEN), 200);
    assert!(daemon.ask(&["status"]).contains("recording "));
    drop(slow);
    assert!(daemon.log().lines().count() < MOST_LINES, "{}", daemon.log());
}

/// Nothing of a text takes over a terminal, or passes for a line that it is not.
fn assert_harmless(text: &str) {
    let control = |c: &char| (c.is_control() && *c != '\n') || *c == '\u{202e}';
    assert_eq!(text.chars().find(control), None, "{text:?}");
    assert!(!text.lines().any(|line| line.starts_with("culprit  nobody")), "{text}");
}

#[test]
fn what_a_peer_calls_itself_is_only_told() {
    let scratch = tempfile::tempdir().expect("a folder");
    let victim = Running::start("");
    victim.play(KILLED);
    let own = victim.dump(&[]).join("recording.parquet");
    let history = read::open(&[own]).expect("a recording").history;
    let called = |name: &str| {
        let mut history = history.clone();
        let host = &mut history.hosts[0];
        // Another host than this one, wherever the name is not told.
        (host.name, host.boot_id) = (name.to_owned(), format!("{name}-boot"));
        (host.kernel, host.scope) = (name.to_owned(), name.to_owned());
        (host.family, host.detail) = (name.to_owned(), name.to_owned());
        let path = scratch.path().join("recording.parquet");
        write::save(&path, &history, 0).expect("save the recording");
        fs::read(path).expect("it was written")
    };
    for name in NAMES {
        let peer = hostile("/d/2026-01-01T00-00-00Z-x", called(name));
        let daemon = with_peers(&[peer]);
        daemon.play(KILLED);
        let before = home(&daemon);
        let folder = daemon.dump(&["comm=client op=recv"]);
        let why = fs::read_to_string(folder.join("why.txt")).expect("an answer");
        assert!(why.contains(" has sent its part\n"), "{name:?}: {why}");
        assert_harmless(&why);
        let all = folder.to_string_lossy().into_owned();
        for words in [vec!["check", &all], vec!["why", &all, "comm=client op=recv"]] {
            assert_harmless(&running::wherefore(&words));
        }
        assert_harmless(&fs::read_to_string(folder.join("graph.svg")).expect("a picture"));
        let file = format!("peer-{}.parquet", peer.to_string().replace(':', "_"));
        let expected = [
            "graph.svg",
            "peers.json",
            &file,
            "recording.parquet",
            "trigger.json",
            "why.json",
            "why.txt",
        ];
        let entries = fs::read_dir(&folder).expect("a folder").flatten();
        let found: BTreeSet<_> =
            entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        assert_eq!(found, expected.map(str::to_owned).into());
        assert_eq!(home(&daemon), before);
        assert_harmless(&daemon.log());
    }
    assert!(!fs::exists("/tmp/escaped").expect("a path"));
}

#[test]
fn a_dump_that_a_peer_names_is_no_path_here() {
    // As JSON has them.
    const DUMPS: [&str; 6] =
        ["/d/..", "/", "/d/.hidden", "/d/a%2f..%2fb", "/d/a\\u0000", "/d/a HTTP/1.1\\r\\nx: y"];
    let peers = DUMPS.map(|dump| hostile(dump, b"PAR1".to_vec()));
    let daemon = with_peers(&peers);
    daemon.play(KILLED);
    let before = home(&daemon);
    let folder = daemon.dump(&[]);
    for (peer, file, missing) in parts(&folder) {
        let told = missing.as_str().unwrap_or_default();
        assert!(file.is_null() && told.contains("it named no dump"), "{peer}: {told}");
    }
    assert_eq!(home(&daemon), before);
}

#[test]
fn whoever_a_peer_asks_for_is_only_told() {
    let daemon = Running::start(
        "[[alert]]\nlabels = { instance = '*' }\nsymptom = 'comm={instance} op=recv'\n",
    );
    daemon.edit(|text| text.replace("per_hour = 3", "per_hour = 100"));
    daemon.ask(&["reload"]);
    daemon.play(KILLED);
    let before = home(&daemon);
    for (number, name) in NAMES.iter().enumerate() {
        let asked = json!({ "name": name, "asked_by": name }).to_string();
        let answer = daemon.post("/v1/dump", &asked);
        assert_eq!(status_of(&answer), 200, "{name:?}: {answer}");
        let labels = json!({ "alertname": "A", "instance": name, "job": name });
        let alert = json!({ "status": "firing", "labels": labels,
            "startsAt": running::now(), "fingerprint": number.to_string() });
        let body = json!({ "version": "4", "alerts": [alert] }).to_string();
        assert_eq!(status_of(&daemon.post("/api/v1/alerts", &body)), 200, "{name:?}");
    }
    super::triggers::until("all are made", || {
        let status = daemon.status();
        let dumps = &status["dumps"];
        dumps["waiting"] == 0
            && dumps["kept"].as_u64().zip(dumps["refused"].as_u64()).map(|(a, b)| a + b) >= Some(10)
    });
    for dump in daemon.dumps() {
        let why = fs::read_to_string(daemon.path("dumps").join(&dump).join("why.txt"));
        assert_harmless(&why.unwrap_or_else(|error| panic!("{dump:?}: {error}")));
    }
    assert_eq!(home(&daemon), before);
    assert!(!fs::exists("/tmp/escaped").expect("a path"));
    assert_harmless(&daemon.log());
}
