//! Where what was asked came to a halt, in lines.

use crate::cli::record::grouped;
use crate::cli::why::text::waiting;
use crate::describe::{clock, describe, lane};
use crate::event::{EventIndex, History};
use crate::explain::missing::{Missing, Stop};
use crate::graph::Graph;
use crate::incident::silence::{Silence, silence};

/// Threads that may hold what the one that got furthest waits for: told of them.
const HOLDERS: usize = 2;

/// The first is the headline; none where nothing is known.
pub(super) fn lines(history: &History, graph: &Graph, missing: &Missing) -> Vec<String> {
    let Some(silence) = silence(history, missing) else { return Vec::new() };
    let line = |label: &str, event: EventIndex, why: String| {
        let event = &history.events[event as usize];
        let (clock, lane, act) =
            (clock(history, event), lane(history, event), describe(history, event));
        format!("{label:<8} {clock}  {lane}  {act}: {why}")
    };
    match silence {
        Silence::Unanswered(unanswered) => {
            let connect = &history.events[missing.outstanding as usize];
            let why = waiting::unanswered(history, connect, unanswered);
            // That it was full when it was asked is likely, and not seen.
            vec![line("possibly", missing.outstanding, why)]
        }
        Silence::Unread(sent) | Silence::OnTheWay(sent) => {
            let send = &history.events[sent.send as usize];
            let (bytes, kind) = (grouped(sent.bytes), waiting::kind(send));
            let why = format!("{bytes} {kind} wait, {}", waiting::undelivered(history, sent));
            vec![line("culprit", sent.send, why)]
        }
        Silence::Stopped(stop) => {
            let got = |stop: &Stop| match stop.ended {
                true => "the request got there, then its thread ended".to_owned(),
                false => format!("the request got there, {}", waiting::stopped(stop)),
            };
            let mut lines = vec![line("culprit", stop.last, got(stop))];
            for holder in stop.held_by(history, graph).iter().take(HOLDERS) {
                let why = format!("may hold what it waits for, {}", waiting::stopped(holder));
                lines.push(line("possibly", holder.last, why));
            }
            lines
        }
    }
}

#[cfg(test)]
mod tests;
