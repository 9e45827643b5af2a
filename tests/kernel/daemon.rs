//! The daemon with real programs: what it keeps, when it is asked, what it refuses, what it costs, and what it
//! leaves behind.

mod deployed;
mod hidden;
mod history;
mod hostile;
mod incidents;
mod peers;
mod prometheus;
mod reload;
pub mod running;
mod soak;
mod tls;
mod triggers;
mod upload;
mod usual;
mod watched;

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use running::Running;
use serde_json::{Value, json};

/// A server that dies while it answers, by somebody's hand.
const KILLED: &str = "
def server(connection, turn):
    here, there = turns()

    def answer():
        connection.recv(9)
        here.give()
        time.sleep(5)

    def murder():
        connection.close()
        there.take()
        there.take()
        os.kill(victim, signal.SIGKILL)

    victim = child('victim', answer)
    murderer = child('murderer', murder)
    # The victim's is the last one by then: its death ends the connection.
    connection.close()
    here.give()
    os.waitpid(victim, 0)
    os.waitpid(murderer, 0)

def client(connection, turn):
    connection.send(b'a request')
    say(seen(connection.recv, 1))

play(server, client)
";

#[test]
fn the_killer_is_in_the_first_lines_of_a_dump() {
    let daemon = Running::start("");
    daemon.play(KILLED);
    let folder = daemon.dump(&["comm=client op=recv"]);
    let why = fs::read_to_string(folder.join("why.txt")).expect("an answer");
    let first: Vec<&str> = why.lines().take(5).collect();
    assert!(first[0].starts_with("incident asked, told by api"), "{why}");
    assert!(first[1].starts_with("culprit ") && first[1].contains("murderer["), "{why}");
    assert!(first[1].contains("SIGKILL") && first[1].contains("certain"), "{why}");
    let json: Value = running::json(&folder.join("why.json"));
    assert_eq!(json["culprits"][0]["cause"], "killed");
    assert_eq!(json["culprits"][0]["event"]["comm"], "murderer");
    let picture = fs::read_to_string(folder.join("graph.svg")).expect("a picture");
    assert!(picture.contains("murderer") && picture.contains("</svg>"));
    let checked =
        running::wherefore(&["check", &folder.join("recording.parquet").to_string_lossy()]);
    assert!(checked.contains("every edge holds") && checked.contains(" 0 lost"), "{checked}");
}

#[test]
fn without_a_pattern_it_finds_the_failure_by_itself() {
    let daemon = Running::start("");
    daemon.play(KILLED);
    let folder = daemon.dump(&["--name", "../Ouch", "--last", "5s"]);
    assert!(folder.to_string_lossy().ends_with("-_Ouch"), "{}", folder.display());
    let why = fs::read_to_string(folder.join("why.txt")).expect("an answer");
    assert!(why.lines().take(5).any(|line| line.contains("murderer[")), "{why}");
}

