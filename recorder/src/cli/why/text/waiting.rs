//! What waits, and where: threads that were silent, bytes that nobody took, connects that nobody answered.

use crate::cli::record::grouped;
use crate::describe::printable;
use crate::event::{Event, Flags, History, Host};
use crate::explain::missing::{Stop, Unanswered, Undelivered};
use crate::explain::short_duration;
use crate::state::Socket;

use super::plural;

/// `then nothing for 1.72 s, asleep in futex`.
pub fn stopped(stop: &Stop) -> String {
    let since = match stop.ended {
        true => return "the thread ended".to_owned(),
        false => format!("then nothing for {}", short_duration(stop.silent_ns)),
    };
    match &stop.state {
        Some(state) => format!("{since}, {}", state.told()),
        None => since,
    }
}

/// What became of bytes: `the other end has not taken them: 17 lie unread in the socket of worker[12]`.
pub fn undelivered(history: &History, sent: &Undelivered) -> String {
    if !sent.peer_seen {
        return format!("the other end is not in the recording{}", on_the_way(sent));
    }
    let place = match sent.other.as_ref().filter(|other| other.receive_queue > 0) {
        None => on_the_way(sent),
        Some(other) => {
            let unread = grouped(other.receive_queue.into());
            format!(": {unread} lie unread in {}", socket(history, sent, other))
        }
    };
    format!("the other end has not taken them{place}")
}

/// Whose the other end's socket is.
fn socket(history: &History, sent: &Undelivered, other: &Socket) -> String {
    let host = sent.peer.map(|peer| &history.events[peer as usize]);
    let host = host.and_then(|event| history.hosts.get(usize::from(event.host)));
    match (other.inode, host.map(|host| names(host, other))) {
        (0, _) => "a connection that nobody has accepted".to_owned(),
        (_, Some(names)) if !names.is_empty() => format!("the socket of {names}"),
        _ => "its socket".to_owned(),
    }
}

/// Who has a socket open.
fn names(host: &Host, socket: &Socket) -> String {
    let comm = |pid: &u32| {
        let task = host.tasks.iter().find(|task| task.tid == *pid);
        let comm = task.map_or("?", |task| task.comm.as_str());
        format!("{}[{pid}]", printable(comm))
    };
    socket.processes.iter().map(comm).collect::<Vec<_>>().join(", ")
}

fn on_the_way(sent: &Undelivered) -> String {
    let mut told = String::new();
    if let Some(own) = sent.own.as_ref().filter(|own| own.send_queue > 0) {
        told += &format!(", {} not acknowledged", plural(own.send_queue as usize, "byte"));
    }
    let times = sent.sent_again.max(sent.own.as_ref().map_or(0, |own| own.retransmits.into()));
    told + &again("sent", times)
}

/// `, sent again 2 times`, or nothing.
fn again(done: &str, times: usize) -> String {
    match times {
        0 => String::new(),
        1 => format!(", {done} again once"),
        times => format!(", {done} again {times} times"),
    }
}

/// `bytes`, or `urgent bytes`, of a send.
pub fn kind(send: &Event) -> &'static str {
    if send.flags.has(Flags::URGENT) { "urgent bytes" } else { "bytes" }
}

/// A connect that came to nothing: `127.0.0.1:80 of web[12] has a full backlog: 3 wait to be accepted, 2 may`.
pub fn unanswered(history: &History, connect: &Event, unanswered: &Unanswered) -> String {
    let again = again("asked", unanswered.sent_again);
    let host = history.hosts.get(usize::from(connect.host));
    match (&unanswered.listener, host) {
        (Some(listener), Some(host)) => format!("{}{again}", backlog(host, listener)),
        _ => format!("nobody answered{again}"),
    }
}

fn backlog(host: &Host, listener: &Socket) -> String {
    let whose = match names(host, listener) {
        none if none.is_empty() => none,
        names => format!(" of {names}"),
    };
    let state = if listener.is_full() { "has a full backlog" } else { "listens" };
    format!(
        "{}{whose} {state}: {} wait to be accepted, {} may",
        printable(&listener.local),
        grouped(listener.receive_queue.into()),
        grouped(listener.send_queue.into()),
    )
}
