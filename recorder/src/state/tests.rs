//! What is kept and found, on made-up states.

use super::*;
use crate::graph::written::history;

fn socket(cookie: u64, state: &str, receive_queue: u32, send_queue: u32) -> Socket {
    Socket { cookie, state: state.to_owned(), receive_queue, send_queue, ..Socket::default() }
}

fn thread(tid: u32, call: &str) -> Thread {
    let (state, call) = ("S".to_owned(), call.to_owned());
    Thread { pid: 1, tid, state, call, ..Thread::default() }
}

#[test]
fn what_the_recording_is_about_is_kept_and_what_listens() {
    let mut state = State {
        sockets: vec![
            socket(1, "established", 0, 0),
            socket(2, "established", 7, 0),
            socket(3, "listen", 0, 5),
            socket(4, "established", 9, 9),
        ],
        threads: vec![thread(1, "epoll_wait"), thread(2, "futex"), thread(3, "read")],
        ..State::default()
    };
    state.keep(&HashSet::from([(1, 1), (1, 2)]), &HashSet::from([1, 2]));
    // Where something waits comes first.
    assert_eq!(state.sockets.iter().map(|s| s.cookie).collect::<Vec<_>>(), [2, 3, 1]);
    assert_eq!(state.threads.iter().map(|t| t.tid).collect::<Vec<_>>(), [2, 1]);
    assert_eq!((state.sockets_left_out, state.threads_left_out), (0, 0));
}

#[test]
fn what_finds_no_room_is_counted() {
    let most = MOST_SOCKETS as u64;
    let sockets =
        (1..=most + 3).map(|cookie| socket(cookie, "established", (cookie > most) as u32, 0));
    let threads = (1..=MOST_THREADS as u32 + 2).map(|tid| thread(tid, "read"));
    let mut state =
        State { sockets: sockets.collect(), threads: threads.collect(), ..State::default() };
    let all = (1..=MOST_THREADS as u32 + 2).map(|tid| (1, tid)).collect::<HashSet<_>>();
    state.keep(&all, &(1..=most + 3).collect::<HashSet<_>>());
    assert_eq!((state.sockets.len(), state.sockets_left_out), (MOST_SOCKETS, 3));
    assert_eq!((state.threads.len(), state.threads_left_out), (MOST_THREADS, 2));
    assert_eq!(state.sockets[0].cookie, most + 1);
}

#[test]
fn a_backlog_is_full_when_one_more_waits_than_was_asked_for() {
    let full = |waiting, most| socket(1, "listen", waiting, most).is_full();
    assert_eq!([full(0, 0), full(1, 0), full(1, 1), full(2, 1)], [false, true, false, true]);
    assert!(!socket(1, "established", 9, 1).is_full());
}

#[test]
fn a_thread_is_told_in_words() {
    let told = |state: &str, wchan: &str, call: &str| {
        let [state, wchan, call] = [state, wchan, call].map(str::to_owned);
        Thread { state, wchan, call, ..Thread::default() }.told()
    };
    assert_eq!(told("S", "futex_do_wait", "futex"), "asleep in futex");
    assert_eq!(told("S", "futex_do_wait", ""), "asleep in futex_do_wait");
    assert_eq!(told("D", "", ""), "asleep, not to be woken");
    assert_eq!([told("R", "", ""), told("T", "x", "read")], ["running", "stopped"]);
}

#[test]
fn what_a_thread_did_before_its_last_event_is_not_what_it_does_now() {
    let mut history = history("a send 1 0..9");
    let state = State { threads: vec![thread(1, "read")], ..State::default() };
    for (from_ns, known) in [(999, false), (1000, true), (2000, true)] {
        history.hosts[0].state = Some(State { from_ns, ..state.clone() });
        assert_eq!(history.hosts[0].thread_state(&history.events[0]).is_some(), known, "{from_ns}");
    }
}

#[test]
fn a_connect_asks_the_listener_of_its_network_namespace() {
    let listener = |netns, local: &str| Socket {
        netns,
        local: local.to_owned(),
        ..socket(u64::from(netns), "listen", 0, 5)
    };
    let mut history = history("a connect 1 remote=10.0.0.1:80 netns=7");
    history.hosts[0].namespaces =
        vec![crate::netns::Namespace { number: 7, inode: 70, name: String::new() }];
    let mut asked = |listeners: &[Socket]| {
        let sockets = listeners.to_vec();
        history.hosts[0].state = Some(State { sockets, ..State::default() });
        super::listener(&history, &history.events[0]).map(|found| found.netns)
    };
    assert_eq!(asked(&[listener(71, "0.0.0.0:80"), listener(70, "0.0.0.0:80")]), Some(70));
    assert_eq!(asked(&[listener(70, "[::]:80")]), Some(70));
    assert_eq!(asked(&[listener(70, "10.0.0.1:81"), listener(70, "10.0.0.2:80")]), None);
    // Another namespace that has the address, if only one has.
    assert_eq!(asked(&[listener(71, "10.0.0.1:80")]), Some(71));
    assert_eq!(asked(&[listener(71, "10.0.0.1:80"), listener(72, "10.0.0.1:80")]), None);
    assert_eq!(asked(&[listener(71, "0.0.0.0:80")]), None);
}
