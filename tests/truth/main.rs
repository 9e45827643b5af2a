//! The truth suite against `wherefore`: real programs that log the bytes of every call, one test for each.
//!
//! Needs root and Python 3.9. The programs, the comparison and the format they agree on are in README.md.
#![expect(clippy::print_stdout, reason = "the table of precision and recall is what a run is for")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use tests::command::{family, missing_family, wherefore};

/// One case at a time: each loads its own probes, and some fill a core.
static TURN: Mutex<()> = Mutex::new(());

macro_rules! cases {
    ($($name:ident)*) => {
        const CASES: &[&str] = &[$(stringify!($name)),*];
        $(#[test]
        fn $name() {
            check(stringify!($name));
        })*
    };
}

cases! {
    asyncio_streams
    batches
    dns
    epoll_pipelined
    fan_in
    fan_out
    fast_open
    flags
    half_close
    inherited
    io_uring
    iovecs
    ipv6
    keep_alive
    large_messages
    listeners
    many_readers_processes
    many_readers_racing
    many_readers_waiting
    many_writers_blocked
    many_writers_locked
    many_writers_processes
    many_writers_racing
    mptcp
    nat
    nonblocking
    older_past_4gib
    older_than_recorder
    open_at_once
    past_4gib
    peek
    peek_ahead
    port_reuse
    proxy
    repair
    reset
    sendfile
    shutdowns
    sockmap
    splice
    thread_per_connection
    thread_pool
    tls
    two_hosts
    udp
    udp_ipv6
    unix_messages
    unix_pair_forked
    unix_passed_on
    unix_racing
    unix_stream
    urgent
    waitall
    zero_copy
}

#[test]
fn every_case_has_its_test() {
    let listed = run(Command::new("python3").arg(script()).arg("--list"));
    assert_eq!(listed.split_whitespace().collect::<Vec<_>>(), CASES);
}

/// The comparison itself: accepts a perfect tracer, finds each flaw of a flawed one. Loads nothing.
#[test]
fn the_comparison_finds_every_flaw() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    println!("{}", run(Command::new("python3").arg(script()).arg("--self-test")));
}

/// Records one case with `wherefore` and prints its line of the table.
fn check(case: &str) {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    assert!(nix::unistd::geteuid().is_root(), "the truth suite loads probes: run it as root");
    if let Some(why) = missing_family() {
        println!("{case}  skipped: {why}");
        return;
    }
    let wherefore = wherefore();
    let command = |rest: &str| format!("'{}' {rest}", wherefore.display());
    let hooks = family().map_or(String::new(), |family| format!("--hooks {family} "));
    let table = run(Command::new("python3")
        .arg(script())
        .args(["--case", case])
        .args(["--record", &command(&format!("record {hooks}-o {{out}} -- {{cmd}}"))])
        .args(["--record-all", &command(&format!("record {hooks}-o {{out}} --all"))])
        .args(["--ready", "^recording all"])
        .args(["--graph", &command("graph {out} --to json")]));
    println!("{table}");
}

/// What the command printed; panics with it when it failed.
fn run(command: &mut Command) -> String {
    let output = command.output().expect("python3 is in PATH");
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}\n{printed}\n{errors}", output.status);
    printed
}

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("truth/truth.py")
}
