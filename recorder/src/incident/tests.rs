//! Ranking, on written histories.

use expect_test::{Expect, expect};

use super::*;
use crate::graph::written::{KILLED, history, show};

fn check(text: &str, patterns: &[&str], expected: Expect) {
    let history = history(text);
    let graph = Graph::build(&history);
    let patterns: Vec<Pattern> =
        patterns.iter().map(|pattern| pattern.parse().expect("a pattern")).collect();
    let Some(incident) = find(&history, &graph, &patterns, &Pattern::default(), Options::default())
    else {
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
            Must Crashed c exit at None
            Must Reset k reset_sent 4 at Some(3)
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
            Must Crashed c exit at None
            Must Reset k reset_sent 4 at Some(3)
        "#]],
    );
    check(
        &noise,
        &["op=connect error=*"],
        expect![[r#"
            symptom b recv 3 ECONNRESET
            Must Killed d signal at Some(6)
            Must Reset c abort 4 at Some(4)
            Must Crashed c exit at None
            Must Reset k reset_sent 4 at Some(3)
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

/// a asks b and goes.
const GONE: &str = "
    a connect 1
    k established 1 active
    k established 2
    a send 1 0..9 active
    b recv 2 0..9";

#[test]
fn who_closes_before_the_answer_is_to_blame_for_what_comes_of_it() {
    let eof = ["op=recv flag=eof"];
    check(
        &format!("{GONE}\n a close 1 9..10 active\n b recv 2 9..10 eof"),
        &eof,
        expect![[r#"
            symptom b recv 2 9..10
            Must ClosedEarly a close 1 9..10 at Some(1)
        "#]],
    );
    check(
        &format!(
            "{GONE}\n b send 2 0..4\n a recv 1 0..4\n a close 1 9..10 active\n b recv 2 9..10 eof"
        ),
        &eof,
        expect![[r#"
            symptom b recv 2 9..10
        "#]],
    );
    // It closed only its own direction.
    check(
        &format!(
            "{GONE}\n a close 1 9..10 active\n b recv 2 9..10 eof\n b send 2 0..4\n a recv 1 0..4"
        ),
        &eof,
        expect![[r#"
            symptom b recv 2 9..10
        "#]],
    );
    // b is the one that closes: a had asked, and what it sent then is taken by nobody.
    check(
        "a connect 1 / k established 1 active / k established 2 / b close 2 0..1 / a send 1 0..9 active / a recv 1 0..1 eof",
        &eof,
        expect![[r#"
            symptom a recv 1 0..1
            Must ClosedEarly b close 2 0..1 at Some(1)
        "#]],
    );
}

#[test]
fn a_reset_that_nobody_sent_may_come_of_a_close() {
    check(
        &format!(
            "{GONE}\n b send 3 0..9\n c recv 4 0..9\n a close 1 9..10 active\n b recv 2 9..10 eof\n b close 3 9..10 active
             k reset_received 4\n k error 4 error=EPIPE\n c send 4 error=EPIPE"
        ),
        &["op=send error=EPIPE"],
        expect![[r#"
            symptom c send 4 EPIPE
            Must Reset k reset_received 4 at Some(2)
            May ClosedEarly a close 1 9..10 at None
        "#]],
    );
}

#[test]
fn who_closes_may_have_been_told_that_its_client_has_gone() {
    // b reads no EOF: it is told, and closes both.
    check(
        &format!(
            "{GONE}\n b send 3 0..9\n c recv 4 0..9\n a close 1 9..10 active\n b close 3 9..10 active\n b close 2 0..1
             k reset_received 4\n k error 4 error=EPIPE\n c send 4 error=EPIPE"
        ),
        &["op=send error=EPIPE"],
        expect![[r#"
            symptom c send 4 EPIPE
            Must Reset k reset_received 4 at Some(2)
            May ClosedEarly a close 1 9..10 at None
        "#]],
    );
    // It had closed that one before.
    check(
        &format!(
            "{GONE}\n b send 3 0..9\n c recv 4 0..9\n a close 1 9..10 active\n b close 2 0..1\n b close 3 9..10 active
             k reset_received 4\n k error 4 error=EPIPE\n c send 4 error=EPIPE"
        ),
        &["op=send error=EPIPE"],
        expect![[r#"
            symptom c send 4 EPIPE
            Must Reset k reset_received 4 at Some(2)
            May ClosedEarly b close 3 9..10 at None
        "#]],
    );
}

#[test]
fn what_was_sent_again_may_have_been_lost() {
    check(
        "a send 1 0..9 / k retransmit 1 0..9 / b recv 2 0..9",
        &["op=recv"],
        expect![[r#"
            symptom b recv 2 0..9
            May Lost k retransmit 1 0..9 at None
        "#]],
    );
    // Other bytes, before, and after.
    check(
        "a send 1 0..9 / b recv 2 0..9 / k retransmit 1 0..9 / a send 1 9..12 / k retransmit 1 20..30 / b recv 2 9..12",
        &["op=recv"],
        expect![[r#"
            symptom b recv 2 9..12
        "#]],
    );
}

#[test]
fn a_listener_that_went_is_to_blame_for_what_it_refused_alone() {
    check(
        "b listen 2 / b unlisten 2 / a connect 1 / k error 1 error=ECONNREFUSED",
        &["op=error"],
        expect![[r#"
            symptom k error 1 ECONNREFUSED
            Must Refused b unlisten 2 at Some(1)
            Must Refused k error 1 ECONNREFUSED at Some(0)
        "#]],
    );
    check(
        "b listen 2 / b unlisten 2 / b send 3 0..9 / c recv 4 0..9",
        &["op=recv"],
        expect![[r#"
            symptom c recv 4 0..9
        "#]],
    );
}

/// What an alert's label says of whom it is about, by the scope that docs/deployment.md gives for it.
#[test]
fn each_label_of_an_alert_finds_its_service_s_failure() {
    const POD: &str = "5b3c0e4e-3f8e-11e9-8d3c-0a580af40123";
    // Without a scope it is the later one.
    let mut history =
        history("a recv 1 error=ECONNRESET / b recv 3 error=EPIPE / b recv 3 error=EPIPE");
    let cgroups = [
        "/system.slice/web.service".to_owned(),
        format!("/kubepods/burstable/pod{POD}/{}", "3f".repeat(32)),
    ];
    history.hosts[0].containers =
        vec![crate::container::Called { id: POD.to_owned(), name: "shop/web-0".to_owned() }];
    let graph = Graph::build(&history);
    let comms = ["web", "other"].map(|comm| history.names.intern(comm));
    let found = |history: &History, scope: &str| {
        let scope = scope.parse().expect("a pattern");
        let incident = find(history, &graph, &[], &scope, Options::default()).expect("it failed");
        history.events[incident.symptom as usize].pid
    };
    for (label, value, scope, cgroup) in [
        ("instance", "127.0.0.1:1", "local={instance}", &cgroups[0]),
        ("job", "web", "comm={job}", &cgroups[0]),
        ("service", "web", "cgroup=/system.slice/{service}.service", &cgroups[0]),
        ("pod", "shop/web-0", "pod={pod}", &cgroups[1]),
        ("pod", "web-0", "pod={pod}", &cgroups[1]),
    ] {
        for event in &mut history.events {
            let own = event.pid == 1;
            event.comm = comms[usize::from(!own)];
            event.cgroup = history.names.intern(if own { cgroup } else { "/other" });
        }
        let labels = [(label.to_owned(), value.to_owned())].into();
        let scope = crate::trigger::symptom::Symptom::try_from(scope.to_owned()).expect("a scope");
        let scope = scope.of(&labels).expect("it is filled in");
        assert_eq!(found(&history, &scope), 1, "{scope}");
    }
    assert_eq!(found(&history, "comm=other"), 2);
    // Where nothing in it failed, it is looked for everywhere.
    assert_eq!(found(&history, "comm=nobody"), 2);
}
