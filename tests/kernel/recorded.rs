//! Runs programs under the recorder, in this process or through the command, and tells what was recorded
//! as text: one line per event, lane by lane.

use std::collections::HashMap;
use std::fmt::Write;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use probe_ebpf::fault::Progress;
use recorder::capture::attach::Settings;
use recorder::capture::control::Control;
use recorder::capture::detail::Detail;
use recorder::capture::snapshot::Cut;
use recorder::capture::{Capture, Scope};
use recorder::event::{Address, Event, Flags, History, Names, Op};
use recorder::fault::arm;
use recorder::fault::plan::Compiled;
use recorder::graph::{Graph, check};
use tests::command::family;
use tests::patience;

/// Small rings load fast, and hold what a test raises many times over.
pub const SMALL: Settings =
    Settings { ring_bytes: 16 << 20, probe_log: false, record_self: false, family: None };

/// The functions that every script may use.
const STAGE: &str = include_str!("stage.py");

/// Programs that are still there after this many seconds hang, and are ended.
const PATIENCE: u64 = 30;

/// A recorder at work in this process.
pub struct Recorder {
    capture: Capture,
    events: Vec<Event>,
}

impl Recorder {
    pub fn start(scope: Scope) -> Self {
        Self::with(scope, SMALL)
    }

    pub fn with(scope: Scope, settings: Settings) -> Self {
        require_root();
        let settings = Settings { family: settings.family.or_else(family), ..settings };
        let capture = Capture::start(scope, settings).expect("the recorder starts");
        Self { capture, events: Vec::new() }
    }

    /// Records more, or less, from now on.
    pub fn detail(&mut self, detail: Detail) {
        self.capture.set_detail(detail).expect("the kernel allows it");
    }

    /// Arms rules in the kernel half, of faults without names; what they tell comes out of the control ring.
    pub fn arm(&mut self, compiled: &Compiled) -> Control {
        arm::start(&mut self.capture, std::iter::empty(), compiled).expect("it can be armed")
    }

    /// What became of the rules so far.
    pub fn progress(&self, rules: usize) -> Vec<Progress> {
        arm::progress(self.capture.maps(), rules).expect("they are armed")
    }

    /// Starts a program in the recorder's scope.
    pub fn spawn(&self, command: &mut Command) -> Child {
        // A group of its own, so that all of it can be ended.
        command.process_group(0);
        let spawned = self.capture.spawn_in_scope(|| Ok(command.spawn()?));
        spawned.expect("the program starts")
    }

    /// Reads the rings once.
    pub fn turn(&mut self) {
        let events = &mut self.events;
        self.capture
            .drain(&mut |_, new| {
                events.extend_from_slice(new);
                Ok(())
            })
            .expect("nothing can fail");
    }

