//! What patterns match, how they print, and what a bad one is told.

use std::net::{IpAddr, SocketAddr};

use expect_test::{Expect, expect, expect_file};
use proptest::collection::vec;
use proptest::prelude::*;

use super::value::{errno_name, masked};
use super::{
    AddressTest, FlagName, Glob, Key, Kind, Lane, Pattern, Relation, Test, TimeOfDay, Value,
};
use crate::container::Called;
use crate::event::{Address, Event, Flags, History, Host, Name, Op, Proof, Protocol, Ring};
use crate::netns::Namespace;

fn parse(text: &str) -> Pattern {
    text.parse().unwrap_or_else(|e| panic!("{e}"))
}

/// A history of one event, which the test may change.
fn history(change: impl Fn(&mut History, &mut Event)) -> (History, Event) {
    let mut history = History {
        // 12:00:00 UTC some day, at monotonic 0.
        hosts: vec![Host {
            name: "db-1".into(),
            wall_offset_ns: (20_000 * 86_400 + 43_200) * 1_000_000_000,
            ..Host::default()
        }],
        ..History::default()
    };
    let address = |text: &str| text.parse::<SocketAddr>().unwrap();
    let mut event = Event {
        time_ns: 1_204_316_000,
        begin_ns: 1_200_000_000,
        socket: 7,
        stream_start: 10,
        stream_end: 507,
        result: 497,
        iss: 1000,
        irs: 2000,
        pid: 4290,
        tid: 4291,
        comm: history.names.intern("redis-server"),
        cgroup: history.names.intern("/app.slice/redis"),
        local: history.names.intern_address(address("127.0.0.1:6379")),
        remote: history.names.intern_address(address("10.1.2.3:53122")),
        cpu: 1,
        position: 99,
        proof: Proof::Established,
        flags: Flags::RANGE.with(Flags::PEEK),
        ..Event::blank(Op::Recv)
    };
    change(&mut history, &mut event);
    (history, event)
}

/// Checks which of the patterns match; each is written with what is expected before it.
fn check((history, event): &(History, Event), patterns: &[(bool, &str)]) {
    for (expected, text) in patterns {
        assert_eq!(parse(text).matches(history, event), *expected, "{text}");
    }
}

