//! Answers as one JSON object each, for other programs.

use std::io::Write;

use anyhow::Result;
use serde::Serialize;
use serde_json::{Value, json};

use super::Suspicion;
use crate::cli::input::Symptom;
use crate::event::{EventIndex, History, Host};
use crate::explain::beyond::Beyond;
use crate::explain::missing::Missing;
use crate::explain::{Answer, Process, window};
use crate::export::{self, EventRow};
use crate::lookback::Extent;
use crate::slice::{Reach, Slice, Verdict};

pub fn why(
    history: &History,
    symptom: &Symptom,
    answer: &Answer,
    extent: Option<&Extent>,
    out: &mut impl Write,
) -> Result<()> {
    let chain = answer.chain.iter().map(|step| {
        json!({
            "event": EventRow::new(history, step.event),
            "kind": step.kind.map(|kind| kind.as_str()),
            "proof": "must",
            "because": step.proof,
        })
    });
    let of = |list: &[Process]| list.iter().map(|p| process(history, p)).collect::<Vec<_>>();
    write(
        &json!({
            "symptom": EventRow::new(history, symptom.event),
            "matched": symptom.matched,
            "chain": chain.collect::<Vec<_>>(),
            "goes_on": answer.goes_on,
            "frontiers": answer.frontiers,
            "must": of(&answer.processes.must),
            "may": of(&answer.processes.may),
            "excluded": of(&answer.processes.excluded),
            "cannot_say": of(&answer.processes.cannot_say),
            "beyond": beyond(history, &answer.beyond),
            "clocks": answer.clocks.as_ref().map(|clocks| export::clocks(history, clocks)),
            "looked_back": extent.map(looked_back),
            "hosts": hosts(history),
        }),
        out,
    )
}

pub fn forward(
    history: &History,
    symptom: &Symptom,
    slice: &Slice,
    out: &mut impl Write,
) -> Result<()> {
    let reached =
        |reach| rows(history, slice.order.iter().skip(1), move |e| slice.reach(e) == reach);
    write(
        &json!({
            "event": EventRow::new(history, symptom.event),
            "matched": symptom.matched,
            "must": reached(Reach::Must),
            "may": reached(Reach::May),
            "hosts": hosts(history),
        }),
        out,
    )
}

/// Null where everything was read.
fn looked_back(extent: &Extent) -> Value {
    json!({
        "from_ns": extent.from_ns[usize::from(extent.host)],
        "events": extent.events,
        "read": extent.read,
        "settled": extent.settled,
    })
}

pub fn suspicion(
    history: &History,
    found: &Suspicion,
    extent: Option<&Extent>,
    out: &mut impl Write,
) -> Result<()> {
    let verdict = match found.worst {
        Verdict::Must => "must",
        Verdict::May => "may",
        Verdict::Excluded => "excluded",
        Verdict::CannotSay => "cannot_say",
    };
    write(
        &json!({
            "verdict": verdict,
            "must": found.must,
            "may": found.may,
            "excluded": found.excluded,
            "cannot_say": found.cannot_say,
            "beyond": beyond(history, &found.beyond),
            "looked_back": extent.map(looked_back),
        }),
        out,
    )
}

pub fn missing(history: &History, missing: &Missing, out: &mut impl Write) -> Result<()> {
    write(&missing_value(history, missing), out)
}

/// The same as a value.
pub fn missing_value(history: &History, missing: &Missing) -> Value {
    let frontier = missing.frontier.iter().map(|stop| {
        json!({
            "reached": EventRow::new(history, stop.reached),
            "last": EventRow::new(history, stop.last),
            "silent_ns": stop.silent_ns,
            "ended": stop.ended,
            "proof": if stop.must { "must" } else { "may" },
            "state": stop.state,
        })
    });
    let undelivered = missing.undelivered.iter().map(|bytes| {
        json!({
            "send": EventRow::new(history, bytes.send),
            "bytes": bytes.bytes,
            "peer_seen": bytes.peer_seen,
            "sent_again": bytes.sent_again,
            "own_socket": bytes.own,
            "other_socket": bytes.other,
        })
    });
    json!({
        "last": missing.last.map(|last| EventRow::new(history, last)),
        "outstanding": EventRow::new(history, missing.outstanding),
        "frontier": frontier.collect::<Vec<_>>(),
        "undelivered": undelivered.collect::<Vec<_>>(),
        "lost": rows(history, missing.lost.iter(), |_| true),
        "unanswered": missing.unanswered.as_ref().map(|unanswered| json!({
            "sent_again": unanswered.sent_again,
            "listener": unanswered.listener,
        })),
        "hosts": hosts(history),
    })
}

fn rows<'a>(
    history: &'a History,
    events: impl Iterator<Item = &'a EventIndex>,
    wanted: impl Fn(EventIndex) -> bool,
) -> Vec<EventRow<'a>> {
    events.filter(|&&e| wanted(e)).map(|&e| EventRow::new(history, e)).collect()
}

fn process(history: &History, process: &Process) -> Value {
    let container = history.container_of(process.host, process.cgroup).unwrap_or_default();
    json!({
        "host": history.hosts.get(usize::from(process.host)).map(|h| &h.name),
        "pid": process.pid,
        "comm": process.comm,
        "container": present(container.label()),
        "pod": present(container.pod_label()),
        "must_events": process.must,
        "may_events": process.may,
        "events": process.events,
        "before_ns": process.before_ns,
    })
}

fn present(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}

fn beyond(history: &History, found: &[Beyond]) -> Vec<Value> {
    let one = |beyond: &Beyond| {
        json!({
            "address": beyond.address(),
            "host": beyond.host.map(|host| &history.hosts[usize::from(host)].name),
            "connections": beyond.connections,
            "proof": if beyond.reach == Reach::Must { "must" } else { "may" },
            "heard_by": EventRow::new(history, beyond.heard_by),
        })
    };
    found.iter().map(one).collect()
}

fn hosts(history: &History) -> Vec<Value> {
    let host = |host: &Host| {
        let window = window(host);
        json!({
            "name": host.name,
            "wall_offset_ns": host.wall_offset_ns,
            "from_ns": window.from_ns,
            "to_ns": window.to_ns,
            "raised": host.raised,
            "lost": host.lost,
            "gaps": host.gaps,
        })
    };
    history.hosts.iter().map(host).collect()
}

fn write(value: &impl Serialize, out: &mut impl Write) -> Result<()> {
    serde_json::to_writer_pretty(&mut *out, value)?;
    Ok(writeln!(out)?)
}