    /// Reads the rings while a program runs.
    pub fn follow(&mut self, child: &mut Child) -> ExitStatus {
        let group = Pid::from_raw(child.id() as i32);
        let begun = Instant::now();
        loop {
            self.turn();
            if let Some(status) = child.try_wait().expect("the program is our child") {
                return status;
            }
            if begun.elapsed() > patience::seconds(PATIENCE) {
                killpg(group, Signal::SIGKILL).expect("the group is ours");
            }
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// What happened since it was last asked. Nothing that belongs to it is under way.
    pub fn take(&mut self) -> History {
        // What was written a moment ago is read when it can have been finished.
        thread::sleep(Duration::from_millis(50));
        self.turn();
        let events = std::mem::take(&mut self.events);
        let (hosts, names) = (vec![self.capture.host()], self.capture.names().clone());
        let mut history = History { hosts, names, events };
        history.sort();
        assert_eq!(history.hosts[0].lost, 0, "nothing is lost in so short a play");
        history
    }

    /// What the rings hold now; the recorder goes on.
    pub fn snapshot(&self, cut: Cut) -> History {
        let mut history = History::default();
        let take = &mut |names: &Names, events: &[Event]| {
            history.names.clone_from(names);
            history.events.extend_from_slice(events);
            Ok(())
        };
        let host = self.capture.snapshot(cut, take).expect("nothing can fail");
        history.hosts.push(host);
        history.sort();
        assert_sound(&history);
        history
    }

    /// What events were lost by so far.
    pub fn losses(&self) -> Option<String> {
        self.capture.losses()
    }

    /// Ends the recording. Whatever was recorded, its graph must hold and its losses be counted.
    #[expect(clippy::print_stdout, reason = "shown where the test fails")]
    pub fn finish(mut self) -> History {
        let events = &mut self.events;
        self.capture
            .drain_rest(&mut |_, rest| {
                events.extend_from_slice(rest);
                Ok(())
            })
            .expect("nothing can fail");
        let mut history = History {
            hosts: vec![self.capture.host()],
            names: self.capture.names().clone(),
            events: self.events,
        };
        history.sort();
        if let Some(losses) = self.capture.losses() {
            println!("lost: {losses}");
        }
        assert_sound(&history);
        history
    }
}

/// What no recording may break: every edge holds, and what was raised was kept or counted as lost.
pub fn assert_sound(history: &History) {
    let violations = check::check(history, &Graph::build(history));
    assert!(violations.is_empty(), "{:#?}", &violations[..violations.len().min(5)]);
    let host = &history.hosts[0];
    assert_eq!(history.events.len() as u64 + host.lost, host.raised, "kept + lost = raised");
    // Where neither trampolines nor kprobes are allowed nobody tells who accepts; `family.rs` looks at why.
    let missing: Vec<_> =
        host.missing_hooks.iter().filter(|hook| !hook.starts_with("accept: ")).collect();
    assert!(missing.is_empty(), "hooks: {missing:?}");
}

/// A program that ran to its end under the recorder.
pub struct Run {
    pub history: History,
    /// What the program printed.
    pub said: String,
}

/// Runs a Python script; it must end well.
pub fn python(script: &str) -> Run {
    let run = record(&mut python_command(script));
    assert_eq!(run.history.hosts[0].lost, 0, "nothing is lost in so short a play");
    run
}

pub fn python_command(script: &str) -> Command {
    let mut command = Command::new(python_path());
    command.arg("-c").arg(format!("{STAGE}\n{script}"));
    command
}

/// The distribution's Python where there is one: another may be a wrapper that runs shells before it.
pub fn python_path() -> &'static str {
    let distribution = "/usr/bin/python3";
    if Path::new(distribution).exists() { distribution } else { "python3" }
}

/// Runs a command under the recorder; it must end well.
pub fn record(command: &mut Command) -> Run {
    let mut recorder = Recorder::start(Scope::Command(String::new()));
    let mut child = recorder.spawn(command.stdout(Stdio::piped()));
    let status = recorder.follow(&mut child);
    let said = printed(child);
    assert!(status.success(), "{status}\n{said}");
    Run { history: recorder.finish(), said }
}

/// What a program has printed, up to its end.
pub fn printed(child: Child) -> String {
    let output = child.wait_with_output().expect("the program is our child");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

impl Run {
    /// The number that the program printed after a word.
    pub fn number(&self, word: &str) -> u32 {
        let line = self.said.lines().find_map(|line| line.strip_prefix(word)?.strip_prefix(' '));
        let number = line.and_then(|number| number.parse().ok());
        number.unwrap_or_else(|| panic!("no number after `{word}` in:\n{}", self.said))
    }

    /// Everything about sockets, lane by lane, but who accepted, which not every kernel tells; `port` is the
    /// server's.
    pub fn sockets(&self) -> String {
        self.told(|event| event.op != Op::Accept && event.protocol.is_some())
    }

    /// Everything about sockets but the making and the end of connections.
    pub fn transfers(&self) -> String {
        self.told(|event| matches!(event.op, Op::Send | Op::Recv))
    }

    fn told(&self, wanted: impl Fn(&Event) -> bool) -> String {
        let port = self.number("port") as u16;
        let mut lanes: Vec<(String, String)> = Vec::new();
        for event in self.history.events.iter().filter(|event| wanted(event)) {
            let lane = lane(&self.history, event, port);
            let line = line(&self.history, event);
            match lanes.iter_mut().find(|(name, _)| *name == lane) {
                Some((_, lines)) => writeln!(lines, "  {line}").expect("strings grow"),
                None => lanes.push((lane, format!("  {line}\n"))),
            }
        }
        lanes.sort();
        lanes.into_iter().fold(String::new(), |text, (lane, lines)| text + &lane + "\n" + &lines)
    }

    /// Forks, execs, exits and signals, process by process in the order of their beginning.
    pub fn tasks(&self) -> String {
        tasks(&self.history)
    }

    pub fn events(&self, comm: &str, op: Op) -> Vec<&Event> {
        of(&self.history, comm, op)
    }
}

/// Events of one kind of threads, or kernel lanes, of one name.
pub fn of<'a>(history: &'a History, comm: &str, op: Op) -> Vec<&'a Event> {
    history.events.iter().filter(|e| e.op == op && history.comm(e) == comm).collect()
}

