//! Recordings of one host as one: what was recorded twice kept once, windows and losses put together; and
//! hosts of one name told apart.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::ops::Range;
use std::path::PathBuf;

use super::file::RecordingFile;
use super::read::{self, Note, ReadError, Recording};
use super::sources::Source;
use crate::event::{Address, Event, Gap, Host, Op, Ring, Window};

/// What was read of one file.
struct Taken {
    path: PathBuf,
    host: Host,
    /// Where its events lie in the history.
    events: Range<usize>,
}

/// Reads all recordings of one host, which becomes the history's last.
pub(super) fn add_host(files: &[Source], recording: &mut Recording) -> Result<(), ReadError> {
    let begin = recording.history.events.len();
    let mut taken = Vec::with_capacity(files.len());
    for source in files {
        let file = RecordingFile::open(&source.path)?;
        let from = recording.history.events.len();
        read::add(&file, recording)?;
        let host = recording.history.hosts.pop().expect("a file has a host");
        read::sort(&mut recording.history.events[from..]);
        let events = from..recording.history.events.len();
        taken.push(Taken { path: source.path.clone(), host, events });
    }
    let events = &mut recording.history.events;
    let host = join_all(&taken, events)?;
    let by_ns =
        taken.last().map_or(0, |last| last.host.wall_offset_ns.saturating_sub(host.wall_offset_ns));
    if by_ns.unsigned_abs() > CLOCKS_APART_NS {
        recording.notes.push(Note::ClockSet { host: host.name.clone(), by_ns });
    }
    if let [_, _, ..] = taken[..] {
        uncount_strangers(&taken, events);
        read::sort(&mut events[begin..]);
        drop_duplicates(recording, begin, host);
    } else {
        recording.history.hosts.push(host);
    }
    Ok(())
}

/// A clock that is only kept in time does not move by more between two recordings of one boot.
const CLOCKS_APART_NS: u64 = 1_000_000_000;

fn join_all(taken: &[Taken], events: &[Event]) -> Result<Host, ReadError> {
    let mut host = taken[0].host.clone();
    for (number, later) in taken.iter().enumerate().skip(1) {
        let mut beside = false;
        for earlier in &taken[..number] {
            let (a, b) = overlap((earlier, later), events);
            if one_recorder((&earlier.host, a), (&later.host, b)) {
                continue;
            }
            beside = true;
            if seen_by_both(a, b) {
                let (first, second) = (earlier.path.clone(), later.path.clone());
                return Err(ReadError::TwoRecorders { first, second });
            }
        }
        join(&mut host, &later.host, beside);
    }
    Ok(host)
}

/// Two recorders stamp one event at two moments, which lie apart by less.
const STAMPS_APART_NS: u64 = 100_000_000;

/// The events of each of two recordings that the other may have, too.
fn overlap<'a>((a, b): (&Taken, &Taken), events: &'a [Event]) -> (&'a [Event], &'a [Event]) {
    let apart_ns = if at_once(&a.host, &b.host) { STAMPS_APART_NS } else { 0 };
    let within = |range: &Range<usize>, others: &Range<usize>| {
        let (events, others) = (&events[range.clone()], &events[others.clone()]);
        let (Some(first), Some(last)) = (others.first(), others.last()) else { return &[][..] };
        let from_ns = first.time_ns.saturating_sub(apart_ns);
        let to_ns = last.time_ns.saturating_add(apart_ns);
        let from = events.partition_point(|event| event.time_ns < from_ns);
        let to = events.partition_point(|event| event.time_ns <= to_ns);
        &events[from..to.max(from)]
    };
    (within(&a.events, &b.events), within(&b.events, &a.events))
}

/// Whether both are known to have been at work at one time.
fn at_once(a: &Host, b: &Host) -> bool {
    let until = |host: &Host| host.bulk_window.to_ns.max(host.rare_window.to_ns);
    let known = a.attached_ns != 0 && b.attached_ns != 0;
    known && a.attached_ns <= until(b) && b.attached_ns <= until(a)
}

