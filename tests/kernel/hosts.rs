//! Many hosts in one graph: network namespaces with a service each, joined by bridges, routers and NAT.
//!
//! The machine is recorded as a whole, and the recording is split as if each namespace had recorded itself, with
//! a clock of its own. What the parts tell together must be what the whole tells.
//!
//! `WHEREFORE_NAMESPACE_SEEDS=n` tries that many seeds, `WHEREFORE_SEED=n` one; a failure names its seed.
#![expect(clippy::print_stdout, reason = "what was compared is worth seeing, with --nocapture")]

pub mod network;

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use recorder::capture::Scope;
use recorder::clocks::Clocks;
use recorder::event::{Event, EventIndex, History, Op};
use recorder::graph::{Graph, check};
use recorder::recording::{read, write};
use tests::sim::Random;
use tests::split::{Common, Split, compare, split};

use crate::recorded::{Recorder, SMALL, require_root};
use crate::scope::Cgroup;
use network::Network;

const HOSTS: usize = 24;
/// How many seeds are tried when nothing else is said.
const SEEDS: u64 = 10;
/// Seeds that one network serves.
const PER_NETWORK: u64 = 10;

/// A service in a namespace, ended with the value.
struct Actor {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Actor {
    fn start(network: &Network, host: usize, cgroup: &Cgroup, racing: bool) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_actor"));
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        command.args(racing.then_some("--racing"));
        network.place(host, &mut command);
        let mut child = command.spawn().expect("the service starts");
        cgroup.take(&child);
        let input = child.stdin.take().expect("it is piped");
        let output = BufReader::new(child.stdout.take().expect("it is piped"));
        let mut actor = Self { child, input, output };
        actor.answers("ready");
        actor
    }

    fn tell(&mut self, line: &str) {
        writeln!(self.input, "{line}").expect("it reads");
    }

    fn answers(&mut self, word: &str) {
        let mut line = String::new();
        self.output.read_line(&mut line).expect("it says something");
        assert_eq!(line.trim(), word, "of {}", self.child.id());
    }
}

impl Drop for Actor {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A network with a service on each host.
struct Stage {
    actors: Vec<Actor>,
    network: Network,
    cgroups: Vec<Cgroup>,
    whole: Cgroup,
}

impl Stage {
    fn make(random: &mut Random, racing: bool) -> Self {
        let network = Network::make(HOSTS, random);
        let whole = Cgroup::make("hosts");
        let cgroups: Vec<Cgroup> = (0..HOSTS).map(|n| whole.below(&format!("host-{n}"))).collect();
        let actor = |host: usize| Actor::start(&network, host, &cgroups[host], racing);
        let actors = (0..HOSTS).map(actor).collect();
        Self { actors, network, cgroups, whole }
    }

    /// Everybody asks some others, over a few hosts each; returns when all of it is over.
    fn play(&mut self, random: &mut Random) {
        for from in 0..HOSTS {
            let ways: Vec<String> =
                (0..1 + random.index(3)).map(|_| self.way(from, random)).collect();
            let seed = random.draw() >> 1;
            self.actors[from].tell(&format!("ask {seed} {}", ways.join(" ")));
        }
        self.actors.iter_mut().for_each(|actor| actor.answers("done"));
        // What one had under way may have come to another that was done.
        self.actors.iter_mut().for_each(|actor| actor.tell("rest"));
        self.actors.iter_mut().for_each(|actor| actor.answers("done"));
    }

    fn way(&self, from: usize, random: &mut Random) -> String {
        let mut at = from;
        let hops = (0..1 + random.index(4)).map(|_| {
            let to = random.index(HOSTS);
            let ways = self.network.ways(at, to);
            at = to;
            let mut way = ways[random.index(ways.len())];
            if random.percent(3) {
                // Where nobody listens.
                way.set_port(9);
            }
            way.to_string()
        });
        hops.collect::<Vec<_>>().join(",")
    }

