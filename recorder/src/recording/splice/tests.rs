use std::path::Path;

use super::*;
use crate::event::{Names, Ring};
use crate::state::State;

fn event(tid: u32, time_ns: u64, begin_ns: u64) -> Event {
    Event { tid, pid: tid, time_ns, begin_ns, position: time_ns, ..Event::blank(Op::Exec) }
}

fn piece(path: &Path, attached_ns: u64, (from_ns, to_ns): (u64, u64), events: &[Event]) -> Piece {
    let window = Window { from_ns, to_ns };
    let (bulk_window, rare_window) = (window, window);
    let host = Host { attached_ns, cpus: 1, bulk_window, rare_window, ..Host::default() };
    let mut writer = Writer::create(path, &host).expect("it is written");
    writer.append(&Names::default(), events).expect("it is written");
    writer.finish(&host).expect("it is written");
    Piece::open(path).expect("it is readable")
}

/// A recorder, a window and events.
type Written<'a> = (u64, (u64, u64), &'a [Event]);

/// Splices pieces since a time; the host, and the times and begins.
fn spliced(pieces: &[Written<'_>], since_ns: u64) -> (Host, Vec<(u64, u64)>) {
    let home = tempfile::tempdir().expect("a folder");
    let path = |n: usize| home.path().join(format!("{n}.parquet"));
    let make = |(n, (recorder, window, events)): (usize, &Written<'_>)| {
        piece(&path(n), *recorder, *window, events)
    };
    let pieces: Vec<Piece> = pieces.iter().enumerate().map(make).collect();
    let output = home.path().join("all.parquet");
    let (host, kept) = splice(&pieces, since_ns, &output).expect("it works");
    let read = read::open(&[output]).expect("it is readable").history;
    assert_eq!((read.hosts.len(), &read.hosts[0]), (1, &host));
    assert_eq!((host.raised, read.events.len() as u64), (kept + host.lost, kept));
    (host, read.events.iter().map(|event| (event.time_ns, event.begin_ns)).collect())
}

#[test]
fn pieces_that_meet_have_no_gap_and_a_thread_goes_on_where_it_was() {
    let (host, events) = spliced(
        &[
            (1, (10, 20), &[event(1, 12, 11), event(2, 19, 11)]),
            (1, (20, 30), &[event(1, 22, 5), event(1, 29, 28)]),
        ],
        0,
    );
    assert_eq!(events, [(12, 11), (19, 11), (22, 12), (29, 28)]);
    assert_eq!((host.bulk_window, &host.gaps[..]), (Window { from_ns: 10, to_ns: 30 }, &[][..]));
}

#[test]
fn what_two_pieces_hold_is_kept_once() {
    let (host, events) = spliced(
        &[
            (1, (10, 20), &[event(1, 12, 12), event(1, 23, 23)]),
            (1, (20, 30), &[event(1, 23, 23), event(1, 25, 25)]),
        ],
        0,
    );
    assert_eq!(events, [(12, 12), (23, 23), (25, 25)]);
    assert_eq!(host.gaps, []);
}

#[test]
fn what_lies_between_two_pieces_is_a_gap() {
    let (host, _) = spliced(&[(1, (10, 20), &[]), (2, (24, 30), &[event(1, 25, 25)])], 0);
    let gap = |ring| Gap { cpu: 0, ring, from_ns: 20, to_ns: 24, events: 0 };
    assert_eq!(host.gaps, [gap(Ring::Bulk), gap(Ring::Rare)]);
    assert_eq!((host.bulk_window, host.attached_ns), (Window { from_ns: 10, to_ns: 30 }, 2));
}

#[test]
fn what_was_before_is_left_out() {
    let (host, events) = spliced(
        &[(1, (10, 20), &[event(1, 12, 11), event(1, 17, 16)]), (1, (20, 30), &[event(1, 22, 21)])],
        15,
    );
    assert_eq!(events, [(17, 16), (22, 21)]);
    assert_eq!(host.rare_window, Window { from_ns: 15, to_ns: 30 });
}

#[test]
fn of_several_states_the_latest_is_kept() {
    let of = |to_ns| Host { state: Some(State { to_ns, ..State::default() }), ..Host::default() };
    let mut host = Host::default();
    for (to_ns, kept) in [(5, 5), (9, 9), (7, 9)] {
        merge::join(&mut host, &of(to_ns), false);
        assert_eq!(host.state.as_ref().map(|state| state.to_ns), Some(kept));
    }
    merge::join(&mut host, &Host::default(), false);
    assert_eq!(host.state.as_ref().map(|state| state.to_ns), Some(9));
}
