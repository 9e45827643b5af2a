//! From causes to faults and from symptoms to patterns, on written histories.

use expect_test::{Expect, expect};

use super::suspect::{self, Suspect};
use super::symptom::generalise;
use super::verdict::{Tally, judge};
use crate::event::{EventIndex, Host};
use crate::fault::print;
use crate::fault::spec::{Fault, Faults};
use crate::graph::Graph;
use crate::graph::written::{KILLED, history as written, show};
use crate::incident;
use crate::pattern::Pattern;
use crate::slice::Options;

/// Processes are called by their letters.
fn history(text: &str) -> crate::event::History {
    let mut history = written(text);
    for index in 0..history.events.len() {
        let pid = history.events[index].pid;
        if pid != 0 {
            let name = char::from(b'a' + pid as u8 - 1).to_string();
            history.events[index].comm = history.names.intern(&name);
        }
    }
    history
}

/// What is suspected of the last event that matches; `cannot` are deeds that nothing can do here.
fn suspected(text: &str, pattern: &str, cannot: &[&str], host: Host) -> String {
    let mut history = history(text);
    history.hosts[0] = host;
    let graph = Graph::build(&history);
    let pattern: Pattern = pattern.parse().expect("a pattern");
    let incident =
        incident::find(&history, &graph, &[pattern], &Pattern::default(), Options::default());
    let incident = incident.expect("it matches");
    let can = |fault: &Fault| {
        let line = print::line(fault).expect("no partition");
        match cannot.iter().find(|deed| line.contains(**deed)) {
            Some(deed) => Err(format!("cannot {deed}")),
            None => Ok(()),
        }
    };
    let shown = |event: EventIndex| show(&history.events[event as usize]);
    let (found, rejected) = match suspect::suspect(&history, &incident, &can) {
        Ok((suspect, rejected)) => (Some(suspect), rejected),
        Err(rejected) => (None, rejected),
    };
    let mut told = String::new();
    for rejected in rejected {
        told += &format!("not {}: {}\n", shown(rejected.event), rejected.reason);
    }
    match found {
        Some(Suspect { event, fault, notes }) => {
            let cause = event.map(shown).unwrap_or_default();
            told += &format!("{cause}\n{}\n", print::line(&fault).expect("no partition"));
            notes.iter().for_each(|note| told += &format!("({note})\n"));
        }
        None => told += "nothing\n",
    }
    told
}

fn check(text: &str, pattern: &str, cannot: &[&str], expected: Expect) {
    expected.assert_eq(&suspected(text, pattern, cannot, Host::default()));
}

