//! What the command says: its help, and one clear error for every bad input, word for word.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use expect_test::{Expect, expect, expect_file};
use parquet::file::metadata::KeyValue;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use tests::command::{answer, wherefore};

/// A recording that lies with the tests.
fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("data/recording-v1.parquet")
}

/// Runs `wherefore` with these words, where `GOLDEN` stands for a good recording and `DIR` for a folder.
fn run(folder: &Path, words: &[&str]) -> String {
    let (golden, folder) = (golden().display().to_string(), folder.display().to_string());
    let words = words.iter().map(|word| word.replace("GOLDEN", &golden).replace("DIR", &folder));
    let said = answer(Command::new(wherefore()).args(words));
    assert!(!said.contains("panicked"), "{said}");
    said.replace(&golden, "GOLDEN").replace(&folder, "DIR")
}

fn check(words: &[&str], said: Expect) {
    let folder = tempfile::tempdir().expect("a folder");
    said.assert_eq(&run(folder.path(), words));
}

/// A file of these bytes, in a folder that is gone with the value.
fn file(bytes: &[u8]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("file"), bytes).expect("it is ours");
    folder
}

#[test]
fn help_of_everything() {
    let mut text = String::new();
    for words in [
        &["--help"][..],
        &["-h"],
        &["record", "--help"],
        &["why", "--help"],
        &["graph", "--help"],
        &["check", "--help"],
        &["doctor", "--help"],
    ] {
        let said = run(Path::new("/"), words);
        text += &format!("$ wherefore {}\n{said}\n", words.join(" "));
    }
    expect_file!["help.txt"].assert_eq(&text);
}

#[test]
fn no_command() {
    let said = run(Path::new("/"), &[]);
    assert!(said.starts_with("exit 2\n--- stderr\n"), "{said}");
    assert!(said.contains("Usage: wherefore <COMMAND>"), "{said}");
}

