//! Cases with a name: small histories in which causality is easily got wrong.

use expect_test::{Expect, expect};
use recorder::graph::{Graph, check::check};
use recorder::slice::{self, Options, Reach};

use crate::written::{edges, history};

fn graph_of(lines: &str, expected: &Expect) {
    let history = history(lines);
    let violations = check(&history, &Graph::build(&history));
    assert!(violations.is_empty(), "{violations:?}");
    expected.assert_eq(&edges(&history));
}

/// The send returns after its answer was read and its sender killed for it. With points for events,
/// cause and effect would form a cycle.
#[test]
fn a_blocked_send_is_answered_and_its_sender_killed_for_it_before_it_returns() {
    let lines = "
        10..30  server[2]  recv    on=1b bytes=0..100 cpu=1
        30..40  server[2]  signal  target=1 sig=9 process cpu=1
        0..60   client[1]  send    on=1a bytes=0..5000
        60..61  client[1]  deliver sig=9
        61..62  client[1]  exit    last
    ";
    graph_of(
        lines,
        &expect![[r#"
        must bytes      #2 client[1] send begin -> #0 server[2] recv end
        must program    #0 server[2] recv end -> #1 server[2] signal begin
        must program    #2 client[1] send end -> #3 client[1] deliver begin
        must signal     #1 server[2] signal begin -> #3 client[1] deliver end
        must program    #3 client[1] deliver end -> #4 client[1] exit begin
    "#]],
    );
    let history = history(lines);
    let graph = Graph::build(&history);
    // The kill must have been caused by the very send that it ended.
    let slice = slice::backward(&history, &graph, &[4], Options::default());
    assert!((0..5).all(|event| slice.reach(event) == Reach::Must));
}

/// On loopback the client's CPU establishes the server's end, while the client is the current task.
#[test]
fn a_server_side_event_is_raised_while_the_client_is_current() {
    graph_of(
        "
        0..10  server[2]  listen      socket=90 at=127.0.0.1:80 cpu=1
        0..20  client[1]  connect     on=1a new
        21..21 kernel     established on=1a active owner=1
        22..22 kernel     established on=1b
        20..30 client[1]  send        on=1a bytes=0..9
        10..40 server[2]  recv        on=1b bytes=0..9 cpu=1
        ",
        &expect![[r#"
            must connection #1 client[1] connect begin -> #2 kernel established begin
            must connection #0 server[2] listen begin -> #3 kernel established begin
            must connection #1 client[1] connect begin -> #3 kernel established begin
            must connection #2 kernel established begin -> #3 kernel established begin
            must program    #1 client[1] connect end -> #4 client[1] send begin
            must connection #2 kernel established begin -> #4 client[1] send end
            must program    #0 server[2] listen end -> #5 server[2] recv begin
            must connection #3 kernel established begin -> #5 server[2] recv end
            must bytes      #4 client[1] send begin -> #5 server[2] recv end
        "#]],
    );
}

#[test]
fn a_receive_is_stamped_before_its_send() {
    graph_of(
        "
        0..100 client[1] send on=1a bytes=0..9
        0..50  server[2] recv on=1b bytes=0..9 cpu=1
        ",
        &expect![[r#"
            must bytes      #1 client[1] send begin -> #0 server[2] recv end
        "#]],
    );
}

/// The clock of the host of the effect is behind; nothing may be concluded from it.
#[test]
fn hosts_with_other_clocks() {
    graph_of(
        "
        9000..9010 client[1] send on=1a bytes=0..9
        10..20     server[1] recv on=1b bytes=0..9 host=1
        20..30     server[1] send on=1b bytes=0..4 host=1
        9010..9020 client[1] recv on=1a bytes=0..4
        ",
        &expect![[r#"
            must program    #0 client[1] send end -> #1 client[1] recv begin
            must bytes      #3 server[1] send begin -> #1 client[1] recv end
            must bytes      #0 client[1] send begin -> #2 server[1] recv end
            must program    #2 server[1] recv end -> #3 server[1] send begin
        "#]],
    );
}

/// NAT changes the addresses, not the initial numbers.
#[test]
fn addresses_translated_on_the_way() {
    graph_of(
        "
        0..10 client[1] send on=1a to=198.51.100.1:80 bytes=0..9
        0..20 server[2] recv on=1b to=192.0.2.1:1234 bytes=0..9 host=1
        ",
        &expect![[r#"
            must bytes      #0 client[1] send begin -> #1 server[2] recv end
        "#]],
    );
}

/// Two threads write; both read the counter when both had written. Which bytes are whose is open.
#[test]
fn two_writers_report_the_same_end() {
    graph_of(
        "
        0..50 client[1.1] send on=1a bytes=10..20
        0..51 client[1.2] send on=1a bytes=10..20 cpu=1
        0..60 server[2]   recv on=1b bytes=0..10
        60..70 server[2]  recv on=1b bytes=10..20
        ",
        &expect![[r#"
            may  bytes      #0 client[1] send begin -> #2 server[2] recv end
            may  bytes      #1 client[2] send begin -> #2 server[2] recv end
            must program    #2 server[2] recv end -> #3 server[2] recv begin
            may  bytes      #0 client[1] send begin -> #3 server[2] recv end
            may  bytes      #1 client[2] send begin -> #3 server[2] recv end
        "#]],
    );
}

/// While the first writer waits for space the second one's bytes go between its own.
#[test]
fn a_blocked_writer_lets_another_in() {
    graph_of(
        "
        0..50  client[1.2] send on=1a bytes=40..50 cpu=1
        0..100 client[1.1] send on=1a bytes=10..110
        0..60  server[2]   recv on=1b bytes=0..40
        60..70 server[2]   recv on=1b bytes=40..50
        70..99 server[2]   recv on=1b bytes=50..110
        ",
        &expect![[r#"
            may  bytes      #0 client[2] send begin -> #1 server[2] recv end
            must bytes      #4 client[1] send begin -> #1 server[2] recv end
            must program    #1 server[2] recv end -> #2 server[2] recv begin
            may  bytes      #0 client[2] send begin -> #2 server[2] recv end
            may  bytes      #4 client[1] send begin -> #2 server[2] recv end
            must program    #2 server[2] recv end -> #3 server[2] recv begin
            must bytes      #4 client[1] send begin -> #3 server[2] recv end
        "#]],
    );
}

/// The first bytes are a call's that had not returned when the recording ended, or nobody's that is seen.
#[test]
fn a_hole_before_a_send() {
    graph_of(
        "
        0..50 client[1.1] send on=1a bytes=61..125
        0..40 server[2]   recv on=1b bytes=0..61
        40..60 server[2]  recv on=1b bytes=61..125
        ",
        &expect![[r#"
            may  bytes      #1 client[1] send begin -> #0 server[2] recv end
            must program    #0 server[2] recv end -> #2 server[2] recv begin
            must bytes      #1 client[1] send begin -> #2 server[2] recv end
        "#]],
    );
}

#[test]
fn a_peek_takes_nothing() {
    graph_of(
        "
        0..10  client[1] send on=1a bytes=0..9
        0..20  server[2] recv on=1b bytes=0..5 peek
        20..30 server[2] recv on=1b bytes=0..9
        ",
        &expect![[r#"
            must bytes      #0 client[1] send begin -> #1 server[2] recv end
            must program    #1 server[2] recv end -> #2 server[2] recv begin
            must bytes      #0 client[1] send begin -> #2 server[2] recv end
        "#]],
    );
}

#[test]
fn a_shutdown_is_seen_as_the_end_of_the_stream() {
    graph_of(
        "
        0..10  client[1.1] send  on=1a bytes=0..9
        0..20  client[1.2] close on=1a fin=9 cpu=1
        0..30  server[2]   recv  on=1b bytes=0..9
        30..40 server[2]   recv  on=1b fin=9
        ",
        &expect![[r#"
            must bytes      #0 client[1] send begin -> #2 server[2] recv end
            must program    #2 server[2] recv end -> #3 server[2] recv begin
            must close      #1 client[2] close begin -> #3 server[2] recv end
        "#]],
    );
}

/// The server is killed with a request unread: its files are closed after its exit, and the client is reset.
#[test]
fn a_killed_server_resets_its_client() {
    graph_of(
        "
        0..10  client[1] send           on=1a bytes=0..9
        0..20  sh[3]     signal         target=2 sig=9 process cpu=1
        0..30  server[2] deliver        sig=9 cpu=1
        30..31 server[2] exit           last cpu=1
        31..32 server[2] abort          on=1b cpu=1
        33..33 kernel    reset_sent     on=1b owner=2 cpu=1
        34..34 kernel    reset_received on=1a owner=1 cpu=1
        35..35 kernel    closed         on=1a owner=1 errno=104 cpu=1
        36..36 kernel    error          on=1a owner=1 errno=104 cpu=1
        10..50 client[1] recv           on=1a errno=104
        ",
        &expect![[r#"
            must signal     #1 sh[3] signal begin -> #2 server[2] deliver end
            must program    #2 server[2] deliver end -> #3 server[2] exit begin
            must program    #3 server[2] exit end -> #4 server[2] abort begin
            must close      #4 server[2] abort begin -> #5 kernel reset_sent begin
            must close      #5 kernel reset_sent begin -> #6 kernel reset_received begin
            must program    #6 kernel reset_received end -> #7 kernel closed begin
            must close      #6 kernel reset_received begin -> #8 kernel error begin
            must program    #7 kernel closed end -> #8 kernel error begin
            must program    #0 client[1] send end -> #9 client[1] recv begin
            must close      #8 kernel error begin -> #9 client[1] recv end
        "#]],
    );
}

#[test]
fn nobody_listens_any_more() {
    graph_of(
        "
        0..10  server[2] listen         socket=90 at=127.0.0.1:80
        10..20 server[2] unlisten       socket=90 at=127.0.0.1:80
        0..30  client[1] connect        on=1a new cpu=1
        31..31 kernel    reset_sent     at=127.0.0.1:80 to=127.0.0.1:40001 cpu=1
        32..32 kernel    reset_received on=1a new owner=1 cpu=1
        33..33 kernel    closed         on=1a new owner=1 errno=111 cpu=1
        34..34 kernel    error          on=1a new owner=1 errno=111 cpu=1
        30..40 client[1] send           on=1a new errno=111 cpu=1
        ",
        &expect![[r#"
            must program    #0 server[2] listen end -> #1 server[2] unlisten begin
            must connection #2 client[1] connect begin -> #4 kernel reset_received begin
            may  close      #3 kernel reset_sent begin -> #4 kernel reset_received begin
            must program    #4 kernel reset_received end -> #5 kernel closed begin
            must close      #1 server[2] unlisten begin -> #6 kernel error begin
            must connection #2 client[1] connect begin -> #6 kernel error begin
            must close      #4 kernel reset_received begin -> #6 kernel error begin
            must program    #5 kernel closed end -> #6 kernel error begin
            must program    #2 client[1] connect end -> #7 client[1] send begin
            may  connection #6 kernel error begin -> #7 client[1] send end
            must close      #6 kernel error begin -> #7 client[1] send end
        "#]],
    );
}

/// A port and both its sockets' addresses are used again: only the initial numbers tell the connections apart.
#[test]
fn a_port_is_used_again() {
    graph_of(
        "
        0..10  client[1] send on=1a bytes=0..9
        10..20 client[1] send on=2a at=127.0.0.1:40001 bytes=0..9
        0..30  server[2] recv on=2b to=127.0.0.1:40001 bytes=0..9 cpu=1
        30..40 server[2] recv on=1b bytes=0..9 cpu=1
        ",
        &expect![[r#"
            must program    #0 client[1] send end -> #1 client[1] send begin
            must bytes      #1 client[1] send begin -> #2 server[2] recv end
            must program    #2 server[2] recv end -> #3 server[2] recv begin
            must bytes      #0 client[1] send begin -> #3 server[2] recv end
        "#]],
    );
}

#[test]
fn a_thread_number_is_used_again() {
    graph_of(
        "
        0..10  sh[1]  fork target=7
        10..20 ls[7]  exec
        20..30 ls[7]  exit last
        10..40 sh[1]  fork target=7
        40..50 cat[7] exec count=1
        ",
        &expect![[r#"
            must task       #0 sh[1] fork begin -> #1 ls[7] exec begin
            must program    #1 ls[7] exec end -> #2 ls[7] exit begin
            must program    #0 sh[1] fork end -> #3 sh[1] fork begin
            must task       #3 sh[1] fork begin -> #4 cat[7] exec begin
        "#]],
    );
}

/// Whoever sent is outside the recording.
#[test]
fn a_connection_seen_at_one_end() {
    graph_of(
        "
        0..10  server[2] recv on=1b bytes=0..9
        10..20 server[2] send on=1b bytes=0..4
        ",
        &expect![[r#"
            must program    #0 server[2] recv end -> #1 server[2] send begin
        "#]],
    );
}

/// The initial number of a connection older than the recorder may be one too high, and then its offsets
/// are one too low.
#[test]
fn a_connection_older_than_the_recorder() {
    graph_of(
        "
        0..10  client[1] send  on=1a old=1 bytes=99..108
        10..20 client[1] close on=1a old=1 fin=108
        0..30  server[2] recv  on=1b old=0 bytes=100..105 cpu=1
        30..40 server[2] recv  on=1b old=0 bytes=105..109 cpu=1
        40..50 server[2] recv  on=1b old=0 fin=109 cpu=1
        ",
        &expect![[r#"
            must program    #0 client[1] send end -> #1 client[1] close begin
            may  bytes      #0 client[1] send begin -> #2 server[2] recv end
            must program    #2 server[2] recv end -> #3 server[2] recv begin
            may  bytes      #0 client[1] send begin -> #3 server[2] recv end
            must program    #3 server[2] recv end -> #4 server[2] recv begin
            must close      #1 client[1] close begin -> #4 server[2] recv end
        "#]],
    );
}

#[test]
fn offsets_beyond_4_gib() {
    graph_of(
        "
        0..10  client[1] send on=1a bytes=4294967000..4294967400
        10..20 client[1] send on=1a bytes=4294967400..8589934700
        0..30  server[2] recv on=1b bytes=4294967200..4294967500 cpu=1
        ",
        &expect![[r#"
            must program    #0 client[1] send end -> #1 client[1] send begin
            may  bytes      #0 client[1] send begin -> #2 server[2] recv end
            may  bytes      #1 client[1] send begin -> #2 server[2] recv end
        "#]],
    );
}

#[test]
fn a_signal_that_is_ignored_causes_nothing() {
    graph_of(
        "
        0..10  sh[1]     signal  target=2 sig=15 process
        10..20 sh[1]     signal  target=2 sig=15 process ignored
        0..30  server[2] deliver sig=15
        ",
        &expect![[r#"
            must program    #0 sh[1] signal end -> #1 sh[1] signal begin
            must signal     #0 sh[1] signal begin -> #2 server[2] deliver end
        "#]],
    );
}
