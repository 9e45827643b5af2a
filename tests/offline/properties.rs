//! What must hold for the graph of any history, tried on many simulated ones.
//!
//! `WHEREFORE_SEED=n` tries one seed, `WHEREFORE_SEEDS=n` that many. A failure names its seed.

use std::collections::{BTreeSet, HashMap};

use petgraph::algo::toposort;
use petgraph::visit::{EdgeFiltered, EdgeRef};
use recorder::event::Proof::Established;
use recorder::event::{Event, EventIndex, Flags, History, Op, Protocol};
use recorder::graph::check::check;
use recorder::graph::{Edge, EdgeKind, Graph, Node, Proof, Side, event_of, node};
use recorder::slice::{self, Options, Reach};
use tests::sim::{Pairs, Random, Simulated, Truth, simulate};

const SEEDS: u64 = 10_000;

/// One edge, with its ends.
#[derive(Clone, Copy)]
struct Joined {
    from: Node,
    to: Node,
    edge: Edge,
}

fn edges(graph: &Graph) -> impl Iterator<Item = Joined> + '_ {
    graph.nodes.edge_references().map(|e| Joined {
        from: e.source(),
        to: e.target(),
        edge: *e.weight(),
    })
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

/// Tries a property on one history after another, until it fails.
fn for_seeds(mut property: impl FnMut(&Simulated, &Graph) -> Result<(), String>) {
    let seeds = match number("WHEREFORE_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("WHEREFORE_SEEDS").unwrap_or(SEEDS),
    };
    let (mut failed, mut smallest) = (0, (usize::MAX, String::new()));
    for seed in seeds {
        let simulated = simulate(seed);
        let graph = Graph::build(&simulated.history);
        if let Err(text) = property(&simulated, &graph) {
            failed += 1;
            let events = simulated.history.events.len();
            if events < smallest.0 {
                smallest = (events, format!("WHEREFORE_SEED={seed}: {text}"));
            }
        }
    }
    let (events, text) = smallest;
    assert!(failed == 0, "{failed} seeds fail; the smallest has {events} events: {text}");
}

fn show(history: &History, at: Node) -> String {
    let (index, side) = event_of(at);
    let e = &history.events[index as usize];
    let address = |a| history.names.address(a).map_or("-".to_owned(), |a| a.to_string());
    format!(
        "{} of #{index} {} h{} {}[{}/{}] cpu{} {}..{} socket {} {}->{} {}..{} = {} errno {} signal {} target {} {:?} {:?}",
        side.as_str(),
        e.op,
        e.host,
        history.comm(e),
        e.pid,
        e.tid,
        e.cpu,
        e.begin_ns,
        e.time_ns,
        e.socket,
        address(e.local),
        address(e.remote),
        e.stream_start,
        e.stream_end,
        e.result,
        e.error,
        e.signal,
        e.target,
        e.proof,
        e.flags,
    )
}

fn describe(history: &History, joined: Joined) -> String {
    let Joined { from, to, edge } = joined;
    let (kind, proof) = (edge.kind.as_str(), edge.proof.as_str());
    format!("{proof} {kind}\n  from {}\n  to   {}", show(history, from), show(history, to))
}

fn bytes_pairs(graph: &Graph, proof: Option<Proof>) -> Pairs {
    edges(graph)
        .filter(|e| e.edge.kind == EdgeKind::Bytes && proof.is_none_or(|p| p == e.edge.proof))
        .map(|e| (event_of(e.from).0, event_of(e.to).0))
        .collect()
}

fn lossless(history: &History) -> bool {
    history.hosts.iter().all(|h| h.lost == 0)
}

#[test]
fn what_is_proven_happened() {
    for_seeds(|Simulated { history, truth, .. }, graph| {
        for joined in edges(graph).filter(|e| e.edge.proof == Proof::Must) {
            let pair = (event_of(joined.from).0, event_of(joined.to).0);
            let bytes = joined.edge.kind != EdgeKind::Bytes || truth.bytes.contains(&pair);
            // That somebody unknown is at a call when all ends cannot be known.
            if !bytes && unfinished(history, truth, pair) {
                continue;
            }
            if !bytes || !truth.happened_before(joined.from, joined.to) {
                return Err(format!("not true: {}", describe(history, joined)));
            }
        }
        Ok(())
    });
}

