//! What cannot be recorded is refused in one clear sentence, and what was recorded before is not lost for it.

use std::fs;
use std::path::Path;
use std::process::Command;

use expect_test::expect;
use recorder::recording::read::{self, Note};
use tests::command::{answer, wherefore};

use crate::recorded::{python_path, require_root};

/// Runs `wherefore record` with these words, where `DIR` stands for the folder.
fn record(folder: &Path, words: &[&str]) -> String {
    require_root();
    let path = folder.display().to_string();
    let words = words.iter().map(|word| word.replace("DIR", &path));
    let said = answer(Command::new(wherefore()).arg("record").args(words).current_dir(folder));
    assert!(!said.contains("panicked"), "{said}");
    said.replace(&path, "DIR")
}

#[test]
fn a_command_that_does_not_exist_leaves_nothing_behind() {
    let folder = tempfile::tempdir().expect("a folder");
    let said = record(folder.path(), &["-o", "DIR/run.parquet", "--", "no-such-program"]);
    expect![[r#"
        exit 2
        --- stderr
        wherefore: run no-such-program: No such file or directory (os error 2)
    "#]]
    .assert_eq(&said);
    assert_eq!(fs::read_dir(folder.path()).expect("it is ours").count(), 0);
    let said = record(folder.path(), &["--", "/etc/passwd"]);
    expect![[r#"
        exit 2
        --- stderr
        wherefore: run /etc/passwd: Permission denied (os error 13)
    "#]]
    .assert_eq(&said);
}

#[test]
fn an_earlier_recording_is_kept_when_the_command_cannot_be_run() {
    let folder = tempfile::tempdir().expect("a folder");
    let output = folder.path().join("run.parquet");
    fs::write(&output, "precious").expect("it is ours");
    let said = record(folder.path(), &["-o", "DIR/run.parquet", "--", "no-such-program"]);
    assert!(said.starts_with("exit 2"), "{said}");
    assert_eq!(fs::read(&output).expect("it is there"), b"precious");
}

#[test]
fn an_output_that_cannot_be_written_is_found_before_the_command_runs() {
    let folder = tempfile::tempdir().expect("a folder");
    let touched = folder.path().join("touched");
    let words = ["-o", "DIR/no/such/run.parquet", "--", "touch", "DIR/touched"];
    expect![[r#"
        exit 2
        --- stderr
        wherefore: write DIR/no/such/run.parquet: No such file or directory (os error 2)
    "#]]
    .assert_eq(&record(folder.path(), &words));
    assert!(!touched.exists());
    let words = ["-o", "DIR", "--", "touch", "DIR/touched"];
    expect![[r#"
        exit 2
        --- stderr
        wherefore: write DIR: Is a directory (os error 21)
    "#]]
    .assert_eq(&record(folder.path(), &words));
    assert!(!touched.exists());
}

#[test]
fn no_such_process_and_no_such_cgroup() {
    let folder = tempfile::tempdir().expect("a folder");
    expect![[r#"
        exit 2
        --- stderr
        wherefore: there is no process 2147483632
    "#]]
    .assert_eq(&record(folder.path(), &["--pid", "2147483632"]));
    let mount = recorder::capture::procfs::cgroup_mount().expect("cgroup2 is mounted");
    let said = record(folder.path(), &["--cgroup", "/no/such"]);
    expect![[r#"
        exit 2
        --- stderr
        wherefore: there is no cgroup /no/such below MOUNT
    "#]]
    .assert_eq(&said.replace(&mount.display().to_string(), "MOUNT"));
    assert_eq!(fs::read_dir(folder.path()).expect("it is ours").count(), 0);
}

#[test]
fn a_device_that_is_always_full() {
    let folder = tempfile::tempdir().expect("a folder");
    let said = record(folder.path(), &["-o", "/dev/full", "--", "touch", "DIR/touched"]);
    expect![[r#"
        exit 2
        --- stderr
        wherefore: write the head of /dev/full; the 0 events before it are safe: No space left on device (os error 28)
    "#]].assert_eq(&said);
}

/// A file system that is soon full; unmounted with the value.
struct Tiny(tempfile::TempDir);

impl Tiny {
    fn mount(bytes: u32) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={bytes}"), "none"])
            .arg(folder.path())
            .status();
        assert!(mount.expect("mount is there").success());
        Self(folder)
    }
}

impl Drop for Tiny {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg("--lazy").arg(self.0.path()).status();
        assert!(unmounted.is_ok_and(|status| status.success()), "the file system stays mounted");
    }
}

/// The command runs on to its own end, and what was written can be read.
#[test]
fn a_disk_that_fills_up_loses_only_what_does_not_fit() {
    let disk = Tiny::mount(3 << 19);
    let folder = tempfile::tempdir().expect("a folder");
    let ended = folder.path().join("ended");
    let talk = format!(
        "import socket
l = socket.socket(); l.bind(('127.0.0.1', 0)); l.listen()
a = socket.create_connection(l.getsockname()); b = l.accept()[0]
for i in range(300_000):
    a.send(b'x' * (1 + i * i % 97)); b.recv(4096)
open('{}', 'w').close()",
        ended.display()
    );
    let said = record(disk.0.path(), &["-o", "DIR/run.parquet", "--", python_path(), "-c", &talk]);
    assert!(said.starts_with("exit 2\n"), "{said}");
    // How much fits is up to compression.
    let said = said.lines().map(|line| digits_hidden(line) + "\n").collect::<String>();
    expect![[r#"
        exit N
        --- stderr
        wherefore: recording stopped; the command went on: exit status: 0: write part N (N events) of DIR/run.parquet; the N events before it are safe: No space left on device (os error 28)
    "#]].assert_eq(&said);
    assert!(ended.exists(), "the command went on to its end");
    let recording = read::open(&[disk.0.path().join("run.parquet")]).expect("it can be read");
    assert!(
        matches!(&recording.notes[..], [Note::Recovered { .. }]),
        "it says that it is not whole: {:?}",
        recording.notes
    );
    assert!(!recording.history.events.is_empty(), "what was written is there");
}

fn digits_hidden(line: &str) -> String {
    let words = line.split(' ').map(|word| match word.trim_start_matches('(').parse::<u64>() {
        Ok(_) => word.replace(|c: char| c.is_ascii_digit(), "") + "N",
        Err(_) => word.to_owned(),
    });
    words.collect::<Vec<_>>().join(" ")
}

#[test]
fn a_kernel_without_types_is_told() {
    require_root();
    let folder = tempfile::tempdir().expect("a folder");
    // An empty folder over the kernel's types, in a mount namespace of its own.
    let hide = "mount -t tmpfs none /sys/kernel/btf && exec \"$0\" \"$@\"";
    let said = |words: &[&str]| {
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", hide]).arg(wherefore()).args(words);
        answer(command.current_dir(folder.path()))
    };
    expect![[r#"
        exit 2
        --- stderr
        wherefore: start recording: read the kernel's types from /sys/kernel/btf/vmlinux: error parsing /sys/kernel/btf/vmlinux: No such file or directory (os error 2)
        hint: this kernel tells nothing of its types: it needs CONFIG_DEBUG_INFO_BTF=y, which most distributions' kernels have
    "#]].assert_eq(&said(&["record", "--", "true"]));
    let doctor = said(&["doctor"]);
    assert!(doctor.starts_with("exit 1") && doctor.contains("CONFIG_DEBUG_INFO_BTF"), "{doctor}");
}
