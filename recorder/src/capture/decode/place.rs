//! Where in its stream a call's bytes lie, from what the probes read or counted when it had returned.

use probe_ebpf::event::{call, flag};

use crate::capture::ring::Raw;
use crate::event::{Event, Flags, Op, Protocol};

const MSG_OOB: u32 = libc::MSG_OOB as u32;
const MSG_PEEK: u32 = libc::MSG_PEEK as u32;
const MSG_WAITALL: u32 = libc::MSG_WAITALL as u32;
const MSG_ERRQUEUE: u32 = libc::MSG_ERRQUEUE as u32;

/// What a send or receive moved or failed with, and how it ended.
pub(super) fn transfer(raw: &Raw, event: &mut Event) {
    let slot = &raw.slot;
    event.protocol = super::spoken(slot.aux[1]);
    let mut set = |flag| event.flags = event.flags.with(flag);
    if event.op == Op::Recv {
        let peek = slot.argument & MSG_PEEK != 0;
        // The FIN has one position: read, or next to be read, which a peek leaves where it is.
        let at_end = if peek { flag::ONE_LEFT | flag::DRAINED } else { flag::DRAINED };
        let fin = slot.flags & flag::FIN_SEEN != 0 && slot.flags & at_end != 0;
        let ended = slot.aux[0] & call::ENDED != 0;
        let aside = slot.argument & (MSG_OOB | MSG_ERRQUEUE) != 0;
        if slot.result == 0 && (fin || ended) && !aside {
            set(Flags::EOF);
        }
        if peek {
            set(Flags::PEEK);
        }
        if aside {
            set(Flags::URGENT);
        }
        if slot.argument & MSG_WAITALL != 0 {
            set(Flags::SPLIT);
        }
    } else if slot.flags & flag::SLEPT != 0 {
        set(Flags::SPLIT);
    }
    event.result = i64::from(slot.result.max(0));
    event.error = super::errno(slot.result.min(0));
}

/// The stream offsets that an event covers, from where its stream stands after it.
pub(super) fn range(raw: &Raw, position: u64, event: &mut Event) {
    let length = event.result as u64;
    let peek = event.flags.has(Flags::PEEK);
    let (fin_seen, drained) =
        (raw.slot.flags & flag::FIN_SEEN != 0, raw.slot.flags & flag::DRAINED != 0);
    let (start, end) = match event.op {
        // Into or out of a queue: no bytes of the stream move.
        Op::Send | Op::Recv if raw.slot.aux[0] & (call::REPAIRED | call::UNPLACED) != 0 => return,
        Op::Send if length > 0 => (position.wrapping_sub(length), position),
        Op::Recv if event.flags.has(Flags::URGENT) => return,
        Op::Recv if event.flags.has(Flags::EOF) && !drained => (position, position + 1),
        Op::Recv if event.flags.has(Flags::EOF) => (position.wrapping_sub(1), position),
        Op::Recv if length > 0 && peek => (position, position + length),
        // The call that takes the last bytes takes the FIN with them.
        Op::Recv if length > 0 && fin_seen && drained => {
            (position.wrapping_sub(length + 1), position.wrapping_sub(1))
        }
        Op::Recv if length > 0 => (position.wrapping_sub(length), position),
        // (A SYN lies before the stream, a FIN behind its bytes.)
        Op::Retransmit if raw.slot.result > 0 => {
            let behind = raw.slot.sequence.wrapping_sub(raw.slot.argument);
            let start = position.wrapping_sub(u64::from(behind));
            (start, start.wrapping_add(raw.slot.result as u64))
        }
        Op::Close => {
            event.flags = event.flags.with(Flags::EOF);
            (position, position + 1)
        }
        _ => return,
    };
    // An offset below zero: the initial number is wrong (a repaired or disconnected socket).
    if start > end {
        log::debug!("event at {} of cpu {} lies before its stream", raw.position(), raw.cpu);
        return;
    }
    event.stream_start = start;
    event.stream_end = end;
    event.flags = event.flags.with(Flags::RANGE);
}

/// The 64-bit number with these low 32 bits that is nearest to `count`.
pub(super) fn nearest(count: u64, low: u32) -> u64 {
    let difference = low.wrapping_sub(count as u32) as i32;
    count.wrapping_add_signed(i64::from(difference))
}

/// The same where the probes count: offsets of bytes or, of messages, their numbers.
pub(super) fn counted(raw: &Raw, event: &mut Event) {
    let length = match event.protocol {
        Some(Protocol::UnixSeqpacket) => 1,
        Some(Protocol::UnixDgram) => return,
        _ => event.result as u64,
    };
    let moved = matches!(event.op, Op::Send | Op::Recv) && length > 0 && event.error == 0;
    if !moved || event.flags.has(Flags::EOF) || event.flags.has(Flags::URGENT) {
        return;
    }
    let at = raw.slot.count;
    let peek = event.flags.has(Flags::PEEK);
    if raw.slot.aux[0] & call::AHEAD != 0 {
        return;
    }
    event.stream_start = if peek { at } else { at.saturating_sub(length) };
    event.stream_end = event.stream_start + length;
    event.flags = event.flags.with(Flags::RANGE);
    if raw.slot.aux[0] & call::UNSURE != 0 {
        event.flags = event.flags.with(Flags::UNSURE);
    }
}
