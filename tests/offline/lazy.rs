//! What a few parts of a recording explain is what the whole of it explains.

#![expect(clippy::print_stdout, reason = "how much was spared is worth seeing, with --nocapture")]

use std::path::PathBuf;

use recorder::event::{Event, EventIndex, History};
use recorder::explain::{last_error, last_match};
use recorder::graph::Graph;
use recorder::lookback::{Limits, LookedBack, Outcome, look_back};
use recorder::pattern::Pattern;
use recorder::recording::read;
use recorder::slice::{Link, Options, Step, trace};
use tempfile::TempDir;
use tests::sim::{Random, simulate};

use crate::recording::{recorded, traffic};

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
            exactly(history, e),
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

fn looked_back(paths: &[PathBuf], pattern: &str, limits: Limits) -> LookedBack {
    let pattern: Pattern = pattern.parse().expect("a pattern");
    let outcome = look_back(paths, Some(&pattern), Options::default(), limits);
    match outcome.expect("a recording") {
        Outcome::Found(found) => *found,
        other => panic!("`{pattern}`: {other:?}"),
    }
}

/// A recording of each host of a history, in parts of so many events.
fn files(history: &History, part: usize) -> (TempDir, Vec<PathBuf>) {
    let folder = tempfile::tempdir().expect("make a folder");
    let path = |host: usize| {
        let own = |event: &&Event| usize::from(event.host) == host;
        let own = History {
            hosts: vec![history.hosts[host].clone()],
            names: history.names.clone(),
            events: history.events.iter().filter(own).copied().collect(),
        };
        let path = folder.path().join(format!("{host}.parquet"));
        std::fs::write(&path, recorded(&own, part)).expect("write a file");
        path
    };
    let paths = (0..history.hosts.len()).map(path).collect();
    (folder, paths)
}

fn exactly(history: &History, event: &Event) -> String {
    let host = &history.hosts[usize::from(event.host)].name;
    let Event { time_ns, cpu, position, op, .. } = event;
    format!("host={host} time_ns={time_ns} cpu={cpu} position={position} op={op}")
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

#[test]
fn a_few_parts_give_the_chain_of_the_whole() {
    let (mut asked, mut spared, mut hops, mut wrong) = (0, 0, 0, Vec::new());
    let seeds = match number("WHEREFORE_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("WHEREFORE_SEEDS").unwrap_or(500),
    };
    for seed in seeds {
        let simulated = simulate(seed);
        if simulated.history.events.is_empty() {
            continue;
        }
        let mut random = Random::new(seed);
        let size = 4 + random.index(12);
        let (_folder, paths) = files(&simulated.history, size);
        let whole = read::open(&paths).expect("recordings").history;
        let graph = Graph::build(&whole);
        for _ in 0..4 {
            let symptom = random.index(whole.events.len());
            let host = &whole.hosts[usize::from(whole.events[symptom].host)].name;
            let pattern = exactly(&whole, &whole.events[symptom]);
            let found = looked_back(&paths, &pattern, ALL);
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
            hops += usize::from(one.lines().any(|line| !line.contains(&format!("host={host} "))));
            asked += 1;
            spared += usize::from(extent.read < extent.events);
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {asked} chains differ; the first:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    println!("{spared} of {asked} questions spared parts, {hops} led over several hosts");
    assert!(asked < 10 || hops > asked / 40, "{hops} of {asked} led over several hosts");
    assert!(asked < 10 || spared * 4 > asked, "{spared} of {asked} questions spared parts");
}

/// The last match, whatever the index says of the parts that may hold one.
#[test]
fn the_symptom_is_the_last_that_matches() {
    for seed in 0..300 {
        let simulated = simulate(seed);
        if simulated.history.events.is_empty() {
            continue;
        }
        let mut random = Random::new(seed);
        let (_folder, paths) = files(&simulated.history, 4 + random.index(12));
        let whole = read::open(&paths).expect("recordings").history;
        let some = whole.events[random.index(whole.events.len())];
        let mut patterns = vec![
            format!("op={}", some.op),
            format!("pid={} op={}", some.pid, some.op),
            format!("tid={}", some.tid),
            format!("comm={}*", whole.comm(&some).chars().next().unwrap_or('a')),
            format!("socket={}", some.socket),
            format!("target={}", some.target),
            "op=recv,deliver error!=none".to_owned(),
            "error=ECONNRESET,EPIPE".to_owned(),
            "error=*".to_owned(),
        ];
        patterns.retain(|pattern| !pattern.ends_with("=0"));
        for pattern in patterns {
            let parsed: Pattern = pattern.parse().expect("a pattern");
            let last = last_match(&whole, &parsed.bind(&whole)).map(|(e, _)| e);
            check_symptom(&paths, Some(&parsed), &whole, last, &format!("seed {seed}: {pattern}"));
        }
        check_symptom(&paths, None, &whole, last_error(&whole), &format!("seed {seed}"));
    }
}

fn check_symptom(
    paths: &[PathBuf],
    pattern: Option<&Pattern>,
    whole: &History,
    last: Option<EventIndex>,
    what: &str,
) {
    let outcome = look_back(paths, pattern, Options::default(), ALL).expect("a recording");
    let found = match &outcome {
        Outcome::Found(found) => {
            Some(exactly(&found.history, &found.history.events[found.symptom as usize]))
        }
        Outcome::NoMatch { .. } => None,
        Outcome::Whole => panic!("{what}: no recording is small here"),
    };
    assert_eq!(found, last.map(|e| exactly(whole, &whole.events[e as usize])), "{what}");
}

/// No more is read than allowed, and then the answer says that it may lack something.
#[test]
fn limits_hold() {
    let (_folder, paths) = files(&traffic::requests(40_000), 200);
    let pattern = "comm=wrk op=recv";
    let parsed: Pattern = pattern.parse().expect("a pattern");
    let small = Limits { whole: 40_100, most: u64::MAX };
    let outcome = look_back(&paths, Some(&parsed), Options::default(), small).expect("a recording");
    assert!(matches!(outcome, Outcome::Whole));
    let little = looked_back(&paths, pattern, Limits { whole: 0, most: 1_000 }).extent;
    assert!(little.read <= 1_000 && !little.settled, "{little:?}");
    let enough = looked_back(&paths, pattern, ALL).extent;
    assert!(enough.read < 30_000 && enough.settled, "{enough:?}");
    assert!(
        enough.from_ns[0] < little.from_ns[0] && enough.from_ns[0] > 0,
        "{enough:?} {little:?}"
    );
}