#[test]
fn status_metrics_and_health_tell_how_it_stands() {
    let daemon = Running::on_the_whole_machine();
    daemon.play(KILLED);
    let status: Value =
        serde_json::from_str(&daemon.ask(&["status", "--json", "--measure"])).expect("JSON");
    assert_eq!(status["scope"], "all");
    assert!(status["hooks"].as_array().is_some_and(|hooks| hooks.len() > 10), "{status}");
    assert!(status["rings"][0]["written"].as_u64() > Some(0), "{status}");
    assert!(status["rings"][0]["window_s"].as_f64() > Some(0.0), "{status}");
    assert!(status["cost"]["ns_per_run"].is_number(), "{status}");
    let text = daemon.ask(&["status"]);
    assert!(text.contains("sends and receives in ") && text.contains("it lasts "), "{text}");
    let metrics = daemon.http("GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    assert!(metrics.contains("wherefore_window_seconds{ring=\"bulk\"} "), "{metrics}");
    assert!(
        daemon
            .http("GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
            .contains("200 OK")
    );
}

/// The checker that comes with Prometheus.
#[test]
fn metrics_are_what_prometheus_takes() {
    let daemon = Running::on_the_whole_machine();
    daemon.dump(&[]);
    // On a machine where nothing else happens no probe would run.
    let answer = thread::scope(|scope| {
        scope.spawn(|| daemon.play(running::LOAD));
        daemon.http("GET /metrics?measure_ms=1500 HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
    });
    let (_, metrics) = answer.split_once("\r\n\r\n").expect("a body");
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("setup installs Prometheus");
    promtool.stdin.take().expect("a pipe").write_all(metrics.as_bytes()).expect("it reads");
    let output = promtool.wait_with_output().expect("it is our child");
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}\n{metrics}");
    let value = |name: &str| -> f64 {
        let line = metrics.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap_or_else(|| panic!("no {name}")).trim().parse().expect("a number")
    };
    let took_s = value("wherefore_probe_run_seconds");
    assert!((1e-9..1e-3).contains(&took_s), "{took_s}");
    assert!(value("wherefore_slots_written_total{ring=\"bulk\"}") > 0.0);
    assert_eq!(value("wherefore_triggers_total"), 1.0);
    assert_eq!(value("wherefore_dumps_total{outcome=\"kept\"}"), 1.0);
}

#[test]
fn the_api_describes_itself() {
    let daemon = Running::start("");
    let answer =
        daemon.http("GET /v1/openapi.json HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    let (_, body) = answer.split_once("\r\n\r\n").expect("a body");
    let document: Value = serde_json::from_str(body).expect("JSON");
    let docs = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/openapi.json");
    assert!(document == running::json(&docs), "{} is another", docs.display());
}

pub fn alert(name: &str, status: &str, starts_at: &str) -> String {
    let alert = json!({ "status": status, "labels": { "alertname": name, "job": "client" },
        "startsAt": starts_at, "fingerprint": name });
    json!({ "version": "4", "alerts": [alert] }).to_string()
}

#[test]
fn an_alert_becomes_a_dump_once_and_no_more() {
    let daemon = Running::start(
        "[[alert]]\nlabels = { alertname = 'High*' }\nsymptom = 'comm={job} op=recv'\n",
    );
    daemon.play(KILLED);
    let now = running::now();
    let posted = daemon.post("/api/v1/alerts", &alert("HighErrors", "firing", &now));
    assert!(posted.contains("\"fired\":true"), "{posted}");
    let folder = daemon.wait_for("-HighErrors");
    let why = fs::read_to_string(folder.join("why.txt")).expect("an answer");
    assert!(why.starts_with("incident HighErrors, told by alertmanager\nculprit "), "{why}");
    assert!(why.lines().nth(1).is_some_and(|line| line.contains("murderer[")), "{why}");
    let said = running::json(&folder.join("trigger.json"));
    assert_eq!(said["said"]["alerts"][0]["labels"]["alertname"], "HighErrors");
    // Repeated and resolved.
    daemon.post("/api/v1/alerts", &alert("HighErrors", "firing", &now));
    let resolved = daemon.post("/api/v1/alerts", &alert("HighErrors", "resolved", &now));
    assert!(resolved.contains("\"fired\":false"), "{resolved}");
    let status = daemon.status();
    assert_eq!((&status["dumps"]["kept"], &status["dumps"]["refused"]), (&json!(1), &json!(1)));
    assert_eq!(daemon.dumps().len(), 1);
}

#[test]
fn an_alert_that_comes_too_late_is_told_so() {
    let daemon = Running::start("");
    let posted = daemon.post("/api/v1/alerts", &alert("Old", "firing", "2020-01-01T00:00:00Z"));
    assert!(posted.contains("\"fired\":true"), "{posted}");
    let folder = daemon.wait_for("-Old");
    let why = fs::read_to_string(folder.join("why.txt")).expect("an answer");
    assert!(why.contains("\nlate     the window begins "), "{why}");
}

#[test]
fn sigusr2_makes_a_dump_and_the_limits_hold() {
    let daemon = Running::start("");
    let send = || kill(Pid::from_raw(daemon.pid() as i32), Signal::SIGUSR2).expect("it lives");
    send();
    daemon.wait_for("-signal");
    send();
    thread::sleep(Duration::from_millis(300));
    assert_eq!(daemon.dumps().len(), 1, "it cools down");
    daemon.dump(&[]);
    daemon.dump(&[]);
    let refused = daemon.refused(&["dump"]);
    assert!(refused.contains("3 dumps were made in the last hour"), "{refused}");
}

#[test]
fn hostile_clients_are_refused_and_others_served() {
    let daemon = Running::start("");
    for body in ["", "{", "[]", "{\"alerts\":7}", "{\"alerts\":[{\"status\":\"firing\"}]}"] {
        let answer = daemon.post("/api/v1/alerts", body);
        assert!(answer.contains(" 400 ") || answer.contains("\"fired\":false"), "{body}: {answer}");
    }
    let giant = format!("{{\"name\":\"{}\"}}", "x".repeat(2 << 20));
    assert!(daemon.post("/v1/dump", &giant).contains(" 413 "));
    assert!(daemon.post("/v1/dump", "{\"colour\":1}").contains(" 400 "));
    assert!(
        daemon
            .post("/v1/dump", "{\"symptom\":\"colour=red\"}")
            .contains("there is no key `colour`")
    );
    assert!(daemon.post("/../../etc/passwd", "").contains(" 404 "));
    // Clients that say nothing, or half of it, hold up nobody.
    let mut slow: Vec<UnixStream> = (0..20).map(|_| daemon.connect()).collect();
    for stream in &mut slow {
        stream.write_all(b"POST /v1/dump HTTP/1.1\r\ncontent-le").expect("it is sent");
    }
    assert!(daemon.ask(&["status"]).contains("recording cgroup "));
    assert_eq!(daemon.dumps().len(), 0);
}

#[test]
fn tcp_needs_the_token() {
    let daemon = Running::with_tcp();
    assert!(asked_by_tcp(daemon.port, "").contains("401"));
    assert!(asked_by_tcp(daemon.port, "wrong").contains("401"));
    assert!(asked_by_tcp(daemon.port, running::TOKEN).contains("200"));
}

/// The first line of the answer to whoever has that token.
fn asked_by_tcp(port: u16, token: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("it listens");
    let token = if token.is_empty() { "" } else { &format!("authorization: Bearer {token}\r\n") };
    let request = format!("GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{token}\r\n");
    stream.write_all(request.as_bytes()).expect("it is sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers");
    answer.lines().next().unwrap_or_default().to_owned()
}

#[test]
fn a_second_daemon_is_told_of_the_first_and_sigkill_leaves_no_half_dump() {
    let mut daemon = Running::start("");
    let second = daemon.start_again_refused();
    assert!(second.contains("another daemon runs"), "{second}");
    daemon.dump(&["--name", "first"]);
    kill(Pid::from_raw(daemon.pid() as i32), Signal::SIGUSR2).expect("it lives");
    daemon.kill_and_start_again();
    daemon.dump(&["--name", "second"]);
    let names = daemon.dumps();
    assert!(
        names.iter().any(|n| n.ends_with("-first")) && names.iter().any(|n| n.ends_with("-second")),
        "{names:?}"
    );
    assert!(names.iter().all(|name| !name.contains("making")), "{names:?}");
}

#[test]
fn it_costs_nothing_when_nobody_asks() {
    let daemon = Running::on_the_whole_machine();
    daemon.ask(&["status"]);
    let before = daemon.cpu_ticks();
    daemon.play(running::LOAD);
    assert_eq!(daemon.cpu_ticks() - before, 0, "CPU time while events were recorded");
    let status = daemon.status();
    assert!(status["rings"][0]["written"].as_u64() > Some(100_000), "{status}");
    let resident = status["resident_bytes"].as_u64().expect("a number");
    assert!(resident < 32 << 20, "{resident} bytes");
}
