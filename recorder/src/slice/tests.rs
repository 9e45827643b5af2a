//! Slices and chains of tiny written histories.

use expect_test::{Expect, expect};

use super::{Domain, Link, Options, Slice, Verdict, backward, chain, forward};
use crate::event::{EventIndex, History, Window};
use crate::graph::Graph;
use crate::graph::written::{history, show};

/// curl asks nginx (b), which asks app (c, two threads), which sh (d) kills; e has to do with nothing.
const KILLED: &str = "
    e send 7 0..9
    c.f send 9 0..1
    a connect 1
    a send 1 0..9
    b recv 2 0..9
    b send 3 0..9
    c recv 4 0..9
    d signal signal=9 target=c process
    c deliver signal=9
    c exit
    c abort 4
    k reset_sent 4
    k reset_received 3
    k error 3 error=ECONNRESET
    b recv 3 error=ECONNRESET
    e recv 7 0..4
    b send 2 0..7
    a recv 1 0..7";

fn build(text: &str) -> (History, Graph) {
    let history = history(text);
    let graph = Graph::build(&history);
    assert_eq!(crate::graph::check::check(&history, &graph), []);
    (history, graph)
}

fn find(history: &History, text: &str) -> EventIndex {
    let found = history.events.iter().position(|e| show(e) == text);
    found.unwrap_or_else(|| panic!("no such event: {text}")) as EventIndex
}

fn shown(history: &History, slice: &Slice) -> String {
    let line =
        |&e: &EventIndex| format!("{:?} {}\n", slice.reach(e), show(&history.events[e as usize]));
    slice.order.iter().map(line).collect()
}

fn check_backward(text: &str, symptom: &str, options: Options, expected: Expect) {
    let (history, graph) = build(text);
    let slice = backward(&history, &graph, &[find(&history, symptom)], options);
    expected.assert_eq(&shown(&history, &slice));
}

fn check_chain(text: &str, symptom: &str, expected: Expect) {
    let (history, graph) = build(text);
    let symptom = find(&history, symptom);
    let slice = backward(&history, &graph, &[symptom], Options::default());
    let steps = chain(&history, &graph, &slice, symptom);
    let line = |step: &super::Step| {
        let link = match step.link {
            Link::Symptom => "symptom",
            Link::Thread => "same thread",
            Link::Edge(edge) => graph.nodes[edge].kind.as_str(),
        };
        format!("{} ({link})\n", show(&history.events[step.event as usize]))
    };
    expected.assert_eq(&steps.iter().map(line).collect::<String>());
}