#[test]
fn an_unknown_command() {
    check(
        &["recrod"],
        expect![[r#"
            exit 2
            --- stderr
            error: unrecognized subcommand 'recrod'

              tip: some similar subcommands exist: 'reload', 'record'

            Usage: wherefore <COMMAND>

            For more information, try '--help'.
        "#]],
    );
}

#[test]
fn record_without_anything_to_record() {
    check(
        &["record"],
        expect![[r#"
        exit 2
        --- stderr
        wherefore: nothing to record
        hint: give a command after `--`, or --all, --pid PID or --cgroup PATH
    "#]],
    );
}

#[test]
fn record_of_everything_and_of_a_command() {
    check(
        &["record", "--all", "--", "true"],
        expect![[r#"
        exit 2
        --- stderr
        error: the argument '--all' cannot be used with '[COMMAND]...'

        Usage: wherefore record --all [-- <COMMAND>...]

        For more information, try '--help'.
    "#]],
    );
}

#[test]
fn record_of_a_process_and_of_a_command() {
    check(
        &["record", "--pid", "1", "--", "true"],
        expect![[r#"
        exit 2
        --- stderr
        error: the argument '--pid <PID>' cannot be used with '[COMMAND]...'

        Usage: wherefore record --pid <PID> [-- <COMMAND>...]

        For more information, try '--help'.
    "#]],
    );
}

#[test]
fn record_with_bad_values() {
    check(
        &["record", "--ring", "many", "--all"],
        expect![[r#"
        exit 2
        --- stderr
        error: invalid value 'many' for '--ring <SIZE>': unknown unit `many`: use KiB, MiB or GiB

        For more information, try '--help'.
    "#]],
    );
    check(
        &["record", "--ring", "5TiB", "--all"],
        expect![[r#"
        exit 2
        --- stderr
        error: invalid value '5TiB' for '--ring <SIZE>': unknown unit `TiB`: use KiB, MiB or GiB

        For more information, try '--help'.
    "#]],
    );
    check(
        &["record", "--for", "5d", "--all"],
        expect![[r#"
        exit 2
        --- stderr
        error: invalid value '5d' for '--for <TIME>': unknown unit `d`: use ms, s, m or h

        For more information, try '--help'.
    "#]],
    );
    check(
        &["record", "--pid", "me"],
        expect![[r#"
        exit 2
        --- stderr
        error: invalid value 'me' for '--pid <PID>': invalid digit found in string

        For more information, try '--help'.
    "#]],
    );
}

#[test]
fn pass_status_without_a_command() {
    check(
        &["record", "--all", "--pass-status"],
        expect![[r#"
        exit 2
        --- stderr
        error: the argument '--all' cannot be used with '--pass-status'

        Usage: wherefore record --all [-- <COMMAND>...]

        For more information, try '--help'.
    "#]],
    );
}

#[test]
fn a_recording_that_is_not_there() {
    for command in ["why", "check"] {
        let said = run(Path::new("/"), &[command, "DIRno/such.parquet"]);
        assert_eq!(said.lines().next(), Some("exit 2"), "{command}");
    }
    check(
        &["why", "DIR/no.parquet"],
        expect![[r#"
        exit 2
        --- stderr
        wherefore: open DIR/no.parquet: no such file or folder
    "#]],
    );
    check(
        &["graph", "DIR/no.parquet", "--to", "dot"],
        expect![[r#"
        exit 2
        --- stderr
        wherefore: open DIR/no.parquet: no such file or folder
    "#]],
    );
}

#[test]
fn a_folder_without_recordings() {
    check(
        &["check", "DIR"],
        expect![[r#"
        exit 2
        --- stderr
        wherefore: open DIR: no recordings (*.parquet) in this folder
    "#]],
    );
}

#[test]
fn files_that_are_not_recordings() {
    let said = |bytes: &[u8]| run(file(bytes).path(), &["why", "DIR/file"]);
    expect![[r#"
        exit 2
        --- stderr
        wherefore: open DIR/file: not a recording but an empty file
    "#]]
    .assert_eq(&said(b""));
    expect![[r#"
        exit 2
        --- stderr
        wherefore: open DIR/file: not a recording but a file that is not Parquet
    "#]]
    .assert_eq(&said(b"#!/bin/sh\necho hello\n"));
    expect![[r#"
        exit 2
        --- stderr
        wherefore: open DIR/file: not a recording but a file that is not Parquet
    "#]]
    .assert_eq(&said(&[0; 100_000]));
    expect![[r#"
        exit 2
        --- stderr
        wherefore: open DIR/file: cut off at 8 bytes, before its first complete part
    "#]]
    .assert_eq(&said(b"PAR1PAR1"));
}

#[test]
fn a_truncated_recording_is_read_as_far_as_it_goes() {
    let whole = fs::read(golden()).expect("it is there");
    let cut = |bytes: usize| run(file(&whole[..bytes]).path(), &["check", "DIR/file"]);
    let said = cut(whole.len() - 100);
    assert!(said.starts_with("exit 0"), "{said}");
    assert!(said.contains("note: DIR/file was not finished"), "{said}");
    expect![[r#"
        exit 2
        --- stderr
        wherefore: open DIR/file: cut off at 1000 bytes, before its first complete part
    "#]]
    .assert_eq(&cut(1000));
}

#[test]
fn a_recording_of_a_newer_version_is_refused() {
    let folder = file(&newer().expect("a Parquet file"));
    expect![[r#"
        exit 2
        --- stderr
        wherefore: open DIR/file: written by a newer wherefore (schema 9), this one reads up to 3
    "#]]
    .assert_eq(&run(folder.path(), &["why", "DIR/file"]));
}

/// What is sure to be in a recording of any version.
fn newer() -> parquet::errors::Result<Vec<u8>> {
    let schema = parse_message_type("message m { REQUIRED INT32 n; }")?;
    let mut writer = SerializedFileWriter::new(Vec::new(), schema.into(), Arc::default())?;
    let version = KeyValue::new("wherefore.schema".to_owned(), "9".to_owned());
    writer.append_key_value_metadata(version);
    writer.into_inner()
}

#[test]
fn patterns_that_are_none() {
    for pattern in
        ["nosuch=1", "op=sned", "result>many", "comm", "op=recv error=ENOSUCH", "peer=1:2:3"]
    {
        let said = run(Path::new("/"), &["graph", "GOLDEN", "--to", "dot", "--slice", pattern]);
        assert!(said.starts_with("exit 2\n--- stderr\n"), "{pattern}: {said}");
    }
    check(
        &["why", "GOLDEN", "nosuch=1"],
        expect![[r#"
            exit 2
            --- stderr
            wherefore: bad pattern: there is no key `nosuch`
                nosuch=1
                ^
            hint: keys: host pid tid comm cgroup container pod op protocol local remote netns socket iss irs stream_start stream_end result error signal target fault syscall fd cpu ring position time begin_ns time_ns duration lane flag
        "#]],
    );
    check(
        &["why", "GOLDEN", "op=sned"],
        expect![[r#"
        exit 2
        --- stderr
        wherefore: bad pattern: `sned` is not a known op
            op=sned
               ^
        hint: did you mean `send`?
    "#]],
    );
    check(
        &["why", "GOLDEN", "--missing", "result>many"],
        expect![[r#"
        exit 2
        --- stderr
        error: invalid value 'result>many' for '--missing <PATTERN>': bad pattern: `many` is not a whole number
            result>many
                   ^
        hint: `result` takes a whole number, `none`, or `*` for any

        For more information, try '--help'.
    "#]],
    );
    check(
        &["why", "GOLDEN", "--exclude-check", "error=ENOSUCH"],
        expect![[r#"
        exit 2
        --- stderr
        error: invalid value 'error=ENOSUCH' for '--exclude-check <PATTERN>': bad pattern: `ENOSUCH` is not an errno
            error=ENOSUCH
                  ^
        hint: did you mean `ENOSPC` or `ENOSR` or `ENOCSI`?

        For more information, try '--help'.
    "#]],
    );
}

#[test]
fn a_symptom_that_matches_nothing() {
    check(
        &["why", "GOLDEN", "comm=nobody"],
        expect![[r#"
            exit 1
            --- stderr
            wherefore: no event matches `comm=nobody` (31 events, of wrk, nginx)
            hint: `--missing` explains why something did not happen
        "#]],
    );
    check(
        &["graph", "GOLDEN", "--to", "dot", "--slice", "comm=nobody"],
        expect![[r#"
            exit 1
            --- stderr
            wherefore: no event matches `comm=nobody` (31 events, of wrk, nginx)
            hint: `--missing` explains why something did not happen
        "#]],
    );
}

#[test]
fn graph_without_a_form() {
    check(
        &["graph", "GOLDEN"],
        expect![[r#"
        exit 2
        --- stderr
        error: the following required arguments were not provided:
          --to <TO>

        Usage: wherefore graph --to <TO> <FILE>...

        For more information, try '--help'.
    "#]],
    );
}

#[test]
fn an_output_that_cannot_be_written() {
    check(
        &["graph", "GOLDEN", "--edges", "DIR/no/such/edges.parquet"],
        expect![[r#"
            exit 2
            --- stderr
            wherefore: write edges to DIR/no/such/edges.parquet: No such file or directory (os error 2)
        "#]],
    );
    check(
        &["graph", "GOLDEN", "--edges", "/dev/full"],
        expect![[r#"
            exit 2
            --- stderr
            wherefore: write edges to /dev/full: External: No space left on device (os error 28): No space left on device (os error 28)
        "#]],
    );
}

#[test]
fn a_full_stdout_is_an_error_and_a_closed_one_is_not() {
    let full = fs::File::options().write(true).open("/dev/full").expect("Linux has it");
    let to_full = |words: &[&str]| {
        let mut command = Command::new(wherefore());
        command.args(words).arg(golden()).stdout(full.try_clone().expect("a file"));
        answer(&mut command)
    };
    let error = "exit 2\n--- stderr\nwherefore: No space left on device (os error 28)\n";
    assert_eq!(to_full(&["graph", "--to", "json"]), error);
    assert_eq!(to_full(&["check"]), error);
    assert_eq!(to_full(&["why"]), error);
    let script = "\"$0\" graph --to json \"$1\" | head -c 1";
    let mut shell = Command::new("/bin/bash");
    shell.args(["-o", "pipefail", "-c", script]).arg(wherefore()).arg(golden());
    assert_eq!(answer(&mut shell), "exit 0\n--- stdout\n{");
}

/// As an ordinary user, whoever runs the test.
#[test]
fn recording_needs_root_and_says_so() {
    let folder = tempfile::tempdir().expect("a folder");
    let everybody = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    fs::set_permissions(folder.path(), everybody).expect("it is ours");
    let command = folder.path().join("wherefore");
    fs::copy(wherefore(), &command).expect("it is ours");
    let mut refused = match nix::unistd::geteuid().is_root() {
        true => Command::new("setpriv"),
        false => Command::new("env"),
    };
    if nix::unistd::geteuid().is_root() {
        refused.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
    }
    let output = folder.path().join("run.parquet");
    refused.arg(&command).args(["record", "-o"]).arg(&output).args(["--", "true"]);
    let said = answer(&mut refused);
    // Which of the maps is refused first is left to chance.
    let map = |line: &str| match line.split_once(": map error") {
        Some((told, _)) => format!("{told} …\n"),
        None => format!("{line}\n"),
    };
    let said: String = said.lines().map(map).collect();
    expect![[r#"
        exit 2
        --- stderr
        wherefore: start recording: create the probes' maps (root, or CAP_BPF and CAP_PERFMON, is needed) …
        hint: recording needs root, or CAP_BPF and CAP_PERFMON; `wherefore doctor` tells what is missing
    "#]].assert_eq(&said);
    assert!(!output.exists(), "nothing is left behind");
}

#[test]
fn doctors_json_is_json() {
    let output = Command::new(wherefore()).args(["doctor", "--json"]).output().expect("it starts");
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("it is JSON");
    let can_record = report["can_record"].as_bool().expect("it says whether it can");
    assert_eq!(output.status.code(), Some(i32::from(!can_record)));
    let checks = report["checks"].as_array().expect("it lists what it looked at");
    assert!(checks.len() > 15);
    for check in checks {
        let answer = check["answer"].as_str().expect("each has an answer");
        assert!(["yes", "no", "unknown"].contains(&answer), "{check}");
    }
}
