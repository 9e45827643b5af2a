//! Answers as people read them: the command's whole output for small histories written by hand.

use std::fmt::Write;
use std::process::Command;

use expect_test::{Expect, expect};
use parquet::file::reader::{FileReader, SerializedFileReader};
use recorder::capture::attach::family::Family;
use recorder::event::{Task, Window};
use tempfile::TempDir;
use tests::command::wherefore;

use crate::written::history;

/// Saves the history as a recording, asks, and compares exit status, answer and talk.
fn check(lines: &str, words: &[&str], expected: &Expect) {
    check_answer(&recorded(lines), words, expected);
}

/// The same of a folder with a recording.
fn check_answer(folder: &TempDir, words: &[&str], expected: &Expect) {
    let (command, rest) = words.split_first().expect("a command");
    let output = Command::new(wherefore())
        .current_dir(folder.path())
        .args([command, "run.parquet"])
        .args(rest)
        .output()
        .expect("run wherefore");
    let mut told = String::from_utf8_lossy(&output.stdout).into_owned();
    let talk = String::from_utf8_lossy(&output.stderr).into_owned();
    if !talk.is_empty() {
        writeln!(told, "-- stderr\n{}", talk.trim_end()).expect("text");
    }
    if !output.status.success() {
        writeln!(told, "-- {}", output.status).expect("text");
    }
    expected.assert_eq(&told);
}

/// A folder with the history in `run.parquet`: one host that has seen everything.
fn recorded(lines: &str) -> TempDir {
    recorded_by(Family::Tracepoint, lines)
}

fn recorded_by(family: Family, lines: &str) -> TempDir {
    let mut history = history(lines);
    let until = history.events.last().map_or(0, |event| event.time_ns) + 1000;
    for host in &mut history.hosts {
        let window = Window { from_ns: 0, to_ns: until };
        (host.bulk_window, host.rare_window, host.cpus) = (window, window, 2);
        let bystander = Task { pid: 90, tid: 90, comm: "cron".to_owned(), ..Task::default() };
        host.tasks.push(bystander);
        family.as_str().clone_into(&mut host.family);
    }
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("run.parquet");
    recorder::recording::write::save(&path, &history, 0).expect("save the recording");
    folder
}

/// Connection 1: curl asks nginx; connection 2: nginx asks the application, which is killed.
const KILLED: &str = "
    1000..2000 curl[1]     send          on=1a bytes=0..83
    1000..2100 nginx[2]    recv          on=1b bytes=0..83
    2100..2200 nginx[2]    send          on=2a bytes=0..90
    1000..2300 app[3.4]    recv          on=2b bytes=0..90
    2000..2350 app[3.5]    send          on=3a bytes=0..20
    2300..2400 app[3.4]    send          on=2b bytes=0..130
    2200..2500 nginx[2]    recv          on=2a bytes=0..130
    2500..2600 nginx[2]    send          on=1b bytes=0..150
    2000..2700 curl[1]     recv          on=1a bytes=0..150
    1000..3000 sh[6]       signal        target=3 sig=9 process cpu=1
    2400..4000 app[3.4]    deliver       sig=9
    2350..4010 app[3.5]    deliver       sig=9 cpu=1
    4000..4020 app[3.4]    exit
    4010..4030 app[3.5]    exit          last cpu=1
    4030..4040 app[3.5]    close         on=2b fin=130 cpu=1
    2600..4100 nginx[2]    recv          on=2a fin=130
    4100..4200 nginx[2]    close         on=1b fin=150
    2700..4300 curl[1]     recv          on=1a fin=150
    1000..4400 redis[9]    recv          on=4b bytes=0..10
";

