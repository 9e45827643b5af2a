//! Several hosts: an alert at one makes all keep the interval, and one folder holds what they kept and explains it.
//! What one of them does not send, or sends wrongly, is named and spoils nothing.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;

use recorder::recording::{read, write};
use serde_json::Value;
use tests::split::split;

use super::KILLED;
use super::running::{self, Running, Setup, as_a_host_of_its_own, free_address, new_cgroup};
use crate::hosts::network::Network;

const API: u16 = 9799;

/// A backend's worker is killed in the middle of its answer.
const BACKEND: &str = "
listener = socket.create_server(('0.0.0.0', 7100))
here, there = turns()

def serve():
    connection, _ = listener.accept()
    connection.recv(100)
    connection.send(b'half of')
    here.give()
    time.sleep(30)

def murder():
    there.take()
    os.kill(victim, signal.SIGKILL)

victim = child('victim', serve)
murderer = child('murderer', murder)
listener.close()
say('ready')
os.waitpid(victim, 0)
os.waitpid(murderer, 0)
";

const PROXY: &str = "
rename('proxy')
listener = socket.create_server(('0.0.0.0', 7100))
say('ready')
connection, _ = listener.accept()
upstream = socket.create_connection(('UPSTREAM', 7100))
upstream.send(connection.recv(100))
while answer := upstream.recv(100):
    connection.send(answer)
connection.close()
";

const CLIENT: &str = "
rename('client')
connection = socket.create_connection(('UPSTREAM', 7100))
connection.send(b'a request')
while connection.recv(100):
    pass
";

/// Three hosts, each with a daemon that knows the two others.
struct Stage {
    daemons: Vec<Running>,
    network: Network,
}

impl Stage {
    fn make(folder: &Path) -> Self {
        let network = Network::flat(3);
        let address = |host: usize| SocketAddr::new(network.lan_address(host).into(), API);
        let start = |host: usize| {
            let others: Vec<String> =
                (0..3).filter(|&n| n != host).map(|n| format!("'{}'", address(n))).collect();
            let more = format!(
                "[peers]\nhosts = [{}]\ntoken_file = 'TOKEN'\n\
                 [[alert]]\nlabels = {{ alertname = 'Broken' }}\nsymptom = 'comm={{job}} op=recv'\n",
                others.join(", ")
            );
            let place = |command: &mut Command| {
                as_a_host_of_its_own(command, folder, &format!("host-{host}"));
                network.place(host, command);
            };
            let (listen, cgroup) = (Some(address(host)), Some(new_cgroup()));
            Running::with(Setup { more: &more, listen, cgroup, place: &place, ..Setup::default() })
        };
        let daemons = (0..3).map(start).collect();
        Self { daemons, network }
    }

    fn start(&self, host: usize, script: &str, upstream: usize) -> Child {
        let upstream = self.network.lan_address(upstream).to_string();
        let mut player = self.daemons[host].player(&script.replace("UPSTREAM", &upstream));
        self.network.place(host, &mut player);
        player.stdout(Stdio::piped()).spawn().expect("a shell starts")
    }

    /// The client's request goes over the proxy to the backend, whose worker is killed.
    fn play(&self) {
        let mut players = vec![self.start(2, BACKEND, 2), self.start(1, PROXY, 2)];
        for player in &mut players {
            let mut line = String::new();
            let output = player.stdout.as_mut().expect("it is piped");
            BufReader::new(output).read_line(&mut line).expect("it says something");
            assert_eq!(line, "ready\n");
        }
        players.push(self.start(0, CLIENT, 1));
        for mut player in players {
            assert!(player.wait().expect("it is our child").success());
        }
    }
}

#[test]
fn an_alert_at_one_host_becomes_one_answer_across_all() {
    let scratch = tempfile::tempdir().expect("a folder");
    let stage = Stage::make(scratch.path());
    stage.play();
    let alert = super::alert("Broken", "firing", &running::now());
    stage.daemons[0].post("/api/v1/alerts", &alert);
    let folder = stage.daemons[0].wait_for("-Broken");
    let why = fs::read_to_string(folder.join("why.txt")).expect("an answer");
    let first: Vec<&str> = why.lines().take(5).collect();
    assert!(first[1].starts_with("culprit "), "{why}");
    assert!(first[1].contains("host-2:murderer[") && first[1].contains("certain"), "{why}");
    assert_eq!(why.matches(" has sent its part\n").count(), 2, "{why}");
    assert!(why.contains("host-0:client[") && why.contains("host-1:proxy["), "{why}");
    let checked = running::wherefore(&["check", &folder.to_string_lossy()]);
    assert!(checked.contains("every edge holds"), "{checked}");
    for host in ["host-0: ", "host-1: ", "host-2: "] {
        assert!(checked.contains(host), "{checked}");
    }
    // The others asked nobody further.
    assert_eq!(stage.daemons[0].dumps().len(), 1);
    for daemon in &stage.daemons[1..] {
        let own = daemon.wait_for("-Broken");
        let why = fs::read_to_string(own.join("why.txt")).expect("an answer");
        assert!(why.starts_with("incident Broken, told by peer\n"), "{why}");
        assert!(!own.join("peers.json").exists() && daemon.dumps().len() == 1);
    }
    clocks_need_not_agree(&folder, scratch.path());
}

