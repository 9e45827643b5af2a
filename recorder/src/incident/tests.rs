//! Ranking, on written histories.

use expect_test::{Expect, expect};

use super::*;
use crate::graph::written::{KILLED, history, show};

fn check(text: &str, patterns: &[&str], expected: Expect) {
    let history = history(text);
    let graph = Graph::build(&history);
    let patterns: Vec<Pattern> =
        patterns.iter().map(|pattern| pattern.parse().expect("a pattern")).collect();
    let Some(incident) = find(&history, &graph, &patterns, Options::default()) else {
        return expected.assert_eq("nothing failed");
    };
    let shown = |event: EventIndex| show(&history.events[event as usize]);
    let mut told = format!("symptom {}\n", shown(incident.symptom));
    for culprit in &incident.culprits {
        let Culprit { event, cause, reach, step } = culprit;
        told += &format!("{reach:?} {cause:?} {} at {step:?}\n", shown(*event));
    }
    expected.assert_eq(&told);
}

#[test]
fn the_kill_comes_before_the_death_and_the_reset_that_it_led_to() {
    check(
        KILLED,
        &["op=recv pid=2 error=*"],
        expect![[r#"
            symptom b recv 3 ECONNRESET
            Must Killed d signal at Some(6)
            Must Reset c abort 4 at Some(4)
            Must Reset k reset_sent 4 at Some(3)
            Must Crashed c exit at None
        "#]],
    );
}

#[test]
fn without_a_pattern_the_failure_with_the_best_culprit_is_taken() {
    let noise = format!("{KILLED}\n e send 7 error=EPIPE\n e recv 7 error=EPIPE");
    check(
        &noise,
        &[],
        expect![[r#"
        symptom b recv 3 ECONNRESET
        Must Killed d signal at Some(6)
        Must Reset c abort 4 at Some(4)
        Must Reset k reset_sent 4 at Some(3)
        Must Crashed c exit at None
    "#]],
    );
    check(
        &noise,
        &["op=connect error=*"],
        expect![[r#"
        symptom b recv 3 ECONNRESET
        Must Killed d signal at Some(6)
        Must Reset c abort 4 at Some(4)
        Must Reset k reset_sent 4 at Some(3)
        Must Crashed c exit at None
    "#]],
    );
}

#[test]
fn what_is_proven_comes_before_what_is_only_possible() {
    // Another thread of b's process was hit by a reset; what b answered may have to do with it.
    check(
        "
        k reset_received 5
        k error 5 error=ECONNRESET
        b.x recv 5 error=ECONNRESET
        b.y send 2 0..7
        a recv 1 0..7",
        &["op=recv pid=1"],
        expect![[r#"
            symptom a recv 1 0..7
            May Reset k reset_received 5 at None
        "#]],
    );
}

#[test]
fn nothing_failed() {
    check("a send 1 0..9\n b recv 2 0..9", &[], expect!["nothing failed"]);
    check("a send 1 0..9\n b recv 2 error=EAGAIN", &[], expect!["nothing failed"]);
}
