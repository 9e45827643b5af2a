//! Small histories, and what is unusual in them after others.

use expect_test::{Expect, expect};
use jiff::{Timestamp, ToSpan};

use super::shapes::{Shape, Shaper};
use super::unusual::{LEAST_SAMPLES, unusual};
use super::*;
use crate::graph::written::history;
use crate::hide::Hide;

/// Process a is nginx and asks on port 40000; b is app and listens on port 81; c is one of many workers.
fn shapes(text: &str) -> Shapes {
    let text = text
        .replace(" ask", " 1 local=127.0.0.1:40000 remote=127.0.0.1:81")
        .replace(" serve", " 2 local=127.0.0.1:81 remote=127.0.0.1:40000");
    let mut history = history(&text);
    let names = ["", "nginx", "app", "worker-17"].map(|name| history.names.intern(name));
    for event in &mut history.events {
        // Of the kernel's own acts the socket's owner is told.
        event.pid = event.pid.max(1);
        event.comm = names[event.pid as usize];
    }
    let until_ns = history.events.last().map_or(0, |event| event.time_ns);
    let mut shaper = Shaper::new(0, Hide::default());
    shaper.add(&history.names, &history.events);
    shaper.end(until_ns).0
}

#[test]
fn a_hidden_name_is_in_no_shape() {
    let mut history = history("a send 1 local=127.0.0.1:40000 remote=127.0.0.1:81 0..9");
    history.events[0].comm = history.names.intern("acme-7");
    let hide = Hide::try_from(vec!["acme*".to_owned()]).expect("a pattern");
    let mut shaper = Shaper::new(0, hide);
    shaper.add(&history.names, &history.events);
    expect!["hidden:81 send 1; 0 answers\n"].assert_eq(&told(&shaper.end(1).0));
}

fn told(shapes: &Shapes) -> String {
    let told = shapes.iter().map(|(pair, Shape { acts, waits })| {
        let acts: Vec<String> = acts.iter().map(|(act, n)| format!("{act} {n}")).collect();
        format!("{}:{} {}; {} answers\n", pair.who, pair.port, acts.join(", "), waits.count())
    });
    told.collect()
}

