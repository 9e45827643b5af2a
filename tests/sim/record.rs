//! From what happened to what a recorder would have kept of it: clocks, rings, loss, windows.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use recorder::event::{
    Event, EventIndex, Flags, Gap, History, Host, Op, Proof, Protocol, Ring, Task, Window,
};

use crate::sim::order::{Pairs, Truth};
use crate::sim::world::{EndId, Process, Raw, RawId, ThreadId, What, World};
use crate::sim::{Loss, Random, Simulated};

/// A host's monotonic clock: when it shows what, and since when its events are recorded.
pub struct Clock {
    offset: u64,
    /// Parts per million by which it is fast.
    fast: u64,
    granule: u64,
    /// True time at which the recorder attached.
    attach: u64,
}

impl Clock {
    /// What the clock shows at some true time.
    pub fn show(&self, time: u64) -> u64 {
        let shown = self.offset + time + time * self.fast / 1_000_000;
        shown / self.granule * self.granule
    }
}

/// A CPU's ring on a host.
type Place = (u16, u16, Ring);

pub fn record(world: World) -> Simulated {
    let World { shape, mut random, order, mut seen, now, names, processes, threads, .. } = world;
    let (ends, mut raws) = (world.ends, world.raws);
    let recorded_hosts = shape.hosts - usize::from(shape.outside);
    let clocks: Vec<Clock> = (0..recorded_hosts)
        .map(|_| Clock {
            offset: 1_000_000_000_000 + random.below(1_000_000_000),
            fast: random.below(200),
            granule: shape.granule,
            attach: if shape.late && random.percent(60) { random.below(now * 2 / 3) } else { 0 },
        })
        .collect();
    let raised: Vec<RawId> = (0..raws.len())
        .filter(|&i| {
            let host = usize::from(raws[i].event.host);
            let r = &raws[i];
            let shown = r.socket.is_none_or(|end| !ends[end].unix)
                || matches!(r.event.op, Op::Send | Op::Recv);
            let late = host < recorded_hosts && r.event.time_ns >= clocks[host].attach;
            r.recorded && shown && late
        })
        .collect();
    let places = number(&mut raws, &raised);
    prove(&mut raws, &raised, &ends, &clocks, &mut random, &mut seen);
    let mut hosts: Vec<Host> =
        clocks.iter().enumerate().map(|(i, clock)| host(i, clock, shape.cpus, now)).collect();
    name_tasks(&mut hosts, &processes, &threads, &names, &clocks);
    for &i in &raised {
        let clock = &clocks[usize::from(raws[i].event.host)];
        raws[i].event.time_ns = clock.show(raws[i].event.time_ns);
    }
    let strangers = unfinished(&threads, &ends, &raws, &raised);
    let lost = match shape.loss {
        Loss::None => BTreeSet::new(),
        Loss::Overwritten => overwrite(&raws, &places, &mut hosts, &mut random),
        Loss::Gaps => tear(&raws, &places, &mut hosts, &mut random),
    };
    for &i in &raised {
        hosts[usize::from(raws[i].event.host)].raised += 1;
        hosts[usize::from(raws[i].event.host)].lost += u64::from(lost.contains(&i));
    }
    seen.lost = lost.len();
    let mut kept: Vec<RawId> = raised.into_iter().filter(|i| !lost.contains(i)).collect();
    bound_begins(&mut raws, &kept, &threads, &clocks);
    kept.sort_by_key(|&i| {
        let e = &raws[i].event;
        (e.host, e.time_ns, e.cpu, e.ring, e.position)
    });
    let events = kept.iter().map(|&i| raws[i].event).collect();
    let moments = kept.iter().map(|&i| [raws[i].begin, raws[i].end]).collect();
    let mut truth = Truth::new(&order, moments, seen);
    truth.unfinished = strangers;
    relate(&mut truth, &kept, &raws, &world.causes, &world.call_events);
    let history = History { hosts, names, events };
    observe(&mut truth, &history);
    Simulated { shape, history, truth, clocks, until_ns: now }
}

/// Gives each event its place in its ring, and its number in its thread.
fn number(raws: &mut [Raw], raised: &[RawId]) -> BTreeMap<Place, Vec<RawId>> {
    let mut places: BTreeMap<Place, Vec<RawId>> = BTreeMap::new();
    let mut counts: HashMap<ThreadId, u32> = HashMap::new();
    for &i in raised {
        let raw = &mut raws[i];
        let ring = places.entry((raw.event.host, raw.event.cpu, raw.event.ring)).or_default();
        raw.event.position = ring.len() as u64;
        ring.push(i);
        if let Some(thread) = raw.thread {
            let count = counts.entry(thread).or_default();
            *count += 1;
            raw.event.task_count = *count;
        }
    }
    places
}

