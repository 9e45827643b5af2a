//! Clients of every kind, at the same time and without end: those that read the metrics and remember them, those that
//! break off, those that send nonsense, those that say nothing.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::daemon::running::{PATIENCE, post};

pub struct Hammer {
    clients: Arc<Clients>,
    threads: Vec<JoinHandle<()>>,
}

/// What all clients know.
struct Clients {
    socket: PathBuf,
    dumps: PathBuf,
    /// Which daemon answers: an odd number while there is none.
    life: AtomicU64,
    rest: AtomicBool,
    resting: AtomicUsize,
    over: AtomicBool,
    answered: AtomicU64,
    wrong: Mutex<Vec<String>>,
}

type Act = fn(&Clients, &mut Memory);

const ACTS: [Act; 4] = [read_the_metrics, ask_right_and_wrong, fetch_dumps, dawdle];

impl Hammer {
    pub fn start(socket: PathBuf, dumps: PathBuf) -> Self {
        let clients = Arc::new(Clients {
            socket,
            dumps,
            life: AtomicU64::new(0),
            rest: AtomicBool::new(false),
            resting: AtomicUsize::new(0),
            over: AtomicBool::new(false),
            answered: AtomicU64::new(0),
            wrong: Mutex::default(),
        });
        let start = |act: Act| {
            let clients = Arc::clone(&clients);
            thread::spawn(move || clients.keep_at(act))
        };
        let threads = ACTS.into_iter().map(start).collect();
        Self { clients, threads }
    }

    /// Nobody asks from then on, until they are told to go on.
    pub fn rest(&self) {
        self.clients.rest.store(true, Ordering::SeqCst);
        let begun = Instant::now();
        while self.clients.resting.load(Ordering::SeqCst) < self.threads.len() {
            assert!(begun.elapsed() < 2 * PATIENCE, "a client is stuck");
            thread::sleep(Duration::from_millis(10));
        }
    }

    pub fn go_on(&self) {
        self.clients.rest.store(false, Ordering::SeqCst);
    }

    /// Meanwhile no answer means nothing, and afterwards all counts begin anew.
    pub fn while_it_is_away(&self, away: impl FnOnce()) {
        self.clients.life.fetch_add(1, Ordering::SeqCst);
        away();
        self.clients.life.fetch_add(1, Ordering::SeqCst);
    }

    /// What was not as it should be.
    pub fn wrong(&self) -> Vec<String> {
        self.clients.wrong.lock().expect("nobody panics with it").clone()
    }

    pub fn answered(&self) -> u64 {
        self.clients.answered.load(Ordering::SeqCst)
    }
}

impl Drop for Hammer {
    fn drop(&mut self) {
        self.clients.over.store(true, Ordering::SeqCst);
        for client in self.threads.drain(..) {
            let _ = client.join();
        }
    }
}

/// What one client remembers.
#[derive(Default)]
struct Memory {
    life: u64,
    counters: HashMap<String, f64>,
    turn: usize,
}

impl Clients {
    fn keep_at(&self, act: Act) {
        let mut memory = Memory::default();
        while !self.over.load(Ordering::SeqCst) {
            if self.rest.load(Ordering::SeqCst) {
                self.resting.fetch_add(1, Ordering::SeqCst);
                while self.rest.load(Ordering::SeqCst) && !self.over.load(Ordering::SeqCst) {
                    thread::sleep(Duration::from_millis(10));
                }
                self.resting.fetch_sub(1, Ordering::SeqCst);
            }
            memory.turn += 1;
            act(self, &mut memory);
            thread::sleep(Duration::from_millis(25));
        }
    }

    fn connect(&self) -> Option<UnixStream> {
        let stream = UnixStream::connect(&self.socket).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).ok()?;
        Some(stream)
    }

    /// The answer, unless the daemon was away at any time.
    fn ask(&self, request: &str) -> Option<(u64, String)> {
        let life = self.life.load(Ordering::SeqCst);
        let mut answer = Vec::new();
        let told = self.connect().map(|mut stream| {
            // What is refused need not be read to its end.
            let _ = stream.write_all(request.as_bytes());
            stream.read_to_end(&mut answer)
        });
        if life % 2 == 1 || self.life.load(Ordering::SeqCst) != life {
            return None;
        }
        if !matches!(told, Some(Ok(_))) && answer.is_empty() {
            self.is_wrong(format!("no answer to {request:.60}: {told:?}"));
            return None;
        }
        self.answered.fetch_add(1, Ordering::SeqCst);
        Some((life, String::from_utf8_lossy(&answer).into_owned()))
    }

    fn is_wrong(&self, what: String) {
        let mut wrong = self.wrong.lock().expect("nobody panics with it");
        if wrong.len() < 10 {
            wrong.push(what);
        }
    }
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
}

