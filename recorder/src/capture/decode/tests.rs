//! One slot in, one event out: whose act it was, and which bytes it covers.

use expect_test::{Expect, expect};
use probe_ebpf::event::{Slot, SocketName};

use super::*;
use crate::capture::ring::Batch;
use crate::event::Ring;

const SOCKET: u64 = 7;
const ISS: u32 = 1000;
const IRS: u32 = u32::MAX - 5;

/// A slot of a thread on a connection that was seen from its beginning; `change` makes it what it is.
fn decoded(kind: u8, change: impl FnOnce(&mut Slot)) -> Event {
    let mut decoder = Decoder::new(Cgroups::default());
    let mut batch = Batch::default();
    let name = SocketName {
        local: [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 127, 0, 0, 1],
        remote: [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 127, 0, 0, 1],
        local_port: 80,
        remote_port: 5000,
        iss: ISS,
        irs: IRS,
        proven: proven::AT_ESTABLISHED,
        ..bytemuck::Zeroable::zeroed()
    };
    let named = Slot { kind: kind::SOCKET, socket: SOCKET, position: 1, ..Slot::default() };
    batch.push(named, Some(bytemuck::cast(name)), 0, Ring::Rare);
    let mut slot = Slot { kind, position: 2, time_ns: 10, pid: 4, tid: 5, ..Slot::default() };
    slot.socket = SOCKET;
    change(&mut slot);
    batch.push(slot, Some([0; 8]), 0, Ring::Rare);
    let mut events = Vec::new();
    for raw in batch.in_order(u64::MAX) {
        decoder.decode(raw, batch.detail(raw), &mut events);
    }
    events.pop().expect("the slot stands for an event")
}

fn check(event: &Event, expected: Expect) {
    let lane = if event.in_kernel_lane() { "kernel lane" } else { "thread" };
    let range = match event.has_range() {
        true => format!(" {}..{}", event.stream_start, event.stream_end),
        false => String::new(),
    };
    let flags = [
        (Flags::PEEK, " peek"),
        (Flags::EOF, " eof"),
        (Flags::SPLIT, " split"),
        (Flags::IGNORED, " ignored"),
    ];
    let flags = flags.iter().filter(|(flag, _)| event.flags.has(*flag)).map(|(_, name)| *name);
    let error = if event.error == 0 { String::new() } else { format!(" errno {}", event.error) };
    expected.assert_eq(&format!(
        "{lane}: {} {}{range}{error}{}",
        event.op,
        event.result,
        flags.collect::<String>()
    ));
}

/// A receive after which `copied_seq` stands `read` bytes behind the first byte.
fn receive(result: i32, read: u32, flags: u8, call: i32) -> Event {
    decoded(kind::RECEIVE, |slot| {
        slot.result = result;
        slot.sequence = IRS.wrapping_add(1).wrapping_add(read);
        slot.count = u64::from(read);
        slot.flags = flags;
        slot.argument = call as u32;
    })
}

#[test]
fn receives() {
    check(&receive(10, 30, 0, 0), expect!["thread: recv 10 20..30"]);
    check(&receive(-libc::EAGAIN, 30, 0, 0), expect!["thread: recv 0 errno 11"]);
    check(&receive(10, 30, 0, libc::MSG_PEEK), expect!["thread: recv 10 30..40 peek"]);
    check(&receive(10, 30, 0, libc::MSG_WAITALL), expect!["thread: recv 10 20..30 split"]);
    check(&receive(1, 30, 0, libc::MSG_OOB), expect!["thread: recv 1"]);
    // What lies in the error queue may have no bytes, which is not the end.
    let at_end = flag::FIN_SEEN | flag::DRAINED;
    check(&receive(0, 30, at_end, 0), expect!["thread: recv 0 29..30 eof"]);
    check(&receive(0, 30, at_end, libc::MSG_ERRQUEUE), expect!["thread: recv 0"]);
}

#[test]
fn the_fin_has_a_position_of_its_own() {
    let taken = flag::FIN_SEEN | flag::DRAINED;
    // The end of the stream, at byte 30: copied_seq stands behind the FIN.
    check(&receive(0, 31, taken, 0), expect!["thread: recv 0 30..31 eof"]);
    // The last bytes and the FIN in one call.
    check(&receive(10, 31, taken, 0), expect!["thread: recv 10 20..30"]);
    // The FIN has come, but bytes lie before it.
    check(&receive(10, 20, flag::FIN_SEEN, 0), expect!["thread: recv 10 10..20"]);
    // Under repair: a look into a queue, which may be the one of what was sent.
    let looked = decoded(kind::RECEIVE, |slot| {
        (slot.result, slot.argument) = (10, libc::MSG_PEEK as u32);
        (slot.sequence, slot.count) = (IRS.wrapping_add(31), 30);
        slot.aux[0] = probe_ebpf::event::call::REPAIRED;
    });
    check(&looked, expect!["thread: recv 10 peek"]);
    // A peek sees the end and leaves it.
    let next = flag::FIN_SEEN | flag::ONE_LEFT;
    check(&receive(0, 30, next, libc::MSG_PEEK), expect!["thread: recv 0 30..31 peek eof"]);
    // Nothing was wanted, nothing has ended.
    check(&receive(0, 30, flag::DRAINED, 0), expect!["thread: recv 0"]);
}

