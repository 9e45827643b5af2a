//! Several hosts in one graph: what answers say of them, and that it does not matter who recorded what.

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;
use std::process::Command;

use expect_test::{Expect, expect};
use petgraph::unionfind::UnionFind;
use recorder::clocks::Clocks;
use recorder::event::{Event, Flags, History, Op, Window};
use recorder::graph::Graph;
use recorder::recording::write::save;
use tests::command::wherefore;
use tests::sim::{Random, Simulated, simulate};
use tests::split::{Common, compare, split};

use crate::written::history;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

fn seeds(count: u64) -> std::ops::Range<u64> {
    match number("WHEREFORE_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("WHEREFORE_SEEDS").unwrap_or(count),
    }
}

/// The offset that the clocks really had lies in the interval that messages allow, whenever one looks.
#[test]
fn true_offsets_lie_in_their_intervals() {
    let (mut intervals, mut closed) = (0, 0);
    for seed in seeds(10_000) {
        let Simulated { shape, history, clocks, until_ns, .. } = simulate(seed);
        if history.hosts.len() < 2 {
            continue;
        }
        let known = Clocks::new(&history, &Graph::build(&history));
        assert_eq!(known.contradictions(), [], "WHEREFORE_SEED={seed}");
        let mut random = Random::new(seed);
        for _ in 0..4 {
            let (of, now) = (random.index(clocks.len()), random.below(until_ns));
            let at_ns = clocks[of].show(now);
            let reading = known.at(of as u16, at_ns).expect("no contradiction");
            for offset in &reading.offsets {
                let truth =
                    i128::from(clocks[usize::from(offset.host)].show(now)) - i128::from(at_ns);
                // Clocks that show few digits show less than they know.
                let grain = i128::from(shape.granule);
                let low = offset.low_ns.is_none_or(|low| low <= truth + grain);
                let high = offset.high_ns.is_none_or(|high| truth <= high + grain);
                assert!(low && high, "WHEREFORE_SEED={seed}: {truth} of {offset:?}");
                intervals += 1;
                closed += usize::from(offset.low_ns.is_some() && offset.high_ns.is_some());
            }
        }
    }
    let few = number("WHEREFORE_SEED").is_some() || number("WHEREFORE_SEEDS").is_some();
    assert!(few || intervals > 5_000 && closed > 2_000, "{closed} of {intervals} closed");
}

/// What has to stay on one host, since more than connections joins it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Tied {
    Process(u16, u32),
    Socket(u16, u64),
    Ends(u16, u32, u32),
    Listener(u16, u32),
}

#[derive(Default)]
struct Ties {
    numbers: HashMap<Tied, usize>,
    joined: UnionFind<usize>,
}

impl Ties {
    fn number(&mut self, of: Tied) -> usize {
        let joined = &mut self.joined;
        *self.numbers.entry(of).or_insert_with(|| joined.new_set())
    }

    fn tie(&mut self, one: Tied, other: Tied) {
        let (one, other) = (self.number(one), self.number(other));
        self.joined.union(one, other);
    }
}

/// Per event the group that it has to stay with.
fn groups(history: &History) -> Vec<usize> {
    let mut ties = Ties::default();
    let mut processes: HashMap<(u16, u32), BTreeSet<u32>> = HashMap::new();
    for event in history.events.iter().filter(|event| event.tid != 0) {
        processes.entry((event.host, event.tid)).or_default().insert(event.pid);
    }
    let own = |e: &Event| match (e.socket, e.pid) {
        (0, 0) if e.local.0 != u32::MAX => Tied::Ends(e.host, e.local.0, e.remote.0),
        (0, pid) => Tied::Process(e.host, pid),
        (socket, _) => Tied::Socket(e.host, socket),
    };
    for event in &history.events {
        let this = own(event);
        ties.number(this);
        if event.pid != 0 {
            ties.tie(this, Tied::Process(event.host, event.pid));
        }
        if event.local.0 != u32::MAX {
            ties.tie(this, Tied::Ends(event.host, event.local.0, event.remote.0));
        }
        let accepted = event.op == Op::Established && !event.flags.has(Flags::ACTIVE);
        if accepted || matches!(event.op, Op::Listen | Op::Unlisten) {
            ties.tie(this, Tied::Listener(event.host, event.local.0));
        }
        for &pid in processes.get(&(event.host, event.target)).into_iter().flatten() {
            ties.tie(this, Tied::Process(event.host, pid));
        }
    }
    history.events.iter().map(|event| ties.joined.find(ties.numbers[&own(event)])).collect()
}

