//! Dropped packets. The kernel drops them wherever they have got to, and only their headers say whose they are: the
//! socket that is known by these two addresses is taken for the sender, unless several are.

use std::collections::{BTreeMap, HashMap};

use probe_ebpf::event::SocketName;

use super::Decoder;
use crate::capture::generations::Generations;
use crate::capture::ring::Raw;
use crate::event::{Address, Event, Proof};

/// Sockets by the addresses of their two ends.
pub(super) struct Senders {
    known: Generations<Sender>,
    /// What the kernel calls its reasons to drop packets.
    reasons: HashMap<u32, String>,
    seen: BTreeMap<u32, String>,
}

/// Who sends from one address to another, and from which network namespace.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sender {
    One {
        cookie: u64,
        netns: u32,
    },
    /// Of several namespaces, which may all have these addresses.
    Several,
}

impl Senders {
    pub(super) fn new(size: usize) -> Self {
        Self { known: Generations::new(size), reasons: HashMap::new(), seen: BTreeMap::new() }
    }

    /// Takes note of a socket. A later one of the same namespace uses the same port again.
    pub(super) fn learn(&mut self, local: Address, remote: Address, netns: u32, cookie: u64) {
        if local == Address::NONE || remote == Address::NONE {
            return;
        }
        let key = key(local, remote);
        let sender = match self.known.get(key) {
            Some(Sender::Several) => Sender::Several,
            Some(Sender::One { netns: other, .. }) if *other != netns => Sender::Several,
            _ => Sender::One { cookie, netns },
        };
        self.known.put(key, sender);
    }

    fn of(&mut self, local: Address, remote: Address) -> Option<u64> {
        match self.known.get(key(local, remote)) {
            Some(Sender::One { cookie, .. }) => Some(*cookie),
            _ => None,
        }
    }
}

fn key(local: Address, remote: Address) -> u64 {
    u64::from(local.0) << 32 | u64::from(remote.0)
}

/// Reasons that only tell that a queue was thrown away with its socket.
const NO_LOSS: [&str; 2] = ["QUEUE_PURGE", "SOCKET_CLOSE"];

impl Decoder {
    /// Takes note of what the kernel calls its reasons to drop packets.
    pub fn name_reasons(&mut self, reasons: &[(u32, String)]) {
        self.senders.reasons = reasons.iter().cloned().collect();
    }

    /// The reasons that occurred.
    pub fn reasons_seen(&self) -> BTreeMap<u32, String> {
        self.senders.seen.clone()
    }

    /// Fills in whose packet it was; false where nobody in scope has to do with it, or nothing was lost.
    pub(super) fn dropped(&mut self, raw: &Raw, detail: [u64; 8], event: &mut Event) -> bool {
        let about: SocketName = bytemuck::cast(detail);
        let number = raw.slot.argument;
        let reason = self.senders.reasons.get(&number).cloned();
        if reason.as_deref().is_some_and(|reason| NO_LOSS.contains(&reason)) {
            return false;
        }
        event.local = self.address(about.local, about.local_port);
        event.remote = self.address(about.remote, about.remote_port);
        event.protocol = super::spoken(about.protocol);
        event.netns = if about.netns_cookie != 0 { about.netns_cookie } else { about.netns };
        event.result = i64::from(number);
        let receiver = self.senders.of(event.remote, event.local);
        let sender = self.senders.of(event.local, event.remote);
        if let Some(socket) = sender.and_then(|cookie| self.sockets.get(cookie)) {
            event.pid = socket.owner;
            event.netns = socket.netns;
            event.proof = socket.proof;
            if socket.proof != Proof::Unknown {
                (event.iss, event.irs) = (socket.iss, socket.irs);
            }
        }
        event.socket = sender.unwrap_or(0);
        let ours = sender.or(receiver).is_some() || self.whole_machine;
        if let Some(reason) = reason.filter(|_| ours) {
            self.senders.seen.insert(number, reason);
        }
        ours
    }
}
