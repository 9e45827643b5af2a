//! What sockets and threads were doing when a dump was made. Events tell of what was done; of what waits, this tells where.
//!
//! It is of one moment, and not of the kernel's own making in one piece: each entry was true at some time between
//! [`State::from_ns`] and [`State::to_ns`]. It proves nothing, and no edge of the graph rests on it.

use std::collections::HashSet;
use std::hash::BuildHasher;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::event::{Address, Event, History, Host, Op, SocketAddress};

/// Of one host. Stored in the recording's file metadata.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct State {
    /// When the first and the last of it was read, monotonic ns.
    pub from_ns: u64,
    pub to_ns: u64,
    /// Those that have events in the recording, and all that listen.
    pub sockets: Vec<Socket>,
    /// Those that have events in the recording.
    pub threads: Vec<Thread>,
    /// Such as were beyond [`MOST_SOCKETS`] and [`MOST_THREADS`].
    pub sockets_left_out: u64,
    pub threads_left_out: u64,
    /// What could not be read, and why.
    pub unread: Vec<String>,
}

/// So many are kept of each.
pub const MOST_SOCKETS: usize = 4096;
pub const MOST_THREADS: usize = 4096;

/// TCP's or a Unix socket.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Socket {
    /// As [`Event::socket`].
    pub cookie: u64,
    /// Inode of its network namespace.
    pub netns: u32,
    /// `established`, `listen`, `close_wait`, … ; as the kernel calls them.
    pub state: String,
    /// As in the recording's columns; empty where there is none.
    pub local: String,
    pub remote: String,
    /// Bytes that wait to be read; of a listener, connections that wait to be accepted.
    pub receive_queue: u32,
    /// Bytes that were sent and are not acknowledged, or not even sent; of a listener, how many connections may wait.
    pub send_queue: u32,
    /// How often the oldest of these bytes were sent again, without an answer.
    pub retransmits: u8,
    /// What its descriptors are known by; 0: nobody has it open, as a connection that was not accepted.
    pub inode: u32,
    /// Who has it open: of sockets in which something waits to be taken.
    pub processes: Vec<u32>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Thread {
    pub pid: u32,
    pub tid: u32,
    /// The kernel's letter: `S` asleep, `D` asleep and not to be woken by signals, `R` running, `T` stopped, …
    pub state: String,
    /// Where in the kernel it sleeps; empty if it does not, or may not be known.
    pub wchan: String,
    /// The system call that it is in; the same.
    pub call: String,
}

impl State {
    /// Leaves what the recording is about, and no more than there is room for: of sockets those first in which something
    /// waits, of threads those that wait for others.
    pub fn keep<S: BuildHasher>(
        &mut self,
        threads: &HashSet<(u32, u32), S>,
        sockets: &HashSet<u64, S>,
    ) {
        self.threads.retain(|thread| threads.contains(&(thread.pid, thread.tid)));
        self.threads.sort_by_key(|thread| (thread.is_idle(), thread.pid, thread.tid));
        self.threads_left_out += cut(&mut self.threads, MOST_THREADS);
        self.sockets.retain(|socket| socket.listens() || sockets.contains(&socket.cookie));
        self.sockets.sort_by_key(|socket| (!socket.waits(), !socket.listens(), socket.cookie));
        self.sockets_left_out += cut(&mut self.sockets, MOST_SOCKETS);
    }
}

/// How many were too many.
fn cut<T>(list: &mut Vec<T>, most: usize) -> u64 {
    let surplus = list.len().saturating_sub(most);
    list.truncate(most);
    surplus as u64
}

impl Socket {
    pub fn listens(&self) -> bool {
        self.state == LISTEN
    }

    /// Whether no more connections are taken in: the kernel takes one more than it was told.
    pub fn is_full(&self) -> bool {
        self.listens() && self.receive_queue > self.send_queue
    }

    /// Whether bytes or connections wait in it.
    pub fn waits(&self) -> bool {
        self.receive_queue > 0 || self.send_queue > 0 && !self.listens()
    }
}

/// [`Socket::state`] of a listener.
pub const LISTEN: &str = "listen";

impl Thread {
    /// In words: `asleep in futex`.
    pub fn told(&self) -> String {
        let act = match self.state.as_str() {
            "R" => return "running".to_owned(),
            "S" | "I" => "asleep",
            "D" => "asleep, not to be woken",
            "T" => return "stopped".to_owned(),
            "t" => return "stopped by a debugger".to_owned(),
            "Z" | "X" => return "dead".to_owned(),
            _ => "in an unknown state",
        };
        match (self.call.as_str(), self.wchan.as_str()) {
            ("", "") => act.to_owned(),
            ("", place) | (place, _) => format!("{act} in {place}"),
        }
    }

    /// Whether it waits for another thread of its process, or for somebody who shares its memory.
    pub fn waits_for_memory(&self) -> bool {
        self.state == "S" && (self.call.starts_with("futex") || self.wchan.starts_with("futex"))
    }

    /// Whether it waits for whatever comes next, as event loops do.
    fn is_idle(&self) -> bool {
        ["epoll_wait", "epoll_pwait", "epoll_pwait2"].contains(&self.call.as_str())
    }
}

impl Host {
    /// What a thread was doing after an event of its; nothing where that is not known, or it has gone on since.
    pub fn thread_state(&self, last: &Event) -> Option<&Thread> {
        let state = self.state.as_ref().filter(|state| state.from_ns >= last.time_ns)?;
        state.threads.iter().find(|thread| (thread.pid, thread.tid) == (last.pid, last.tid))
    }

    pub fn socket_state(&self, cookie: u64) -> Option<&Socket> {
        let state = self.state.as_ref()?;
        state.sockets.iter().find(|socket| cookie != 0 && socket.cookie == cookie)
    }
}

/// The listener that a connect asked, on its own host: in its network namespace, or in another that alone has the address.
pub fn listener<'a>(history: &'a History, connect: &Event) -> Option<&'a Socket> {
    if connect.op != Op::Connect || connect.remote == Address::NONE {
        return None;
    }
    let state = history.hosts.get(usize::from(connect.host))?.state.as_ref()?;
    let wanted = history.names.socket_address(connect.remote)?;
    let netns = history.namespace(connect).map(|namespace| namespace.inode);
    let listeners = state.sockets.iter().filter(|socket| socket.listens());
    let own = |socket: &&Socket| netns.is_none_or(|netns| netns == socket.netns);
    let mut reached = listeners.clone().filter(own).filter(|socket| takes(&socket.local, wanted));
    let elsewhere = || {
        let ip = wanted.ip().filter(|address| !address.ip().is_loopback())?;
        let mut exact = listeners.clone().filter(|socket| socket.local.parse() == Ok(ip));
        exact.next().filter(|_| exact.next().is_none())
    };
    reached.next().or_else(elsewhere)
}

/// Whether who listens there is asked by a connect to this address.
fn takes(local: &str, wanted: &SocketAddress) -> bool {
    match (local.parse::<SocketAddr>(), wanted) {
        (Ok(local), SocketAddress::Ip(wanted)) => {
            let (here, there) = (local.ip().to_canonical(), wanted.ip().to_canonical());
            local.port() == wanted.port() && (here == there || here.is_unspecified())
        }
        _ => local == wanted.to_string(),
    }
}

#[cfg(test)]
mod tests;