/// Says how well each connection's initial numbers are known, and gets some of the computed ones wrong.
fn prove(
    raws: &mut [Raw],
    raised: &[RawId],
    ends: &[crate::sim::world::End],
    clocks: &[Clock],
    random: &mut Random,
    seen: &mut crate::sim::Seen,
) {
    let mut lowest: HashMap<EndId, u64> = HashMap::new();
    for &i in raised {
        let raw = &raws[i];
        if let (true, Some(end)) = (writes(&raw.event), raw.socket) {
            let low = lowest.entry(end).or_insert(u64::MAX);
            *low = (*low).min(raw.event.stream_start);
        }
    }
    let old: Vec<(Proof, u32)> = (0..ends.len())
        .map(|end| {
            let room = lowest.get(&end).is_some_and(|&low| low > 0);
            let high = u32::from(room && random.percent(50));
            if random.percent(70) { (Proof::Computed, high) } else { (Proof::Agreed, 0) }
        })
        .collect();
    let mut shifted = BTreeSet::new();
    for &i in raised {
        let raw = &mut raws[i];
        let Some(end) = raw.socket else { continue };
        let e = &mut raw.event;
        if ends[end].unix {
            number_unix(e, end, ends, clocks);
            continue;
        }
        let since = ends[end].since;
        let attach = clocks[usize::from(e.host)].attach;
        let (proof, high) = match since {
            Some(since) if since >= attach && e.time_ns >= since => (Proof::Established, 0),
            Some(since) if since < attach && e.time_ns >= since => old[end],
            None if ends[end].connect.is_none() && ends[end].established.is_some() => old[end],
            _ => (Proof::Unknown, 0),
        };
        e.proof = proof;
        if proof == Proof::Unknown {
            (e.iss, e.irs) = (0, 0);
        } else if high == 1 {
            shifted.insert(end);
            e.iss = e.iss.wrapping_add(1);
            if writes(e) {
                e.stream_start -= 1;
                e.stream_end -= 1;
            }
        }
    }
    seen.shifted = shifted.len();
}

/// What names a Unix socket's connection, and whether all that it moved was counted.
fn number_unix(e: &mut Event, end: EndId, ends: &[crate::sim::world::End], clocks: &[Clock]) {
    let peer = ends[end].peer.expect("made when both ends are known");
    (e.protocol, e.proof) = (Some(Protocol::UnixStream), Proof::Established);
    (e.iss, e.irs) = (ends[end].cookie as u32, ends[peer].cookie as u32);
    let attach = clocks[usize::from(e.host)].attach;
    if e.has_range() && ends[end].since.is_none_or(|since| since < attach) {
        e.flags = e.flags.with(Flags::UNSURE);
    }
}

/// Directions of Unix sockets in which more was moved than the last call that a recorder could hear of has told: a call
/// had not returned when all ended, or was a stranger's.
fn unfinished(
    threads: &[crate::sim::world::Thread],
    ends: &[crate::sim::world::End],
    raws: &[Raw],
    raised: &[RawId],
) -> BTreeSet<(u16, u64, bool)> {
    let mut moved: HashMap<(EndId, bool), u64> = HashMap::new();
    for (number, end) in ends.iter().enumerate().filter(|(_, end)| end.unix) {
        moved.insert((number, true), end.counted_sent);
        moved.insert((number, false), end.counted_received);
    }
    for call in threads.iter().filter_map(|thread| thread.call.as_ref()) {
        let sends = matches!(call.what, What::Send { .. });
        if let Some(moved) = moved.get_mut(&(call.end, sends)) {
            *moved += call.done;
        }
    }
    let mut told: HashMap<(EndId, bool), u64> = HashMap::new();
    for raw in raised.iter().map(|&i| &raws[i]) {
        if let Some(end) = raw.socket.filter(|_| raw.event.has_range()) {
            let told = told.entry((end, raw.event.op == Op::Send)).or_default();
            *told = (*told).max(raw.event.stream_end);
        }
    }
    let more =
        |&(&way, &moved): &(&(EndId, bool), &u64)| moved > told.get(&way).copied().unwrap_or(0);
    let way = |(end, sends): (EndId, bool)| (ends[end].host as u16, ends[end].cookie, sends);
    moved.iter().filter(more).map(|(&key, _)| way(key)).collect()
}

/// Whether the event's offsets count from the end's own initial number.
fn writes(e: &Event) -> bool {
    matches!(e.op, Op::Send | Op::Close) && e.has_range()
}

fn host(number: usize, clock: &Clock, cpus: usize, now: u64) -> Host {
    let window = Window { from_ns: clock.show(clock.attach), to_ns: clock.show(now) };
    Host {
        name: format!("host{number}"),
        boot_id: format!("boot{number}"),
        cpus: cpus as u32,
        detail: "flow".to_owned(),
        scope: "all".to_owned(),
        bulk_window: window,
        rare_window: window,
        ..Host::default()
    }
}

fn name_tasks(
    hosts: &mut [Host],
    processes: &[Process],
    threads: &[crate::sim::world::Thread],
    names: &recorder::event::Names,
    clocks: &[Clock],
) {
    for thread in threads {
        let process = &processes[thread.process];
        let Some(host) = hosts.get_mut(process.host).filter(|_| process.recorded) else { continue };
        host.tasks.push(Task {
            pid: process.pid,
            tid: thread.tid,
            comm: names.text(thread.comm).to_owned(),
            parent: process.parent.map_or(1, |p| processes[p].pid),
            start_ns: clocks[process.host].show(thread.started),
            ..Task::default()
        });
    }
}

