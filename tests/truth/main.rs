//! The truth suite against `wherefore`: real programs that log the bytes of every call, one test for each.
//!
//! Needs root and Python 3.9. The programs, the comparison and the format they agree on are in README.md.
#![expect(clippy::print_stdout, reason = "the table of precision and recall is what a run is for")]

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, OnceLock, PoisonError};

use recorder::capture::attach::family::Family;
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

/// Cases that move so much that each is run alone.
const LONG: [&str; 2] = ["older_past_4gib", "past_4gib"];

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
    if let Some(why) = missing_family().or_else(|| unseen(case)) {
        println!("{case}  skipped: {why}");
    } else if together().contains(&case) {
        check_of_all(case);
    } else {
        println!("{}", run(suite().args(["--case", case])));
    }
}

/// Why the family to test with cannot see all of a case. That it does not is shown by
/// `family::kprobes_do_not_see_everything` of the kernel tests.
fn unseen(case: &str) -> Option<String> {
    let cannot = case.starts_with("unix_") || ["fast_open", "mptcp"].contains(&case);
    let family = family().filter(|family| *family == Family::Kprobe && cannot)?;
    Some(format!("{family}: {}", family.cannot()))
}

/// Where starting a recorder takes seconds, one records many cases, one after the other: those that
/// `$WHEREFORE_TRUTH_TOGETHER` names, or `all`.
fn together() -> Vec<&'static str> {
    let named = env::var("WHEREFORE_TRUTH_TOGETHER").unwrap_or_default();
    let named: Vec<_> = named.split_whitespace().collect();
    let wanted = |case: &&&str| (named == ["all"] && !LONG.contains(case)) || named.contains(case);
    CASES.iter().filter(wanted).copied().filter(|case| unseen(case).is_none()).collect()
}

/// Records all of those and judges one.
fn check_of_all(case: &str) {
    static ALL: OnceLock<serde_json::Value> = OnceLock::new();
    let all = ALL.get_or_init(|| {
        let mut suite = suite();
        let cases = together().into_iter().flat_map(|case| ["--case", case]);
        suite.args(["--together", "--json"]).args(cases);
        let output = suite.output().expect("python3 is in PATH");
        serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)))
    });
    let of = &all["cases"][case];
    if let Some(why) = of["skipped"].as_str() {
        println!("{case}  skipped: {why}");
        return;
    }
    let problems = of["problems"].as_array().expect("every case was judged");
    let lines: Vec<_> = problems.iter().filter_map(|problem| problem.as_str()).collect();
    assert!(lines.is_empty(), "{}", lines.join("\n"));
    println!("{case}  {} calls, {} true edges", of["calls"], of["true_edges"]);
}

/// The suite, told how to use `wherefore`.
fn suite() -> Command {
    let wherefore = wherefore();
    let command = |rest: &str| format!("'{}' {rest}", wherefore.display());
    let hooks = family().map_or(String::new(), |family| format!("--hooks {family} "));
    let mut suite = Command::new("python3");
    // What a function has begun it is not seen to end.
    if matches!(family(), Some(Family::Trampoline | Family::Kprobe)) {
        suite.arg(script()).arg("--sees-begun-only");
    } else {
        suite.arg(script());
    }
    suite
        .args(["--record", &command(&format!("record {hooks}-o {{out}} -- {{cmd}}"))])
        .args(["--record-all", &command(&format!("record {hooks}-o {{out}} --all"))])
        .args(["--ready", "^recording all"])
        .args(["--graph", &command("graph {out} --to json")]);
    suite
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
