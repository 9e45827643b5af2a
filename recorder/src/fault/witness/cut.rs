//! Whether a cut kept apart what it was to, by what its ends did: the kernel half's word for a lost packet is not enough.
//!
//! ```text
//!   sender    send 0..9 ──▶ ✂ lost 0..9      again 0..9 ──▶ ✂                again 0..9 ──▶
//!   receiver                         (has nothing)           healed                        recv 0..9
//! ```
//!
//! A packet was lost where its bytes are sent again, where its sender gives up, or where its receiver, whose events are
//! recorded, has not got until it healed what a recorded sender sent. Bytes that were sent after the cut began and
//! received before it healed went across.

use std::collections::HashMap;

use super::Seen;
use crate::event::{Address, Event, Flags, Op, Proof, Protocol};

/// Most lost packets, and most streams, that are followed; of what is more nothing is confirmed.
const FOLLOWED_MAX: usize = 4096;

/// Follows one cut.
#[derive(Debug, Default)]
pub(super) struct Cut {
    begun_ns: Option<u64>,
    healed: bool,
    injected: u64,
    losses: Vec<Loss>,
    streams: HashMap<Stream, Moved>,
}

/// A direction of a TCP connection, by the initial numbers of its sender's end: its own and the other's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Stream([u32; 2]);

/// What went along a stream while it was cut.
#[derive(Clone, Copy, Debug, Default)]
struct Moved {
    /// The first byte that was sent after the cut had begun.
    sent_from: Option<u64>,
    /// The end of all that was sent, and of all that was received.
    sent_to: u64,
    received_to: u64,
}

/// A packet that was lost.
#[derive(Clone, Copy, Debug)]
struct Loss {
    stream: Option<Stream>,
    /// Its first byte, where it bore any and their places are known.
    start: Option<u64>,
    /// The socket where it was lost, and from where to where it was going.
    socket: u64,
    way: [Address; 2],
    incoming: bool,
    /// What shows it: its bytes were sent again, or the sender gave up.
    missed: bool,
    datagram: Option<Datagram>,
}

/// What its ends did about a datagram that was lost.
#[derive(Clone, Copy, Debug, Default)]
struct Datagram {
    /// It was sent by a recorded thread, and its receiver is recorded.
    sent: bool,
    awaited: bool,
    /// The receiver got one that may be it.
    received: bool,
}

impl Stream {
    /// That which leaves an event's end.
    fn from(event: &Event) -> Option<Self> {
        (event.proof != Proof::Unknown).then_some(Self([event.iss, event.irs]))
    }

    /// That which comes to it.
    fn to(event: &Event) -> Option<Self> {
        (event.proof != Proof::Unknown).then_some(Self([event.irs, event.iss]))
    }
}

impl Cut {
    /// An event of the cut itself.
    pub(super) fn told(&mut self, event: &Event) {
        self.injected += 1;
        if event.flags.has(Flags::HEALED) {
            self.healed = true;
        } else if !event.flags.has(Flags::LOST) {
            self.begun_ns = Some(event.time_ns);
        } else if self.losses.len() < FOLLOWED_MAX {
            self.losses.push(Loss::of(event));
        }
    }

    /// Any other event.
    pub(super) fn see(&mut self, event: &Event) {
        match event.op {
            Op::Retransmit => self.missed(event, Loss::is_of),
            Op::Error if !self.healed && i32::from(event.error) == libc::ETIMEDOUT => {
                self.missed(event, Loss::is_senders);
            }
            Op::Send | Op::Recv if event.protocol == Some(Protocol::Udp) => {
                let healed = self.healed;
                self.losses.iter_mut().for_each(|loss| loss.datagram_moved(event, healed));
            }
            Op::Send | Op::Recv if !self.healed && event.error == 0 => self.moved(event),
            _ => {}
        }
    }

    fn missed(&mut self, event: &Event, shows: fn(&Loss, &Event) -> bool) {
        let losses = self.losses.iter_mut().filter(|loss| shows(loss, event));
        losses.for_each(|loss| loss.missed = true);
    }

