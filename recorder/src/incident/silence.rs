//! What to tell first of an event that did not happen: where what was asked came to a halt.

use crate::event::History;
use crate::explain::missing::{Missing, Stop, Unanswered, Undelivered};

/// The halt that is told, by this ranking:
///
/// 1. nobody answered the connect that was asked last; above all where the backlog of who listens there is full;
/// 2. the thread that certainly got furthest has sent on, and what it sent was not taken: it lies unread at the other end, or is still on
///    its way;
/// 3. the thread that certainly got furthest; one that still has the request, if there is one.
#[derive(Debug)]
pub enum Silence<'a> {
    Unanswered(&'a Unanswered),
    /// The other end's program has not read it.
    Unread(&'a Undelivered),
    /// The other end's kernel has not got it, as far as is known.
    OnTheWay(&'a Undelivered),
    Stopped(&'a Stop),
}

/// `None`: nothing that was asked certainly got anywhere.
pub fn silence<'a>(history: &History, missing: &'a Missing) -> Option<Silence<'a>> {
    if let Some(unanswered) = &missing.unanswered {
        return Some(Silence::Unanswered(unanswered));
    }
    let stop = furthest(missing)?;
    let last = &history.events[stop.last as usize];
    let sent_by_it = |sent: &&Undelivered| {
        let send = &history.events[sent.send as usize];
        (send.host, send.tid) == (last.host, last.tid)
    };
    match missing.undelivered.iter().filter(|sent| sent.peer_seen).find(sent_by_it) {
        Some(sent) if sent.other.as_ref().is_some_and(|other| other.receive_queue > 0) => {
            Some(Silence::Unread(sent))
        }
        Some(sent) if sent.sent_again > 0 || sent.is_unacknowledged() => {
            Some(Silence::OnTheWay(sent))
        }
        _ => Some(Silence::Stopped(stop)),
    }
}

/// The thread that a request certainly reached last; one that still has it, if there is one.
fn furthest(missing: &Missing) -> Option<&Stop> {
    let reached = missing.frontier.iter().filter(|stop| stop.must);
    reached.max_by_key(|stop| (!stop.ended, stop.reached))
}