#[test]
fn a_killed_process_is_killed_at_the_last_that_it_did() {
    let more = format!("c recv 6 0..9\n c send 6 0..5\n{KILLED}");
    check(
        &more,
        "op=recv pid=1",
        &[],
        expect![[r#"
            d signal
            comm=c op=recv protocol=tcp remote=:3 => kill=SIGKILL, nth=1, name="suspected cause"
        "#]],
    );
}

#[test]
fn what_cannot_be_done_here_makes_room_for_a_nearer_cause_and_is_told() {
    check(
        KILLED,
        "op=recv pid=1",
        &["kill="],
        expect![[r#"
            not d signal: cannot kill=
            c abort 4
            comm=c op=recv protocol=tcp remote=:3 => destroy, nth=1, name="suspected cause"
        "#]],
    );
    check(
        KILLED,
        "op=recv pid=1",
        &["kill=", "destroy", "error="],
        expect![[r#"
            not d signal: cannot kill=
            not c abort 4: cannot destroy
            not c exit: cannot kill=
            not k reset_sent 4: cannot destroy
            not k reset_received 3: cannot destroy
            not k error 3 ECONNRESET: cannot destroy
            not b recv 3 ECONNRESET: cannot error=
            nothing
        "#]],
    );
}

#[test]
fn a_refused_connection_is_refused_by_its_number_among_those_to_the_same_port() {
    let text = "
        b connect 5
        b connect 9
        b connect 5
        a send 1 0..9
        b recv 2 0..9
        b connect 5
        k reset_received 5
        k error 5 error=ECONNREFUSED
        b close 2 9..10
        a recv 1 9..10 eof";
    check(
        text,
        "op=error",
        &[],
        expect![[r#"
            k reset_received 5
            comm=b op=connect protocol=tcp remote=:6 => error=ECONNREFUSED, nth=3, name="suspected cause"
        "#]],
    );
}

/// The proxy b asks in vain for a connection to its backend, twice.
#[test]
fn a_connection_that_did_not_come_about_is_suspected_though_the_program_went_on() {
    let text = "
        a send 1 0..9
        b recv 2 0..9
        b connect 5
        k reset_received 5
        k error 5 error=ECONNREFUSED
        b send 2 0..9
        a recv 1 0..9
        a send 1 9..18
        b recv 2 9..18
        b connect 7 remote=127.0.0.1:6
        k reset_received 7
        k error 7 error=ECONNREFUSED
        b close 2 9..10
        a recv 1 9..10 eof";
    check(
        text,
        "flag=eof op=recv",
        &[],
        expect![[r#"
        b connect 7
        comm=b op=connect protocol=tcp remote=:6 => error=ECONNREFUSED, nth=2, name="suspected cause"
    "#]],
    );
}

#[test]
fn of_a_chain_that_goes_on_to_earlier_answers_the_last_is_suspected() {
    let text = "
        a send 1 0..9
        b recv 2 0..9
        b close 2 0..1
        a recv 1 0..1 eof
        a send 3 0..9
        b recv 4 0..9
        b close 4 0..1
        a recv 3 0..1 eof";
    check(
        text,
        "flag=eof op=recv",
        &[],
        expect![[r#"
        b close 4 0..1
        comm=b op=recv protocol=tcp remote=:3 => kill=SIGKILL, nth=1, name="suspected cause"
        (instead of closing the connection, the process dies where it closed it)
    "#]],
    );
}

#[test]
fn who_closes_is_killed_where_it_closed() {
    let text = "
        a connect 1
        a send 1 0..9
        b recv 2 0..9
        b send 2 0..9
        b close 2 9..10
        a recv 1 0..9
        a recv 1 9..10 eof";
    check(
        text,
        "flag=eof op=recv",
        &[],
        expect![[r#"
            b close 2 9..10
            comm=b op=send protocol=tcp remote=:1 => kill=SIGKILL, nth=1, name="suspected cause"
            (instead of closing the connection, the process dies where it closed it)
        "#]],
    );
}

#[test]
fn what_harms_nobody_is_not_suspected() {
    check(
        "a send 1 0..9 / b recv 2 0..9",
        "op=recv",
        &[],
        expect![[r#"
            nothing
        "#]],
    );
}

#[test]
fn the_symptom_is_suspected_last_and_that_is_told() {
    check(
        "a connect 1 error=EPIPE",
        "op=connect",
        &[],
        expect![[r#"
            a connect 1 EPIPE
            comm=a op=connect protocol=tcp remote=:2 => error=EPIPE, nth=1, name="suspected cause"
            (the cause is the symptom itself: this shows whether it comes by itself, and no more)
        "#]],
    );
}

#[test]
fn of_what_was_not_recorded_from_its_beginning_the_first_is_meant() {
    let text = format!("c recv 4 0..9\n{KILLED}");
    let host = Host { scope: "pid 7".to_owned(), ..Host::default() };
    expect![[r#"
        d signal
        comm=c op=recv protocol=tcp remote=:3 => kill=SIGKILL, nth=1, name="suspected cause"
        (the recording was not made of a command from its beginning: the fault strikes at the first such event)
    "#]]
    .assert_eq(&suspected(&text, "op=recv pid=1", &[], host));
}

const FILE: &str = "
    seed = 7
    [[fault]]
    name = \"down\"
    match = \"comm=a op=connect\"
    when = { nth = 2 }
    do = { error = \"EPIPE\" }
    [[fault]]
    name = \"other\"
    match = \"comm=b op=bind\"
    syscall = \"bind\"
    do = { error = \"EIO\" }
    limit = { count = 1 }";

/// The second connect is the fault's.
const INJECTED: &str = "
    a connect 1
    a fault error=EPIPE fault=down
    a connect 3 error=EPIPE fault=down";

#[test]
fn an_injected_cause_is_taken_as_it_was_defined() {
    let host = Host { faults: vec![FILE.to_owned()], ..Host::default() };
    expect![[r#"
        a fault EPIPE
        comm=a op=connect => error=EPIPE, nth=2, name=down
    "#]]
    .assert_eq(&suspected(INJECTED, "op=connect error=*", &[], host));
    let nothing_known = suspected(INJECTED, "op=connect error=*", &[], Host::default());
    assert!(nothing_known.contains("does not say how the fault `down` was defined"));
}

#[test]
fn the_runs_differ_by_the_suspected_fault_alone() {
    let mut history = history("a send 1 0..9");
    history.hosts[0].faults = vec![FILE.to_owned(), FILE.to_owned()];
    let armed = suspect::armed(&history).expect("a fault file");
    let names = |faults: &Faults| {
        faults.faults.iter().map(|fault| fault.name.clone()).collect::<Vec<_>>().join(" ")
    };
    let injected = armed.faults[0].clone();
    let arms = suspect::arms(&armed, &injected);
    assert_eq!((&*names(&arms.with), &*names(&arms.without)), ("down other", "other"));
    let mut new = Fault { name: "other".to_owned(), ..injected };
    suspect::rename(&mut new, &armed);
    let arms = suspect::arms(&armed, &new);
    assert_eq!((&*names(&arms.with), &*names(&arms.without)), ("down other other 2", "down other"));
    assert_eq!(arms.with.seed, Some(7));
}

#[test]
fn a_symptom_is_known_again_by_what_lasts_and_by_what_went_wrong() {
    let text = "
        a recv 1 0..7
        a recv 1 7..8 eof
        a recv 1 error=ECONNRESET
        a recv 1 error=ECONNRESET remote=127.0.0.1:41000 local=127.0.0.1:40000
        a connect 1 error=ECONNREFUSED
        k error 1 error=ECONNREFUSED
        a exit result=3 last
        a exit signal=9";
    let history = history(text);
    let patterns = history.events.iter().map(|event| generalise(&history, event, None).to_string());
    expect![[r#"
        comm=a op=recv remote=:2 result=7
        comm=a op=recv remote=:2 flag=eof
        comm=a op=recv remote=:2 error=ECONNRESET
        comm=a op=recv error=ECONNRESET
        comm=a op=connect,error remote=:2 error=ECONNREFUSED
        op=connect,error remote=:2 error=ECONNREFUSED
        comm=a op=exit result=3
        comm=a op=exit signal=SIGKILL"#]]
    .assert_eq(&patterns.collect::<Vec<_>>().join("\n"));
    let asked = |text: &str| {
        let asked = text.parse().expect("a pattern");
        generalise(&history, &history.events[2], Some(&asked)).to_string()
    };
    assert_eq!(asked("comm=a op=recv"), "comm=a op=recv error=ECONNRESET");
    assert_eq!(asked("error=* op=recv pid=1 time_ns>1"), "error=* op=recv");
    assert_eq!(asked("pid=1"), "error=ECONNRESET");
}

#[test]
fn the_verdict_counts_only_runs_that_show_something() {
    let tally = |runs, fired, came, unclear| Tally { runs, fired, came, unclear };
    let told = [
        (tally(3, 3, 3, 0), tally(3, 0, 0, 0)),
        (tally(3, 2, 2, 0), tally(3, 0, 0, 1)),
        (tally(3, 0, 0, 0), tally(3, 0, 0, 0)),
        (tally(3, 3, 0, 0), tally(3, 0, 0, 0)),
        (tally(3, 3, 2, 0), tally(3, 0, 0, 0)),
        (tally(3, 3, 3, 0), tally(3, 0, 1, 0)),
        (tally(1, 1, 0, 1), tally(1, 0, 0, 0)),
        (tally(1, 1, 1, 0), tally(1, 0, 0, 1)),
    ]
    .map(|(with, without)| judge(with, without).to_string());
    expect![[r#"
        confirmed: it came whenever the cause was there, and never without it
        confirmed: it came whenever the cause was there, and never without it
        could not tell: the fault was never reached
        not confirmed: the cause was there, and the symptom did not come
        not confirmed: it came in 2 of 3 runs with the cause: that alone does not make it come
        not confirmed: it came without the cause too, in 1 of 3 runs
        could not tell: events were lost, so that a symptom may have been missed
        could not tell: events were lost, so that a symptom may have been missed"#]]
    .assert_eq(&told.join("\n"));
}

const GONE: &str = "
    [[fault]]
    name = \"gone\"
    match = \"comm=a op=recv\"
    when = { nth = 1 }
    do = { kill = \"SIGKILL\" }";

#[test]
fn an_injected_cause_comes_before_what_it_did() {
    let text = "
        a recv 1 0..9
        a fault signal=9 fault=gone
        a signal signal=9 target=a process
        a deliver signal=9
        a exit signal=9";
    let host = Host { faults: vec![GONE.to_owned()], ..Host::default() };
    expect![[r#"
        a fault
        comm=a op=recv => kill=SIGKILL, nth=1, name=gone
    "#]]
    .assert_eq(&suspected(text, "op=exit", &[], host));
}

#[test]
fn what_led_to_a_symptom_that_is_a_culprit_itself_comes_first() {
    let text = "
        c recv 4 0..9
        d connect 5
        k reset_received 5
        k error 5 error=ECONNREFUSED
        d signal signal=9 target=c process";
    check(
        text,
        "op=signal",
        &[],
        expect![[r#"
        d connect 5
        comm=d op=connect protocol=tcp remote=:6 => error=ECONNREFUSED, nth=1, name="suspected cause"
    "#]],
    );
}

#[test]
fn of_failed_connections_the_latest_is_suspected() {
    let text = "
        b connect 7
        k error 7 error=ETIMEDOUT
        c connect 9
        k error 9 error=ECONNREFUSED
        c send 3 0..9
        b recv 4 0..9
        b close 2 0..1
        a recv 1 0..1 eof";
    check(
        text,
        "flag=eof op=recv",
        &["destroy", "kill="],
        expect![[r#"
        c connect 9
        comm=c op=connect protocol=tcp remote=:10 => error=ECONNREFUSED, nth=1, name="suspected cause"
    "#]],
    );
}

#[test]
fn a_victim_of_lacking_memory_is_killed_and_one_named_by_a_thread_is_found() {
    let text = KILLED.replace(
        "d signal signal=9 target=c process",
        "k signal signal=9 target=c process / k oom_kill target=c",
    );
    check(
        &text,
        "op=recv pid=1",
        &[],
        expect![[r#"
            k oom_kill
            comm=c op=recv protocol=tcp remote=:3 => kill=SIGKILL, nth=1, name="suspected cause"
        "#]],
    );
    let text = "
        c.t recv 4 0..9
        c recv 6 0..9
        d signal signal=9 target=c.t
        c.t deliver signal=9";
    check(
        text,
        "op=deliver",
        &[],
        expect![[r#"
        d signal
        comm=c op=recv protocol=tcp remote=:5 => kill=SIGKILL, nth=1, name="suspected cause"
    "#]],
    );
}

#[test]
fn what_became_of_a_connection_is_had_by_the_deed_that_has_its_effect() {
    let text = "
        a connect 1
        a send 1 0..9
        k retransmit 1 0..9";
    check(
        text,
        "op=retransmit",
        &[],
        expect![[r#"
        k retransmit 1 0..9
        comm=a op=send protocol=tcp remote=:2 => drop=packet, nth=1, name="suspected cause"
        (the cause is the symptom itself: this shows whether it comes by itself, and no more)
    "#]],
    );
    let text = "
        a connect 1
        a send 1 0..9
        k error 1 error=ETIMEDOUT
        a recv 1 error=ETIMEDOUT";
    check(
        text,
        "op=recv",
        &[],
        expect![[r#"
        k error 1 ETIMEDOUT
        comm=a op=send protocol=tcp remote=:2 => drop=blackhole, nth=1, name="suspected cause"
    "#]],
    );
    let text = "
        a connect 5
        k error 5 error=ETIMEDOUT
        a recv 5 error=ETIMEDOUT";
    check(
        text,
        "op=recv",
        &[],
        expect![[r#"
        k error 5 ETIMEDOUT
        comm=a op=connect protocol=tcp remote=:6 => error=ETIMEDOUT, nth=1, name="suspected cause"
    "#]],
    );
}

#[test]
fn a_thread_that_closed_is_struck_where_that_thread_was_last() {
    let text = "
        a send 1 0..9
        b recv 2 0..9
        b.t send 2 0..9
        b close 2 9..10
        a recv 1 9..10 eof";
    check(
        text,
        "flag=eof op=recv",
        &[],
        expect![[r#"
        b close 2 9..10
        comm=b op=recv protocol=tcp remote=:1 => kill=SIGKILL, nth=1, name="suspected cause"
        (instead of closing the connection, the process dies where it closed it)
    "#]],
    );
}

#[test]
fn to_find_nothing_is_no_failure() {
    check(
        "a recv 1 error=EAGAIN",
        "op=recv",
        &[],
        expect![[r#"
        nothing
    "#]],
    );
}

#[test]
fn a_connect_is_not_known_by_where_it_comes_from() {
    let text = "a connect 1 local=127.0.0.1:80 remote=127.0.0.1:40000 error=EPIPE";
    check(
        text,
        "op=connect",
        &[],
        expect![[r#"
        a connect 1 EPIPE
        comm=a op=connect protocol=tcp => error=EPIPE, nth=1, name="suspected cause"
        (the cause is the symptom itself: this shows whether it comes by itself, and no more)
    "#]],
    );
}
