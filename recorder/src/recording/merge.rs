//! Several recordings as one history: names made common, hosts told apart, what was recorded twice kept once.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;

use super::read::{Note, ReadError, Recording, sort};
use crate::event::{Address, Event, Gap, Host, Name, Names, Ring, Window};

/// Merges recordings of one host each. The result does not depend on their order.
pub(super) fn merge(mut recordings: Vec<(PathBuf, Recording)>) -> Result<Recording, ReadError> {
    if recordings.len() == 1 {
        return Ok(recordings.remove(0).1);
    }
    // Within a host by time, so that hosts' windows are joined in their order.
    recordings.sort_by_cached_key(|(path, recording)| {
        let host = &recording.history.hosts[0];
        (host.name.clone(), identity(host).to_owned(), first_ns(recording), path.clone())
    });
    let mut merged = Recording::default();
    for group in recordings.chunk_by_mut(|(_, a), (_, b)| {
        identity(&a.history.hosts[0]) == identity(&b.history.hosts[0])
    }) {
        refuse_two_recorders(group)?;
        let number = merged.history.hosts.len() as u16;
        let mut host = group[0].1.history.hosts[0].clone();
        for (_, other) in &group[1..] {
            join(&mut host, &other.history.hosts[0]);
        }
        merged.history.hosts.push(host);
        for (_, recording) in group {
            take(recording, number, &mut merged);
        }
    }
    sort(&mut merged.history);
    drop_duplicates(&mut merged);
    Ok(merged)
}

/// One boot is one host: its clock and its cookies begin anew with the next.
fn identity(host: &Host) -> &str {
    if host.boot_id.is_empty() { &host.name } else { &host.boot_id }
}

fn first_ns(recording: &Recording) -> u64 {
    recording.history.events.first().map_or(0, |event| event.time_ns)
}

/// Moves a recording's events over, giving them the merged history's names and host.
fn take(recording: &mut Recording, host: u16, merged: &mut Recording) {
    let from = std::mem::take(&mut recording.history);
    let names = &mut merged.history.names;
    let mut texts: HashMap<Name, Name> = HashMap::from([(Name::NONE, Name::NONE)]);
    let mut addresses: HashMap<Address, Address> = HashMap::new();
    merged.history.events.reserve(from.events.len());
    for mut event in from.events {
        event.host = host;
        for name in [&mut event.comm, &mut event.cgroup, &mut event.fault] {
            *name = *texts.entry(*name).or_insert_with(|| names.intern(from.names.text(*name)));
        }
        for address in [&mut event.local, &mut event.remote] {
            *address = *addresses
                .entry(*address)
                .or_insert_with(|| move_address(names, &from.names, *address));
        }
        merged.history.events.push(event);
    }
    merged.notes.append(&mut recording.notes);
}

fn move_address(to: &mut Names, from: &Names, address: Address) -> Address {
    from.address(address).map_or(Address::NONE, |address| to.intern_address(address))
}

/// An event's place: the same in two recordings, it is the same event.
type Place = (u16, Ring, u64, u64);

fn place(event: &Event) -> Place {
    (event.cpu, event.ring, event.position, event.time_ns)
}

fn drop_duplicates(merged: &mut Recording) {
    let mut dropped = vec![0; merged.history.hosts.len()];
    merged.history.events.dedup_by(|b, a| {
        let same = a.host == b.host && place(a) == place(b);
        dropped[usize::from(b.host)] += u64::from(same);
        same
    });
    for (host, &events) in merged.history.hosts.iter_mut().zip(&dropped) {
        if events > 0 {
            host.raised = host.raised.saturating_sub(events);
            merged.notes.push(Note::Duplicates { host: host.name.clone(), events });
        }
    }
}

/// Below so many events of a lane, having none in common proves nothing.
const ENOUGH: usize = 64;

/// Two recorders number the same events differently; nothing here could tell which is which.
fn refuse_two_recorders(group: &[(PathBuf, Recording)]) -> Result<(), ReadError> {
    for (number, (first, a)) in group.iter().enumerate() {
        for (second, b) in &group[number + 1..] {
            let (a, b) = (&a.history.events, &b.history.events);
            let (Some(last), Some(begin)) = (a.last(), b.first()) else { continue };
            let from = a.partition_point(|event| event.time_ns < begin.time_ns);
            let to = b.partition_point(|event| event.time_ns <= last.time_ns);
            if contradict(&a[from..], &b[..to]) {
                return Err(ReadError::TwoRecorders {
                    first: first.clone(),
                    second: second.clone(),
                });
            }
        }
    }
    Ok(())
}

/// Whether events of one stretch of time cannot be from one set of rings.
fn contradict(a: &[Event], b: &[Event]) -> bool {
    let times: HashMap<(u16, Ring, u64), u64> =
        a.iter().map(|e| ((e.cpu, e.ring, e.position), e.time_ns)).collect();
    let found =
        b.iter().map(|e| times.get(&(e.cpu, e.ring, e.position)).map(|&time| time == e.time_ns));
    let common: HashSet<Option<bool>> = found.collect();
    let nothing_common = !common.contains(&Some(true));
    common.contains(&Some(false)) || (nothing_common && a.len() >= ENOUGH && b.len() >= ENOUGH)
}

/// Adds what a later recording says of the same host.
fn join(host: &mut Host, other: &Host) {
    let cpus = host.cpus.max(other.cpus);
    for (ring, window, later) in [
        (Ring::Bulk, &mut host.bulk_window, other.bulk_window),
        (Ring::Rare, &mut host.rare_window, other.rare_window),
    ] {
        // What lies between two recordings is known to be missing, and not how much of it there was.
        if window.to_ns < later.from_ns {
            let (from_ns, to_ns) = (window.to_ns, later.from_ns);
            host.gaps.extend((0..cpus).map(|cpu| Gap { cpu, ring, from_ns, to_ns, events: 0 }));
        }
        *window = Window {
            from_ns: window.from_ns.min(later.from_ns),
            to_ns: window.to_ns.max(later.to_ns),
        };
    }
    host.cpus = cpus;
    host.raised += other.raised;
    host.lost += other.lost;
    union(&mut host.gaps, &other.gaps);
    union(&mut host.tasks, &other.tasks);
    if !host.family.contains(&other.family) {
        host.family = format!("{}, {}", host.family, other.family);
    }
    union(&mut host.hooks, &other.hooks);
    union(&mut host.missing_hooks, &other.missing_hooks);
}

fn union<T: Clone + PartialEq>(all: &mut Vec<T>, more: &[T]) {
    for item in more {
        if !all.contains(item) {
            all.push(item.clone());
        }
    }
}