#[test]
fn offsets_go_on_where_32_bits_end() {
    let sent = |count: u64, torn: i64| {
        decoded(kind::SEND, |slot| {
            slot.result = 100;
            slot.sequence = (ISS + 1).wrapping_add(count as u32);
            slot.count = count.wrapping_add_signed(torn);
        })
    };
    check(&sent(100, 1), expect!["thread: send 100 0..100"]);
    // An acknowledgement between the kernel's two counters, just before and just after the border.
    check(&sent(0x1_0000_0032, -200), expect!["thread: send 100 4294967246..4294967346"]);
    check(&sent(0x1_0000_0032, 200), expect!["thread: send 100 4294967246..4294967346"]);
    check(&sent(0x5_0000_0000, 1), expect!["thread: send 100 21474836380..21474836480"]);
}

#[test]
fn a_close_takes_the_position_of_its_fin() {
    let closed = decoded(kind::STATE, |slot| {
        slot.aux = [1, 4];
        slot.sequence = ISS + 1 + 30;
        slot.count = 31;
    });
    check(&closed, expect!["thread: close 0 30..31 eof"]);
}

#[test]
fn state_changes() {
    let changed = |old, new, tid, error| {
        decoded(kind::STATE, |slot| {
            (slot.aux, slot.tid, slot.code) = ([old, new], tid, error);
            slot.sequence = ISS + 1;
        })
    };
    check(&changed(7, 2, 5, 0), expect!["thread: connect 0"]);
    check(&changed(7, 10, 5, 0), expect!["thread: listen 0"]);
    check(&changed(10, 7, 5, 0), expect!["thread: unlisten 0"]);
    check(&changed(2, 1, 0, 0), expect!["kernel lane: established 0"]);
    check(&changed(3, 1, 0, 0), expect!["kernel lane: established 0"]);
    check(&changed(8, 9, 5, 0), expect!["thread: close 0 0..1 eof"]);
    check(&changed(1, 7, 5, 0), expect!["thread: abort 0"]);
    check(&changed(1, 7, 0, libc::ECONNRESET), expect!["kernel lane: closed 0 errno 104"]);
}

#[test]
fn signals_have_a_sender_only_where_one_is_known() {
    let sent = |signal, flags, code, to_itself: bool| {
        decoded(kind::SIGNAL, |slot| {
            (slot.result, slot.flags, slot.code) = (signal, flags, code);
            slot.argument = if to_itself { slot.tid } else { 99 };
        })
    };
    // kill(2), tgkill(2), sigqueue(3)
    for code in [0, -6, -1] {
        check(&sent(libc::SIGTERM, 0, code, false), expect!["thread: signal 0"]);
    }
    // The kernel on the caller's behalf, as SIGPIPE.
    check(&sent(libc::SIGPIPE, flag::NO_INFO, 0, true), expect!["thread: signal 0"]);
    // A timer, a terminal: whoever was current has nothing to do with it.
    check(&sent(libc::SIGALRM, flag::FROM_KERNEL, 0, false), expect!["kernel lane: signal 0"]);
    check(&sent(libc::SIGRTMIN(), 0, -2, false), expect!["kernel lane: signal 0"]);
    // A child that ends, and a thread's own fault.
    check(&sent(libc::SIGCHLD, 0, 1, false), expect!["thread: signal 0"]);
    check(&sent(libc::SIGSEGV, 0, 1, true), expect!["thread: signal 0"]);
}

#[test]
fn a_thread_that_lost_events_is_told() {
    let mut decoder = Decoder::new(Cgroups::default());
    let task = Task { pid: 4, tid: 5, ..Task::default() };
    decoder.know(vec![task], |_| true);
    let mut batch = Batch::default();
    for (position, count) in [(1, 1), (2, 2), (3, 5), (4, 6)] {
        let slot = Slot {
            kind: kind::EXEC,
            position,
            time_ns: position * 10,
            pid: 4,
            tid: 5,
            task_count: count,
            ..Slot::default()
        };
        let name = TaskName { pid: 4, tid: 5, ..bytemuck::Zeroable::zeroed() };
        batch.push(slot, Some(bytemuck::cast(name)), 0, Ring::Rare);
    }
    let mut events = Vec::new();
    for raw in batch.in_order(u64::MAX) {
        decoder.decode(raw, batch.detail(raw), &mut events);
    }
    let gaps = events.iter().map(|e| e.flags.has(Flags::AFTER_GAP)).collect::<Vec<_>>();
    assert_eq!(gaps, [false, false, true, false]);
    let begins = events.iter().map(|e| e.begin_ns).collect::<Vec<_>>();
    assert_eq!(begins, [0, 10, 20, 30], "an event begins no sooner than the one before it ended");
}

#[test]
fn a_begin_that_was_seen_is_exact() {
    let event = |begin_ns, time_ns| {
        decoded(kind::SEND, |slot| {
            slot.time_ns = time_ns;
            slot.set_begin(begin_ns);
        })
    };
    // Nothing is known of the thread's past, so that a bound says nothing.
    for (begin_ns, time_ns) in [(5, 10), (1, 1 << 31), (7 << 31, 8 << 31)] {
        let seen = event(begin_ns, time_ns);
        assert!(seen.flags.has(Flags::BEGAN));
        assert_eq!((seen.begin_ns, seen.time_ns), (begin_ns, time_ns));
    }
    let long = event(9, 3 << 40);
    assert!(long.flags.has(Flags::BEGAN) && (0..=9).contains(&long.begin_ns), "{long:?}");
    for (begin_ns, time_ns) in [(0, 10), (1, 1 << 44)] {
        assert!(!event(begin_ns, time_ns).flags.has(Flags::BEGAN), "not seen, or too long ago");
    }
}
