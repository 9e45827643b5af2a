//! The simulator itself: what it makes of a seed, and that the difficult things really occur in it.

use petgraph::graph::NodeIndex;
use recorder::event::EventIndex;
use recorder::graph::{Side, node};
use tests::sim::{Loss, Seen, Simulated, simulate};

#[test]
fn a_seed_makes_one_history() {
    for seed in 0..50 {
        let (one, other) = (simulate(seed), simulate(seed));
        assert_eq!(one.history.events, other.history.events, "seed {seed}");
        assert_eq!(one.history.hosts, other.history.hosts, "seed {seed}");
        assert_eq!(one.truth.bytes, other.truth.bytes, "seed {seed}");
    }
    assert_ne!(simulate(1).history.events, simulate(2).history.events);
}

#[test]
fn histories_are_what_a_recorder_writes() {
    for seed in 0..500 {
        let Simulated { history, .. } = simulate(seed);
        let mut sorted = history.clone();
        sorted.sort();
        assert_eq!(sorted.events, history.events, "seed {seed}: sorted");
        for event in &history.events {
            let host = &history.hosts[usize::from(event.host)];
            assert!(event.begin_ns <= event.time_ns, "seed {seed}: {event:?}");
            assert!(event.stream_start <= event.stream_end, "seed {seed}: {event:?}");
            assert!(event.time_ns <= host.rare_window.to_ns, "seed {seed}: {event:?}");
            assert!(event.stream_end < 1 << 60, "seed {seed}: {event:?}");
        }
        let kept: u64 = history.hosts.iter().map(|h| h.raised - h.lost).sum();
        assert_eq!(kept, history.events.len() as u64, "seed {seed}");
    }
}

#[test]
fn the_truth_is_an_order() {
    for seed in 0..200 {
        let Simulated { history, truth, .. } = simulate(seed);
        let nodes: Vec<NodeIndex> = (0..history.events.len() as EventIndex)
            .flat_map(|e| [node(e, Side::Begin), node(e, Side::End)])
            .collect();
        for pair in nodes.chunks(2) {
            assert!(truth.happened_before(pair[0], pair[1]), "seed {seed}");
        }
        for &a in &nodes {
            assert!(!truth.happened_before(a, a), "seed {seed}");
            for &b in nodes.iter().filter(|&&b| truth.happened_before(a, b)) {
                assert!(!truth.happened_before(b, a), "seed {seed}");
            }
        }
    }
}

/// The pairs of causes agree with the order that the model lived.
#[test]
fn causes_precede_effects() {
    for seed in 0..500 {
        let Simulated { truth, .. } = simulate(seed);
        let t = &truth;
        for pairs in [&t.bytes, &t.eof, &t.resets, &t.connections, &t.forks, &t.signals] {
            for &(cause, effect) in pairs {
                let (from, to) = (node(cause, Side::Begin), node(effect, Side::End));
                assert!(t.happened_before(from, to), "seed {seed}: {cause} before {effect}");
            }
        }
    }
}

#[test]
fn nothing_difficult_is_rare() {
    let mut seeds = Seen::default();
    let (mut losses, mut pairs) = ([0; 3], [0; 6]);
    let count = |n: usize| usize::from(n > 0);
    for seed in 0..1_000 {
        let Simulated { shape, truth, .. } = simulate(seed);
        let s = truth.seen;
        seeds.races += count(s.races);
        seeds.misreported += count(s.misreported);
        seeds.scattered += count(s.scattered);
        seeds.blocked_sends += count(s.blocked_sends);
        seeds.early_receives += count(s.early_receives);
        seeds.lost += count(s.lost);
        seeds.refused += count(s.refused);
        seeds.resets += count(s.resets);
        seeds.peeks += count(s.peeks);
        seeds.spliced += count(s.spliced);
        seeds.kills += count(s.kills);
        seeds.reused_tids += count(s.reused_tids);
        seeds.cross_host += count(s.cross_host);
        seeds.shifted += count(s.shifted);
        seeds.far_offsets += count(s.far_offsets);
        let t = &truth;
        let sets = [&t.bytes, &t.eof, &t.resets, &t.connections, &t.forks, &t.signals];
        pairs.iter_mut().zip(sets).for_each(|(sum, set)| *sum += set.len());
        losses[shape.loss as usize] += count(s.lost);
    }
    let often = [
        seeds.races,
        seeds.misreported,
        seeds.blocked_sends,
        seeds.early_receives,
        seeds.refused,
        seeds.resets,
        seeds.peeks,
        seeds.kills,
        seeds.reused_tids,
        seeds.cross_host,
        seeds.shifted,
        seeds.far_offsets,
    ];
    assert!(often.iter().all(|&n| n > 100), "of 1,000 seeds: {seeds:?}");
    assert!(seeds.scattered > 40 && seeds.spliced > 40, "of 1,000 seeds: {seeds:?}");
    assert!(pairs.iter().all(|&n| n > 1_000), "pairs of cause and effect: {pairs:?}");
    assert!(losses[Loss::Overwritten as usize] > 100 && losses[Loss::Gaps as usize] > 100);
}