    fn moved(&mut self, event: &Event) {
        let stream = if event.op == Op::Send { Stream::from(event) } else { Stream::to(event) };
        let Some(stream) = stream.filter(|_| event.has_range()) else { return };
        if self.streams.len() >= FOLLOWED_MAX && !self.streams.contains_key(&stream) {
            return;
        }
        let moved = self.streams.entry(stream).or_default();
        if event.op == Op::Recv {
            moved.received_to = moved.received_to.max(event.stream_end);
            return;
        }
        moved.sent_to = moved.sent_to.max(event.stream_end);
        if self.begun_ns.is_some_and(|begun_ns| event.begin_ns >= begun_ns) {
            let from = moved.sent_from.get_or_insert(event.stream_start);
            *from = event.stream_start.min(*from);
        }
    }

    pub(super) fn seen(&self) -> Seen {
        let confirmed = self.losses.iter().filter(|loss| loss.missed || self.is_silent(loss));
        let leaked = |moved: &&Moved| moved.sent_from.is_some_and(|sent| moved.received_to > sent);
        let mut lossy: Vec<_> = self.losses.iter().filter_map(|loss| loss.stream).collect();
        lossy.sort_unstable_by_key(|stream| stream.0);
        lossy.dedup();
        let moved = lossy.iter().filter_map(|stream| self.streams.get(stream));
        Seen {
            injected: self.injected,
            confirmed: confirmed.count() as u64,
            contradicted: moved.filter(leaked).count() as u64,
            healed: self.healed,
        }
    }

    /// Whether a recorded sender sent what a recorded receiver has not got.
    fn is_silent(&self, loss: &Loss) -> bool {
        if let Some(Datagram { sent, awaited, received }) = loss.datagram {
            return sent && awaited && !received;
        }
        let moved = loss.stream.and_then(|stream| self.streams.get(&stream));
        match (loss.start, moved) {
            (Some(start), Some(moved)) => {
                loss.incoming && moved.sent_to > start && moved.received_to <= start
            }
            _ => false,
        }
    }
}

impl Loss {
    fn of(event: &Event) -> Self {
        let incoming = event.flags.has(Flags::INCOMING);
        let (here, there) = (event.local, event.remote);
        let is_datagram = event.protocol == Some(Protocol::Udp);
        // (Sockets whose events are not recorded have no name.)
        let awaited = incoming && event.netns != 0;
        Self {
            stream: if incoming { Stream::to(event) } else { Stream::from(event) },
            start: event.has_range().then_some(event.stream_start),
            socket: event.socket,
            way: if incoming { [there, here] } else { [here, there] },
            incoming,
            missed: false,
            datagram: is_datagram.then_some(Datagram { awaited, ..Datagram::default() }),
        }
    }

    /// Whether a segment that was sent again is this one.
    fn is_of(&self, again: &Event) -> bool {
        let same = self.start == again.has_range().then_some(again.stream_start);
        same && self.is_senders(again)
    }

    /// Whether an event is of the end that sent the packet.
    fn is_senders(&self, event: &Event) -> bool {
        let by_number = self.stream.is_some() && self.stream == Stream::from(event);
        by_number || !self.incoming && self.socket == event.socket
    }

    /// Some datagram was sent or received.
    fn datagram_moved(&mut self, event: &Event, healed: bool) {
        let Some(datagram) = &mut self.datagram else { return };
        let [from, to] = self.way;
        let is_receivers = event.local == to || self.incoming && event.socket == self.socket;
        datagram.awaited |= is_receivers;
        datagram.sent |= event.op == Op::Send && event.remote == to;
        // Whoever does not ask does not learn where it comes from.
        let may_be_it = event.remote == from || event.remote == Address::NONE;
        let received = event.op == Op::Recv && event.error == 0 && is_receivers && may_be_it;
        datagram.received |= received && !healed;
    }
}