#[test]
fn nothing_is_missing_from_complete_recordings() {
    let (mut pairs, mut seeds) = (0, 0);
    for_seeds(|Simulated { history, truth, .. }, graph| {
        if !lossless(history) {
            return Ok(());
        }
        let found = bytes_pairs(graph, None);
        (pairs, seeds) = (pairs + truth.bytes.len(), seeds + 1);
        let missing = truth.bytes.difference(&found);
        match missing.copied().find(|&pair| !unfinished(history, truth, pair)).as_ref() {
            None => Ok(()),
            Some(&(send, receive)) => {
                let (from, to) = (node(send, Side::Begin), node(receive, Side::End));
                let texts = [from, to].map(|n| show(history, n));
                Err(format!("bytes without an edge\n  from {}\n  to   {}", texts[0], texts[1]))
            }
        }
    });
    assert!(number("WHEREFORE_SEED").is_some() || pairs > 10 * seeds, "{pairs} in {seeds}");
}

#[test]
fn without_races_the_bytes_are_exact_and_proven() {
    let mut pairs = 0;
    for_seeds(|Simulated { history, truth, shape, .. }, graph| {
        if !lossless(history) || shape.late || shape.splices || shape.races {
            return Ok(());
        }
        let proven = bytes_pairs(graph, Some(Proof::Must));
        let users = users(history);
        let seen_whole = |event: EventIndex| {
            let e = &history.events[event as usize];
            // What was counted after each call is exact for one thread that does all of it.
            let alone = users[&(e.host, e.socket, e.op)].len() == 1 && !shape.scoped;
            let counted = e.protocol == Some(Protocol::UnixStream);
            e.proof == Established
                && !e.flags.has(Flags::PEEK)
                && (!counted || alone && !e.flags.has(Flags::UNSURE))
        };
        // Of an older connection nobody knows who else was at it when its first call was seen.
        for &(send, receive) in truth.bytes.iter().filter(|p| seen_whole(p.0) && seen_whole(p.1)) {
            if unfinished(history, truth, (send, receive)) {
                continue;
            }
            pairs += 1;
            if !proven.contains(&(send, receive)) {
                let (from, to) = (node(send, Side::Begin), node(receive, Side::End));
                let texts = [from, to].map(|n| show(history, n));
                return Err(format!("unproven bytes\n  from {}\n  to   {}", texts[0], texts[1]));
            }
        }
        let found = bytes_pairs(graph, None);
        let extra = found.difference(&truth.bytes).filter(|p| seen_whole(p.0) && seen_whole(p.1));
        let mut extra = extra.filter(|&&pair| !unfinished(history, truth, pair));
        match extra.next() {
            None => Ok(()),
            Some(pair) => Err(format!("no such bytes: {pair:?}")),
        }
    });
    assert!(number("WHEREFORE_SEED").is_some() || pairs > 10_000, "{pairs} pairs");
}

/// Whether a call was under way that had moved bytes of a pair's stream when all ended.
fn unfinished(history: &History, truth: &Truth, (send, receive): (EventIndex, EventIndex)) -> bool {
    let way = |event: EventIndex, sends| {
        let e = &history.events[event as usize];
        truth.unfinished.contains(&(e.host, e.socket, sends))
    };
    way(send, true) || way(receive, false)
}

/// The threads that use each direction of each socket.
fn users(history: &History) -> HashMap<(u16, u64, Op), BTreeSet<u32>> {
    let mut users: HashMap<(u16, u64, Op), BTreeSet<u32>> = HashMap::new();
    for e in &history.events {
        users.entry((e.host, e.socket, e.op)).or_default().insert(e.tid);
    }
    users
}