#[test]
fn a_conversation_is_seen_from_the_end_that_asks() {
    let shapes = shapes(
        "a connect ask
        a send ask 0..9
        b recv serve 0..9
        b send serve 0..5
        a recv ask error=EAGAIN
        a recv ask 0..3
        a recv ask 3..5
        a send ask 9..18
        k reset_received ask
        a recv ask error=ECONNRESET
        a recv ask eof
        c send 3 local=127.0.0.1:5 remote=127.0.0.1:6 0..9
        c send 3 local=127.0.0.1:6 remote=127.0.0.1:5 active 0..9
        c send 3 protocol=udp local=127.0.0.1:9 remote=127.0.0.1:5 0..9
        c fork target=b",
    );
    expect![[r#"
        nginx:81 connect 1, recv 2, recv ECONNRESET 1, recv EOF 1, reset_received 1, send 2; 1 answers
        worker:5 send 1; 0 answers
    "#]]
    .assert_eq(&told(&shapes));
}

#[test]
fn a_request_without_an_answer_counts_when_it_is_old() {
    let text = |at: u64| format!("a send ask 0..9\na connect 5 at={at}");
    assert!(told(&shapes(&text(900_000_000))).ends_with("0 answers\n"));
    assert!(told(&shapes(&text(1_500_000_000))).ends_with("1 answers\n"));
    let closed = "a send ask 0..9\na close ask\na connect 5 at=1500000000";
    assert!(told(&shapes(closed)).ends_with("0 answers\n"));
}

/// Requests of nginx, each answered after so many µs; `more` is added.
fn traffic(requests: u64, wait_us: u64, more: &str) -> Shapes {
    let mut text = String::new();
    for number in 0..requests {
        let at = (number + 1) * 10_000_000_000;
        text += &format!("a send ask 0..9 at={at}\na recv ask 0..9 at={}\n", at + wait_us * 1000);
    }
    shapes(&(text + more))
}

fn minute(number: u64) -> Timestamp {
    Timestamp::UNIX_EPOCH + (number as i64).minutes()
}

/// So many samples, a minute apart.
fn learnt(samples: u64, each: &Shapes) -> Profile {
    let mut profile = Profile::new(minute(0));
    (0..samples).for_each(|number| profile.learn(each, minute(number)));
    profile
}

fn check(profile: &Profile, shapes: &Shapes, from: u64, expected: Expect) {
    let found = unusual(profile, shapes, minute(from));
    expected.assert_eq(&found.iter().map(|u| format!("{u}\n")).collect::<String>());
}

const RESET: &str = "a recv ask error=ECONNRESET\n";

#[test]
fn what_is_as_usual_is_not_told() {
    let usual = traffic(20, 2000, RESET);
    let profile = learnt(60, &usual);
    check(&profile, &usual, 60, expect![""]);
    check(&profile, &traffic(200, 1500, RESET), 60, expect![""]);
    // Faster is no trouble, and a few slow ones are no tendency.
    check(&profile, &traffic(20, 20, ""), 60, expect![""]);
    check(&profile, &traffic(5, 900_000, ""), 60, expect![""]);
}

#[test]
fn a_failure_that_was_not_there_before_is_new() {
    let profile = learnt(60, &traffic(20, 2000, ""));
    let now = traffic(20, 2000, &RESET.repeat(12));
    let expected =
        "new      nginx to :81  recv ECONNRESET, 12 times; not in 60 samples of 60.0 min before\n";
    let found = unusual(&profile, &now, minute(60));
    assert_eq!(found.iter().map(|u| format!("{u}\n")).collect::<String>(), expected);
}

#[test]
fn of_one_failure_the_call_is_told_and_the_end_of_a_stream_when_it_comes_often() {
    let profile = learnt(60, &traffic(20, 2000, ""));
    let all = "k reset_received ask\nk error ask error=ECONNRESET\na recv ask error=ECONNRESET\n\
               a closed ask error=ETIMEDOUT\na recv ask eof\n";
    check(
        &profile,
        &traffic(20, 2000, all),
        60,
        expect![[r#"
            new      nginx to :81  recv ECONNRESET, once; not in 60 samples of 60.0 min before
            new      nginx to :81  closed ETIMEDOUT, once; not in 60 samples of 60.0 min before
        "#]],
    );
    check(&profile, &traffic(20, 2000, &"a recv ask eof\n".repeat(4)), 60, expect![""]);
    check(
        &profile,
        &traffic(20, 2000, &"a recv ask eof\n".repeat(5)),
        60,
        expect![[r#"
            new      nginx to :81  recv EOF, 5 times; not in 60 samples of 60.0 min before
        "#]],
    );
}

#[test]
fn what_was_learnt_of_the_incident_itself_does_not_make_it_usual() {
    let mut profile = learnt(60, &traffic(20, 2000, ""));
    let now = traffic(20, 2000, &RESET.repeat(12));
    (60..63).for_each(|number| profile.learn(&now, minute(number)));
    check(
        &profile,
        &now,
        60,
        expect![[r#"
            new      nginx to :81  recv ECONNRESET, 12 times; not in 60 samples of 60.0 min before
        "#]],
    );
    check(
        &profile,
        &now,
        64,
        expect![[r#"
        more     nginx to :81  recv ECONNRESET, 12 times: 23.1 % of what they do, before 1.43 %
    "#]],
    );
}

#[test]
fn answers_that_take_longer_are_told_by_the_middle_or_by_the_last() {
    let profile = learnt(60, &traffic(20, 2000, ""));
    check(
        &profile,
        &traffic(40, 900_000, ""),
        60,
        expect![[r#"
            slow     nginx to :81  p50 of 40 answers 759 ms, before 1.48 ms
        "#]],
    );
    let mut some = traffic(400, 2000, "");
    for (pair, shape) in traffic(10, 900_000, "") {
        some.get_mut(&pair).expect("the same").waits.add_all(&shape.waits);
    }
    check(
        &profile,
        &some,
        60,
        expect![[r#"
            slow     nginx to :81  p99 of 410 answers 808 ms, before 2.08 ms
        "#]],
    );
}

#[test]
fn a_failure_that_comes_more_often_is_told_with_its_share() {
    let profile = learnt(60, &traffic(200, 2000, RESET));
    check(&profile, &traffic(200, 2000, &RESET.repeat(8)), 60, expect![""]);
    check(
        &profile,
        &traffic(200, 2000, &RESET.repeat(100)),
        60,
        expect![[r#"
            more     nginx to :81  recv ECONNRESET, 100 times: 20.0 % of what they do, before 0.25 %
        "#]],
    );
}

#[test]
fn two_who_never_talked_before_are_told_last() {
    let profile = learnt(60, &traffic(20, 2000, ""));
    let new = "c send 3 local=127.0.0.1:40001 remote=127.0.0.1:5432 0..9\n";
    // A port that whoever asks for any may get.
    let any = "c send 5 active local=127.0.0.1:40002 remote=127.0.0.1:40003 0..9\n";
    check(
        &profile,
        &traffic(20, 2000, &format!("{RESET}{new}{any}")),
        60,
        expect![[r#"
            new      nginx to :81  recv ECONNRESET, once; not in 60 samples of 60.0 min before
            new      worker to :5432  1 events; not in 60 samples of 60.0 min before
        "#]],
    );
}

#[test]
fn a_young_profile_says_nothing() {
    let now = traffic(20, 2000, RESET);
    let usual = traffic(20, 2000, "");
    assert_eq!(unusual(&learnt(LEAST_SAMPLES - 1, &usual), &now, minute(60)), []);
    assert_eq!(unusual(&learnt(LEAST_SAMPLES, &usual), &now, minute(60)).len(), 1);
    // Only what was learnt before counts.
    assert_eq!(unusual(&learnt(60, &usual), &now, minute(LEAST_SAMPLES - 1)), []);
}

#[test]
fn what_does_not_come_again_fades() {
    let mut profile = learnt(1, &traffic(1, 2000, RESET));
    let days = |count: i64| minute(0) + (24 * count).hours();
    profile.learn(&traffic(1, 2000, ""), days(1));
    let acts = &profile.pairs.values().next().expect("nginx").acts;
    assert_eq!((acts["recv ECONNRESET"].count, acts["recv"].count), (0.5, 1.5));
    profile.learn(&Shapes::new(), days(6));
    assert_eq!((profile.acts(), profile.samples), (0, 3), "{profile:?}");
    // A clock that was set back.
    profile.learn(&traffic(1, 2000, ""), days(2));
    assert_eq!(profile.acts(), 2);
}

#[test]
fn outcomes_beyond_the_bound_are_counted_only() {
    let mut many = Shapes::new();
    for port in 0..MOST_ACTS as u16 {
        let shape = Shape { acts: [("send".to_owned(), 1.0)].into(), ..Shape::default() };
        many.insert(Pair { who: "scanner".to_owned(), port }, shape);
    }
    let mut profile = learnt(3, &many);
    assert_eq!((profile.acts(), profile.left_out), (MOST_ACTS, 0));
    profile.learn(&traffic(1, 2000, ""), minute(3));
    assert_eq!((profile.acts(), profile.left_out), (MOST_ACTS, 2));
    assert!(serde_json::to_vec(&profile).expect("JSON").len() < 2 << 20);
}

#[test]
fn it_is_json_that_can_be_read_again() {
    let profile = learnt(3, &traffic(3, 2000, RESET));
    let text = serde_json::to_string(&profile).expect("JSON");
    assert!(text.contains("\"nginx:81\""), "{text}");
    assert_eq!(serde_json::from_str::<Profile>(&text).expect("it is right"), profile);
}
