//! The first lines about an event that did not happen, on written histories with made-up states.

use expect_test::{Expect, expect};

use super::*;
use crate::event::Task;
use crate::explain::missing::missing;
use crate::graph::written;
use crate::slice::Options;
use crate::state::{Socket, State, Thread};

fn check(text: &str, pattern: &str, state: State, expected: Expect) {
    let mut history = written::history(text);
    let host = &mut history.hosts[0];
    host.rare_window.to_ns = 2_000_000;
    host.state = Some(State { from_ns: 1_500_000, to_ns: 1_600_000, ..state });
    host.tasks = vec![Task { pid: 2, tid: 2, comm: "web".to_owned(), ..Task::default() }];
    let graph = Graph::build(&history);
    let pattern = pattern.parse().expect("a pattern");
    let missing = missing(&history, &graph, &pattern, Options::default()).expect("it was asked");
    let lines = lines(&history, &graph, &missing);
    // Without the clock: it depends on the machine's zone no more than on this test.
    let told = lines.iter().map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        format!("{} {}\n", words[0], words[2..].join(" "))
    });
    expected.assert_eq(&told.collect::<String>());
}

fn thread(pid: u32, tid: u32, state: &str, call: &str) -> Thread {
    let (state, call) = (state.to_owned(), call.to_owned());
    Thread { pid, tid, state, call, ..Thread::default() }
}

fn socket(cookie: u64, queues: (u32, u32), processes: Vec<u32>) -> Socket {
    let (receive_queue, send_queue) = queues;
    let inode = u32::from(!processes.is_empty());
    let state = "established".to_owned();
    Socket { cookie, state, receive_queue, send_queue, inode, processes, ..Socket::default() }
}

const ASKED: &str = "a send 1 0..9 / b recv 2 0..9";

#[test]
fn the_thread_that_got_furthest_and_what_it_does() {
    let of = |thread| State { threads: vec![thread], ..State::default() };
    check(
        ASKED,
        "pid=1 op=recv",
        of(thread(2, 2, "S", "nanosleep")),
        expect![[r#"
        culprit ?[2] recv 9 B from 127.0.0.1:1: the request got there, then nothing for 2.00 ms, asleep in nanosleep
    "#]],
    );
    check(
        ASKED,
        "pid=1 op=recv",
        of(thread(2, 2, "T", "")),
        expect![[r#"
        culprit ?[2] recv 9 B from 127.0.0.1:1: the request got there, then nothing for 2.00 ms, stopped
    "#]],
    );
    check(
        ASKED,
        "pid=1 op=recv",
        State::default(),
        expect![[r#"
        culprit ?[2] recv 9 B from 127.0.0.1:1: the request got there, then nothing for 2.00 ms
    "#]],
    );
}

#[test]
fn who_waits_for_its_own_process_may_be_held_up_by_those_who_wait_for_others() {
    let threads = ["x", "y", "z"].iter().zip(24..).map(|(_, tid)| thread(2, tid, "S", "futex"));
    let state = State { threads: threads.collect(), ..State::default() };
    let text = "b.y send 3 0..5 / b.z recv 5 0..5 / a send 1 0..9 / b.x recv 2 0..9";
    check(
        text,
        "pid=1 op=recv",
        state,
        expect![[r#"
        culprit ?[2/24] recv 9 B from 127.0.0.1:1: the request got there, then nothing for 2.00 ms, asleep in futex
        possibly ?[2/25] send 5 B to 127.0.0.1:4: may hold what it waits for, then nothing for 2.00 ms, asleep in futex
    "#]],
    );
}

#[test]
fn bytes_that_lie_unread() {
    let text = "b accept 2 / a send 1 0..9";
    let of = |socket| State { sockets: vec![socket], ..State::default() };
    check(
        text,
        "pid=1 op=recv",
        of(socket(2, (9, 0), vec![2])),
        expect![[r#"
        culprit ?[1] send 9 B to 127.0.0.1:2: 9 bytes wait, the other end has not taken them: 9 lie unread in the socket of web[2]
    "#]],
    );
    check(
        text,
        "pid=1 op=recv",
        of(socket(2, (9, 0), vec![])),
        expect![[r#"
        culprit ?[1] send 9 B to 127.0.0.1:2: 9 bytes wait, the other end has not taken them: 9 lie unread in a connection that nobody has accepted
    "#]],
    );
    check(
        text,
        "pid=1 op=recv",
        of(socket(1, (0, 9), vec![1])),
        expect![[r#"
        culprit ?[1] send 9 B to 127.0.0.1:2: 9 bytes wait, the other end has not taken them, 9 bytes not acknowledged
    "#]],
    );
    let again = format!("{text} / k retransmit 1 0..9 / k retransmit 1 0..9");
    check(
        &again,
        "pid=1 op=recv",
        State::default(),
        expect![[r#"
        culprit ?[1] send 9 B to 127.0.0.1:2: 9 bytes wait, the other end has not taken them, sent again 2 times
    "#]],
    );
}

#[test]
fn a_connect_that_nobody_answered() {
    let text = "a connect 1 remote=127.0.0.1:80 / k retransmit 1";
    check(
        text,
        "pid=1 op=recv",
        State::default(),
        expect![[r#"
        possibly ?[1] connect to 127.0.0.1:80: nobody answered, asked again once
    "#]],
    );
    let listener = |queues| Socket {
        state: crate::state::LISTEN.to_owned(),
        local: "0.0.0.0:80".to_owned(),
        ..socket(9, queues, vec![2])
    };
    let of = |socket| State { sockets: vec![socket], ..State::default() };
    check(
        text,
        "pid=1 op=recv",
        of(listener((3, 2))),
        expect![[r#"
        possibly ?[1] connect to 127.0.0.1:80: 0.0.0.0:80 of web[2] has a full backlog: 3 wait to be accepted, 2 may, asked again once
    "#]],
    );
    check(
        text,
        "pid=1 op=recv",
        of(listener((0, 2))),
        expect![[r#"
        possibly ?[1] connect to 127.0.0.1:80: 0.0.0.0:80 of web[2] listens: 0 wait to be accepted, 2 may, asked again once
    "#]],
    );
    // One that is made is none of these.
    let made = format!("{text} / k established 1");
    check(
        &made,
        "pid=1 op=recv",
        of(listener((3, 2))),
        expect![[r#"
        culprit ?[1] connect to 127.0.0.1:80: the request got there, then nothing for 2.00 ms
    "#]],
    );
}
