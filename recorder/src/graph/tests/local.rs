//! Unix sockets and datagrams.

use expect_test::expect;

use super::check;

#[test]
fn what_one_thread_sent_through_a_unix_socket_is_what_one_received() {
    check(
        "a send 1 0..4 protocol=unix_stream / a send 1 4..9 protocol=unix_stream
         / b recv 2 0..6 protocol=unix_stream / b recv 2 6..9 protocol=unix_stream",
        expect![[r#"
            a send 1 0..4 → b recv 2 0..6  must bytes begin→end
            a send 1 4..9 → b recv 2 0..6  must bytes begin→end
            a send 1 4..9 → b recv 2 6..9  must bytes begin→end
        "#]],
    );
}

#[test]
fn calls_that_may_have_overlapped_are_only_possible() {
    // Which of a's and c's came first is not known: each was counted when it had returned.
    check(
        "a send 1 0..4 protocol=unix_stream / c send 1 4..9 protocol=unix_stream
         / b recv 2 0..4 protocol=unix_stream / b recv 2 4..9 protocol=unix_stream",
        expect![[r#"
            a send 1 0..4 → b recv 2 0..4  may bytes begin→end
            c send 1 4..9 → b recv 2 0..4  may bytes begin→end
            a send 1 0..4 → b recv 2 4..9  may bytes begin→end
            c send 1 4..9 → b recv 2 4..9  may bytes begin→end
        "#]],
    );
}

#[test]
fn what_was_not_all_counted_is_only_possible() {
    check(
        "a send 1 0..4 protocol=unix_stream / b recv 2 0..4 protocol=unix_stream unsure",
        expect![[r#"
            a send 1 0..4 → b recv 2 0..4  may bytes begin→end
        "#]],
    );
}

#[test]
fn a_call_that_nobody_recorded_may_have_come_before_those_counted_before_it() {
    check(
        "a send 1 0..4 protocol=unix_stream / a send 1 9..12 protocol=unix_stream
         / b recv 2 0..4 protocol=unix_stream",
        expect![[r#"
            a send 1 0..4 → b recv 2 0..4  may bytes begin→end
            hole 4..9 before a send 1 9..12
        "#]],
    );
}

#[test]
fn messages_are_numbered() {
    check(
        "a send 1 0..1 protocol=unix_seqpacket / a send 1 1..2 protocol=unix_seqpacket
         / b recv 2 0..1 protocol=unix_seqpacket",
        expect![[r#"
            a send 1 0..1 → b recv 2 0..1  must bytes begin→end
        "#]],
    );
}

#[test]
fn numbers_of_one_machine_mean_nothing_on_another_nor_in_another_protocol() {
    check(
        "a send 1 0..4 protocol=unix_stream / b recv 2 0..4 protocol=unix_stream host=1
         / c recv 2 0..4",
        expect![""],
    );
}

#[test]
fn a_datagram_may_be_each_of_its_length_that_went_its_way() {
    check(
        "a send 1 protocol=udp result=5 / a send 1 protocol=udp result=7 / a send 1 protocol=udp result=5
         / b recv 2 protocol=udp result=5 / b recv 2 protocol=udp result=7 / c recv 4 protocol=udp result=5",
        expect![[r#"
            a send 1 → b recv 2  may bytes begin→end
            a send 1 → b recv 2  may bytes begin→end
            a send 1 → b recv 2  may bytes begin→end
        "#]],
    );
}

#[test]
fn a_datagram_that_was_cut_may_be_of_any_length() {
    check(
        "a send 1 protocol=udp result=9 / b recv 2 protocol=udp result=5",
        expect![[r#"
            a send 1 → b recv 2  may bytes begin→end
        "#]],
    );
}

#[test]
fn loopback_is_each_namespaces_own() {
    check(
        "a send 1 protocol=udp result=5 netns=1 / b recv 2 protocol=udp result=5 netns=2
         / c recv 2 protocol=udp result=5 netns=1",
        expect![[r#"
            a send 1 → c recv 2  may bytes begin→end
        "#]],
    );
}

#[test]
fn a_socket_bound_to_all_addresses_has_the_one_that_is_written_to() {
    check(
        "a send 1 protocol=udp result=5 local=10.0.0.1:4000 remote=10.0.0.2:53
         / b recv 2 protocol=udp result=5 local=0.0.0.0:53 remote=10.0.0.1:4000
         / c recv 4 protocol=udp result=5 local=10.0.0.9:53 remote=10.0.0.1:4000",
        expect![[r#"
            a send 1 → b recv 2  may bytes begin→end
        "#]],
    );
}

#[test]
fn an_error_of_the_network_may_answer_what_was_sent_before() {
    check(
        "a send 1 protocol=udp result=5 / k error 1 protocol=udp error=ECONNREFUSED
         / a recv 1 protocol=udp error=ECONNREFUSED / b send 2 protocol=udp result=5
         / b recv 2 protocol=udp error=ECONNREFUSED",
        expect![[r#"
            a send 1 → k error 1 ECONNREFUSED  may close begin→begin
            k error 1 ECONNREFUSED → a recv 1 ECONNREFUSED  must close begin→end
            b send 2 → b recv 2 ECONNREFUSED  may close begin→end
        "#]],
    );
}

#[test]
fn unix_datagrams_go_to_the_socket_or_to_its_name() {
    check(
        "a send 1 protocol=unix_dgram result=5 iss=1 irs=2 local=unix: remote=unix:@log
         / b recv 2 protocol=unix_dgram result=5 unknown local=unix:@log
         / c recv 4 protocol=unix_dgram result=5 unknown local=unix:@other",
        expect![[r#"
            a send 1 → b recv 2  may bytes begin→end
        "#]],
    );
}