fn assigned<K: Eq + Hash + Copy>(keys: &[K]) -> (Vec<usize>, usize) {
    let mut numbers = HashMap::new();
    let assigned = keys.iter().map(|&key| {
        let next = numbers.len();
        *numbers.entry(key).or_insert(next)
    });
    let assigned = assigned.collect();
    (assigned, numbers.len())
}

#[test]
fn hosts_split_at_random_give_the_same_graph() {
    let (mut sum, mut splits) = (Common::default(), 0);
    for seed in seeds(3_000) {
        let Simulated { shape, history, .. } = simulate(seed);
        // The ends of a Unix socket are never on two hosts.
        if history.events.is_empty() || shape.unix {
            continue;
        }
        let mut random = Random::new(seed);
        // Groups go to one of a few parts of their host, each with a clock of its own.
        let draw: Vec<u64> = (0..7).map(|_| random.below(3)).collect();
        let keys: Vec<_> = groups(&history)
            .iter()
            .zip(&history.events)
            .map(|(group, event)| (event.host, draw[group % draw.len()]))
            .collect();
        let (part, parts) = assigned(&keys);
        let offsets: Vec<u64> = (0..parts).map(|_| random.below(1 << 40)).collect();
        let parts = split(&history, &offsets, |event, _| part[event as usize]);
        let graphs = [&history, &parts.history].map(Graph::build);
        match compare((&history, &graphs[0]), (&parts, &graphs[1])) {
            Ok(common) => {
                sum.add(common);
                splits += usize::from(parts.history.hosts.len() > history.hosts.len());
            }
            Err(text) => panic!("WHEREFORE_SEED={seed}: {text}"),
        }
    }
    let few = number("WHEREFORE_SEED").is_some() || number("WHEREFORE_SEEDS").is_some();
    assert!(few || splits > 500 && sum.bytes_between_parts > 1_000, "{splits} splits, {sum:?}");
}

/// An edge that only one of the two has, or that one of them is surer of, is found.
#[test]
fn a_difference_between_whole_and_parts_is_found() {
    let whole = history(
        "
        10..20     client[1] send on=1a bytes=0..9
        20..30     client[1] send on=1a bytes=9..12
        15..40     server[2] recv on=1b bytes=0..12 cpu=1
        40..50     server[2] send on=1b bytes=0..4 cpu=1
        30..60     client[1] recv on=1a bytes=0..4
        ",
    );
    let graph = Graph::build(&whole);
    let by_process = |_, event: &Event| event.pid as usize - 1;
    let compared = |damage: fn(&mut Event)| {
        let mut parts = split(&whole, &[7_000, 1 << 40], by_process);
        parts.history.events.iter_mut().for_each(damage);
        compare((&whole, &graph), (&parts, &Graph::build(&parts.history)))
    };
    let common = compared(|_| {}).expect("the same graph");
    assert_eq!((common.bytes_between_parts, common.unknowable, common.untimely), (3, 0, 0));
    let other_numbers = |event: &mut Event| event.iss += u32::from(event.op == Op::Recv);
    assert!(compared(other_numbers).is_err_and(|text| text.contains("must bytes")));
    let other_bytes = |event: &mut Event| {
        if (event.op, event.stream_start) == (Op::Send, 9) {
            (event.stream_start, event.stream_end) = (12, 15);
        }
    };
    assert!(compared(other_bytes).is_err_and(|text| text.contains("must bytes")));
}

/// Records each host of the history into a file of its own, asks, and compares all that is said.
fn check(lines: &str, words: &[&str], expected: &Expect) {
    let (command, rest) = words.split_first().expect("a command");
    let words = [&[*command, "."], rest].concat();
    let offsets = [0, 7_000_000, -3_000_000_000];
    expected.assert_eq(&asked(lines, &["host0", "host1", "host2"], &offsets, &words));
}

fn asked(lines: &str, names: &[&str], wall_offsets: &[i64], words: &[&str]) -> String {
    let mut history = history(lines);
    let folder = tempfile::tempdir().expect("a folder");
    for number in 0..history.hosts.len() {
        let times = history.events.iter().filter(|e| usize::from(e.host) == number);
        let until = times.map(|e| e.time_ns).max().unwrap_or(0) + 1000;
        let window = Window { from_ns: 0, to_ns: until };
        let host = &mut history.hosts[number];
        (host.bulk_window, host.rare_window, host.cpus) = (window, window, 2);
        host.name = names[number].to_owned();
        host.wall_offset_ns = wall_offsets[number];
        let path = folder.path().join(format!("{}.parquet", names[number]));
        save(&path, &history, number as u16).expect("save the recording");
    }
    let mut asked = Command::new(wherefore());
    let output = asked.current_dir(folder.path()).args(words).output();
    tests::command::told(&output.expect("run wherefore"))
}