/// What counts never goes back as long as a daemon lives.
fn read_the_metrics(clients: &Clients, memory: &mut Memory) {
    let Some((life, text)) = clients.ask(&get("/metrics")) else { return };
    if !text.contains("200 OK") {
        return clients.is_wrong(format!("metrics: {text:.200}"));
    }
    if life != memory.life {
        *memory = Memory { life, ..Memory::default() };
    }
    let typed = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    let counters: HashSet<&str> = typed.filter_map(|line| line.strip_suffix(" counter")).collect();
    for line in text.lines().filter(|line| line.starts_with("wherefore_")) {
        let (key, value) = line.rsplit_once(' ').unwrap_or_default();
        let name = key.split('{').next().unwrap_or_default();
        // Those of faults are of other recorders, which come and go.
        if !counters.contains(name) || name.starts_with("wherefore_fault") {
            continue;
        }
        let value: f64 = value.parse().expect("a number");
        let before = memory.counters.insert(key.to_owned(), value).unwrap_or(0.0);
        if value < before {
            clients.is_wrong(format!("{key} went back from {before} to {value}"));
        }
    }
}

fn ask_right_and_wrong(clients: &Clients, memory: &mut Memory) {
    let long = "x".repeat(100_000);
    let asked: [(String, &[u16]); 10] = [
        (get("/v1/status"), &[200]),
        (get("/healthz"), &[200]),
        (get("/v1/openapi.json"), &[200]),
        (get("/v1/colour"), &[404]),
        // As it comes: the path is found too long, or all of the head is before it has ended.
        (get(&format!("/{long}")), &[414, 431]),
        (post("/v1/dump", "{\"colour\": 1}"), &[400]),
        (post("/v1/dump", "{\"symptom\": \"colour=red\"}"), &[400]),
        (post("/api/v1/alerts", "{\"alerts\": 7}"), &[400]),
        (post("/v1/detail", "{\"detail\": \"+colour\"}"), &[400]),
        (post("/v1/dump", &long.repeat(20)), &[413]),
    ];
    let (request, expected) = &asked[memory.turn % asked.len()];
    let Some((_, answer)) = clients.ask(request) else { return };
    let status = answer.split(' ').nth(1).and_then(|code| code.parse::<u16>().ok());
    if !status.is_some_and(|status| expected.contains(&status)) {
        clients.is_wrong(format!("{request:.60}: {answer:.200}"));
    }
}

/// Recordings are fetched, as peers do; every other time the client goes away in the middle.
fn fetch_dumps(clients: &Clients, memory: &mut Memory) {
    let names = fs::read_dir(&clients.dumps).into_iter().flatten().flatten();
    let names: Vec<String> =
        names.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    let Some(name) = names.get(memory.turn % names.len().max(1)) else { return };
    let request = get(&format!("/v1/dumps/{name}/recording.parquet"));
    if memory.turn.is_multiple_of(2) {
        if let Some(mut stream) = clients.connect() {
            let _ = stream.write_all(request.as_bytes()).and_then(|()| stream.read(&mut [0; 1000]));
        }
        return;
    }
    let Some((_, answer)) = clients.ask(&request) else { return };
    // It may have made room meanwhile.
    if !["200", "404"].iter().any(|code| answer.split(' ').nth(1) == Some(code)) {
        clients.is_wrong(format!("{request:.60}: {answer:.200}"));
    }
}

/// Half a request, and then nothing.
fn dawdle(clients: &Clients, _: &mut Memory) {
    let mut streams: Vec<UnixStream> = (0..10).filter_map(|_| clients.connect()).collect();
    for stream in &mut streams {
        let _ = stream.write_all(b"POST /v1/dump HTTP/1.1\r\ncontent-le");
    }
    thread::sleep(Duration::from_millis(500));
}
