use super::*;
use crate::graph::written::history;

fn clocks(text: &str) -> Clocks {
    let history = history(text);
    Clocks::new(&history, &Graph::build(&history))
}

fn told(reading: &Result<Reading, Contradiction>) -> String {
    match reading {
        Ok(Reading { of, at_ns, offsets }) => {
            let ns = |bound: Option<i128>| bound.map_or("?".to_owned(), |ns| ns.to_string());
            let told = offsets.iter().map(|o| {
                format!("{}: {}..{} from {}", o.host, ns(o.low_ns), ns(o.high_ns), o.messages)
            });
            format!("host {of} at {at_ns}: {}", told.collect::<Vec<_>>().join(", "))
        }
        Err(Contradiction { hosts: [a, b], by_ns, messages }) => {
            format!("{a} and {b} contradict by {by_ns}, {}", messages.is_some())
        }
    }
}

fn at(clocks: &Clocks, of: u16, at_ns: u64) -> String {
    told(&clocks.at(of, at_ns))
}

/// A question and its answer between hosts whose clocks are about 2,000,000 apart.
const ASKED: &str = "
    a send 1 0..9 begin=5000000 at=5000050
    b recv 2 0..9 host=1 at=7000120
    b send 2 0..4 host=1 begin=7000180 at=7000200
    a recv 1 0..4 at=5000310
";

#[test]
fn a_question_and_its_answer_bound_the_offset_from_both_sides() {
    let clocks = clocks(ASKED);
    assert_eq!(at(&clocks, 0, 5_000_100), "host 0 at 5000100: 1: 1999869..2000121 from 2");
    assert_eq!(at(&clocks, 1, 7_000_100), "host 1 at 7000100: 0: -2000121..-1999869 from 2");
}

/// Two clocks may part by one part in a thousand.
#[test]
fn a_bound_is_weaker_the_longer_ago_it_is() {
    let clocks = clocks(ASKED);
    assert_eq!(at(&clocks, 0, 5_000_310), "host 0 at 5000310: 1: 1999870..2000121 from 2");
    assert_eq!(at(&clocks, 0, 105_000_310), "host 0 at 105000310: 1: 1899870..2100121 from 2");
    assert_eq!(at(&clocks, 0, 0), "host 0 at 0: 1: 1994869..2005120 from 2");
}

#[test]
fn one_way_bounds_one_side() {
    let clocks = clocks("a send 1 0..9 begin=1000 at=1010 / b recv 2 0..9 host=1 at=500");
    assert_eq!(at(&clocks, 0, 1000), "host 0 at 1000: 1: ?..-500 from 1");
    assert_eq!(at(&clocks, 1, 500), "host 1 at 500: 0: 500..? from 1");
}

/// Host 2 exchanges messages with host 1 alone: host 0 knows of it through that.
#[test]
fn a_host_that_was_spoken_to_through_another() {
    let clocks = clocks(
        "
        a send 1 0..9 begin=100 at=110
        b recv 2 0..9 host=1 at=1120
        b send 3 0..9 host=1 begin=1120 at=1130
        c recv 4 0..9 host=2 at=5140
        c send 4 0..9 host=2 begin=5140 at=5150
        b recv 3 0..9 host=1 at=1160
        b send 2 0..9 host=1 begin=1160 at=1170
        a recv 1 0..9 at=200
        ",
    );
    assert_eq!(at(&clocks, 0, 150), "host 0 at 150: 1: 959..1021 from 2, 2: 4938..5042 from 0");
}

#[test]
fn hosts_that_never_spoke_are_not_compared() {
    let clocks = clocks("a send 1 0..9 / b recv 3 0..9 host=1");
    assert_eq!(at(&clocks, 0, 1000), "host 0 at 1000: ");
    assert_eq!(clocks.readings(), []);
}

/// The same host is no other host, and a possible edge tells nothing.
#[test]
fn only_proven_messages_between_hosts_count() {
    let same = clocks("a send 1 0..9 / b recv 2 0..9");
    assert_eq!(same.messages(0, 0), 0);
    let hole = "a send 1 50..60 / b recv 2 50..55 host=1";
    assert_eq!(clocks(hole).messages(0, 1), 0);
}

/// The answer was received, on host 0, long before the question was sent.
#[test]
fn messages_that_fit_no_offset_are_named() {
    let clocks = clocks(
        "
        b recv 2 0..9 host=1 at=7000120
        b send 2 0..4 host=1 begin=7000180 at=7000200
        a recv 1 0..4 at=4000000
        a send 1 0..9 begin=5000000 at=5000050
        ",
    );
    assert_eq!(at(&clocks, 0, 5_000_000), "0 and 1 contradict by 999060, false");
    let found = clocks.contradictions();
    assert_eq!(found.len(), 1);
    // 1,000,060 apart, of which 1000 may be drift.
    assert_eq!(told(&Err(found[0])), "0 and 1 contradict by 999060, true");
    let [forth, back] = found[0].messages.expect("one each way");
    assert_eq!((forth.cause_ns, back.effect_ns), (5_000_000, 4_000_000));
}

/// Each pair of hosts is at peace, and the circle is not: a message would have come before it was sent.
#[test]
fn a_circle_of_hosts_that_fits_no_offsets_is_named() {
    let pairs = [("a", 1, 0, "b", 2, 1), ("b", 3, 1, "c", 4, 2), ("c", 5, 2, "a", 6, 0)];
    let lines = pairs.map(|(from, out, sender, to, into, receiver)| {
        format!(
            "
            {from} send {out} 0..9 host={sender} begin=1000 at=1000
            {to} recv {into} 0..9 host={receiver} at=900
            {to} send {into} 0..9 host={receiver} begin=1000 at=1000
            {from} recv {out} 0..9 host={sender} at=3000
            "
        )
    });
    let circle = clocks(&lines.concat());
    assert!(circle.at(0, 1000).is_err());
    assert_eq!(circle.contradictions()[0].messages, None);
    let chain = clocks(&lines[..2].concat());
    assert_eq!(at(&chain, 0, 1000), "host 0 at 1000: 1: -2002..-100 from 2, 2: -4007..-197 from 0");
}

#[test]
fn absurd_clocks_are_bounded_too() {
    let clocks = clocks(
        "
        a send 1 0..9 begin=1 at=2
        b recv 2 0..9 host=1 at=18446744073709551610
        b send 2 0..4 host=1 begin=18446744073709551611 at=18446744073709551612
        a recv 1 0..4 at=9
        ",
    );
    let expected = "host 0 at 5: 1: 18446744073709551601..18446744073709551610 from 2";
    assert_eq!(at(&clocks, 0, 5), expected);
}

/// Of many messages few are kept, and those are the ones that tell most.
#[test]
fn of_many_messages_the_strictest_are_kept() {
    let mut way = Way::default();
    for i in 0..100_000_u64 {
        let late = if i == 77_777 { 5 } else { 100 + i % 100 };
        let (cause_ns, effect_ns) = (i * 1000, i * 1000 + late);
        way.add(Bound { cause: 0, effect: 0, cause_ns, effect_ns });
    }
    way.thin();
    assert!(way.bounds.len() <= BOUNDS_MAX, "{}", way.bounds.len());
    assert_eq!(way.messages, 100_000);
    let known = Interval { low: Some(0), high: Some(0) };
    let most = |at_ns| way.most(at_ns, known, Interval::default());
    assert_eq!(most(77_777_000), Some(5));
    assert_eq!(most(77_777_000 + 50_000), Some(55));
}