/// What the README shows of two hosts is what is said of these.
#[test]
fn the_example_of_the_readme() {
    let lines = "
        1000000..1000000    kernel     established on=1a at=10.0.0.1:40001 to=10.0.0.2:80 active owner=311
        7115000..7115000    kernel     established on=1b at=10.0.0.2:80 to=10.0.0.1:40001 host=1 owner=42
        1000000..1100000    curl[311]  send        on=1a at=10.0.0.1:40001 to=10.0.0.2:80 bytes=0..83
        7000000..7230000    nginx[42]  recv        on=1b at=10.0.0.2:80 to=10.0.0.1:40001 bytes=0..83 host=1
        7230000..7250000    nginx[42]  send        on=2a at=10.0.0.2:40002 to=10.0.0.7:5432 bytes=0..20 host=1
        7250000..8110000    nginx[42]  recv        on=2a at=10.0.0.2:40002 to=10.0.0.7:5432 bytes=0..9 host=1
        8110000..8240000    nginx[42]  send        on=1b at=10.0.0.2:80 to=10.0.0.1:40001 bytes=0..150 host=1
        1100000..2330000    curl[311]  recv        on=1a at=10.0.0.1:40001 to=10.0.0.2:80 bytes=0..150
        1000..2400000       cron[5]    recv        on=5b bytes=0..10
    ";
    let noon = (20_000 * 86_400 + 43_200) * 1_000_000_000;
    let words = ["why", "web.parquet", "app.parquet", "comm=curl op=recv"];
    let said = asked(lines, &["web", "app"], &[noon, noon + 9_876_543], &words);
    let said = said.strip_prefix("exit 0\n--- stdout\n").expect("an answer");
    let readme =
        std::fs::read_to_string(tests::documents::root().join("README.md")).expect("it is there");
    assert!(readme.contains(said), "README.md does not have:\n{said}");
}

/// A client on host0 asks a proxy on host1, which asks a database that is not recorded.
const PROXIED: &str = "
    1000..2000        curl[1]    connect     on=1a new
    2100..2100        kernel     established on=1a active owner=1
    9002200..9002200  kernel     established on=1b host=1 owner=2
    2000..3000        curl[1]    send        on=1a bytes=0..83
    9001000..9003100  nginx[2]   recv        on=1b bytes=0..83 host=1
    9003100..9003200  nginx[2]   send        on=2a to=10.0.0.7:5432 bytes=0..20 host=1
    9003200..9004000  nginx[2]   recv        on=2a to=10.0.0.7:5432 bytes=0..9 host=1
    9004000..9004100  nginx[2]   send        on=1b bytes=0..150 host=1
    3000..4200        curl[1]    recv        on=1a bytes=0..150
    9001000..9004200  redis[9]   recv        on=4b to=10.0.0.9:40004 bytes=0..10 host=1
    1000..4300        cron[5]    recv        on=5b bytes=0..10
";