    /// Whose host an event is: by its process, or in a kernel lane by its namespace.
    fn host_of(&self) -> impl Fn(&History, &Event) -> Option<usize> + use<> {
        let mut processes = HashMap::new();
        let mut namespaces = HashMap::new();
        for (host, actor) in self.actors.iter().enumerate() {
            let pid = actor.child.id();
            let link = std::fs::read_link(format!("/proc/{pid}/ns/net")).expect("it lives");
            let link = link.to_string_lossy().into_owned();
            let inode = link.trim_start_matches("net:[").trim_end_matches(']');
            namespaces.insert(inode.parse::<u32>().expect("a number"), host);
            processes.insert(pid, host);
        }
        move |history, event| {
            let namespace = history.namespace(event).filter(|_| event.in_kernel_lane());
            let host = namespace.and_then(|namespace| namespaces.get(&namespace.inode));
            host.or_else(|| processes.get(&event.pid)).copied()
        }
    }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

#[test]
fn what_namespaces_tell_together_is_what_the_machine_tells() {
    require_root();
    let seeds = match number("WHEREFORE_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("WHEREFORE_NAMESPACE_SEEDS").unwrap_or(SEEDS),
    };
    let mut sum = Common::default();
    let mut begin = seeds.start;
    while begin < seeds.end {
        let number = begin / PER_NETWORK;
        let end = seeds.end.min((number + 1) * PER_NETWORK);
        let mut stage = Stage::make(&mut Random::new(number), true);
        let mut recorder = Recorder::with(Scope::Cgroup(stage.whole.name()), SMALL);
        let host_of = stage.host_of();
        for seed in begin..end {
            let mut random = Random::new(1_000_000 + seed);
            stage.play(&mut random);
            let whole = recorder.take();
            let common = split_and_compare(&whole, &host_of, &mut random)
                .unwrap_or_else(|text| panic!("WHEREFORE_SEED={seed}: {text}"));
            println!("seed {seed}: {} events, {common:?}", whole.events.len());
            assert!(common.bytes_between_parts > 20, "seed {seed}: {common:?}");
            sum.add(common);
        }
        begin = end;
    }
    println!("all: {sum:?}");
}

/// Splits a recording by host, each with a clock of its own, writes the parts to files, and reads them back.
fn split_and_compare(
    whole: &History,
    host_of: &impl Fn(&History, &Event) -> Option<usize>,
    random: &mut Random,
) -> Result<Common, String> {
    let offsets: Vec<u64> = (0..HOSTS).map(|_| random.below(1 << 50)).collect();
    let mut parts = split(whole, &offsets, |index, event| {
        host_of(whole, event).unwrap_or_else(|| panic!("event {index} is nobody's: {event:?}"))
    });
    let folder = tempfile::tempdir().expect("a folder");
    for host in 0..HOSTS {
        let path = folder.path().join(format!("{host}.parquet"));
        write::save(&path, &parts.history, host as u16).expect("save the recording");
    }
    let read = read::open(&[folder.path().to_owned()]).expect("recordings").history;
    let places = |history: &History| -> Vec<_> {
        history.events.iter().map(|e| (e.host, e.time_ns, e.cpu, e.ring, e.position)).collect()
    };
    assert_eq!(places(&read), places(&parts.history), "files are read as they were written");
    parts.history = read;
    let graphs = [whole, &parts.history].map(Graph::build);
    let violations = check::check(&parts.history, &graphs[1]);
    assert!(violations.is_empty(), "{:#?}", &violations[..violations.len().min(5)]);
    check_offsets(&parts.history, &graphs[1], &offsets);
    compare((whole, &graphs[0]), (&parts, &graphs[1]))
}

/// The offsets that the clocks were given lie in the intervals that messages leave.
fn check_offsets(history: &History, graph: &Graph, offsets: &[u64]) {
    let readings = Clocks::new(history, graph).readings();
    assert!(!readings.is_empty(), "hosts exchanged messages");
    for reading in readings {
        let reading = reading.expect("no contradiction");
        for offset in &reading.offsets {
            let of = |host: u16| i128::from(offsets[usize::from(host)]);
            let truth = of(offset.host) - of(reading.of);
            let low = offset.low_ns.is_none_or(|low| low <= truth);
            let high = offset.high_ns.is_none_or(|high| truth <= high);
            assert!(low && high, "{truth} of {offset:?}");
        }
    }
}

/// A recorder for each host's cgroup and one for all of them, at the same time.
#[test]
fn namespaces_that_record_themselves_tell_what_the_machine_tells() {
    require_root();
    let mut random = Random::new(77);
    let mut stage = Stage::make(&mut random, false);
    let start = |cgroup: &Cgroup| Recorder::with(Scope::Cgroup(cgroup.name()), SMALL);
    let mut all = start(&stage.whole);
    let mut apart: Vec<Recorder> = stage.cgroups.iter().map(start).collect();
    stage.play(&mut random);
    stage.play(&mut random);
    let whole = all.take();
    let parts: Vec<History> = apart.iter_mut().map(Recorder::take).collect();
    for boots in [true, false] {
        let folder = tempfile::tempdir().expect("a folder");
        parts.iter().enumerate().for_each(|(n, part)| save(folder.path(), n, part, boots));
        let history = read::open(&[folder.path().to_owned()]).expect("they share nothing").history;
        assert_eq!(history.hosts.len(), if boots { HOSTS } else { 1 });
        let parts = Split { origin: origins(&whole, &history), history };
        let graphs = [&whole, &parts.history].map(Graph::build);
        assert_eq!(check::check(&parts.history, &graphs[1]), []);
        let common = compare((&whole, &graphs[0]), (&parts, &graphs[1])).expect("one graph");
        println!("{} events, {common:?}", whole.events.len());
        assert!(common.all > 1000, "{common:?}");
    }
}

/// Writes one host's recording; as that of a machine of its own, or as it is.
fn save(folder: &Path, number: usize, part: &History, boots: bool) {
    let mut part = part.clone();
    if boots {
        part.hosts[0].name = format!("part-{number:03}");
        part.hosts[0].boot_id = format!("boot {number}");
    }
    let path = folder.join(format!("{number}.parquet"));
    write::save(&path, &part, 0).expect("save the recording");
}

/// An event of a thread, or of a socket's kernel lane, is the n-th of its kind, whoever recorded it.
fn origins(whole: &History, parts: &History) -> Vec<EventIndex> {
    type Key = (u32, u64, Op, usize);
    fn keys(history: &History) -> impl Iterator<Item = Key> + '_ {
        let mut counts: HashMap<(u32, u64, Op), usize> = HashMap::new();
        history.events.iter().map(move |event| {
            let socket = if event.in_kernel_lane() { event.socket } else { 0 };
            let count = counts.entry((event.tid, socket, event.op)).or_default();
            *count += 1;
            (event.tid, socket, event.op, *count)
        })
    }
    let known: HashMap<Key, EventIndex> = keys(whole).zip(0..).collect();
    let origins: Vec<EventIndex> = keys(parts)
        .map(|key| *known.get(&key).unwrap_or_else(|| panic!("the whole lacks {key:?}")))
        .collect();
    assert_eq!(origins.len(), whole.events.len(), "the parts have all that the whole has");
    origins
}