/// Also other effects than bytes are all found when nothing is lost: at least as possible ones.
#[test]
fn no_effect_of_a_complete_recording_lacks_its_cause() {
    for_seeds(|Simulated { history, truth, shape, .. }, graph| {
        if !lossless(history) || shape.late || shape.scoped || shape.outside {
            return Ok(());
        }
        let t = truth;
        let symptoms = [&t.eof, &t.resets, &t.connections, &t.forks, &t.signals];
        for &(cause, effect) in symptoms.into_iter().flatten() {
            let [from, to] = [cause, effect].map(|e| &history.events[e as usize]);
            // A reset that no socket sent bears no initial numbers, and NAT changes its addresses.
            if from.op == Op::ResetSent && from.socket == 0 && from.host != to.host {
                continue;
            }
            let slice = slice::backward(history, graph, &[effect], Options::default());
            if slice.reach(cause) == Reach::Not {
                let texts = [cause, effect].map(|e| show(history, node(e, Side::End)));
                return Err(format!("no way\n  from {}\n  to   {}", texts[0], texts[1]));
            }
        }
        Ok(())
    });
}

#[test]
fn no_graph_has_a_cycle() {
    for_seeds(|Simulated { history, .. }, graph| {
        let proven = EdgeFiltered::from_fn(&graph.nodes, |e| e.weight().proof == Proof::Must);
        match toposort(&proven, None) {
            Ok(_) => Ok(()),
            Err(cycle) => Err(format!("a cycle through {}", show(history, cycle.node_id()))),
        }
    });
}

#[test]
fn no_edge_goes_against_time() {
    // A begin lies somewhere between its lower bound and its event's end. What the kernel tells of late
    // (a reset that has gone out, the choice of a victim) may be stamped after its effect.
    let earliest = |e: &Event, side| match side {
        Side::Begin if !e.in_kernel_lane() => e.begin_ns,
        _ => e.time_ns,
    };
    for_seeds(|Simulated { history, .. }, graph| {
        for joined in edges(graph) {
            let (from, from_side) = event_of(joined.from);
            let (cause, effect) =
                (&history.events[from as usize], &history.events[event_of(joined.to).0 as usize]);
            let late = cause.in_kernel_lane() && from_side == Side::Begin;
            let against = earliest(cause, from_side) > effect.time_ns;
            if cause.host == effect.host && against && !late {
                return Err(format!("against time: {}", describe(history, joined)));
            }
        }
        Ok(())
    });
}

#[test]
fn slices_are_closed_under_causes() {
    for_seeds(|Simulated { history, .. }, graph| {
        let mut random = Random::new(history.events.len() as u64);
        if history.events.is_empty() {
            return Ok(());
        }
        for _ in 0..3 {
            let symptom = random.index(history.events.len()) as EventIndex;
            let slice = slice::backward(history, graph, &[symptom], Options::default());
            let start = node(symptom, Side::End);
            let must = causes(graph, start, |proof| proof == Proof::Must);
            let may = causes(graph, start, |_| true);
            for event in 0..history.events.len() as EventIndex {
                let reach = slice.reach(event);
                let proven = must.contains(&event) == (reach == Reach::Must);
                if !proven || may.contains(&event) && reach == Reach::Not {
                    let texts = [symptom, event].map(|e| show(history, node(e, Side::End)));
                    return Err(format!("{reach:?}\n  of {}\n  is {}", texts[0], texts[1]));
                }
            }
        }
        Ok(())
    });
}

/// All events from which edges lead to a node.
fn causes(graph: &Graph, start: Node, follow: impl Fn(Proof) -> bool) -> BTreeSet<EventIndex> {
    let mut found = BTreeSet::from([start]);
    let mut stack = vec![start];
    while let Some(at) = stack.pop() {
        for edge in graph.nodes.edges_directed(at, petgraph::Direction::Incoming) {
            if follow(edge.weight().proof) && found.insert(edge.source()) {
                stack.push(edge.source());
            }
        }
    }
    found.into_iter().map(|n| event_of(n).0).collect()
}

/// What names an event, whatever the order of hosts.
type Identity = (String, u16, u8, u64);

