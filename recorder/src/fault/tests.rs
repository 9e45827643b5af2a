use std::fmt::Write;
use std::path::Path;
use std::time::Duration;

use expect_test::{expect, expect_file};
use proptest::prelude::*;

use super::spec::{
    Action, Drop, Fault, Faults, Latch, Limit, Mechanism, Nature, Partition, Pick, Syscall, Target,
    When,
};
use super::{form, line, parse, print};
use crate::pattern::Pattern;

const FILE: &str = r#"
seed = 7

[[fault]]
name = "redis goes away on the third read"
match = "comm=redis-cli op=recv peer=:6379"
when = { nth = 3, after = "op=connect peer=:6379" }
do = { error = "ECONNRESET" }
limit = { count = 1, for = "30s" }

[[fault]]
name = "no port to be had"
match = "comm=app"
syscall = ["bind", "listen"]
from = "2s"
until = "comm=app op=exit"
do = { error = "EADDRINUSE" }
via = "override"

[[partition]]
name = "split brain"
between = ["cgroup=/a", "peer=10.0.0.0/24"]
one-way = true
until = "10s"
"#;

#[test]
fn a_file_is_read_and_written_back() {
    let faults = parse::file("faults.toml", FILE).unwrap();
    expect![[r#"
        seed = 7

        [[fault]]
        name = "redis goes away on the third read"
        match = "comm=redis-cli op=recv remote=:6379"

        [fault.when]
        nth = 3
        after = "op=connect remote=:6379"

        [fault.do]
        error = "ECONNRESET"

        [fault.limit]
        count = 1
        for = "30s"

        [[fault]]
        name = "no port to be had"
        match = "comm=app"
        syscall = ["bind", "listen"]
        from = "2s"
        until = "comm=app op=exit"
        via = "override"

        [fault.do]
        error = "EADDRINUSE"

        [[partition]]
        name = "split brain"
        between = ["cgroup=/a", "remote=10.0.0.0/24"]
        one-way = true
        until = "10s"
    "#]]
    .assert_eq(&faults.to_toml());
}

#[test]
fn a_line_says_what_a_file_says() {
    let fault = line::parse("comm=app op=connect peer=:5432 => error=ECONNREFUSED, nth=3", "fault");
    let text = print::line(&fault.unwrap()).unwrap();
    let told = "comm=app op=connect remote=:5432 => error=ECONNREFUSED, nth=3, name=fault";
    assert_eq!(text, told);
    let text = "comm=\"a, => b\" op=recv => kill=TERM, every=2, after=\"comm=\\\"a b\\\" op=connect\", from=2s, until=\"op=exit pid=1\", count=5, for=1500ms, via=signal, syscall=\"read readv\", name=\"a \\\"b\\\"\"";
    let one = line::parse(text, "fault").unwrap();
    assert_eq!(one.name, "a \"b\"");
    assert_eq!(line::parse(&print::line(&one).unwrap(), "").unwrap(), one);
}

/// What is wrong with each of these, as a person reads it.
#[test]
fn errors_name_line_and_column_and_say_what_to_write() {
    let mut told = String::new();
    for (i, text) in WRONG.iter().enumerate() {
        let text = text.trim_start_matches('\n');
        let error = match text.contains("[[") || i == 0 {
            true => parse::file("faults.toml", text).expect_err(text),
            false => line::parse(text, "fault").expect_err(text),
        };
        writeln!(told, "{error}\n").unwrap();
    }
    expect_file!["tests/errors.txt"].assert_eq(&told);
}

/// A file with one fault: the one that is given, or a good one, for each of its lines.
const WRONG: [&str; 43] = [
    "seed = 1",
    "[[fault]\nname = 1",
    "[[fault]]\nnmae = \"a\"",
    "[[fault]]\nname = \"a\"\nmatch = \"comm=a op=recv\"\ndo = { eror = \"EIO\" }",
    "[[fault]]\nname = \"a\"\nmatch = \"comm=a op=recv\"\nwhen = { nth = 1, xyzzy = 2 }\ndo = { error = \"EIO\" }",
    "[[fault]]\nmatch = \"comm=a op=recv\"\ndo = { error = \"EIO\" }",
    "[[fault]]\nname = \"\"\nmatch = \"comm=a op=recv\"\ndo = { error = \"EIO\" }",
    "[[fault]]\nname = \"a\"\nmatch = \"comm=a op=rcv\"\ndo = { error = \"EIO\" }",
    "[[fault]]\nname = \"a\"\nmatch = 'comm=\"é b\" pere=:80'\ndo = { error = \"EIO\" }",
    "[[fault]]\nname = \"a\"\nmatch = \"comm=a op=recv\"\ndo = { error = \"ECONREFUSED\" }\nlimit = { count = 1 }",
    "[[fault]]\nname = \"a\"\nmatch = \"comm=a op=recv\"\nwhen = { nth = \"3\" }\ndo = { error = \"EIO\" }",
    "[[fault]]\nname = \"a\"\nmatch = \"comm=a op=recv\"\ndo = { error = \"EIO\" }",
    "[[fault]]\nname = \"a\"\nmatch = \"comm=a op=recv\"\ndo = {}\nlimit = { count = 1 }",
    "[[fault]]\nname = \"a\"\nmatch = \"comm=a op=recv\"\ndo = { error = \"EIO\", pause = \"1s\" }\nlimit = { count = 1 }",
    "[[fault]]\nname = \"a\"\nmatch = \"comm=a op=recv\"\ndo = { destroy = false }\nlimit = { count = 1 }",
    "[[fault]]\nname = \"a\"\nmatch = \"comm=a op=recv\"\ndo = { kill = \"SIGKIL\" }\nlimit = {}",
    "[[fault]]\nname = \"a\"\nmatch = \"comm=a op=recv\"\ndo = { pause = \"SIGKIL\" }\nlimit = {}",
    "[[fault]]\nname = \"a\"\nmatch = \"comm=a op=recv\"\ndo = { kill = \"SIGKILL\" }\nlimit = {}",
    "[[fault]]\nname = \"a\"\nmatch = \"comm=a\"\nsyscall = \"conect\"\ndo = { error = \"EIO\" }\nlimit = { count = 1 }",
    "[[fault]]\nname = \"a\"\nmatch = \"comm=a\"\nsyscall = [\"read\", \"mmap\"]\ndo = { error = \"EIO\" }\nlimit = { count = 1 }",
    "[[fault]]\nname = \"a\"\nmatch = \"comm=a\"\nsyscall = []\ndo = { error = \"EIO\" }\nlimit = { count = 1 }",
    "[[fault]]\nname = \"a\"\nmatch = \"comm=a op=recv\"\nnth = 3\ndo = { error = \"EIO\" }",
    "[[fault]]\nname = \"a\"\nmatch = \"comm=a op=recv\"\nvia = \"ptracer\"\ndo = { error = \"EIO\" }\nlimit = { count = 1 }",
    "[[fault]]\nname = \"a\"\nmatch = \"comm=a op=recv\"\nfrom = \"never\"\ndo = { error = \"EIO\" }\nlimit = { count = 1 }",
    "[[fault]]\nname = \"a\"\nmatch = \"comm=a op=recv\"\nfrom = \"3s\"\nuntil = \"2s\"\ndo = { error = \"EIO\" }\nlimit = { count = 1 }",
    "[[fault]]\nname = \"a\"\nmatch = \"comm=a op=recv\"\nfrom = \"soon\"\ndo = { error = \"EIO\" }\nlimit = { count = 1 }",
    "[[fault]]\nname = \"a\"\nmatch = \"comm=a op=recv\"\ndo = { error = \"EIO\" }\nlimit = { count = 1 }\n\n[[fault]]\nname = \"a\"\nmatch = \"comm=a op=recv\"\ndo = { error = \"EIO\" }\nlimit = { count = 1 }",
    "[[partition]]\nname = \"a\"\nbetween = [\"cgroup=/a\"]\nuntil = \"1s\"",
    "[[partition]]\nname = \"a\"\nbetween = [\"cgroup=/a\", \"cgroup=/b\"]",
    "[[partition]]\nname = \"a\"\nbetween = [\"cgroup=/a\", \"cgruop=/b\"]\nuntil = \"1s\"",
    "comm=app op=connect",
    "comm=app op=connect => ",
    "comm=app op=connect => error",
    "comm=app op=connect => error=ECONNREFUSED, nht=3",
    "comm=app op=connect => error=ECONNREFUSED, nth=0",
    "comm=app op=connect => error=ECONNREFUSED, nth=3, every=2",
    "comm=app op=connect => error=ECONNREFUSED, probability=1.5, count=1",
    "comm=app op=connect => error=ECONNREFUSED, probability=0, count=1",
    "comm=app op=connect => error=ECONNREFUSED",
    "comm=app op=fork peer=:80 => kill=KILL, nth=1",
    "comm=a comm=b op=recv => kill=KILL, nth=1",
    "comm=app op=recv => return=99999999999, nth=1",
    "comm=app op=recv => drop=all, nth=1",
];

/// The schema that editors check fault files with.
#[test]
fn the_schema_is_the_one_in_docs() {
    let schema = serde_json::to_string_pretty(&form::schema()).unwrap() + "\n";
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/fault.schema.json");
    expect_file![path].assert_eq(&schema);
}

fn pattern() -> impl Strategy<Value = Pattern> {
    const TEXTS: [&str; 4] = [
        "comm=redis-cli op=recv remote=:6379",
        "pid=12,13 op=send",
        "comm=\"my, \\\"app\\\" => é\" op=connect",
        "cgroup=/a/* op=close local=10.0.0.0/8",
    ];
    prop::sample::select(&TEXTS[..]).prop_map(|text| text.parse().unwrap())
}

fn duration() -> impl Strategy<Value = Duration> {
    (1..u64::MAX / 2).prop_map(Duration::from_nanos)
}

fn latch(default: Latch) -> impl Strategy<Value = Latch> {
    let after = (1..1000u64).prop_map(|ms| Latch::After(Duration::from_millis(ms)));
    prop_oneof![Just(default), after, pattern().prop_map(Latch::At)]
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        (1..4096u16).prop_map(Action::Error),
        (-4095..=i64::from(i32::MAX)).prop_map(Action::Return),
        prop::sample::select(Drop::ALL.to_vec()).prop_map(Action::Drop),
        duration().prop_map(Action::Delay),
        duration().prop_map(Action::Pause),
        (1..65u8).prop_map(Action::Kill),
        prop::sample::select(vec![Action::Destroy, Action::Crash, Action::Restart]),
    ]
}

fn when() -> impl Strategy<Value = When> {
    let count = 1..=i64::MAX as u64;
    let pick = prop_oneof![
        Just(Pick::All),
        count.clone().prop_map(Pick::Nth),
        count.prop_map(Pick::Every),
        (1e-9..1.0f64).prop_map(Pick::Probability),
    ];
    let maybe = || prop::option::of(pattern());
    (pick, maybe(), maybe()).prop_map(|(pick, after, before)| When { pick, after, before })
}

fn limit() -> impl Strategy<Value = Limit> {
    let count = prop::option::of(1..1000u64);
    (count, duration()).prop_map(|(count, duration)| Limit { count, duration: Some(duration) })
}

fn nature() -> impl Strategy<Value = Nature> {
    let all = Syscall::ALL.map(|(syscall, _)| syscall).to_vec();
    let syscalls = prop::sample::subsequence(all, 0..3);
    let target =
        (pattern(), syscalls, when(), action()).prop_map(|(pattern, syscalls, when, action)| {
            Nature::Event(Target { pattern, syscalls, when, action })
        });
    let error = prop::option::of(1..4096u16);
    let cut = (pattern(), pattern(), any::<bool>(), error).prop_map(|(a, b, one_way, error)| {
        Nature::Partition(Partition { between: [a, b], one_way, error })
    });
    prop_oneof![3 => target, 1 => cut]
}

fn fault() -> impl Strategy<Value = Fault> {
    let via = prop::option::of(prop::sample::select(Mechanism::ALL.to_vec()));
    (nature(), latch(Latch::Now), latch(Latch::Never), limit(), via).prop_map(
        |(nature, from, until, limit, via)| {
            let until = match (&from, until) {
                (Latch::After(from), Latch::After(until)) => Latch::After(*from + until),
                (_, until) => until,
            };
            Fault { name: String::new(), nature, from, until, limit, via }
        },
    )
}

proptest! {
    #[test]
    fn what_is_printed_is_parsed_to_the_same(
        seed in prop::option::of(0..=i64::MAX as u64),
        mut faults in prop::collection::vec(fault(), 1..4),
    ) {
        faults.sort_by_key(|fault| matches!(fault.nature, Nature::Partition(_)));
        for (i, fault) in faults.iter_mut().enumerate() {
            fault.name = format!("{i}: a \"name\", é => \\");
        }
        for fault in &faults {
            if let Some(text) = print::line(fault) {
                prop_assert_eq!(&line::parse(&text, "").unwrap(), fault, "{}", text);
            }
        }
        let faults = Faults { seed, faults };
        let text = faults.to_toml();
        prop_assert_eq!(parse::file("", &text).unwrap(), faults, "{}", text);
    }

    #[test]
    fn no_text_makes_the_parsers_panic(text in "(\\PC|[\\[\\]\"=,>\n])*") {
        let _ = parse::file("", &text);
        let _ = line::parse(&text, "");
    }
}
