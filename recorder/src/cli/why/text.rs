//! Answers as text that a tired person on call can read: the chain first, then what else is possible, what
//! is excluded, and how far the recording can be trusted.

mod hosts;
pub mod waiting;

use std::collections::HashMap;
use std::io::{Result, Write};

use hosts::windows;

use super::Suspicion;
use crate::capture::attach::family::Family;
use crate::cli::input::Symptom;
use crate::cli::record::grouped;
use crate::describe::{clock, describe, lane, printable, wall_ns};
use crate::event::{Event, EventIndex, History, Op};
use crate::explain::missing::Missing;
use crate::explain::{Answer, Process, Step, short_duration};
use crate::lookback::Extent;
use crate::pattern::Pattern;
use crate::slice::{Domain, Reach, Slice, Verdict};

/// One line of a table of events.
struct Row {
    /// Wall clock, ns.
    at: i128,
    label: &'static str,
    clock: String,
    lane: String,
    what: String,
    why: String,
}

impl Row {
    fn new(history: &History, event: EventIndex, label: &'static str, why: String) -> Self {
        let event = &history.events[event as usize];
        Self {
            at: wall_ns(history, event),
            label,
            clock: clock(history, event),
            lane: lane(history, event),
            what: describe(history, event),
            why,
        }
    }
}