/// Below so many events of a lane, having none in common proves nothing.
const ENOUGH: usize = 64;

/// Whether two recordings of a host are from the same rings, as far as their common stretch tells: an event
/// then has one position and one time in both.
fn one_recorder((a_host, a): (&Host, &[Event]), (b_host, b): (&Host, &[Event])) -> bool {
    if a_host.attached_ns != 0 && b_host.attached_ns != 0 {
        return a_host.attached_ns == b_host.attached_ns;
    }
    let times: HashMap<(u16, Ring, u64), u64> =
        a.iter().map(|e| ((e.cpu, e.ring, e.position), e.time_ns)).collect();
    let found =
        b.iter().map(|e| times.get(&(e.cpu, e.ring, e.position)).map(|&time| time == e.time_ns));
    let common: HashSet<Option<bool>> = found.collect();
    let nothing_common = !common.contains(&Some(true));
    let enough = a.len() >= ENOUGH && b.len() >= ENOUGH;
    let apart = common.contains(&Some(false)) || nothing_common && enough;
    !apart
}

/// Whether an event may be in both of two recorders' recordings: both followed the thread, or the socket.
///
/// Nothing could tell which of the two then are the same event: each recorder has its own positions, counters and
/// moments, and two receives that found nothing look alike. Of a thread outside its scope a recorder has
/// nothing but the signals that it sent into the scope; they are told apart by whom they were sent to.
fn seen_by_both(a: &[Event], b: &[Event]) -> bool {
    fn common<'a, K: Eq + Hash>(
        a: &'a [Event],
        b: &'a [Event],
        key: impl Fn(&'a Event) -> Option<K>,
    ) -> bool {
        let seen: HashSet<K> = a.iter().filter_map(&key).collect();
        b.iter().filter_map(key).any(|key| seen.contains(&key))
    }
    let thread = |e: &Event| (e.tid != 0 && e.op != Op::Signal).then_some((e.pid, e.tid));
    let socket = |e: &Event| (e.tid == 0 && e.socket != 0).then_some(e.socket);
    let signal = |e: &Event| (e.op == Op::Signal).then_some((e.tid, e.target, e.signal));
    let stray = |e: &Event| {
        let stray = e.tid == 0 && e.socket == 0 && e.op != Op::Signal;
        stray.then_some((e.op, e.target, e.local, e.remote))
    };
    common(a, b, thread)
        || common(a, b, socket)
        || common(a, b, signal)
        || common::<(Op, u32, Address, Address)>(a, b, stray)
}

/// A thread that several recorders saw was counted by each of them for itself: its counts say nothing.
fn uncount_strangers(taken: &[Taken], events: &mut [Event]) {
    let mut recorders: HashMap<u32, usize> = HashMap::new();
    let mut strangers = HashSet::new();
    for (number, recording) in taken.iter().enumerate() {
        let recorder = |n: usize| taken[n].host.attached_ns;
        for event in events[recording.events.clone()].iter().filter(|e| e.op == Op::Signal) {
            let first = *recorders.entry(event.tid).or_insert(number);
            if recorder(first) != recorder(number) {
                strangers.insert(event.tid);
            }
        }
    }
    let counted = events.iter_mut().filter(|e| e.op == Op::Signal && strangers.contains(&e.tid));
    counted.for_each(|event| event.task_count = 0);
}

/// An event's place: the same in two recordings, it is the same event.
fn place(event: &Event) -> (u16, Ring, u64, u64) {
    (event.cpu, event.ring, event.position, event.time_ns)
}

/// Keeps each event of the last host once; `begin` is its first.
fn drop_duplicates(recording: &mut Recording, begin: usize, mut host: Host) {
    let events = &mut recording.history.events;
    let before = events.len();
    let mut kept = begin;
    for next in begin..before {
        if kept == begin || place(&events[kept - 1]) != place(&events[next]) {
            events[kept] = events[next];
            kept += 1;
        }
    }
    events.truncate(kept);
    let dropped = (before - kept) as u64;
    if dropped > 0 {
        host.raised = host.raised.saturating_sub(dropped);
        let note = Note::Duplicates { host: host.name.clone(), events: dropped };
        recording.notes.push(note);
    }
    recording.history.hosts.push(host);
}

