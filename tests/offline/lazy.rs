//! What a few parts of a recording explain is what the whole of it explains.

#![expect(clippy::print_stdout, reason = "how much was spared is worth seeing, with --nocapture")]

use std::path::Path;

use recorder::event::{Event, EventIndex, History};
use recorder::graph::Graph;
use recorder::lookback::{Limits, LookedBack, look_back};
use recorder::pattern::Pattern;
use recorder::recording::read;
use recorder::slice::{Link, Options, Step, trace};
use tests::sim::{Random, simulate};

use crate::recording::{file, recorded};

const ALL: Limits = Limits { whole: 0, most: u64::MAX };

/// A chain, one line per step.
fn chain(history: &History, graph: &Graph, symptom: EventIndex) -> String {
    let kind = |link| match link {
        Link::Edge(edge) => graph.nodes[edge].kind.as_str(),
        Link::Symptom | Link::Thread => "",
    };
    let steps = trace(history, graph, symptom).steps;
    let line = |step: &Step| {
        let e = &history.events[step.event as usize];
        format!(
            "  {} {} {} {}/{} {}..{} {} {} {} {} {:?}\n",
            kind(step.link),
            exactly(e),
            e.socket,
            e.pid,
            e.tid,
            e.stream_start,
            e.stream_end,
            e.error,
            e.signal,
            e.target,
            e.ring as u8,
            e.proof
        )
    };
    steps.iter().map(line).collect()
}

fn looked_back(path: &Path, pattern: &str, limits: Limits) -> Option<LookedBack> {
    let pattern: Pattern = pattern.parse().expect("a pattern");
    look_back(path, Some(&pattern), Options::default(), limits).expect("a recording")
}

fn exactly(event: &Event) -> String {
    format!(
        "time_ns={} cpu={} position={} op={}",
        event.time_ns, event.cpu, event.position, event.op
    )
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

#[test]
fn a_few_parts_give_the_chain_of_the_whole() {
    let (mut asked, mut spared, mut wrong) = (0, 0, Vec::new());
    let seeds = match number("WHEREFORE_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("WHEREFORE_SEEDS").unwrap_or(500),
    };
    for seed in seeds {
        let simulated = simulate(seed);
        if simulated.history.hosts.len() > 1 || simulated.history.events.is_empty() {
            continue;
        }
        let mut random = Random::new(seed);
        let size = 4 + random.index(12);
        let (_folder, path) = file(&recorded(&simulated.history, size));
        let whole = read::open(&[path.clone()]).expect("a recording").history;
        let graph = Graph::build(&whole);
        for _ in 0..4 {
            let symptom = random.index(whole.events.len());
            let pattern = exactly(&whole.events[symptom]);
            let found = looked_back(&path, &pattern, ALL).expect("the event is there");
            let extent = &found.extent;
            assert!(extent.settled, "seed {seed}, {pattern}");
            let (one, other) = (
                chain(&whole, &graph, symptom as EventIndex),
                chain(&found.history, &found.graph, found.symptom),
            );
            if one != other {
                wrong.push(format!(
                    "WHEREFORE_SEED={seed}, part size {size}, {pattern}:\n{one} but with {} of {} events\n{other}",
                    extent.read, extent.events
                ));
            }
            asked += 1;
            spared += usize::from(extent.read < extent.events);
        }
    }
    assert!(wrong.is_empty(), "{} of {asked} chains differ; the first:\n{}", wrong.len(), wrong[0]);
    println!("{spared} of {asked} questions spared parts");
    assert!(asked < 10 || spared * 4 > asked, "{spared} of {asked} questions spared parts");
}