/// Whose act an event was: a thread's name, or which end's kernel lane.
fn lane(history: &History, event: &Event, port: u16) -> String {
    if event.tid != 0 {
        assert_ne!(event.task_count, 0, "a thread counts its events: {event:?}");
        return history.comm(event).to_owned();
    }
    assert_eq!(event.task_count, 0, "a kernel lane counts nothing: {event:?}");
    let is = |address: Address| history.names.address(address).is_some_and(|a| a.port() == port);
    match (is(event.local), is(event.remote)) {
        (true, _) => "kernel, server's end".to_owned(),
        (_, true) => "kernel, client's end".to_owned(),
        _ => format!("kernel, an end of {}", history.comm(event)),
    }
}

fn line(history: &History, event: &Event) -> String {
    let mut line = event.op.to_string();
    let mut add = |word: &str| line.extend([" ", word]);
    match (event.errno(), event.outcome()) {
        (Some(errno), _) => add(&format!("{errno:?}")),
        (None, Some(outcome)) => add(&outcome.to_string()),
        _ => {}
    }
    if event.has_range() {
        add(&format!("[{}..{})", event.stream_start, event.stream_end));
    }
    let flags = [(Flags::PEEK, "peek"), (Flags::EOF, "eof"), (Flags::URGENT, "urgent")];
    flags.iter().filter(|(flag, _)| event.flags.has(*flag)).for_each(|(_, name)| add(name));
    if matches!(event.op, Op::Signal | Op::Deliver) || (event.op == Op::Exit && event.signal != 0) {
        add(&signal_name(event.signal));
    }
    if event.target != 0 {
        add(&format!("to {}", name_of(history, event.target)));
    }
    let flags = [(Flags::IGNORED, "ignored"), (Flags::LAST_THREAD, "last")];
    flags.iter().filter(|(flag, _)| event.flags.has(*flag)).for_each(|(_, name)| add(name));
    line
}

fn signal_name(number: u8) -> String {
    Signal::try_from(i32::from(number)).map_or(number.to_string(), |s| s.as_str().to_owned())
}

/// What a thread was last called.
pub fn name_of(history: &History, tid: u32) -> String {
    if tid == std::process::id() {
        return "the recorder".to_owned();
    }
    let task = history.hosts[0].tasks.iter().rfind(|task| task.tid == tid);
    task.map_or_else(|| "?".to_owned(), |task| task.comm.clone())
}

pub fn tasks(history: &History) -> String {
    let mut lanes: Vec<(u32, String)> = Vec::new();
    let mut numbered: HashMap<u32, usize> = HashMap::new();
    for event in history.events.iter().filter(|event| event.protocol.is_none()) {
        let index = *numbered.entry(event.tid).or_insert_with(|| {
            let kernel = "kernel".to_owned();
            let name = if event.tid == 0 { kernel } else { name_of(history, event.tid) };
            lanes.push((event.tid, name + "\n"));
            lanes.len() - 1
        });
        writeln!(lanes[index].1, "  {}", line(history, event)).expect("strings grow");
    }
    lanes.into_iter().map(|(_, text)| text).collect()
}

/// These tests load probes; without root they prove nothing, and say so.
pub fn require_root() {
    assert!(nix::unistd::geteuid().is_root(), "the kernel tests load probes: run them as root");
}