/// Adds what a later recording says of the same host; `beside`: another recorder made it.
pub(super) fn join(host: &mut Host, other: &Host, beside: bool) {
    let cpus = host.cpus.max(other.cpus);
    for (ring, window, later) in [
        (Ring::Bulk, &mut host.bulk_window, other.bulk_window),
        (Ring::Rare, &mut host.rare_window, other.rare_window),
    ] {
        // What lies between two recordings is known to be missing, and not how much of it there was.
        let between = window.to_ns < later.from_ns;
        if between {
            let (from_ns, to_ns) = (window.to_ns, later.from_ns);
            host.gaps.extend((0..cpus).map(|cpu| Gap { cpu, ring, from_ns, to_ns, events: 0 }));
        }
        // Of two recorders side by side, each has a part of what happened: all is there while both were.
        *window = match beside && !between {
            true => Window {
                from_ns: window.from_ns.max(later.from_ns),
                to_ns: window.to_ns.min(later.to_ns),
            },
            false => Window {
                from_ns: window.from_ns.min(later.from_ns),
                to_ns: window.to_ns.max(later.to_ns),
            },
        };
    }
    host.cpus = cpus;
    host.raised = host.raised.saturating_add(other.raised);
    host.lost = host.lost.saturating_add(other.lost);
    union(&mut host.gaps, &other.gaps);
    union(&mut host.details, &other.details);
    host.drop_reasons.extend(other.drop_reasons.clone());
    host.drops_untold = host.drops_untold.max(other.drops_untold);
    union(&mut host.tasks, &other.tasks);
    union(&mut host.containers, &other.containers);
    union(&mut host.namespaces, &other.namespaces);
    union(&mut host.faults, &other.faults);
    // The later moment: what is asked about mostly goes on at the end.
    if other.state.as_ref().map(|state| state.to_ns) > host.state.as_ref().map(|state| state.to_ns)
    {
        host.state.clone_from(&other.state);
    }
    union(&mut host.hooks, &other.hooks);
    union(&mut host.missing_hooks, &other.missing_hooks);
    for (all, one) in [(&mut host.family, &other.family), (&mut host.scope, &other.scope)] {
        if !all.split(", ").any(|known| known == one) {
            *all = format!("{all}, {one}");
        }
    }
}

fn union<T: Clone + Eq + Hash>(all: &mut Vec<T>, more: &[T]) {
    let known: HashSet<T> = all.iter().cloned().collect();
    all.extend(more.iter().filter(|item| !known.contains(item)).cloned());
}

/// Hosts that have one name, boots of one machine for example, get the beginning of their boot's id added to
/// it, so that every answer says which is meant.
pub(super) fn tell_apart(recording: &mut Recording) {
    let hosts = &mut recording.history.hosts;
    let mut named: HashMap<String, Vec<usize>> = HashMap::new();
    for (number, host) in hosts.iter().enumerate() {
        named.entry(host.name.clone()).or_default().push(number);
    }
    let mut namesakes: Vec<_> = named.into_iter().filter(|(_, hosts)| hosts.len() > 1).collect();
    namesakes.sort();
    for (name, numbers) in namesakes {
        let boot = |n: usize, letters: usize| hosts[n].boot_id.chars().take(letters).collect();
        let distinct = |&letters: &usize| {
            let boots: HashSet<String> = numbers.iter().map(|&n| boot(n, letters)).collect();
            boots.len() == numbers.len()
        };
        let letters = (4..64).find(distinct).unwrap_or(usize::MAX);
        let apart: Vec<String> =
            numbers.iter().map(|&n| format!("{name}~{}", boot(n, letters))).collect();
        for (&number, apart) in numbers.iter().zip(&apart) {
            hosts[number].name.clone_from(apart);
        }
        recording.notes.push(Note::Namesakes { name, apart });
    }
}