#[test]
fn the_chain_leads_from_the_bad_answer_to_the_kill() {
    check_chain(
        KILLED,
        "a recv 1 0..7",
        expect![[r#"
        a recv 1 0..7 (symptom)
        b send 2 0..7 (bytes)
        b recv 3 ECONNRESET (same thread)
        k error 3 ECONNRESET (close)
        k reset_received 3 (close)
        k reset_sent 4 (close)
        c abort 4 (close)
        c deliver (same thread)
        d signal (signal)
    "#]],
    );
}

#[test]
fn the_chain_of_a_good_answer_leads_through_the_backend() {
    check_chain(
        "a send 1 0..9 / b recv 2 0..9 / b send 3 0..9 / c recv 4 0..9 / c send 4 0..5 /
         b recv 3 0..5 / b send 2 0..5 / a recv 1 0..5",
        "a recv 1 0..5",
        expect![[r#"
            a recv 1 0..5 (symptom)
            b send 2 0..5 (bytes)
            b recv 3 0..5 (same thread)
            c send 4 0..5 (bytes)
            c recv 4 0..9 (same thread)
            b send 3 0..9 (bytes)
            b recv 2 0..9 (same thread)
            a send 1 0..9 (bytes)
        "#]],
    );
}

#[test]
fn backward_slice() {
    check_backward(
        KILLED,
        "a recv 1 0..7",
        Options::default(),
        expect![[r#"
        Must a recv 1 0..7
        Must b send 2 0..7
        Must a send 1 0..9
        Must b recv 3 ECONNRESET
        Must a connect 1
        Must k error 3 ECONNRESET
        Must k reset_received 3
        Must b send 3 0..9
        Must b recv 2 0..9
        Must k reset_sent 4
        Must c abort 4
        Must c exit
        Must c deliver
        Must d signal
        Must c recv 4 0..9
        May c.f send 9 0..1
    "#]],
    );
}

#[test]
fn unobserved_channels_reach_as_far_as_the_domain() {
    let text = "d send 9 0..1 / a.b recv 2 0..9 / c send 1 0..9 / a.d send 4 0..5 / b recv 3 0..5 / a.e recv 6 0..5";
    let options = |domain| Options { domain, ..Options::default() };
    check_backward(
        text,
        "b recv 3 0..5",
        options(Domain::Process),
        expect![[r#"
        Must b recv 3 0..5
        Must a.d send 4 0..5
        May a.b recv 2 0..9
        May c send 1 0..9
    "#]],
    );
    check_backward(
        text,
        "b recv 3 0..5",
        options(Domain::Host),
        expect![[r#"
            Must b recv 3 0..5
            Must a.d send 4 0..5
            May d send 9 0..1
            May a.b recv 2 0..9
            May c send 1 0..9
        "#]],
    );
}

#[test]
fn depth_counts_steps() {
    let text = "a send 1 0..9 / b recv 2 0..9 / b send 3 0..5 / c recv 4 0..5";
    let options = |depth| Options { depth: Some(depth), ..Options::default() };
    check_backward(
        text,
        "c recv 4 0..5",
        options(1),
        expect![[r#"
        Must c recv 4 0..5
        Must b send 3 0..5
    "#]],
    );
    check_backward(
        text,
        "c recv 4 0..5",
        options(2),
        expect![[r#"
        Must c recv 4 0..5
        Must b send 3 0..5
        Must b recv 2 0..9
    "#]],
    );
}

#[test]
fn forward_slice() {
    let (history, graph) = build(KILLED);
    let slice = forward(&history, &graph, &[find(&history, "d signal")], Options::default());
    expect![[r#"
        Must d signal
        Must c deliver
        Must c exit
        Must c abort 4
        Must k reset_sent 4
        Must k reset_received 3
        Must k error 3 ECONNRESET
        Must b recv 3 ECONNRESET
        Must b send 2 0..7
        Must a recv 1 0..7
    "#]]
    .assert_eq(&shown(&history, &slice));
}

#[test]
fn excluded_only_where_nothing_is_missing() {
    let (mut history, graph) = build(KILLED);
    let symptom = find(&history, "a recv 1 0..7");
    let slice = backward(&history, &graph, &[symptom], Options::default());
    let verdict = |history: &History, event| slice.verdict(history, find(history, event));
    assert_eq!(verdict(&history, "d signal"), Verdict::Must);
    assert_eq!(verdict(&history, "c.f send 9 0..1"), Verdict::May);
    assert_eq!(verdict(&history, "e send 7 0..9"), Verdict::Excluded);
    assert_eq!(slice.verdict_of_process(&history, 0, 5), Verdict::Excluded);
    assert_eq!(slice.verdict_of_process(&history, 0, 3), Verdict::Must);
    history.hosts[0].lost = 1;
    assert_eq!(verdict(&history, "e send 7 0..9"), Verdict::CannotSay);
    assert_eq!(slice.verdict_of_process(&history, 0, 5), Verdict::CannotSay);
}

#[test]
fn nobody_is_excluded_from_a_symptom_that_lies_before_the_window() {
    let (mut history, graph) = build(KILLED);
    let symptom = find(&history, "a recv 1 0..7");
    let slice = backward(&history, &graph, &[symptom], Options::default());
    assert!(slice.can_exclude(&history));
    let symptom_ns = history.events[symptom as usize].time_ns;
    let window = |from_ns| Window { from_ns, to_ns: symptom_ns + 10 };
    for (from_ns, can) in [(symptom_ns, true), (symptom_ns + 1, false)] {
        (history.hosts[0].bulk_window, history.hosts[0].rare_window) = (window(from_ns), window(0));
        assert_eq!(slice.can_exclude(&history), can, "{from_ns}");
    }
}

#[test]
fn a_path_leads_from_the_cause_to_the_symptom() {
    let (history, graph) = build("a send 1 0..9 / b recv 2 0..9 / b send 3 0..5 / c recv 4 0..5");
    let symptom = find(&history, "c recv 4 0..5");
    let slice = backward(&history, &graph, &[symptom], Options::default());
    let path = slice.path(&graph, find(&history, "a send 1 0..9"));
    let show = |(node, via): &(crate::graph::Node, super::Via)| {
        let (event, side) = crate::graph::event_of(*node);
        let via = match via {
            super::Via::Edge(edge) => graph.nodes[*edge].kind.as_str(),
            super::Via::Start => "symptom",
            super::Via::Channel(_) => "channel",
        };
        format!("{} {} {via}\n", show(&history.events[event as usize]), side.as_str())
    };
    expect![[r#"
        a send 1 0..9 begin bytes
        b recv 2 0..9 end program
        b send 3 0..5 begin bytes
        c recv 4 0..5 end symptom
    "#]]
    .assert_eq(&path.iter().map(show).collect::<String>());
}