/// The machine has one clock: the recordings are given other ones, and tell the same.
fn clocks_need_not_agree(folder: &Path, scratch: &Path) {
    let whole = read::open(&[folder.to_owned()]).expect("recordings").history;
    let offsets = [0, 3_600_000_000_000, 77_000_000];
    let parts = split(&whole, &offsets, |_, event| usize::from(event.host));
    for host in 0..3 {
        let path = scratch.join(format!("{host}.parquet"));
        write::save(&path, &parts.history, host).expect("save the recording");
    }
    let scratch = scratch.to_string_lossy();
    let checked = running::wherefore(&["check", &scratch]);
    assert!(checked.contains("every edge holds") && checked.contains("ahead of"), "{checked}");
    let why = running::wherefore(&["why", &scratch, "comm=client op=recv"]);
    assert!(why.contains("origin ") && why.contains("murderer["), "{why}");
}

/// The parts that a dump names, by where they were asked.
pub fn parts(folder: &Path) -> Vec<(String, Value, Value)> {
    let parts = running::json(&folder.join("peers.json"));
    let parts = parts.as_array().expect("a list").iter().map(|part| {
        let peer = part["peer"].as_str().expect("a text").to_owned();
        (peer, part["file"].clone(), part["missing"].clone())
    });
    parts.collect()
}

/// A daemon here that knows these peers.
pub fn with_peers(peers: &[SocketAddr]) -> Running {
    let peers: Vec<String> = peers.iter().map(|peer| format!("'{peer}'")).collect();
    Running::start(&format!(
        "[peers]\nhosts = [{}]\ntoken_file = 'TOKEN'\nwait = '4s'\nmost = '1MiB'\n",
        peers.join(", ")
    ))
}

#[test]
fn a_host_that_is_dead_or_silent_is_named_and_the_others_answer() {
    let alive = Running::with_tcp_and_scope("");
    let (dead, silent) = (free_address(), TcpListener::bind("127.0.0.1:0").expect("a free port"));
    let alive_at = SocketAddr::from(([127, 0, 0, 1], alive.port));
    let silent_at = silent.local_addr().expect("it has one");
    let daemon = with_peers(&[alive_at, dead, silent_at]);
    alive.play(KILLED);
    daemon.play(KILLED);
    let folder = daemon.dump(&["comm=client op=recv"]);
    let why = fs::read_to_string(folder.join("why.txt")).expect("an answer");
    assert!(why.lines().nth(1).is_some_and(|line| line.contains("murderer[")), "{why}");
    for (peer, file, missing) in parts(&folder) {
        let told = missing.as_str().unwrap_or_default();
        match peer {
            peer if peer == alive_at.to_string() => {
                let file = folder.join(file.as_str().expect("a file"));
                let read = read::open(&[file]).expect("a recording");
                assert!(!read.history.events.is_empty());
            }
            peer if peer == dead.to_string() => assert!(told.contains("refused"), "{told}"),
            _ => assert!(told.starts_with("it was not done after 4.0 s"), "{told}"),
        }
    }
    assert_eq!(why.matches("silent   ").count(), 2, "{why}");
    let status = daemon.status();
    assert_eq!(status["dumps"]["missing_parts"], 2);
}

/// A peer that takes any request for a dump, says that the dump is called so, and sends that recording.
pub fn hostile(dump: &'static str, recording: Vec<u8>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("it has one");
    thread::spawn(move || {
        for stream in listener.incoming().take(2) {
            let mut stream = stream.expect("a connection");
            let body = match request(&mut stream).starts_with("POST /v1/dump ") {
                true => format!(
                    "{{\"kept\":{{\"folder\":\"{dump}\",\"done\":{{\"events\":1,\"bytes\":1,\"window_s\":1.0,\
                     \"late_s\":null,\"headline\":\"x\"}}}}}}"
                )
                .into_bytes(),
                false => recording.clone(),
            };
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
            // Whoever was refused has gone.
            let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body));
        }
    });
    address
}

/// A request's head.
fn request(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|n| n == 1) {
        head.push(byte[0]);
    }
    String::from_utf8_lossy(&head).into_owned()
}

#[test]
fn what_a_peer_sends_is_not_trusted() {
    const DUMP: &str = "/d/2026-01-01T00-00-00Z-x";
    let elsewhere = hostile("/d/..", Vec::new());
    let large = hostile(DUMP, vec![b'x'; 2 << 20]);
    let garbage = hostile(DUMP, b"PAR1 and no more".to_vec());
    let daemon = with_peers(&[elsewhere, large, garbage]);
    daemon.play(KILLED);
    let folder = daemon.dump(&["comm=client op=recv"]);
    let why = fs::read_to_string(folder.join("why.txt")).expect("an answer");
    assert!(why.lines().nth(1).is_some_and(|line| line.contains("murderer[")), "{why}");
    for (peer, file, missing) in parts(&folder) {
        let told = missing.as_str().unwrap_or_default();
        let expected = match &peer {
            peer if **peer == elsewhere.to_string() => "it named no dump",
            peer if **peer == large.to_string() => "it is larger than 1048576 bytes",
            _ => "its recording cannot be read",
        };
        assert!(told.contains(expected) && file.is_null(), "{peer}: {told}");
    }
    // What cannot be read does not keep the commands from the rest.
    let checked = running::wherefore(&["check", &folder.to_string_lossy()]);
    assert!(checked.contains("every edge holds"), "{checked}");
}