/// Columns are as wide as what they hold, up to a bound; a longer cell pushes its own line out.
fn table(rows: &[Row], out: &mut impl Write) -> Result<()> {
    let width = |cell: fn(&Row) -> &str, most: usize| {
        rows.iter().map(|row| cell(row).chars().count()).max().unwrap_or(0).min(most)
    };
    let lane = width(|row| &row.lane, 36);
    let what = width(|row| &row.what, 44);
    for row in rows {
        let line = format!(
            "{:<8} {:<15}  {:<lane$}  {:<what$}  {}",
            row.label, row.clock, row.lane, row.what, row.why
        );
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}

pub fn why(
    history: &History,
    symptom: &Symptom,
    answer: &Answer,
    extent: Option<&Extent>,
    out: &mut impl Write,
) -> Result<()> {
    table(&chain(history, answer), out)?;
    let origin = answer.chain.last().map(|step| step.event);
    let unsettled = extent.is_some_and(|extent| !extent.settled);
    let nothing = if unsettled { "nothing read that lies" } else { "nothing" };
    if answer.goes_on {
        writeln!(out, "         the chain goes on from here")?;
    } else if answer.chain.len() == 1 {
        writeln!(out, "         {nothing} outside its own thread must precede it")?;
    } else if let Some(origin) = origin {
        let origin = &history.events[origin as usize];
        if origin.op == Op::Fault {
            writeln!(out, "         it was injected")?;
        } else {
            let lane = lane(history, origin);
            writeln!(out, "         {nothing} outside {lane} must precede it")?;
        }
    }
    for frontier in &answer.frontiers {
        writeln!(out, "frontier {frontier}")?;
    }
    writeln!(out)?;
    involved(history, &answer.processes.must, out)?;
    possible(history, &answer.processes.may, out)?;
    let stretch = match extent {
        Some(extent) => format!("since {}", since(history, extent)),
        None => "in a complete window".to_owned(),
    };
    let outside =
        if answer.beyond.is_empty() { "" } else { ", nor anything beyond these recordings" };
    let note = format!("no path {stretch}{}{outside}", assumption(history, answer.domain));
    excluded(history, "excluded", &note, &answer.processes.excluded, out)?;
    let note = "no path seen, but something is missing";
    excluded(history, "unknown", note, &answer.processes.cannot_say, out)?;
    hosts::beyond(history, &answer.beyond, out)?;
    hosts::clocks(history, answer, out)?;
    windows(history, out)?;
    if let Some(extent) = extent {
        looked_back(history, extent, out)?;
    }
    if symptom.matched > 1 {
        let events = if extent.is_some() { "of the events that were read" } else { "events" };
        writeln!(
            out,
            "matched  {} {events}; this is about the last",
            grouped(symptom.matched as u64)
        )?;
    }
    Ok(())
}

/// What "excluded" takes for granted: that nothing joins them which is not observed.
fn assumption(history: &History, domain: Domain) -> String {
    let kprobes = history.hosts.iter().any(|host| host.family == Family::Kprobe.as_str());
    let channels = match (domain, kprobes) {
        (Domain::Host, false) => return String::new(),
        (Domain::Host, true) => "Multipath TCP, which kprobes do not see,",
        (_, false) => "pipe, file or memory",
        (_, true) => "pipe, file, memory, Unix socket or Multipath TCP, which kprobes do not see,",
    };
    let whom = match domain {
        Domain::Process => "it to them (--domain)",
        Domain::Cgroup => "its cgroup to theirs (--domain)",
        Domain::Host => "it to them",
    };
    format!(", if no {channels} joins {whom}")
}

/// The chain's rows, with a run of steps that repeats told once.
fn chain(history: &History, answer: &Answer) -> Vec<Row> {
    let steps = &answer.chain[..];
    let mut rows = Vec::new();
    let mut at = 0;
    while at < steps.len() {
        let (length, times) = repetition(history, &steps[at..]);
        for (i, step) in steps[at..at + length].iter().enumerate() {
            let number = at + i;
            let last = number + 1 == steps.len();
            let label = match number {
                0 => "symptom",
                _ if last && !answer.goes_on => "origin",
                _ => "  must",
            };
            rows.push(Row::new(history, step.event, label, step.proof.clone()));
        }
        if times > 1 {
            let what = if length == 1 { "this step" } else { "these steps" };
            let last = &mut rows.last_mut().expect("a run has at least one step").why;
            let told = format!("{what} × {times}");
            *last = if last.is_empty() { told } else { format!("{last}; {told}") };
        }
        at += length * times;
    }
    rows
}

/// Longest run that is looked for.
const RUN_MAX: usize = 8;
/// How often a run must come to be told once.
const TIMES_MIN: usize = 3;

/// Length of the run at the beginning, and how often it comes one after another; `(1, 1)` without any.
fn repetition(history: &History, steps: &[Step]) -> (usize, usize) {
    for length in 1..=RUN_MAX.min(steps.len() / TIMES_MIN) {
        let times = steps
            .chunks_exact(length)
            .take_while(|run| run.iter().zip(steps).all(|(a, b)| alike(history, a, b)))
            .count();
        // The origin is told by itself.
        let times = if length * times == steps.len() { times - 1 } else { times };
        if times >= TIMES_MIN {
            return (length, times);
        }
    }
    (1, 1)
}

fn alike(history: &History, a: &Step, b: &Step) -> bool {
    let (x, y) = (&history.events[a.event as usize], &history.events[b.event as usize]);
    // Not the other end: a client's requests come from port after port.
    (a.kind, x.op, x.tid, x.comm, x.error) == (b.kind, y.op, y.tid, y.comm, y.error)
}

fn name(history: &History, process: &Process) -> String {
    let comm = if process.comm.is_empty() {
        "?".to_owned()
    } else {
        printable(&process.comm).into_owned()
    };
    let container = history.container_of(process.host, process.cgroup).unwrap_or_default();
    let place = match &*container.full_label() {
        "" => String::new(),
        label => format!(" in {}", printable(label)),
    };
    match history.hosts.get(usize::from(process.host)) {
        Some(host) if history.hosts.len() > 1 => {
            format!("{}:{comm}[{}]{place}", printable(&host.name), process.pid)
        }
        _ => format!("{comm}[{}]{place}", process.pid),
    }
}

fn involved(history: &History, processes: &[Process], out: &mut impl Write) -> Result<()> {
    let names = processes.iter().map(|p| name(history, p)).collect::<Vec<_>>();
    list("involved", &names, "", out)
}

/// `1 connection`, `412 messages`.
fn plural(count: usize, what: &str) -> String {
    let s = if count == 1 { "" } else { "s" };
    format!("{} {what}{s}", grouped(count as u64))
}

/// Processes of which some are named.
const NAMED: usize = 6;

fn list(label: &str, names: &[String], note: &str, out: &mut impl Write) -> Result<()> {
    if names.is_empty() {
        return Ok(());
    }
    let shown = names.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", ");
    let more = match names.len().saturating_sub(NAMED) {
        0 => String::new(),
        1 => " and 1 other process".to_owned(),
        more => format!(" and {more} other processes"),
    };
    let note = if note.is_empty() { String::new() } else { format!(": {note}") };
    writeln!(out, "{label:<8} {shown}{more}{note}")
}

