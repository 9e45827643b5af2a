//! Signals: from the thread that sends one to the thread that takes it, or dies of it.
//!
//! The kernel keeps what was sent and not yet taken: per thread and, for signals meant for the whole
//! process, per process. A standard signal is kept once; sending it again causes nothing
//! ([`Flags::IGNORED`]). So a signal that is sent, and not ignored, replaces an earlier one of its number,
//! which then was taken in a way that is not seen (`sigwait`, `signalfd`).

use std::collections::{HashMap, HashSet, VecDeque};

use super::build::lossless;
use super::connection::push_if;
use super::{EdgeKind, Graph, Side, Thread};
use crate::event::{Event, EventIndex, Flags, History, Op};

const KILL: u8 = libc::SIGKILL as u8;
/// The first real-time signal of the kernel; from here on all that are sent are kept.
const REAL_TIME: u8 = 32;

/// Whom a signal was sent to: a process, or one thread.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Scope {
    Process(u16, u32),
    Thread(u16, u32),
}

#[derive(Default)]
struct Pending {
    /// Sent and not yet taken, by scope and number.
    sent: HashMap<(Scope, u8), VecDeque<EventIndex>>,
    /// All that were sent to a process or its threads and could kill it.
    deadly: HashMap<(u16, u32), Vec<EventIndex>>,
    /// One of several that may have been taken: what is left is as uncertain.
    doubtful: HashSet<EventIndex>,
    /// Exits of a process's threads that no signal made, also those to come: a thread that ends the
    /// process kills the others before it notes its own exit.
    exits: HashMap<(u16, u32), Vec<EventIndex>>,
    /// When SIGKILLs were sent to threads that may be of any process, by host.
    strays: HashMap<u16, Vec<u64>>,
    /// When the first thread of each process died of a signal.
    deaths: HashMap<(u16, u32), u64>,
}

pub(super) fn edges(history: &History, rare: &[EventIndex], graph: &mut Graph) {
    let mut pending = Pending { exits: exits(history, rare), ..Pending::default() };
    // Within a nanosecond, sending comes first.
    let mut ordered = rare.to_vec();
    ordered.sort_by_key(|&index| {
        let event = &history.events[index as usize];
        (event.host, event.time_ns, event.op == Op::Deliver)
    });
    for index in ordered {
        let event = &history.events[index as usize];
        match event.op {
            Op::Signal if !event.flags.has(Flags::IGNORED) => {
                pending.send(history, graph, event, index);
            }
            Op::Deliver => pending.deliver(history, graph, event, index),
            Op::Fork => {
                pending.deadly.remove(&(event.host, event.target));
            }
            _ => {}
        }
    }
    out_of_memory(history, rare, graph);
}

impl Pending {
    fn send(&mut self, history: &History, graph: &Graph, event: &Event, index: EventIndex) {
        let process = process_of(history, graph, event.host, event.target, index);
        let whole = event.flags.has(Flags::PROCESS);
        let scope = if whole {
            Scope::Process(event.host, process)
        } else {
            Scope::Thread(event.host, event.target)
        };
        let sent = self.sent.entry((scope, event.signal)).or_default();
        if event.signal < REAL_TIME {
            sent.clear();
        }
        sent.push_back(index);
        let known = known_process_of(history, graph, event.host, event.target, index);
        if event.signal == KILL && known.is_none() {
            self.strays.entry(event.host).or_default().push(event.time_ns);
        }
        if is_deadly(event.signal) {
            self.deadly.entry((event.host, process)).or_default().push(index);
        }
    }

    fn deliver(&mut self, history: &History, graph: &mut Graph, event: &Event, index: EventIndex) {
        let lossless = lossless(history, event.host);
        let to = (index, Side::End);
        if event.signal == KILL {
            self.killed(history, graph, event, index, lossless);
            return;
        }
        let scopes = [Scope::Thread(event.host, event.tid), Scope::Process(event.host, event.pid)];
        let mut candidates = Vec::new();
        for scope in scopes {
            if let Some(&first) = self.sent.get(&(scope, event.signal)).and_then(VecDeque::front) {
                candidates.push((scope, first));
            }
        }
        // The kernel looks at the thread's own first.
        if let Some(&(scope, _)) = candidates.first()
            && let Some(sent) = self.sent.get_mut(&(scope, event.signal))
        {
            sent.pop_front();
        }
        // What a handler took kills nobody.
        if let Some(deadly) = self.deadly.get_mut(&(event.host, event.pid)) {
            deadly.retain(|sent| candidates.iter().all(|(_, taken)| taken != sent));
        }
        if candidates.len() > 1 {
            self.doubtful.extend(candidates.iter().map(|&(_, cause)| cause));
        }
        let certain = |&(_, cause): &(Scope, EventIndex)| !self.doubtful.contains(&cause);
        let proven = lossless && candidates.iter().all(certain);
        for (_, cause) in candidates {
            push_if(history, graph, proven, (cause, Side::Begin), to, EdgeKind::Signal);
        }
    }

