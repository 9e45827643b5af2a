//! Whoever may reach the daemon's door cannot harm it, its folder or its other clients, nor fill its log.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use super::alert;
use super::running::{self, Running, TOKEN};

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
    let config = daemon.path("config.toml");
    let many = fs::read_to_string(&config)
        .expect("it was written")
        .replace("per_hour = 3", "per_hour = 100");
    fs::write(&config, many).expect("it is written");
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
        let status: serde_json::Value =
            serde_json::from_str(&daemon.ask(&["status", "--json"])).expect("JSON");
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