fn possible(history: &History, processes: &[Process], out: &mut impl Write) -> Result<()> {
    for process in processes.iter().take(NAMED) {
        let ago = process
            .before_ns
            .map_or_else(String::new, |ns| format!(", last active {} before", short_duration(ns)));
        let threads = if process.may_threads == 1 { "thread" } else { "threads" };
        let other = if process.must > 0 { "other " } else { "" };
        let how = match process.may_by_bytes {
            true => "by messages or bytes that may be the ones",
            false => "through memory, queues or locks, which are not observed",
        };
        writeln!(
            out,
            "possible {}: {} {other}{threads} {how} ({} events{ago})",
            name(history, process),
            process.may_threads,
            grouped(process.may as u64),
        )?;
    }
    match processes.len().saturating_sub(NAMED) {
        0 => Ok(()),
        1 => writeln!(out, "possible 1 other process"),
        more => writeln!(out, "possible {more} other processes"),
    }
}

fn excluded(
    history: &History,
    label: &str,
    note: &str,
    processes: &[Process],
    out: &mut impl Write,
) -> Result<()> {
    let names = processes.iter().map(|p| name(history, p)).collect::<Vec<_>>();
    list(label, &names, note, out)
}

/// From when on everything up to the symptom was read.
fn since(history: &History, extent: &Extent) -> String {
    let (host, time_ns) = (extent.host, extent.from_ns[usize::from(extent.host)]);
    clock(history, &Event { host, time_ns, ..Event::blank(Op::Exit) })
}

/// How much of a large recording was read, and whether the rest could change the chain.
fn looked_back(history: &History, extent: &Extent, out: &mut impl Write) -> Result<()> {
    if extent.read == extent.events {
        return Ok(());
    }
    let unread = match extent.settled {
        true => "hold nothing that the chain needs",
        false => "may hold more of what led to it: --whole reads them",
    };
    writeln!(
        out,
        "looked   back to {}; the {} of {} events that were not read {unread}",
        since(history, extent),
        grouped(extent.events - extent.read),
        grouped(extent.events),
    )
}

/// Rows of consequences that are told one by one.
const FORWARD_ROWS: usize = 40;

pub fn forward(
    history: &History,
    symptom: &Symptom,
    slice: &Slice,
    out: &mut impl Write,
) -> Result<()> {
    let mut rows = vec![Row::new(history, symptom.event, "event", String::new())];
    let reached = |reach| slice.order.iter().skip(1).filter(move |&&e| slice.reach(e) == reach);
    let mut told: HashMap<(u32, Op, u32), usize> = HashMap::new();
    for &event in reached(Reach::Must) {
        let e = &history.events[event as usize];
        // One row for what one thread does over and over with one other end.
        let key = (if e.in_kernel_lane() { e.pid } else { e.tid }, e.op, e.remote.0);
        if let Some(&row) = told.get(&key) {
            let row: &mut Row = &mut rows[row];
            let times = row.why.strip_prefix("× ").and_then(|n| n.parse::<u64>().ok()).unwrap_or(1);
            row.why = format!("× {}", times + 1);
        } else if rows.len() < FORWARD_ROWS {
            told.insert(key, rows.len());
            rows.push(Row::new(history, event, "  must", String::new()));
        }
    }
    rows[1..].sort_by_key(|row| row.at);
    table(&rows, out)?;
    let (must, may) = (reached(Reach::Must).count(), reached(Reach::May).count());
    writeln!(
        out,
        "\nit must have influenced {} events and may have influenced {} more",
        grouped(must as u64),
        grouped(may as u64)
    )?;
    windows(history, out)
}