    /// All threads of a process die of one signal: SIGKILL, or another that kills it, which the kernel
    /// turns into SIGKILL for each thread. Or one of them ended the process.
    fn killed(
        &mut self,
        history: &History,
        graph: &mut Graph,
        event: &Event,
        index: EventIndex,
        lossless: bool,
    ) {
        let (process, to) = ((event.host, event.pid), (index, Side::End));
        let deadly = self.deadly.get(&process).map_or(&[][..], Vec::as_slice);
        let kills: Vec<EventIndex> =
            deadly.iter().copied().filter(|&s| history.events[s as usize].signal == KILL).collect();
        let exits = self.exits.get(&process).map_or(&[][..], Vec::as_slice);
        let causes = if kills.is_empty() { deadly } else { &kills };
        // Had the process ended before, the signal would have been ignored.
        let since = causes.first().copied().unwrap_or(0);
        let alone = !kills.is_empty() || exits.iter().all(|&exit| exit < since);
        let since_ns = causes.first().map_or(0, |&cause| history.events[cause as usize].time_ns);
        let death_ns = self.deaths.entry(process).or_insert(event.time_ns);
        if *death_ns < since_ns {
            *death_ns = event.time_ns;
        }
        // Before the first thread died, a SIGKILL may have come to one that nothing else is known of.
        let strays = self.strays.get(&event.host).filter(|_| kills.is_empty());
        let stray =
            strays.into_iter().flatten().any(|at_ns| (since_ns..=*death_ns).contains(at_ns));
        let proven = lossless && causes.len() == 1 && alone && !stray;
        for &cause in causes {
            push_if(history, graph, proven, (cause, Side::Begin), to, EdgeKind::Signal);
        }
        if kills.is_empty() {
            for &exit in exits.iter().rev().filter(|&&exit| exit >= since).take(EXITS_MAX) {
                graph.push_may(history, (exit, Side::Begin), to, EdgeKind::Signal);
            }
        }
    }
}

/// More exits than this are not shown as what may have ended a process.
const EXITS_MAX: usize = 64;

/// The exits that no signal made, by process.
fn exits(history: &History, rare: &[EventIndex]) -> HashMap<(u16, u32), Vec<EventIndex>> {
    let mut dying = HashSet::new();
    let mut exits: HashMap<(u16, u32), Vec<EventIndex>> = HashMap::new();
    for &index in rare {
        let event = &history.events[index as usize];
        let thread = (event.host, event.tid);
        match event.op {
            Op::Deliver if event.signal == KILL => {
                dying.insert(thread);
            }
            Op::Exit if !dying.remove(&thread) => {
                exits.entry((event.host, event.pid)).or_default().push(index);
            }
            _ => {}
        }
    }
    exits
}

/// Whether a signal ends a process that does nothing about it.
fn is_deadly(signal: u8) -> bool {
    !matches!(
        i32::from(signal),
        libc::SIGCHLD
            | libc::SIGCONT
            | libc::SIGURG
            | libc::SIGWINCH
            | libc::SIGSTOP
            | libc::SIGTSTP
            | libc::SIGTTIN
            | libc::SIGTTOU
    )
}

/// How many events a thread may still have after its exit: a process may have many files to close.
const ENDING_MAX: usize = 4096;

/// The process of a thread at the time of an event.
fn process_of(history: &History, graph: &Graph, host: u16, tid: u32, at: EventIndex) -> u32 {
    known_process_of(history, graph, host, tid, at).unwrap_or(tid)
}

/// The same, if the thread was ever heard of.
fn known_process_of(
    history: &History,
    graph: &Graph,
    host: u16,
    tid: u32,
    at: EventIndex,
) -> Option<u32> {
    let lives = graph.lives_of(host, tid);
    let begun = lives.partition_point(|life| graph.events_of_thread(life)[0] <= at);
    let ended = |life: &Thread| {
        let events = graph.events_of_thread(life).iter().rev().take(ENDING_MAX);
        events.filter(|&&e| e < at).any(|&e| history.events[e as usize].op == Op::Exit)
    };
    // One that has ended gets no signals: it is meant for the next of that number.
    let next = if begun > 0 && !ended(&lives[begun - 1]) { begun - 1 } else { begun };
    if let Some(life) = lives.get(next).or(lives.last()) {
        return Some(life.pid);
    }
    let tasks = history.hosts.get(usize::from(host)).map_or(&[][..], |h| h.tasks.as_slice());
    tasks.iter().find(|task| task.tid == tid).map(|task| task.pid)
}

/// The kernel kills its victim, in no thread's name, before it notes on the same CPU that it chose it. The
/// choice comes first all the same.
fn out_of_memory(history: &History, rare: &[EventIndex], graph: &mut Graph) {
    for (place, &index) in rare.iter().enumerate() {
        let kill = &history.events[index as usize];
        if kill.op != Op::OomKill {
            continue;
        }
        let victim = process_of(history, graph, kill.host, kill.target, index);
        let before = rare[..place].iter().rev().take(OWN_SIGNAL_WITHIN).copied();
        let own = before.clone().find(|&other| {
            let event = &history.events[other as usize];
            // Mostly the victim itself asked for the memory: then it seems to have sent the signal. Had it done that, it would have
            // gone on and died.
            let by_kernel = event.tid == 0
                || event.tid == event.target
                    && !before.clone().take_while(|&later| later != other).any(|later| {
                        let later = &history.events[later as usize];
                        (later.host, later.tid) == (event.host, event.tid)
                    });
            by_kernel
                && (event.host, event.cpu, event.op, event.signal)
                    == (kill.host, kill.cpu, Op::Signal, KILL)
                && process_of(history, graph, event.host, event.target, other) == victim
        });
        // The victim may have been dying already.
        if let Some(signal) = own
            && !history.events[signal as usize].flags.has(Flags::IGNORED)
        {
            let (from, to) = ((index, Side::Begin), (signal, Side::Begin));
            push_if(history, graph, true, from, to, EdgeKind::Signal);
        }
    }
}

/// How many rare events may lie between a victim's signal and the note of its choice.
const OWN_SIGNAL_WITHIN: usize = 1024;
