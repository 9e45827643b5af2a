//! Each rule, over tiny written histories.

mod local;

use expect_test::{Expect, expect};

use super::written::{history, show_edges};
use super::{EdgeKind, Graph, check};

/// The edges of a written history but intervals and program order, and the holes.
fn check(text: &str, expected: Expect) {
    let shown = &EdgeKind::ALL[2..];
    check_kinds(text, shown, expected);
}

fn check_kinds(text: &str, kinds: &[EdgeKind], expected: Expect) {
    let history = history(text);
    let graph = Graph::build(&history);
    let wrong = check::check(&history, &graph);
    assert!(wrong.is_empty(), "{wrong:#?}");
    expected.assert_eq(&show_edges(&history, &graph, kinds));
}

#[test]
fn program_order() {
    let kinds = [EdgeKind::Program];
    check_kinds(
        "a exec / b exec / a signal target=b / k closed 1 / a exit",
        &kinds,
        expect![[r#"
            a exec → a signal  must program end→begin
            a signal → a exit  must program end→begin
        "#]],
    );
}

#[test]
fn a_tid_used_again_is_another_thread() {
    check_kinds(
        "a send 1 0..9 / a exit / a close 1 9..10 eof / b fork target=a / a exec / a exit",
        &[EdgeKind::Program, EdgeKind::Task],
        expect![[r#"
            a send 1 0..9 → a exit  must program end→begin
            a exit → a close 1 9..10  must program end→begin
            b fork → a exec  must task begin→begin
            a exec → a exit  must program end→begin
        "#]],
    );
}

#[test]
fn bytes() {
    check(
        "a send 1 0..9 / b recv 2 0..4 / b recv 2 4..9",
        expect![[r#"
        a send 1 0..9 → b recv 2 0..4  must bytes begin→end
        a send 1 0..9 → b recv 2 4..9  must bytes begin→end
    "#]],
    );
    check(
        "a send 1 0..4 / a send 1 4..9 / b recv 2 0..9",
        expect![[r#"
        a send 1 0..4 → b recv 2 0..9  must bytes begin→end
        a send 1 4..9 → b recv 2 0..9  must bytes begin→end
    "#]],
    );
    // Both directions, and another connection.
    check(
        "a send 1 0..9 / b recv 2 0..9 / b send 2 0..5 / a recv 1 0..5 / a send 3 0..9",
        expect![[r#"
            a send 1 0..9 → b recv 2 0..9  must bytes begin→end
            b send 2 0..5 → a recv 1 0..5  must bytes begin→end
        "#]],
    );
}

#[test]
fn a_receive_may_be_stamped_before_its_send_returns() {
    check(
        "b recv 2 0..9 at=1000 / a send 1 0..9 at=2000",
        expect![[r#"
        a send 1 0..9 → b recv 2 0..9  must bytes begin→end
    "#]],
    );
}

#[test]
fn retransmission_changes_nothing() {
    check(
        "a send 1 0..9 / k retransmit 1 / k retransmit 1 / b recv 2 0..9",
        expect![[r#"
        a send 1 0..9 → b recv 2 0..9  must bytes begin→end
    "#]],
    );
}

#[test]
fn failed_and_urgent_calls_have_no_bytes() {
    check(
        "a send 1 0..9 / b recv 2 error=EAGAIN / b recv 2 0..1 urgent / b recv 2 0..9",
        expect![[r#"
            a send 1 0..9 → b recv 2 0..9  must bytes begin→end
        "#]],
    );
}

#[test]
fn peek_does_not_consume() {
    check(
        "a send 1 0..9 / b recv 2 0..5 peek / b recv 2 0..9",
        expect![[r#"
        a send 1 0..9 → b recv 2 0..5  must bytes begin→end
        a send 1 0..9 → b recv 2 0..9  must bytes begin→end
    "#]],
    );
}

/// `SO_PEEK_OFF`: it looked further ahead than the next byte, and the bytes before are taken all the same.
#[test]
fn a_peek_ahead_leaves_no_hole() {
    check(
        "a send 1 0..9 / b recv 2 6..9 peek / b recv 2 0..9",
        expect![[r#"
            a send 1 0..9 → b recv 2 6..9  must bytes begin→end
            a send 1 0..9 → b recv 2 0..9  must bytes begin→end
        "#]],
    );
}

/// A counter that stands still while bytes are moved does not count them (sockmap): then the lengths are all
/// there is.
#[test]
fn calls_that_the_counter_does_not_count_are_only_possible() {
    check(
        "a send 1 0..9 / b recv 2 0..9 / a send 1 0..9 / b recv 2 0..9",
        expect![[r#"
            a send 1 0..9 → b recv 2 0..9  may bytes begin→end
            a send 1 0..9 → b recv 2 0..9  may bytes begin→end
        "#]],
    );
    check(
        "a send 1 0..9 / c send 1 0..9 / b recv 2 0..9 / b recv 2 9..18",
        expect![[r#"
            a send 1 0..9 → b recv 2 0..9  may bytes begin→end
            c send 1 0..9 → b recv 2 9..18  may bytes begin→end
        "#]],
    );
}

#[test]
fn a_hole_leaves_the_rest_exact() {
    check(
        "a send 1 0..9 / a send 1 20..30 / b recv 2 0..9 / b recv 2 9..30",
        expect![[r#"
        a send 1 0..9 → b recv 2 0..9  must bytes begin→end
        a send 1 20..30 → b recv 2 9..30  must bytes begin→end
        hole 9..20 before a send 1 20..30
    "#]],
    );
}

#[test]
fn half_seen_streams_have_no_edges() {
    check("a send 1 0..9 / a recv 1 0..5", expect![[""]]);
}

#[test]
fn a_connection_older_than_the_recording() {
    check(
        "a send 1 1000..1009 computed / b recv 2 1000..1009",
        expect![[r#"
            a send 1 1000..1009 → b recv 2 1000..1009  may bytes begin→end
            hole 0..1000 before a send 1 1000..1009
            hole 0..1000 before b recv 2 1000..1009
        "#]],
    );
    // The number of the end that asked was computed one too high, so its offsets are one too low.
    check(
        "a send 1 999..1008 computed iss=1001001 / b recv 2 1000..1009",
        expect![[r#"
            a send 1 999..1008 → b recv 2 1000..1009  may bytes begin→end
            hole 0..1000 before a send 1 999..1008
            hole 0..1000 before b recv 2 1000..1009
        "#]],
    );
}

#[test]
fn offsets_beyond_4_gib() {
    check(
        "a send 1 0..4294967296 / a send 1 4294967296..4294967300 / b recv 2 0..4294967298",
        expect![[r#"
            a send 1 0..4294967296 → b recv 2 0..4294967298  must bytes begin→end
            a send 1 4294967296..4294967300 → b recv 2 0..4294967298  must bytes begin→end
        "#]],
    );
}

#[test]
fn racing_writers_that_lengths_tell_apart() {
    // b's second call reported 11, but cannot lie at 8..11: a found 9 bytes filled when it went on.
    check(
        "b send 1 4..6 / a send 1 5..9 / b send 1 8..11 / a send 1 9..11 / c recv 2 0..6 / c recv 2 6..9 / c recv 2 9..11",
        expect![[r#"
            b send 1 4..6 → c recv 2 0..6  must bytes begin→end
            a send 1 5..9 → c recv 2 0..6  must bytes begin→end
            b send 1 8..11 → c recv 2 6..9  must bytes begin→end
            a send 1 9..11 → c recv 2 9..11  must bytes begin→end
        "#]],
    );
}

#[test]
fn racing_writers_that_nothing_tells_apart() {
    check(
        "a send 1 5..10 / b send 1 5..10 / c recv 2 0..5 / c recv 2 5..10",
        expect![[r#"
        a send 1 5..10 → c recv 2 0..5  may bytes begin→end
        b send 1 5..10 → c recv 2 0..5  may bytes begin→end
        a send 1 5..10 → c recv 2 5..10  may bytes begin→end
        b send 1 5..10 → c recv 2 5..10  may bytes begin→end
    "#]],
    );
    // Who reads across both has read from both.
    check(
        "a send 1 5..10 / b send 1 5..10 / c recv 2 0..10",
        expect![[r#"
        a send 1 5..10 → c recv 2 0..10  must bytes begin→end
        b send 1 5..10 → c recv 2 0..10  must bytes begin→end
    "#]],
    );
}

#[test]
fn racing_readers() {
    check(
        "a send 1 0..5 / a send 1 5..12 / b.b recv 2 7..12 / b.c recv 2 5..12",
        expect![[r#"
        a send 1 0..5 → b recv 2 7..12  may bytes begin→end
        a send 1 5..12 → b recv 2 7..12  may bytes begin→end
        a send 1 0..5 → b.c recv 2 5..12  may bytes begin→end
        a send 1 5..12 → b.c recv 2 5..12  must bytes begin→end
    "#]],
    );
    check(
        "a send 1 0..5 / a send 1 5..10 / b.b recv 2 5..10 / b.c recv 2 5..10",
        expect![[r#"
        a send 1 0..5 → b recv 2 5..10  may bytes begin→end
        a send 1 5..10 → b recv 2 5..10  may bytes begin→end
        a send 1 0..5 → b.c recv 2 5..10  may bytes begin→end
        a send 1 5..10 → b.c recv 2 5..10  may bytes begin→end
    "#]],
    );
}

#[test]
fn a_call_beyond_a_hole_may_lie_in_it() {
    // An unseen thread may have moved the counter on while b sent.
    check(
        "a send 1 0..9 / b send 1 20..30 / c recv 2 0..20 / c recv 2 20..30",
        expect![[r#"
        a send 1 0..9 → c recv 2 0..20  must bytes begin→end
        b send 1 20..30 → c recv 2 0..20  may bytes begin→end
        b send 1 20..30 → c recv 2 20..30  may bytes begin→end
        hole 9..20 before b send 1 20..30
    "#]],
    );
    // a went on from where it had found the counter.
    check(
        "a send 1 0..9 / a send 1 20..30 / a send 1 30..35 / c recv 2 0..30 / c recv 2 30..35",
        expect![[r#"
        a send 1 0..9 → c recv 2 0..30  must bytes begin→end
        a send 1 20..30 → c recv 2 0..30  must bytes begin→end
        a send 1 30..35 → c recv 2 30..35  must bytes begin→end
        hole 9..20 before a send 1 20..30
    "#]],
    );
}

#[test]
fn a_blocked_send_lets_another_in() {
    // a's bytes may lie around b's.
    check(
        "b send 1 40..50 / a send 1 10..110 / c recv 2 0..40 / c recv 2 40..50 / c recv 2 50..110",
        expect![[r#"
        b send 1 40..50 → c recv 2 0..40  may bytes begin→end
        a send 1 10..110 → c recv 2 0..40  must bytes begin→end
        b send 1 40..50 → c recv 2 40..50  may bytes begin→end
        a send 1 10..110 → c recv 2 40..50  may bytes begin→end
        a send 1 10..110 → c recv 2 50..110  must bytes begin→end
    "#]],
    );
}

#[test]
fn a_reused_port_is_another_connection() {
    check(
        "a send 1 0..9 / b recv 2 0..9 /
         a send 5 0..9 local=127.0.0.1:1 remote=127.0.0.1:2 /
         b recv 6 0..9 local=127.0.0.1:2 remote=127.0.0.1:1",
        expect![[r#"
            a send 1 0..9 → b recv 2 0..9  must bytes begin→end
            a send 5 0..9 → b recv 6 0..9  must bytes begin→end
        "#]],
    );
}

#[test]
fn a_socket_connected_anew_is_another_endpoint() {
    check(
        "a send 1 0..9 / b recv 2 0..9 / a connect 1 unknown / a send 1 0..5 iss=77 irs=88 / b recv 4 0..5 iss=88 irs=77",
        expect![[r#"
            a send 1 0..9 → b recv 2 0..9  must bytes begin→end
            a send 1 0..5 → b recv 4 0..5  must bytes begin→end
        "#]],
    );
}

#[test]
fn two_hosts_and_nat_between() {
    check(
        "a send 1 0..9 / b recv 2 0..9 host=1 at=10 local=10.0.0.1:80 remote=10.0.0.9:3333",
        expect![[r#"
            a send 1 0..9 → b recv 2 0..9  must bytes begin→end
        "#]],
    );
}

#[test]
fn numbers_that_two_pairs_share_prove_nothing() {
    check(
        "a send 1 0..9 / b recv 2 0..9 / c recv 4 0..9 iss=1002000 irs=1001000 local=127.0.0.1:2 remote=127.0.0.1:1",
        expect![[r#"
            a send 1 0..9 → b recv 2 0..9  may bytes begin→end
            a send 1 0..9 → c recv 4 0..9  may bytes begin→end
        "#]],
    );
}

#[test]
fn connection_made() {
    check(
        "b listen 9 local=0.0.0.0:2 unknown /
         a connect 1 / k established 1 active cpu=0 / k established 2 cpu=1 /
         a send 1 0..9 / b.c recv 2 0..9 / b.d send 2 0..5",
        expect![[r#"
            a connect 1 → k established 1  must connection begin→begin
            b listen 9 → k established 2  must connection begin→begin
            a connect 1 → k established 2  must connection begin→begin
            k established 1 → k established 2  must connection begin→begin
            k established 1 → a send 1 0..9  must connection begin→end
            k established 2 → b.c recv 2 0..9  must connection begin→end
            a send 1 0..9 → b.c recv 2 0..9  must bytes begin→end
            k established 2 → b.d send 2 0..5  must connection begin→end
        "#]],
    );
}

#[test]
fn connection_refused() {
    check(
        "b listen 9 local=127.0.0.1:2 unknown / b unlisten 9 local=127.0.0.1:2 unknown /
         a connect 1 unknown / k error 1 unknown error=ECONNREFUSED / a exit",
        expect![[r#"
            b unlisten 9 → k error 1 ECONNREFUSED  must close begin→begin
            a connect 1 → k error 1 ECONNREFUSED  must connection begin→begin
            k error 1 ECONNREFUSED → a exit  may connection begin→end
        "#]],
    );
    // What the asker ended before it was refused knew nothing of it.
    check_kinds(
        "a connect 1 unknown / a call count=2 / k error 1 unknown error=ECONNREFUSED / a exit count=3",
        &[EdgeKind::Connection],
        expect![[r#"
            a connect 1 → k error 1 ECONNREFUSED  must connection begin→begin
            k error 1 ECONNREFUSED → a exit  may connection begin→end
        "#]],
    );
    // Nobody was ever seen to listen.
    check(
        "a connect 1 unknown / k error 1 unknown error=ECONNREFUSED",
        expect![[r#"
        a connect 1 → k error 1 ECONNREFUSED  must connection begin→begin
    "#]],
    );
}

#[test]
fn half_close_is_seen_as_eof() {
    check(
        "a send 1 0..9 / a close 1 9..10 eof / b recv 2 0..9 / b recv 2 9..10 eof / b recv 2 9..10 eof /
         b send 2 0..5 / a recv 1 0..5 / b close 2 5..6 eof / a recv 1 5..6 eof",
        expect![[r#"
            a send 1 0..9 → b recv 2 0..9  must bytes begin→end
            a close 1 9..10 → b recv 2 9..10  must close begin→end
            a close 1 9..10 → b recv 2 9..10  must close begin→end
            b send 2 0..5 → a recv 1 0..5  must bytes begin→end
            b close 2 5..6 → a recv 1 5..6  must close begin→end
        "#]],
    );
}

#[test]
fn reset_by_abort() {
    check(
        "a abort 1 / k reset_sent 1 / k reset_received 2 cpu=1 / k error 2 error=ECONNRESET cpu=1 /
         b recv 2 error=ECONNRESET / b send 2 error=EPIPE",
        expect![[r#"
            a abort 1 → k reset_sent 1  must close begin→begin
            k reset_sent 1 → k reset_received 2  must close begin→begin
            k reset_received 2 → k error 2 ECONNRESET  must close begin→begin
            k error 2 ECONNRESET → b recv 2 ECONNRESET  must close begin→end
            k error 2 ECONNRESET → b send 2 EPIPE  may close begin→end
        "#]],
    );
}

#[test]
fn reset_is_stamped_after_its_arrival() {
    check(
        "a abort 1 / k reset_received 2 / k error 2 error=ECONNRESET / k reset_sent 1 / b recv 2 error=ECONNRESET",
        expect![[r#"
            k reset_sent 1 → k reset_received 2  must close begin→begin
            k reset_received 2 → k error 2 ECONNRESET  must close begin→begin
            a abort 1 → k reset_sent 1  must close begin→begin
            k error 2 ECONNRESET → b recv 2 ECONNRESET  must close begin→end
        "#]],
    );
}

#[test]
fn reset_that_answers() {
    check(
        "a close 1 0..1 eof / b send 2 0..9 / k reset_sent 1 / k reset_received 2 cpu=1 /
         k error 2 error=EPIPE cpu=1 / b send 2 error=EPIPE",
        expect![[r#"
            a close 1 0..1 → k reset_sent 1  must close begin→begin
            b send 2 0..9 → k reset_sent 1  may close begin→begin
            k reset_sent 1 → k reset_received 2  must close begin→begin
            k reset_received 2 → k error 2 EPIPE  must close begin→begin
            k error 2 EPIPE → b send 2 EPIPE  must close begin→end
        "#]],
    );
    // The socket is gone: the reset bears its addresses.
    check(
        "a close 1 0..1 eof / b send 2 0..9 / k reset_sent local=127.0.0.1:1 remote=127.0.0.1:2 / k reset_received 2",
        expect![[r#"
            a close 1 0..1 → k reset_sent  may close begin→begin
            b send 2 0..9 → k reset_sent  may close begin→begin
            k reset_sent → k reset_received 2  must close begin→begin
        "#]],
    );
}

#[test]
fn server_side_event_while_the_client_is_current() {
    // The lane has no thread, so nothing joins it to the client's program order.
    check_kinds(
        "a connect 1 / k established 1 active / k established 2 / a send 1 0..9 / b recv 2 0..9",
        &EdgeKind::ALL[1..],
        expect![[r#"
            a connect 1 → k established 1  must connection begin→begin
            a connect 1 → k established 2  must connection begin→begin
            k established 1 → k established 2  must connection begin→begin
            a connect 1 → a send 1 0..9  must program end→begin
            k established 1 → a send 1 0..9  must connection begin→end
            k established 2 → b recv 2 0..9  must connection begin→end
            a send 1 0..9 → b recv 2 0..9  must bytes begin→end
        "#]],
    );
}

#[test]
fn fork() {
    check(
        "a fork target=b / b exec / a fork target=c / c exit / a fork target=c / c.c exec",
        expect![[r#"
            a fork → b exec  must task begin→begin
            a fork → c exit  must task begin→begin
            a fork → c exec  must task begin→begin
        "#]],
    );
}

#[test]
fn program_order_goes_round_wakes() {
    let kinds = [EdgeKind::Program];
    check_kinds(
        "a exec count=1 / a wake target=b count=2 / a wake target=b count=3 / a send 1 0..9 count=4 / a exit count=5",
        &kinds,
        expect![[r#"
            a exec → a wake  must program end→begin
            a wake → a wake  must program end→begin
            a exec → a send 1 0..9  must program end→begin
            a wake → a send 1 0..9  must program end→end
            a send 1 0..9 → a exit  must program end→begin
        "#]],
    );
    // Whoever waits for a thread is woken when its exit has been noted; the same thread still.
    check_kinds(
        "a exit / a wake target=b / a signal target=b",
        &kinds,
        expect![[r#"
            a exit → a wake  must program end→begin
            a exit → a signal  must program end→begin
            a wake → a signal  must program end→end
        "#]],
    );
    // A fork precedes all that its child does, whether or not that wakes somebody first.
    check_kinds(
        "b fork target=a / a wake target=b / a exec",
        &[EdgeKind::Task],
        expect![[r#"
            b fork → a wake  must task begin→begin
            b fork → a exec  must task begin→begin
        "#]],
    );
}

#[test]
fn a_wake_precedes_the_end_of_what_comes_next() {
    let kinds = [EdgeKind::Wake];
    check_kinds(
        "b exec count=7 / a wake target=b result=7 / b call syscall=futex begin=100 count=8 / b exit count=9",
        &kinds,
        expect![[r#"
            a wake → b call  must wake end→end
        "#]],
    );
    // The next event may be a wake itself.
    check_kinds(
        "a wake target=b result=0 / b wake target=c count=1 / b call count=2",
        &kinds,
        expect![[r#"
            a wake → b wake  must wake end→end
        "#]],
    );
    // What it did next is missing, or was another thread's of that number.
    check_kinds("a wake target=b result=7 / b call count=9", &kinds, expect![""]);
    check_kinds("b call count=8 / a wake target=b result=7 / b call count=9", &kinds, expect![""]);
    check_kinds(
        "a wake target=b result=7 / b exec count=1 / b send 1 0..1 count=8",
        &kinds,
        expect![""],
    );
    // Another thread has been given the number since.
    check_kinds("a wake target=b result=0 / d fork target=b / b exit count=1", &kinds, expect![""]);
}

/// A wait's end has told which process ended: its target.
#[test]
fn a_process_ends_before_a_wait_for_it() {
    check(
        "a fork target=b / b.c exit / b exit last / a call syscall=wait4 target=b",
        expect![[r#"
            a fork → b exit  must task begin→begin
            b exit → a call  must task end→end
        "#]],
    );
    // Of two processes of one number the one that ended last, and only once it has.
    check(
        "a fork target=b / b exit last / a call target=b / a fork target=b / b exec / a call target=b / b exit last",
        expect![[r#"
            a fork → b exit  must task begin→begin
            b exit → a call  must task end→end
            a fork → b exec  must task begin→begin
        "#]],
    );
    // A thread that was not the last, a call that told of no end, and a process of others'.
    check(
        "a fork target=b / b exit / a call target=b / a call",
        expect![[r#"
            a fork → b exit  must task begin→begin
        "#]],
    );
    check(
        "d fork target=b / b exit last / a call target=b",
        expect![[r#"
            d fork → b exit  must task begin→begin
        "#]],
    );
    // The number was given again while the call was under way, which may have been about either.
    check(
        "a fork target=b / b exit last / a.x fork target=b / b exit last / a call begin=100 target=b",
        expect![[r#"
            a fork → b exit  must task begin→begin
            a.x fork → b exit  must task begin→begin
            b exit → a call  may task end→end
        "#]],
    );
    check(
        "a.x fork target=b / b exit last / a call begin=100 target=b",
        expect![[r#"
        a.x fork → b exit  must task begin→begin
        b exit → a call  must task end→end
    "#]],
    );
}

#[test]
fn signals() {
    check(
        "a signal signal=15 target=b process / b deliver signal=15 / b exit",
        expect![[r#"
        a signal → b deliver  must signal begin→end
    "#]],
    );
    // Meant for the process, taken by another thread; meant for one thread.
    check(
        "a signal signal=10 target=b process / b.c deliver signal=10",
        expect![[r#"
        a signal → b.c deliver  must signal begin→end
    "#]],
    );
    check("a signal signal=10 target=b / b.c deliver signal=10", expect![[""]]);
    // Ignored, or already pending.
    check(
        "a signal signal=10 target=b process / c signal signal=10 target=b process ignored / b deliver signal=10",
        expect![[r#"
            a signal → b deliver  must signal begin→end
        "#]],
    );
    check(
        "a signal signal=10 target=b process / c signal signal=10 target=b / b deliver signal=10 / b deliver signal=10",
        expect![[r#"
            a signal → b deliver  may signal begin→end
            c signal → b deliver  may signal begin→end
            a signal → b deliver  may signal begin→end
        "#]],
    );
}

#[test]
fn sigkill_takes_every_thread() {
    check(
        "a signal signal=9 target=b process / b deliver signal=9 / b.c deliver signal=9 / b exit / b.c exit",
        expect![[r#"
            a signal → b deliver  must signal begin→end
            a signal → b.c deliver  must signal begin→end
        "#]],
    );
    // A thread ended the process: the others are killed for it.
    check(
        "b exit / b.c deliver signal=9 / b.c exit",
        expect![[r#"
        b exit → b.c deliver  may signal begin→end
    "#]],
    );
    // SIGTERM without a handler comes as SIGKILL.
    check(
        "a signal signal=15 target=b process / b deliver signal=9 / b exit",
        expect![[r#"
        a signal → b deliver  must signal begin→end
    "#]],
    );
    // A thread that nothing else is known of may be one of the process: then SIGKILL took them all.
    check(
        "a signal signal=15 target=b process / a signal signal=9 target=d / b deliver signal=9 / b exit",
        expect![[r#"
            a signal → b deliver  may signal begin→end
        "#]],
    );
    check(
        "a signal signal=15 target=b process / b deliver signal=9 / a signal signal=9 target=d /
         b.c deliver signal=9 / b exit",
        expect![[r#"
            a signal → b deliver  must signal begin→end
            a signal → b.c deliver  must signal begin→end
        "#]],
    );
}

#[test]
fn out_of_memory() {
    check(
        "k signal signal=9 target=b process / k oom_kill target=b / b deliver signal=9 / b exit",
        expect![[r#"
            k oom_kill → k signal  must signal begin→begin
            k signal → b deliver  must signal begin→end
        "#]],
    );
    // It asked for the memory itself: the signal is its own.
    check(
        "b signal signal=9 target=b process / k oom_kill target=b / b deliver signal=9 / b exit",
        expect![[r#"
            k oom_kill → b signal  must signal begin→begin
            b signal → b deliver  must signal begin→end
        "#]],
    );
    // It sent it itself, and was dying when it was chosen.
    check(
        "b signal signal=9 target=b process / b deliver signal=9 / k oom_kill target=b / b exit",
        expect![[r#"
            b signal → b deliver  must signal begin→end
        "#]],
    );
    check(
        "a signal signal=9 target=b process / k oom_kill target=b / b deliver signal=9 / b exit",
        expect![[r#"
            a signal → b deliver  must signal begin→end
        "#]],
    );
}

#[test]
fn a_blocked_send_is_answered_and_its_sender_killed() {
    // a's send blocks until a is killed for what it sent: points instead of intervals would make a cycle.
    check(
        "b recv 2 0..9 at=1000 / b send 4 0..5 at=2000 / c recv 3 0..5 at=3000 /
         c signal signal=9 target=a process at=4000 / a send 1 0..20 at=5000 begin=500 /
         a deliver signal=9 at=6000",
        expect![[r#"
            a send 1 0..20 → b recv 2 0..9  must bytes begin→end
            b send 4 0..5 → c recv 3 0..5  must bytes begin→end
            c signal → a deliver  must signal begin→end
        "#]],
    );
}

#[test]
fn who_has_a_connection_has_it_from_the_thread_that_accepted() {
    check(
        "b listen 9 local=127.0.0.1:2 / a connect 1 / k established 1 active / k established 2 cpu=1 /
         b.c accept 2 / b.d recv 2 0..9 / b.d send 2 0..5 / b.c send 2 5..6",
        expect![[r#"
            a connect 1 → k established 1  must connection begin→begin
            b listen 9 → k established 2  must connection begin→begin
            a connect 1 → k established 2  must connection begin→begin
            k established 1 → k established 2  must connection begin→begin
            k established 2 → b.c accept 2  must connection begin→end
            k established 2 → b.d recv 2 0..9  must connection begin→end
            b.c accept 2 → b.d recv 2 0..9  must connection end→begin
            k established 2 → b.c send 2 5..6  must connection begin→end
        "#]],
    );
}

#[test]
fn a_connection_that_is_destroyed_breaks_at_both_ends() {
    // The first socket was destroyed; the second was thrown away by its user before.
    check(
        "a send 1 0..5 / a fault 1 eof fault=f error=ECONNABORTED / a send 1 5..9 / k reset_sent 1 /
         k error 1 error=ECONNABORTED / k error 1 error=ECONNRESET /
         b fault 3 eof fault=f error=ECONNABORTED / b abort 3 / k reset_sent 3",
        expect![[r#"
            a fault 1 ECONNABORTED → k reset_sent 1  must fault end→begin
            a fault 1 ECONNABORTED → k error 1 ECONNABORTED  must fault end→begin
            b fault 3 ECONNABORTED → k reset_sent 3  may fault end→begin
            b abort 3 → k reset_sent 3  must close begin→begin
        "#]],
    );
}

#[test]
fn a_process_that_is_restarted_leads_to_the_one_in_its_place() {
    // b takes a's place, and kills it before it begins its own program; c would take that of another.
    check(
        "a fault fault=f signal=19 target=a / a signal signal=19 target=a.a process /
         b fault fault=f signal=9 target=a / b signal signal=9 target=a.a process / a deliver signal=9 / b exec /
         c fault fault=f signal=9 target=d",
        expect![[r#"
            a fault → a signal  must fault end→begin
            a fault → b fault  must fault end→end
            b fault → b signal  must fault end→begin
            b signal → a deliver  must signal begin→end
        "#]],
    );
}

#[test]
fn a_fault_leads_to_what_it_changed() {
    check(
        "a fault fault=f error=ECONNREFUSED / a connect fault=f error=ECONNREFUSED /
         a fault fault=g error=ECONNREFUSED / a connect 1 /
         a.b fault fault=h signal=9 / a.b signal signal=9 target=a process / a.b deliver signal=9",
        expect![[r#"
            a fault ECONNREFUSED → a connect ECONNREFUSED  must fault end→end
            a.b fault → a.b signal  must fault end→begin
            a.b signal → a.b deliver  must signal begin→end
        "#]],
    );
}