#[test]
fn the_answer_names_hosts_and_where_it_ends() {
    check(
        PROXIED,
        &["why", "comm=curl op=recv"],
        &expect![[r#"
        exit 0
        --- stdout
        symptom  00:00:00.000004  host0:curl[1]   recv 150 B from 127.0.0.1:80    bytes 0..150
          must   00:00:00.016004  host1:nginx[2]  send 150 B to 127.0.0.1:40001   bytes 0..150
          must   00:00:00.016003  host1:nginx[2]  recv 83 B from 127.0.0.1:40001  same thread, 1.00 µs before
        origin   00:00:00.000003  host0:curl[1]   send 83 B to 127.0.0.1:80       bytes 0..83
                 nothing outside host0:curl[1] must precede it

        involved host0:curl[1], host1:nginx[2]
        excluded host0:cron[5], host1:redis[9]: no path in a complete window, if no pipe, file or memory joins it to them (--domain), nor anything beyond these recordings
        beyond   host 10.0.0.7:5432 is not in these recordings (1 connection, of host1:nginx[2]): a recording of it may lead further
        clocks   host1's clock is 15.99980 .. 16.00011 ms ahead of host0's, from 4 messages
        window   host0: 00:00:00.000000 .. 00:00:00.000005 UTC, 2 CPUs, nothing lost
        window   host1: 00:00:00.007000 .. 00:00:00.016005 UTC, 2 CPUs, nothing lost
    "#]],
    );
}

#[test]
fn who_is_excluded_is_so_as_far_as_recordings_reach() {
    let ask = ["why", "comm=curl op=recv", "--exclude-check", "comm=cron"];
    check(
        PROXIED,
        &ask,
        &expect![[r#"
        exit 0
        --- stdout
        excluded, as far as these recordings reach: nothing in them leads from it to the symptom
        events that match `comm=cron`: 1 excluded
        beyond   host 10.0.0.7:5432 is not in these recordings (1 connection, of host1:nginx[2]): a recording of it may lead further
    "#]],
    );
}

/// The proxy's recording ends before it sends the last bytes: whatever led to that is in none.
#[test]
fn nobody_is_excluded_where_a_recording_ended_before() {
    let received = "3000..4200        curl[1]    recv        on=1a bytes=0..150";
    let later = "4200..5200        curl[1]    recv        on=1a bytes=150..170";
    let lines = PROXIED.replace(received, &format!("{received}\n    {later}"));
    check(
        &lines,
        &["why", "comm=curl op=recv"],
        &expect![[r#"
            exit 0
            --- stdout
            symptom  00:00:00.000005  host0:curl[1]   recv 20 B from 127.0.0.1:80     bytes 150..170
              must   00:00:00.000004  host0:curl[1]   recv 150 B from 127.0.0.1:80    same thread, 1.00 µs before
              must   00:00:00.016004  host1:nginx[2]  send 150 B to 127.0.0.1:40001   bytes 0..150
              must   00:00:00.016003  host1:nginx[2]  recv 83 B from 127.0.0.1:40001  same thread, 1.00 µs before
            origin   00:00:00.000003  host0:curl[1]   send 83 B to 127.0.0.1:80       bytes 0..83
                     nothing outside host0:curl[1] must precede it
            frontier bytes 150..170 came from 127.0.0.1:80 after all that host1's recording has of it

            involved host0:curl[1], host1:nginx[2]
            unknown  host0:cron[5], host1:redis[9]: no path seen, but something is missing
            beyond   host 10.0.0.7:5432 is not in these recordings (1 connection, of host1:nginx[2]): a recording of it may lead further
            clocks   host1's clock is 15.99979 .. 16.00011 ms ahead of host0's, from 4 messages
            window   host0: 00:00:00.000000 .. 00:00:00.000006 UTC, 2 CPUs, nothing lost
            window   host1: 00:00:00.007000 .. 00:00:00.016005 UTC, 2 CPUs, nothing lost
            matched  2 events; this is about the last
        "#]],
    );
    let ask = ["why", "comm=curl op=recv", "--exclude-check", "comm=redis"];
    // One byte is enough.
    for lines in [&lines, &lines.replace("bytes=150..170", "bytes=150..151")] {
        check(
            lines,
            &ask,
            &expect![[r#"
                exit 0
                --- stdout
                cannot say: nothing is known to lead from it, but something is missing
                events that match `comm=redis`: 1 cannot say
                beyond   host 10.0.0.7:5432 is not in these recordings (1 connection, of host1:nginx[2]): a recording of it may lead further
            "#]],
        );
    }
    let unsent = "9004000..9004100  nginx[2]   send        on=1b bytes=0..150 host=1";
    let lines = PROXIED.replace(unsent, "");
    check(
        &lines,
        &ask,
        &expect![[r#"
        exit 0
        --- stdout
        cannot say: nothing is known to lead from it, but something is missing
        events that match `comm=redis`: 1 cannot say
    "#]],
    );
}

#[test]
fn clocks_are_told_by_check_too() {
    check(
        PROXIED,
        &["check"],
        &expect![[r#"
        exit 0
        --- stdout
        11 events, 23 edges: 23 must, 0 may
          interval             11 must           0 may
          program               5 must           0 may
          bytes                 2 must           0 may
          connection            5 must           0 may
        host0: 0 raised, 0 lost
        host1: 0 raised, 0 lost
        host1: its clock is 15.99980 .. 16.00011 ms ahead of host0's at 00:00:00.000004 (4 messages)
        every edge holds
    "#]],
    );
}

#[test]
fn other_programs_are_told_the_same() {
    let words = ["graph", ".", "--to", "json"];
    let said = asked(PROXIED, &["host0", "host1"], &[0, 7_000_000], &words);
    let (_, hosts) = said.split_once("],\"hosts\":").expect("hosts after the edges");
    expect![[r#"
        [
        {"name":"host0","boot_id":"","wall_offset_ns":0},
        {"name":"host1","boot_id":"","wall_offset_ns":7000000}
        ],"clocks":[
        {"host":"host1","of":"host0","at_ns":1000,"low_ns":8999796,"high_ns":9000102,"messages":4,"contradiction_ns":null},
        {"host":"host1","of":"host0","at_ns":4200,"low_ns":8999800,"high_ns":9000103,"messages":4,"contradiction_ns":null}
        ]}
    "#]]
    .assert_eq(hosts);
}

/// The answer comes before the question: a clock was set back, or one of the files is of another day.
#[test]
fn clocks_that_contradict_each_other_are_named() {
    let lines = "
        5000000..5000100  curl[1]   send on=1a bytes=0..83
        1000..2000        nginx[2]  recv on=1b bytes=0..83 host=1
        2000..2100        nginx[2]  send on=1b bytes=0..9 host=1
        1000..1100        curl[7]   recv on=1a bytes=0..9
    ";
    check(
        lines,
        &["why", "comm=curl op=recv tid=7"],
        &expect![[r#"
        exit 0
        --- stdout
        symptom  00:00:00.000001  host0:curl[7]   recv 9 B from 127.0.0.1:80      bytes 0..9
          must   00:00:00.007002  host1:nginx[2]  send 9 B to 127.0.0.1:40001     bytes 0..9
          must   00:00:00.007002  host1:nginx[2]  recv 83 B from 127.0.0.1:40001  same thread, 100 ns before
        origin   00:00:00.005000  host0:curl[1]   send 83 B to 127.0.0.1:80       bytes 0..83
                 nothing outside host0:curl[1] must precede it

        involved host0:curl[7], host1:nginx[2], host0:curl[1]
        clocks   no offset of the clocks of host0 and host1 fits their messages: one of the clocks was held or set (a machine that slept, or was copied while it ran?), or the recordings do not belong together
        window   host0: 00:00:00.000000 .. 00:00:00.005001 UTC, 2 CPUs, nothing lost
        window   host1: 00:00:00.007000 .. 00:00:00.007003 UTC, 2 CPUs, nothing lost
    "#]],
    );
    check(
        lines,
        &["check"],
        &expect![[r#"
        exit 1
        --- stdout
        4 events, 7 edges: 7 must, 0 may
          interval              4 must           0 may
          program               1 must           0 may
          bytes                 2 must           0 may
        host0: 0 raised, 0 lost
        host1: 0 raised, 0 lost
        wrong: clocks: no offset of the clocks of host0 and host1 fits their messages, those from event 1 to 2 and from 3 to 0 by 4993901 ns
    "#]],
    );
}

/// Wall clocks decades apart, monotonic times at both ends of what can be told: every command answers.
#[test]
fn absurd_clocks() {
    let mut history = history(PROXIED);
    let most = u64::MAX >> 1;
    history.hosts[0].wall_offset_ns = i64::MIN;
    history.hosts[1].wall_offset_ns = i64::MAX;
    for event in history.events.iter_mut().filter(|event| event.host == 1) {
        event.begin_ns += most - 10_000_000;
        event.time_ns += most - 10_000_000;
    }
    let window = Window { from_ns: most, to_ns: 3 };
    (history.hosts[1].bulk_window, history.hosts[1].rare_window) = (window, window);
    let folder = tempfile::tempdir().expect("a folder");
    for number in 0..2 {
        let path = folder.path().join(format!("{number}.parquet"));
        save(&path, &history, number).expect("save the recording");
    }
    for words in [
        &["why", ".", "comm=curl op=recv"][..],
        &["why", ".", "comm=curl op=recv", "--json"],
        &["why", ".", "comm=curl op=send", "--forward"],
        &["why", ".", "--missing", "comm=curl op=recv"],
        &["check", "."],
        &["graph", ".", "--to", "json"],
        &["graph", ".", "--to", "svg"],
        &["graph", ".", "--to", "dot"],
    ] {
        let mut asked = Command::new(wherefore());
        let output = asked.current_dir(folder.path()).args(words).output().expect("it starts");
        let said = tests::command::told(&output);
        assert!(said.starts_with("exit 0\n"), "{words:?}: {said}");
        assert!(!said.contains("panicked"), "{words:?}: {said}");
    }
}