pub fn suspicion(
    history: &History,
    suspect: &Pattern,
    found: &Suspicion,
    extent: Option<&Extent>,
    out: &mut impl Write,
) -> Result<()> {
    let verdict = match found.worst {
        Verdict::Excluded if let Some(extent) = extent => {
            let since = since(history, extent);
            &format!("excluded since {since}: nothing after that leads from it to the symptom")
        }
        Verdict::CannotSay if extent.is_some() => {
            "cannot say: nothing is known to lead from it, but not everything was read or recorded"
        }
        Verdict::Must => "must: it is part of what led to the symptom",
        Verdict::May => "may: nothing proves it, but channels that are not observed could carry it",
        Verdict::Excluded if !found.beyond.is_empty() => {
            "excluded, as far as these recordings reach: nothing in them leads from it to the symptom"
        }
        Verdict::Excluded => {
            "excluded: nothing leads from it to the symptom, and nothing is missing"
        }
        Verdict::CannotSay => {
            "cannot say: nothing is known to lead from it, but something is missing"
        }
    };
    writeln!(out, "{verdict}")?;
    let counts = [
        (found.must, "must"),
        (found.may, "may"),
        (found.excluded, "excluded"),
        (found.cannot_say, "cannot say"),
    ];
    let told = counts.iter().filter(|(n, _)| *n > 0);
    let told = told.map(|(n, what)| format!("{} {what}", grouped(*n as u64))).collect::<Vec<_>>();
    writeln!(out, "events that match `{suspect}`: {}", told.join(", "))?;
    hosts::beyond(history, &found.beyond, out)?;
    extent.map_or(Ok(()), |extent| looked_back(history, extent, out))
}

/// Threads of a frontier that are told one by one.
const STOPS: usize = 12;

pub fn missing(
    history: &History,
    pattern: &Pattern,
    missing: &Missing,
    out: &mut impl Write,
) -> Result<()> {
    writeln!(out, "missing  {pattern}")?;
    let mut rows = Vec::new();
    if let Some(last) = missing.last {
        rows.push(Row::new(history, last, "last", "the last that did happen".to_owned()));
    }
    rows.push(Row::new(history, missing.outstanding, "asked", "outstanding".to_owned()));
    for stop in missing.frontier.iter().take(STOPS) {
        let since = waiting::stopped(stop);
        rows.push(Row::new(history, stop.last, if stop.must { "  must" } else { "  may" }, since));
    }
    for &lost in &missing.lost {
        rows.push(Row::new(history, lost, "lost", "a cut network".to_owned()));
    }
    table(&rows, out)?;
    if missing.frontier.len() > STOPS {
        writeln!(out, "         and {} other threads", missing.frontier.len() - STOPS)?;
    }
    for sent in &missing.undelivered {
        let send = &history.events[sent.send as usize];
        writeln!(
            out,
            "waiting  {} {} of {}, {}: {}",
            grouped(sent.bytes),
            waiting::kind(send),
            lane(history, send),
            describe(history, send),
            waiting::undelivered(history, sent),
        )?;
    }
    if let Some(unanswered) = &missing.unanswered {
        let connect = &history.events[missing.outstanding as usize];
        writeln!(out, "waiting  {}", waiting::unanswered(history, connect, unanswered))?;
    }
    windows(history, out)
}
