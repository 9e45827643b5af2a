//! The transcript that README.md begins with, run once more: the same system, the same question, and the
//! same answer but for numbers.

use std::fs;
use std::path::Path;
use std::process::Command;

use tests::documents::{Shown, root, shown};

use crate::recorded::wherefore;

#[test]
fn the_readme_tells_what_happens() {
    let text = fs::read_to_string(root().join("README.md")).expect("there is a README");
    let all = shown(&text);
    let [record, why, ..] = &all[..] else { panic!("README.md shows no record and why") };
    let folder = tempfile::tempdir().expect("a folder");
    let recording = folder.path().join("run.parquet");
    run(record, &recording);
    let printed = run(why, &recording);
    assert_eq!(chain(&printed), chain(&why.output), "{}", printed.join("\n"));
    assert_eq!(labels(&printed), labels(&why.output), "{}", printed.join("\n"));
}

/// Runs a command of the README, on another file than it names, and gives back what it printed.
fn run(command: &Shown, recording: &Path) -> Vec<String> {
    let words = command.words.iter().skip(1).map(|word| match word.as_str() {
        "run.parquet" => recording.as_os_str(),
        word => word.as_ref(),
    });
    let output = Command::new(wherefore()).args(words).current_dir(root()).output().expect("run");
    let talk = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {talk}", command.words.join(" "));
    let printed = String::from_utf8(output.stdout).expect("it prints text");
    printed.lines().map(str::to_owned).collect()
}

/// The steps of an answer without their numbers: `must nginx close`.
fn chain(lines: &[String]) -> Vec<String> {
    let steps = lines.iter().take_while(|line| !line.is_empty());
    steps.map(|line| step(line)).filter(|step| !step.is_empty()).collect()
}

/// Label, name and act of one step; nothing for the remark below the origin.
fn step(line: &str) -> String {
    let words: Vec<_> = line.split_whitespace().collect();
    match words[..] {
        ["nothing", ..] => String::new(),
        [label, _time, who, what, ..] => {
            format!("{label} {} {what}", who.split('[').next().unwrap_or_default())
        }
        _ => line.to_owned(),
    }
}

/// What the lines below the chain are about: involved, possible, excluded, window …
fn labels(lines: &[String]) -> Vec<&str> {
    let below = lines.iter().skip_while(|line| !line.is_empty()).skip(1);
    below.filter_map(|line| line.split_whitespace().next()).collect()
}