#[test]
fn names_match_by_glob() {
    check(
        &history(|_, _| {}),
        &[
            (true, "comm=redis-server"),
            (false, "comm=redis"),
            (true, "comm=redis*"),
            (true, "comm=*server"),
            (true, "comm=*dis-*er"),
            (true, "comm=*"),
            (false, "comm=r*x*r"),
            (false, "comm=redis-s*server"),
            (false, "comm=\"redis*\""),
            (true, "comm=nginx,redis*"),
            (false, "comm!=nginx,redis*"),
            (true, "comm!=nginx"),
            (true, "host=db-* cgroup=/app.slice/*"),
            (false, "host=web"),
        ],
    );
    check(
        &history(|h, e| e.comm = h.names.intern("my \"app\"*")),
        &[(true, r#"comm="my \"app\"*""#), (true, r#"comm="my "*"#), (false, "comm=my")],
    );
    check(
        &history(|_, e| e.comm = Name::NONE),
        &[(true, "comm=\"\""), (true, "comm=*"), (false, "comm=redis-server")],
    );
}

#[test]
fn faults_match_by_name_and_where_there_is_none() {
    let struck = history(|history, event| event.fault = history.names.intern("redis goes away"));
    let patterns = [
        (true, "fault=redis*"),
        (true, "fault=\"redis goes away\""),
        (true, "fault=*"),
        (true, "fault!=none"),
        (false, "fault=other"),
        (false, "fault=none"),
    ];
    check(&struck, &patterns);
    let spared = history(|history, _| _ = history.names.intern("redis goes away"));
    check(&spared, &[(false, "fault=redis*"), (false, "fault=*"), (true, "fault=none")]);
}

#[test]
fn addresses_match_whole_by_port_and_by_block() {
    check(
        &history(|_, _| {}),
        &[
            (true, "local=127.0.0.1:6379"),
            (true, "local=:6379"),
            (true, "local=*:6379"),
            (true, "local=127.0.0.1"),
            (false, "local=127.0.0.2"),
            (false, "local=:80,127.0.0.1:80"),
            (true, "peer=10.0.0.0/8"),
            (true, "peer=10.200.0.0/8:53122"),
            (false, "peer=10.0.0.0/8:80"),
            (false, "peer=10.0.0.0/16"),
            (true, "peer=0.0.0.0/0"),
            (false, "peer=::/0"),
            (true, "remote!=127.0.0.1"),
            (true, "remote=*"),
            (false, "remote=none"),
        ],
    );
    let v6 = |text: &'static str| {
        move |h: &mut History, e: &mut Event| {
            e.remote = h.names.intern_address(text.parse().unwrap());
        }
    };
    check(
        &history(v6("[fe80::1]:80")),
        &[
            (true, "peer=[fe80::1]:80"),
            (true, "peer=fe80::1"),
            (true, "peer=[fe80::1]"),
            (true, "peer=fe80::/10"),
            (true, "peer=[fe80::/10]:80"),
            (false, "peer=[fe80::1]:81"),
        ],
    );
    check(
        &history(v6("[::ffff:10.0.0.1]:80")),
        &[(true, "peer=10.0.0.1:80"), (true, "peer=10.0.0.0/8")],
    );
    check(
        &history(|_, e| e.remote = Address::NONE),
        &[(true, "peer=none"), (false, "peer=*"), (false, "peer=:80"), (true, "peer!=:80")],
    );
}

#[test]
fn numbers_and_times_are_ordered() {
    check(
        &history(|_, _| {}),
        &[
            (true, "pid=4290 tid=4291 cpu=1 position=99 socket=7"),
            (true, "pid=1,4290"),
            (true, "result>496"),
            (false, "result>497"),
            (true, "result>=497"),
            (true, "result<=497"),
            (false, "result<497"),
            (true, "result!=1"),
            (true, "stream_start=10 stream_end=507 iss=1000 irs>1999"),
            (true, "duration=4316us"),
            (true, "duration>4.3ms"),
            (false, "duration>1s"),
            (true, "time_ns>1.2s begin_ns=1200000000"),
            (true, "time=12:00"),
            (true, "time=12:00:01"),
            (true, "time=12:00:01.2"),
            (false, "time=12:00:01.3"),
            (true, "time>12:00:00"),
            (false, "time>12:00:01"),
            (true, "time>=12:00:01"),
            (true, "time<=12:00"),
            (false, "time<12:00"),
            (true, "time<12:00:01.204317"),
        ],
    );
    check(
        &history(|_, e| (e.flags, e.proof) = (Flags::NONE, Proof::Unknown)),
        &[
            (false, "stream_start=10"),
            (true, "stream_start=none"),
            (false, "stream_end>0"),
            (false, "stream_end<1000"),
            (true, "iss=none"),
        ],
    );
}

#[test]
fn places_match_by_name_and_by_number() {
    let id = "3f4b1c2d5e6f70819a2b3c4d5e6f708192a3b4c5d6e7f8091a2b3c4d5e6f7081";
    let uid = "5b3c0e4e-3f8e-11e9-8d3c-0a580af40123";
    let place = |cgroup: &str| {
        history(|history, event| {
            event.cgroup = history.names.intern(cgroup);
            event.netns = 7;
            let called = [(id, "nginx"), (uid, "shop/web-0")];
            history.hosts[0].containers =
                called.map(|(id, name)| Called { id: id.into(), name: name.into() }).into();
            let red = Namespace { number: 7, inode: 4_026_532_561, name: "red".to_owned() };
            history.hosts[0].namespaces.push(red);
        })
    };
    check(
        &place(&format!("/kubepods/besteffort/pod{uid}/{id}")),
        &[
            (true, "container=nginx pod=web-0"),
            (true, &format!("container={id} pod={uid}")),
            (true, "container=3f4b1c2d5e6f pod=shop/*"),
            (true, "container=* pod=*"),
            (false, "container=none"),
            (false, "pod=none"),
            (false, "container=web-0"),
            (false, "pod=nginx"),
            (true, "container!=web-0"),
            (true, "netns=red"),
            (true, "netns=re*,blue"),
            (true, "netns=net:[4026532561]"),
            (true, "netns=4026532561"),
            (true, "netns=7"),
            (true, "netns=*"),
            (false, "netns=blue,8"),
            (false, "netns=none"),
        ],
    );
    check(
        &place("/system.slice/ssh.service"),
        &[(true, "container=none pod=none"), (false, "container=*"), (false, "pod=*")],
    );
    check(&place(&format!("/kubepods/pod{uid}")), &[(true, "container=none pod=web-0")]);
    check(&history(|_, e| e.cgroup = Name::NONE), &[(true, "container=none pod=none")]);
}

#[test]
fn words_match() {
    check(
        &history(|_, _| {}),
        &[
            (true, "op=recv"),
            (true, "op=send,recv"),
            (false, "op=re*_*"),
            (true, "error=none"),
            (false, "error=*"),
            (true, "error!=ECONNRESET"),
            (true, "protocol=tcp ring=bulk lane=thread"),
            (true, "protocol=tcp,udp protocol!=unix_* protocol=*"),
            (false, "protocol=unix_*"),
            (false, "lane=kernel"),
            (true, "flag=peek"),
            (true, "flag=eof,peek"),
            (false, "flag!=peek"),
            (false, "flag=none"),
            (true, "signal=none target=none netns=none"),
        ],
    );
    check(
        &history(|_, e| e.error = 104),
        &[
            (true, "error=ECONNRESET"),
            (true, "error=econnreset,EPIPE"),
            (true, "error=ECONN*"),
            (true, "error=104"),
            (true, "error=*"),
            (false, "error=none"),
            (false, "error=EAGAIN"),
            (false, "error!=ECONNRESET"),
            // A failed call has no count of bytes.
            (true, "result=none"),
            (false, "result=497"),
        ],
    );
    check(&history(|_, e| e.error = 11), &[(true, "error=EWOULDBLOCK"), (true, "error=EAGAIN")]);
    check(
        &history(|_, e| {
            (e.op, e.signal, e.tid, e.flags) = (Op::Signal, 9, 0, Flags::NONE);
            e.protocol = None;
        }),
        &[
            (true, "op=signal signal=SIGKILL"),
            (true, "signal=kill,TERM"),
            (true, "signal=9 lane=kernel tid=none"),
            (false, "signal=SIGTERM"),
            (true, "protocol=none flag=none"),
        ],
    );
}

#[test]
fn keys_are_told_once() {
    let keys = parse("op=send peer=:80 op!=recv remote=10.0.0.1").keys();
    assert_eq!(keys, [Key::Op, Key::Remote]);
}

#[track_caller]
fn check_print(text: &str, expected: Expect) {
    expected.assert_eq(&parse(text).to_string());
}

#[test]
fn prints_the_shortest_form() {
    check_print(
        r#"  comm=a**b,"my app"*,"plain"   peer=10.1.2.3/8  error=104,9999 "#.replace("9999", "4000").as_str(),
        expect![[r#"comm=a*b,"my app"*,plain remote=10.0.0.0/8 error=ECONNRESET,4000"#]],
    );
    check_print(
        "op=reset_* signal=9,kill",
        expect!["op=reset_sent,reset_received signal=SIGKILL,SIGKILL"],
    );
    check_print(
        "duration>=1500us duration<2000ms time_ns<5s time=12:05,12:05:06.070",
        expect!["duration>=1500us duration<2s time_ns<5000000000 time=12:05,12:05:06.070"],
    );
}

/// Each with what it is told in tests/errors.txt.
const BAD: [&str; 29] = [
    "",
    "op=recv com=redis",
    "strem_start=3",
    "xyzzy=3",
    "redis failed",
    "pid = 5",
    "op=recv =5",
    "op=recv,",
    "comm=",
    "comm=\"my app",
    "comm=\"a\\nb\"",
    "pid>abc",
    "pid=99999999999999999999",
    "pid>1,2",
    "pid>none",
    "comm>redis",
    "op=receive",
    "op=zzz",
    "error=ECONREFUSED",
    "error=0",
    "signal=99",
    "duration>5",
    "duration>0.5ns",
    "time=25:00",
    "peer=6379",
    "peer=localhost:80",
    "peer=10.0.0.0/33",
    "comm=a-very-long-program",
    "lane=user",
];

#[test]
fn errors_point_at_their_column_and_say_what_to_write() {
    let told = BAD.map(|text| text.parse::<Pattern>().expect_err(text).to_string());
    expect_file!["tests/errors.txt"].assert_eq(&(told.join("\n\n") + "\n"));
}

fn text_value() -> impl Strategy<Value = Value> {
    let piece = "[a-z0-9 ,\"*\\\\=<>äß]{1,4}";
    let pieces = (proptest::option::of(piece), vec(piece, 0..2), proptest::option::of(piece));
    pieces.prop_map(|(first, mut middle, last)| {
        if first.is_none() && middle.is_empty() && last.is_none() {
            return Value::Text(Glob { pieces: vec![String::new()] });
        }
        let mut pieces = vec![first.unwrap_or_default()];
        pieces.append(&mut middle);
        pieces.push(last.unwrap_or_default());
        // A thread's name has no more than 15 bytes.
        pieces.iter_mut().for_each(|p| *p = p.chars().take(1).collect());
        Value::Text(Glob { pieces })
    })
}

fn address_value() -> impl Strategy<Value = Value> {
    let ip = prop_oneof![
        (any::<[u8; 4]>(), 0..=32u8).prop_map(|(ip, bits)| (IpAddr::from(ip), bits)),
        (any::<[u8; 16]>(), 0..=128u8).prop_map(|(ip, bits)| (IpAddr::from(ip), bits)),
    ];
    let test = (proptest::option::of(ip), proptest::option::of(any::<u16>()));
    test.prop_filter("an address or a port", |(ip, port)| ip.is_some() || port.is_some()).prop_map(
        |(ip, port)| {
            let block = ip.map(|(ip, bits)| (masked(ip, bits).expect("enough bits"), bits));
            Value::Address(AddressTest { block, port })
        },
    )
}

fn time_value() -> impl Strategy<Value = Value> {
    let time = (0..86_400_000_000_000u64, prop_oneof![Just(10), 0..=9u32]);
    time.prop_map(|(ns, digits)| {
        let length_ns = if digits == 10 { 60_000_000_000 } else { 10u64.pow(digits) };
        Value::TimeOfDay(TimeOfDay { start_ns: ns / length_ns * length_ns, length_ns })
    })
}

fn word_value(key: Key) -> BoxedStrategy<Value> {
    let pick = proptest::sample::select::<Value>;
    match key {
        Key::Op => pick(Op::ALL.map(Value::Op).to_vec()).boxed(),
        Key::Protocol => pick(Protocol::ALL.map(Value::Protocol).to_vec()).boxed(),
        Key::Error => (1..=4095u16).prop_map(Value::Error).boxed(),
        Key::Signal => (1..=64u8).prop_map(Value::Signal).boxed(),
        Key::Ring => pick(vec![Value::Ring(Ring::Bulk), Value::Ring(Ring::Rare)]).boxed(),
        Key::Lane => pick(vec![Value::Lane(Lane::Thread), Value::Lane(Lane::Kernel)]).boxed(),
        _ => pick(FlagName::ALL.map(Value::Flag).to_vec()).boxed(),
    }
}

fn value(key: Key) -> BoxedStrategy<Value> {
    let number =
        || prop_oneof![any::<u64>().prop_map(i128::from), any::<i64>().prop_map(i128::from)];
    let known = match key.kind() {
        Kind::Text => text_value().boxed(),
        Kind::Number | Kind::Nanoseconds => number().prop_map(Value::Number).boxed(),
        Kind::Duration => (any::<u32>(), 0..=9u32)
            .prop_map(|(n, e)| Value::Number(i128::from(n) * 10i128.pow(e)))
            .boxed(),
        Kind::TimeOfDay => time_value().boxed(),
        Kind::Address => address_value().boxed(),
        Kind::Word => word_value(key),
    };
    if key.may_be_absent() {
        prop_oneof![4 => known, 1 => Just(Value::None), 1 => Just(Value::Any)].boxed()
    } else {
        known
    }
}

fn test() -> impl Strategy<Value = Test> {
    proptest::sample::select(Key::ALL.to_vec()).prop_flat_map(|key| {
        let one_of =
            (proptest::sample::select(vec![Relation::Is, Relation::IsNot]), vec(value(key), 1..4));
        let one = (
            proptest::sample::select(vec![
                Relation::Greater,
                Relation::GreaterOrEqual,
                Relation::Less,
                Relation::LessOrEqual,
            ]),
            value(key).prop_map(|value| vec![value]),
        );
        let ordered = matches!(
            key.kind(),
            Kind::Number | Kind::Nanoseconds | Kind::Duration | Kind::TimeOfDay
        );
        let any = if ordered { prop_oneof![one_of, one].boxed() } else { one_of.boxed() };
        any.prop_filter("none and * are not ordered", |(relation, values)| {
            !relation.orders() || !matches!(values[..], [Value::None | Value::Any])
        })
        .prop_map(move |(relation, values)| Test { key, relation, values })
    })
}

proptest! {
    #[test]
    fn parsing_what_was_printed_gives_it_back(tests in vec(test(), 1..4)) {
        let pattern = Pattern { tests };
        let text = pattern.to_string();
        let parsed = text.parse::<Pattern>();
        prop_assert_eq!(parsed.as_ref().map_err(ToString::to_string), Ok(&pattern), "{}", text);
    }

    #[test]
    fn no_text_panics_and_columns_lie_within_it(text in "[a-z_=!<>,\"\\\\* 0-9:./\\[\\]]{0,30}") {
        if let Err(error) = text.parse::<Pattern>() {
            prop_assert!((1..=text.chars().count() + 1).contains(&error.column));
        }
    }

    #[test]
    fn a_glob_matches_what_its_pieces_are_found_in(
        pieces in vec("[ab]{1,2}", 1..4), between in vec("[abc]{0,3}", 3),
    ) {
        let mut text = pieces[0].clone();
        for (piece, between) in pieces[1..].iter().zip(between) {
            text += &between;
            text += piece;
        }
        let glob = Glob { pieces };
        prop_assert!(glob.matches(&text));
    }

    #[test]
    fn not_is_the_opposite(test in test(), error in 0..200u16, tid in 0..2u32) {
        prop_assume!(!test.relation.orders());
        let (history, event) = history(|_, e| (e.error, e.tid) = (error, tid));
        let is = Pattern { tests: vec![Test { relation: Relation::Is, ..test.clone() }] };
        let is_not = Pattern { tests: vec![Test { relation: Relation::IsNot, ..test }] };
        prop_assert_ne!(is.matches(&history, &event), is_not.matches(&history, &event));
    }
}

#[test]
fn every_errno_and_signal_has_a_name_that_parses() {
    for error in 1..134 {
        if let Some(name) = errno_name(error) {
            assert_eq!(parse(&format!("error={name}")).tests[0].values, [Value::Error(error)]);
        }
    }
}