/// Rings that went round: each keeps only its newest events.
fn overwrite(
    raws: &[Raw],
    places: &BTreeMap<Place, Vec<RawId>>,
    hosts: &mut [Host],
    random: &mut Random,
) -> BTreeSet<RawId> {
    let mut lost = BTreeSet::new();
    for (&(host, _, ring), events) in places {
        if random.percent(50) {
            continue;
        }
        let cut = random.index(events.len());
        lost.extend(&events[..cut]);
        if cut == 0 {
            continue;
        }
        let oldest = raws[events[cut]].event.time_ns;
        let window = window_of(&mut hosts[usize::from(host)], ring);
        window.from_ns = window.from_ns.max(oldest);
    }
    lost
}

fn window_of(host: &mut Host, ring: Ring) -> &mut Window {
    match ring {
        Ring::Bulk => &mut host.bulk_window,
        Ring::Rare => &mut host.rare_window,
    }
}

/// Stretches that were overwritten before the follower came.
fn tear(
    raws: &[Raw],
    places: &BTreeMap<Place, Vec<RawId>>,
    hosts: &mut [Host],
    random: &mut Random,
) -> BTreeSet<RawId> {
    let mut lost = BTreeSet::new();
    for (&(host, cpu, ring), events) in places {
        if random.percent(50) {
            continue;
        }
        let from = random.index(events.len());
        let to = (from + 1 + random.index(8)).min(events.len());
        lost.extend(&events[from..to]);
        let host = &mut hosts[usize::from(host)];
        let window = *window_of(host, ring);
        let time = |i: usize| events.get(i).map(|&e| raws[e].event.time_ns);
        host.gaps.push(Gap {
            cpu: u32::from(cpu),
            ring,
            from_ns: from.checked_sub(1).and_then(time).unwrap_or(window.from_ns),
            to_ns: time(to).unwrap_or(window.to_ns),
            events: (to - from) as u64,
        });
    }
    lost
}

/// What the recorder knows of the begins, and where it knows that a thread's events are missing.
fn bound_begins(
    raws: &mut [Raw],
    kept: &[RawId],
    threads: &[crate::sim::world::Thread],
    clocks: &[Clock],
) {
    let mut before: HashMap<ThreadId, (u64, u32)> = HashMap::new();
    for &i in kept {
        let raw = &mut raws[i];
        let e = &mut raw.event;
        let Some(thread) = raw.thread else {
            e.begin_ns = e.time_ns;
            continue;
        };
        let clock = &clocks[usize::from(e.host)];
        let (time, count) =
            before.get(&thread).copied().unwrap_or((clock.show(threads[thread].started), 0));
        e.begin_ns = time;
        if e.task_count != count + 1 {
            e.flags = e.flags.with(Flags::AFTER_GAP);
        }
        before.insert(thread, (e.time_ns, e.task_count));
    }
}

/// Writes the model's causes down as pairs of what was kept.
fn relate(
    truth: &mut Truth,
    kept: &[RawId],
    raws: &[Raw],
    causes: &crate::sim::world::Causes,
    call_events: &[Option<RawId>],
) {
    let index: HashMap<RawId, EventIndex> =
        kept.iter().enumerate().map(|(i, &raw)| (raw, i as EventIndex)).collect();
    let pairs = |list: &[(RawId, RawId)]| -> Pairs {
        list.iter().filter_map(|(a, b)| Some((*index.get(a)?, *index.get(b)?))).collect()
    };
    let sent: Vec<(RawId, RawId)> =
        causes.bytes.iter().filter_map(|&(call, to)| Some((call_events[call]?, to))).collect();
    let mut first: HashMap<ThreadId, RawId> = HashMap::new();
    for (i, raw) in raws.iter().enumerate() {
        if let Some(thread) = raw.thread {
            first.entry(thread).or_insert(i);
        }
    }
    let born: Vec<(RawId, RawId)> = causes
        .forks
        .iter()
        .filter_map(|&(fork, child)| Some((fork, *first.get(&child)?)))
        .collect();
    truth.bytes = pairs(&sent);
    truth.eof = pairs(&causes.eof);
    truth.resets = pairs(&causes.resets);
    truth.connections = pairs(&causes.connections);
    truth.forks = pairs(&born);
    truth.signals = pairs(&causes.signals);
}

fn observe(truth: &mut Truth, history: &History) {
    let of = |i: EventIndex| &history.events[i as usize];
    for &(send, receive) in &truth.bytes {
        let (send, receive) = (of(send), of(receive));
        truth.seen.cross_host += usize::from(send.host != receive.host);
        let early = send.host == receive.host && receive.time_ns < send.time_ns;
        truth.seen.early_receives += usize::from(early);
    }
}