#[test]
fn the_chain_leads_to_the_kill() {
    check(
        KILLED,
        &["why", "comm=curl op=recv"],
        &expect![[r#"
            symptom  00:00:00.000004  curl[1]   recv EOF from 127.0.0.1:80  after 150 bytes
              must   00:00:00.000004  nginx[2]  close to 127.0.0.1:40001    end of stream at byte 150
              must   00:00:00.000004  nginx[2]  recv EOF from 127.0.0.1:80  same thread, 100 ns before
              must   00:00:00.000004  app[3/5]  close to 127.0.0.1:40002    end of stream at byte 130
              must   00:00:00.000004  app[3/5]  killed by SIGKILL           same thread, 30 ns before
            origin   00:00:00.000003  sh[6]     kill 3 SIGKILL              the signal
                     nothing outside sh[6] must precede it

            involved curl[1], nginx[2], app[3], sh[6]
            possible app[3]: 1 other thread through memory, queues or locks, which are not observed (2 events, last active 280 ns before)
            excluded redis[9], cron[90]: no path in a complete window, if no pipe, file or memory joins it to them (--domain)
            window   host0: 00:00:00.000000 .. 00:00:00.000005 UTC, 2 CPUs, nothing lost
            matched  2 events; this is about the last
        "#]],
    );
}

/// Who talks over something that is not seen is excluded all the same: the line says what that takes for granted.
#[test]
fn who_is_excluded_may_have_talked_over_what_kprobes_do_not_see() {
    check_answer(
        &recorded_by(Family::Kprobe, KILLED),
        &["why", "comm=curl op=recv"],
        &expect![[r#"
            symptom  00:00:00.000004  curl[1]   recv EOF from 127.0.0.1:80  after 150 bytes
              must   00:00:00.000004  nginx[2]  close to 127.0.0.1:40001    end of stream at byte 150
              must   00:00:00.000004  nginx[2]  recv EOF from 127.0.0.1:80  same thread, 100 ns before
              must   00:00:00.000004  app[3/5]  close to 127.0.0.1:40002    end of stream at byte 130
              must   00:00:00.000004  app[3/5]  killed by SIGKILL           same thread, 30 ns before
            origin   00:00:00.000003  sh[6]     kill 3 SIGKILL              the signal
                     nothing outside sh[6] must precede it

            involved curl[1], nginx[2], app[3], sh[6]
            possible app[3]: 1 other thread through memory, queues or locks, which are not observed (2 events, last active 280 ns before)
            excluded redis[9], cron[90]: no path in a complete window, if no pipe, file, memory, Unix socket or Multipath TCP, which kprobes do not see, joins it to them (--domain)
            window   host0: 00:00:00.000000 .. 00:00:00.000005 UTC, 2 CPUs, nothing lost
            matched  2 events; this is about the last
        "#]],
    );
}

#[test]
fn without_an_error_there_is_nothing_to_ask_about() {
    check(
        KILLED,
        &["why"],
        &expect![[r#"
        -- stderr
        wherefore: no call failed in this recording (19 events)
        hint: say which event is meant, for example 'comm=curl op=recv'
        -- exit status: 1
    "#]],
    );
}

#[test]
fn nothing_matches() {
    check(
        KILLED,
        &["why", "comm=postgres"],
        &expect![[r#"
        -- stderr
        wherefore: no event matches `comm=postgres` (19 events, of curl, nginx, app, sh, redis)
        hint: `--missing` explains why something did not happen
        -- exit status: 1
    "#]],
    );
}

#[test]
fn a_pattern_that_is_wrong() {
    check(
        KILLED,
        &["why", "comm=curl opp=recv"],
        &expect![[r#"
        -- stderr
        wherefore: bad pattern: there is no key `opp`
            comm=curl opp=recv
                      ^
        hint: did you mean `op`?
        -- exit status: 2
    "#]],
    );
    check(
        KILLED,
        &["why", "error=EBOGUS"],
        &expect![[r#"
        -- stderr
        wherefore: bad pattern: `EBOGUS` is not an errno
            error=EBOGUS
                  ^
        hint: did you mean `EBUSY` or `ENOBUFS`?
        -- exit status: 2
    "#]],
    );
}

#[test]
fn suspects_are_cleared_or_not() {
    check(
        KILLED,
        &["why", "comm=curl op=recv", "--exclude-check", "comm=sh"],
        &expect![[r#"
        must: it is part of what led to the symptom
        events that match `comm=sh`: 1 must
    "#]],
    );
    check(
        KILLED,
        &["why", "comm=curl op=recv", "--exclude-check", "comm=redis"],
        &expect![[r#"
        excluded: nothing leads from it to the symptom, and nothing is missing
        events that match `comm=redis`: 1 excluded
    "#]],
    );
    check(
        KILLED,
        &["why", "comm=curl op=recv", "--exclude-check", "comm=app tid=5 op=send"],
        &expect![[r#"
        must: it is part of what led to the symptom
        events that match `comm=app tid=5 op=send`: 1 must
    "#]],
    );
}

#[test]
fn what_a_kill_led_to() {
    check(
        KILLED,
        &["why", "signal=SIGKILL op=signal", "--forward"],
        &expect![[r#"
        event    00:00:00.000003  sh[6]     kill 3 SIGKILL
          must   00:00:00.000004  app[3/4]  killed by SIGKILL
          must   00:00:00.000004  app[3/5]  killed by SIGKILL
          must   00:00:00.000004  app[3/4]  exit 0
          must   00:00:00.000004  app[3/5]  exit 0
          must   00:00:00.000004  app[3/5]  close to 127.0.0.1:40002
          must   00:00:00.000004  nginx[2]  recv EOF from 127.0.0.1:80
          must   00:00:00.000004  nginx[2]  close to 127.0.0.1:40001
          must   00:00:00.000004  curl[1]   recv EOF from 127.0.0.1:80

        it must have influenced 8 events and may have influenced 0 more
        window   host0: 00:00:00.000000 .. 00:00:00.000005 UTC, 2 CPUs, nothing lost
    "#]],
    );
}

#[test]
fn why_an_answer_is_missing() {
    let waiting = "
        1000..2000 curl[1]  send    on=1a bytes=0..83
        1000..2100 nginx[2] recv    on=1b bytes=0..83
        2100..2200 nginx[2] send    on=2a bytes=0..90
        1000..2300 app[3]   recv    on=2b bytes=0..50
        1000..900000 sh[6]  exit
    ";
    check(
        waiting,
        &["why", "--missing", "comm=curl op=recv"],
        &expect![[r#"
        missing  comm=curl op=recv
        asked    00:00:00.000002  curl[1]   send 83 B to 127.0.0.1:80       outstanding
          must   00:00:00.000002  curl[1]   send 83 B to 127.0.0.1:80       then nothing for 899 µs
          must   00:00:00.000002  nginx[2]  send 90 B to 127.0.0.1:80       then nothing for 899 µs
          must   00:00:00.000002  app[3]    recv 50 B from 127.0.0.1:40002  then nothing for 899 µs
        waiting  40 bytes of nginx[2], send 90 B to 127.0.0.1:80: the other end has not taken them
        window   host0: 00:00:00.000000 .. 00:00:00.000901 UTC, 2 CPUs, nothing lost
    "#]],
    );
}

#[test]
fn what_repeats_is_told_once() {
    let mut lines = String::new();
    for i in 0..40 {
        let (t, from, to) = (i * 1000 + 1000, i * 10, i * 10 + 10);
        writeln!(lines, "{}..{} client[1] send on=1a bytes={from}..{to}", t, t + 100)
            .expect("text");
        writeln!(lines, "{}..{} server[2] recv on=1b bytes={from}..{to}", t, t + 200)
            .expect("text");
        writeln!(lines, "{}..{} server[2] send on=1b bytes={from}..{to}", t + 200, t + 300)
            .expect("text");
        writeln!(lines, "{}..{} client[1] recv on=1a bytes={from}..{to}", t + 100, t + 400)
            .expect("text");
    }
    check(
        &lines,
        &["why", "comm=client op=recv"],
        &expect![[r#"
            symptom  00:00:00.000040  client[1]  recv 10 B from 127.0.0.1:80     bytes 390..400
              must   00:00:00.000040  server[2]  send 10 B to 127.0.0.1:40001    bytes 390..400
              must   00:00:00.000040  server[2]  recv 10 B from 127.0.0.1:40001  same thread, 100 ns before
              must   00:00:00.000040  client[1]  send 10 B to 127.0.0.1:80       bytes 390..400; these steps × 39
              must   00:00:00.000001  client[1]  recv 10 B from 127.0.0.1:80     same thread, 700 ns before
              must   00:00:00.000001  server[2]  send 10 B to 127.0.0.1:40001    bytes 0..10
              must   00:00:00.000001  server[2]  recv 10 B from 127.0.0.1:40001  same thread, 100 ns before
            origin   00:00:00.000001  client[1]  send 10 B to 127.0.0.1:80       bytes 0..10
                     nothing outside client[1] must precede it

            involved client[1], server[2]
            excluded cron[90]: no path in a complete window, if no pipe, file or memory joins it to them (--domain)
            window   host0: 00:00:00.000000 .. 00:00:00.000041 UTC, 2 CPUs, nothing lost
            matched  40 events; this is about the last
        "#]],
    );
}

#[test]
fn every_edge_is_checked() {
    check(
        KILLED,
        &["check"],
        &expect![[r#"
        19 events, 40 edges: 40 must, 0 may
          interval             19 must           0 may
          program              13 must           0 may
          bytes                 4 must           0 may
          close                 2 must           0 may
          signal                2 must           0 may
        host0: 0 raised, 0 lost
        every edge holds
    "#]],
    );
}

#[test]
fn edges_as_rows() {
    let folder = recorded(KILLED);
    let status = Command::new(wherefore())
        .current_dir(folder.path())
        .args(["graph", "run.parquet", "--edges", "edges.parquet"])
        .status()
        .expect("run wherefore");
    assert!(status.success());
    let file = std::fs::File::open(folder.path().join("edges.parquet")).expect("the edges");
    let reader = SerializedFileReader::new(file).expect("a Parquet file");
    let rows = reader.get_row_iter(None).expect("rows").map(|row| row.expect("a row").to_string());
    let closes = rows.filter(|row| row.contains(r#"kind: "close""#)).collect::<Vec<_>>();
    expect![[r#"
        {from_host: "host0", from_cpu: 1, from_ring: "rare", from_position: 3, from_side: "begin", to_host: "host0", to_cpu: 0, to_ring: "bulk", to_position: 9, to_side: "end", kind: "close", proof: "must"}
        {from_host: "host0", from_cpu: 0, from_ring: "rare", from_position: 2, from_side: "begin", to_host: "host0", to_cpu: 0, to_ring: "bulk", to_position: 10, to_side: "end", kind: "close", proof: "must"}"#]].assert_eq(&closes.join("\n"));
}
