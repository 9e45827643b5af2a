//! What the documentation shows works: every query in docs/recording.md runs in DuckDB, on a recording.

#![expect(clippy::print_stdout, reason = "what the queries say is worth seeing, with --nocapture")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use recorder::event::{Descriptor, Event, Flags, History, Op, Ring};

use super::{recorded, traffic};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn run(command: &mut Command) -> Output {
    command.output().unwrap_or_else(|error| panic!("run {command:?}: {error}"))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A Python that has DuckDB, installed on first use. `None` only if pip says that it reaches no registry.
fn python() -> Option<&'static Path> {
    // Tests run at the same time: one of them makes it.
    static PYTHON: OnceLock<Option<PathBuf>> = OnceLock::new();
    PYTHON.get_or_init(install).as_deref()
}

fn install() -> Option<PathBuf> {
    let venv = root().join("target/venv");
    let python = venv.join("bin/python");
    let has = |module: &str| {
        python.exists()
            && run(Command::new(&python).args(["-c", &format!("import {module}")])).status.success()
    };
    if has("duckdb, pytz") {
        return Some(python);
    }
    let made = run(Command::new("python3").args(["-m", "venv"]).arg(&venv));
    assert!(made.status.success(), "make a Python environment: {}", text(&made.stderr));
    let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "duckdb", "pytz"];
    let installed = run(Command::new(&python).args(pip));
    if installed.status.success() {
        assert!(has("duckdb, pytz"), "pip installed a DuckDB that cannot be imported");
        return Some(python);
    }
    let error = text(&installed.stderr);
    let unreachable = ["No matching distribution found", "Max retries", "Temporary failure"];
    assert!(unreachable.iter().any(|sign| error.contains(sign)), "install duckdb: {error}");
    println!("DuckDB cannot be installed here, so its queries did not run; pip says:\n{error}");
    None
}

/// Traffic in which a server is killed, and its client sees it.
fn incident() -> History {
    let mut history = traffic::requests(2_000);
    let last = history.events[history.events.len() - 1];
    let after = |ns: u64, op| Event {
        time_ns: last.time_ns + ns,
        position: ns,
        ring: Ring::Rare,
        flags: Flags::NONE,
        result: 0,
        ..Event { op, ..last }
    };
    history.events.push(Event { signal: 9, target: 4_204, ..after(1_000, Op::Signal) });
    history.events.push(Event { signal: 9, pid: 4_204, tid: 4_204, ..after(2_000, Op::Deliver) });
    history.events.push(Event { pid: 4_204, tid: 4_204, signal: 9, ..after(3_000, Op::Exit) });
    history.events.push(Event { error: 104, ..after(4_000, Op::Recv) });
    let called = Event { syscall: history.names.intern("epoll_wait"), fd: Descriptor(7), ..last };
    let called = Event { op: Op::Call, protocol: None, flags: Flags::BEGAN, ..called };
    history.events.push(Event { time_ns: last.time_ns + 5_000, position: 5_000, ..called });
    history
}

/// The ```sql blocks of a Markdown text.
fn queries(markdown: &str) -> Vec<&str> {
    markdown
        .split("```sql\n")
        .skip(1)
        .map(|block| block.split("```").next().expect("split gives at least one").trim())
        .collect()
}

#[test]
fn documented_queries() {
    let Some(python) = python() else { return };
    let folder = tempfile::tempdir().expect("make a folder");
    std::fs::write(folder.path().join("incident.parquet"), recorded(&incident(), 700))
        .expect("write a recording");
    let markdown =
        std::fs::read_to_string(root().join("docs/recording.md")).expect("read the documentation");
    let queries = queries(&markdown);
    assert!(queries.len() >= 5, "{queries:?}");
    for query in queries {
        let script =
            "import duckdb, sys\nfor row in duckdb.sql(sys.argv[1]).fetchall(): print(row)";
        let mut command = Command::new(python);
        let output = run(command.current_dir(&folder).args(["-c", script, query]));
        assert!(output.status.success(), "{query}\n{}", text(&output.stderr));
        assert!(!output.stdout.is_empty(), "{query}\ngives no row");
        println!("{query}\n{}", text(&output.stdout));
    }
}

/// Every column holds for others what it holds for us.
#[test]
fn same_values() {
    let Some(python) = python() else { return };
    let history = incident();
    let folder = tempfile::tempdir().expect("make a folder");
    std::fs::write(folder.path().join("incident.parquet"), recorded(&history, 700))
        .expect("write a recording");
    let count = |test: &dyn Fn(&Event) -> bool| history.events.iter().filter(|e| test(e)).count();
    let sum = |value: &dyn Fn(&Event) -> u64| history.events.iter().map(value).sum::<u64>();
    let expected = format!(
        "({}, {}, {}, {}, {}, {}, {}, {}, {}, 0, 1, 7)\n",
        history.events.len(),
        sum(&|e| e.time_ns),
        sum(&|e| if e.has_range() { e.stream_end } else { 0 }),
        sum(&|e| u64::from(e.iss)),
        sum(&|e| u64::from(e.tid)),
        sum(&|e| u64::from(e.task_count)),
        count(&|e| e.op == Op::Send),
        count(&|e| e.comm == history.events[0].comm),
        count(&|e| e.error == 104),
    );
    let query =
        "select count(*), sum(time_ns), sum(stream_end), sum(iss), sum(tid), sum(task_count),
        count(*) filter (op = 'send'), count(*) filter (comm = 'wrk'),
        count(*) filter (error = 'ECONNRESET'), count(fault), count(syscall), sum(fd) from 'incident.parquet'";
    let script =
        "import duckdb, sys\nprint(tuple(int(n) for n in duckdb.sql(sys.argv[1]).fetchall()[0]))";
    let mut command = Command::new(python);
    let output = run(command.current_dir(&folder).args(["-c", script, query]));
    assert_eq!(text(&output.stdout), expected, "{}", text(&output.stderr));
}
