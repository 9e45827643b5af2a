//! The command under test, and what it answers.

use std::env;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::OnceLock;

use recorder::capture::attach::family::Family;

/// `$WHEREFORE_BIN`, else the one built beside the running test.
///
/// # Panics
/// When it has not been built.
pub fn wherefore() -> PathBuf {
    if let Some(path) = env::var_os("WHEREFORE_BIN") {
        return path.into();
    }
    let test = env::current_exe().expect("a running program has a path");
    let path = test.ancestors().nth(2).expect("it lies in target/PROFILE/deps").join("wherefore");
    assert!(path.exists(), "{} is missing: cargo build -p recorder", path.display());
    path
}

/// The family of hooks to test with: `$WHEREFORE_HOOKS`, else the recorder's own choice.
///
/// # Panics
/// When there is no such family.
pub fn family() -> Option<Family> {
    let name = env::var("WHEREFORE_HOOKS").ok().filter(|name| !name.is_empty())?;
    Some(Family::parse(&name).unwrap_or_else(|| panic!("WHEREFORE_HOOKS={name}: no such family")))
}

/// Why the family to test with cannot be had here: what `doctor` says, asked only where recording with it fails.
///
/// # Panics
/// When the recorder cannot be started, or `doctor` gives no answer.
pub fn missing_family() -> Option<String> {
    // Attaching everything takes an emulated machine seconds, and every test asks.
    static WHY: OnceLock<Option<String>> = OnceLock::new();
    WHY.get_or_init(|| {
        let family = family()?;
        let folder = tempfile::tempdir().expect("a folder");
        let mut tried = record();
        tried.arg("-o").arg(folder.path().join("run.parquet")).args(["--", "true"]);
        if tried.output().expect("it starts").status.success() {
            return None;
        }
        let (works, why) = doctor(family.as_str());
        (!works).then_some(why)
    })
    .clone()
}

/// What `doctor` says of something that it tries: whether it works, and the reason or the limits. It is asked once, since
/// trying everything takes an emulated machine twenty seconds.
///
/// # Panics
/// When `doctor` gives no answer, or could not try that.
pub fn doctor(name: &str) -> (bool, String) {
    static REPORT: OnceLock<Output> = OnceLock::new();
    let report = REPORT.get_or_init(|| {
        Command::new(wherefore()).args(["doctor", "--json"]).output().expect("it starts")
    });
    tried(report, name)
}

/// The same out of what a `doctor --json` printed.
///
/// # Panics
/// When that is no report, has nothing of that name, or says that it could not be tried.
pub fn tried(report: &Output, name: &str) -> (bool, String) {
    let report: serde_json::Value =
        serde_json::from_slice(&report.stdout).expect("doctor prints JSON");
    let mut checks = report["checks"].as_array().expect("a report has checks").iter();
    let check = checks.find(|check| check["name"] == name).expect("a report has all");
    assert_ne!(check["answer"], "unknown", "it was tried: {report}");
    (check["answer"] == "yes", check["note"].as_str().unwrap_or_default().to_owned())
}

/// `wherefore record`, with that family.
pub fn record() -> Command {
    let mut command = Command::new(wherefore());
    command.arg("record");
    if let Some(family) = family() {
        command.args(["--hooks", family.as_str()]);
    }
    command
}

/// Runs a command as if on a terminal 100 columns wide, and gives all that it says.
///
/// # Panics
/// When it cannot be started.
pub fn answer(command: &mut Command) -> String {
    told(&command.env("COLUMNS", "100").output().expect("it starts"))
}

/// The exit code, and what was said where.
pub fn told(output: &Output) -> String {
    let (out, err) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let code =
        output.status.code().map_or(output.status.to_string(), |code| format!("exit {code}"));
    let mut text = code + "\n";
    for (name, said) in [("stdout", out), ("stderr", err)] {
        if !said.is_empty() {
            text += &format!("--- {name}\n{said}");
        }
    }
    text
}