fn identified(
    history: &History,
    graph: &Graph,
) -> BTreeSet<(Identity, Side, Identity, Side, String)> {
    let identity = |event: EventIndex| {
        let e = &history.events[event as usize];
        let host = history.hosts[usize::from(e.host)].name.clone();
        (host, e.cpu, e.ring as u8, e.position)
    };
    edges(graph)
        .map(|joined| {
            let ((from, from_side), (to, to_side)) = (event_of(joined.from), event_of(joined.to));
            let kind = format!("{} {}", joined.edge.proof.as_str(), joined.edge.kind.as_str());
            (identity(from), from_side, identity(to), to_side, kind)
        })
        .collect()
}

#[test]
fn the_order_of_recordings_and_events_does_not_matter() {
    for_seeds(|Simulated { history, .. }, graph| {
        let mut random = Random::new(history.events.len() as u64);
        let mut places: Vec<usize> = (0..history.hosts.len()).collect();
        random.shuffle(&mut places);
        let mut other = history.clone();
        for (from, &to) in places.iter().enumerate() {
            other.hosts[to] = history.hosts[from].clone();
        }
        random.shuffle(&mut other.events);
        for event in &mut other.events {
            event.host = places[usize::from(event.host)] as u16;
        }
        other.sort();
        let (one, two) = (identified(history, graph), identified(&other, &Graph::build(&other)));
        match one.symmetric_difference(&two).next() {
            None => Ok(()),
            Some(edge) => Err(format!("only in one: {edge:?}")),
        }
    });
}

#[test]
fn check_accepts_what_is_built() {
    for_seeds(|Simulated { history, .. }, graph| match check(history, graph).first() {
        None => Ok(()),
        Some(violation) => Err(format!("{violation:?}")),
    });
}

/// An edge that time or bytes refute is found, whichever rule it claims to come from.
#[test]
fn check_finds_a_planted_edge() {
    let (mut planted, mut found) = (0, 0);
    for_seeds(|Simulated { history, truth, .. }, graph| {
        let count = history.events.len() as u64;
        let mut random = Random::new(count);
        for kind in EdgeKind::ALL {
            if count < 2 {
                continue;
            }
            let pick = |r: &mut Random, side| node(r.below(count) as EventIndex, side);
            let (from, to) = (pick(&mut random, Side::Begin), pick(&mut random, Side::End));
            if truth.happened_before(from, to) {
                continue;
            }
            let mut wrong = graph.clone();
            wrong.nodes.add_edge(from, to, Edge { kind, proof: Proof::Must });
            planted += 1;
            let before = check(history, graph).len();
            if check(history, &wrong).len() > before {
                found += 1;
            } else {
                let joined = Joined { from, to, edge: Edge { kind, proof: Proof::Must } };
                return Err(format!("not found: {}", describe(history, joined)));
            }
        }
        Ok(())
    });
    assert!(number("WHEREFORE_SEED").is_some() || planted > 10_000, "{found} of {planted}");
}

/// A possible bytes edge that is not true is found when it claims to be proven.
#[test]
fn check_finds_a_possible_edge_called_proven() {
    let mut flipped = 0;
    for_seeds(|Simulated { history, truth, .. }, graph| {
        for index in graph.nodes.edge_indices() {
            let edge = graph.nodes[index];
            let (from, to) = graph.nodes.edge_endpoints(index).expect("the edge is there");
            let pair = (event_of(from).0, event_of(to).0);
            let wrong = edge.kind == EdgeKind::Bytes && edge.proof == Proof::May;
            if !wrong || truth.bytes.contains(&pair) {
                continue;
            }
            flipped += 1;
            let mut graph = graph.clone();
            graph.nodes[index].proof = Proof::Must;
            if check(history, &graph).is_empty() {
                let edge = Edge { proof: Proof::Must, ..edge };
                let text = describe(history, Joined { from, to, edge });
                return Err(format!("not found: {text}"));
            }
        }
        Ok(())
    });
    assert!(number("WHEREFORE_SEED").is_some() || flipped > 100, "{flipped} flipped");
}
