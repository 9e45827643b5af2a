//! Kernels on which something is switched off: a clear word each, never a recording that is silently empty.
//!
//! These tests switch it off, for the whole machine: they run in virtual machines only, each group of names in one that
//! was booted for it (by `cargo xtask test`).

use std::fs;
use std::path::Path;
use std::process::Command;

use tests::command::{answer, wherefore};

const FTRACE: &str = "/proc/sys/kernel/ftrace_enabled";
const JIT: &str = "/proc/sys/net/core/bpf_jit_enable";

/// Only a guest's PID 1 is the script that runs this.
fn require_guest() {
    let first = fs::read_to_string("/proc/1/cmdline").unwrap_or_default();
    assert!(first.contains("target/vm/"), "changes the kernel: run it by `cargo xtask test --vm`");
}

fn doctor() -> String {
    answer(Command::new(wherefore()).arg("doctor"))
}

/// Records a connection that is refused; what the recorder says, and the events.
fn record(words: &[&str]) -> (String, String) {
    let folder = tempfile::tempdir().expect("a folder");
    let output = folder.path().join("run.parquet");
    let connect = "import socket; print(socket.socket().connect_ex(('127.0.0.1', 1)))";
    let mut command = Command::new(wherefore());
    command.arg("record").args(words).arg("-o").arg(&output);
    let said = answer(command.args(["--", "/usr/bin/env", "python3", "-c", connect]));
    let events = if output.exists() { told_by(&output) } else { String::new() };
    (said, events)
}

fn told_by(recording: &Path) -> String {
    answer(Command::new(wherefore()).arg("why").arg(recording))
}

fn assert_recorded((said, events): (String, String)) {
    assert!(said.starts_with("exit 0") && said.contains(" 0 lost"), "{said}");
    assert!(events.contains("ECONNREFUSED"), "{events}");
}

#[test]
fn switched_off_function_tracing() {
    require_guest();
    assert_recorded(record(&["--hooks", "trampoline"]));
    fs::write(FTRACE, "0").expect("the guest is ours");
    let (said, events) = record(&["--hooks", "trampoline"]);
    assert!(said.starts_with("exit 2") && events.is_empty(), "{said}{events}");
    assert!(said.contains("no effect") && said.contains("kernel.ftrace_enabled=1"), "{said}");
    let doctor = doctor();
    let (_, after) = doctor.split_once("no              trampoline").expect("doctor knows");
    assert!(after.contains("kernel.ftrace_enabled=1"), "{doctor}");
    // What needs no function tracing goes on, where the kernel has it.
    if doctor.contains("yes             tracepoint") {
        assert_recorded(record(&[]));
    } else {
        assert!(record(&[]).0.starts_with("exit 2"));
    }
    let overrides = Path::new("/sys/kernel/debug/error_injection/list").exists();
    if overrides {
        let said = overridden();
        assert!(said.starts_with("exit 2") && said.contains("kernel.ftrace_enabled=1"), "{said}");
        assert!(!said.contains("EIO"), "the command did not run: {said}");
    }
    fs::write(FTRACE, "1").expect("the guest is ours");
    assert_recorded(record(&["--hooks", "trampoline"]));
    if overrides {
        let said = overridden();
        assert!(said.starts_with("exit 0") && said.contains("EIO"), "{said}");
    }
}

/// Injects an error into a call that only `bpf_override_return` reaches; what the recorder and the command say.
fn overridden() -> String {
    let listen = "import errno, socket\ntry: socket.socket().listen()\n\
                  except OSError as error: print(errno.errorcode[error.errno])";
    let fault = "comm=python3 => error=EIO, nth=1, syscall=listen";
    let folder = tempfile::tempdir().expect("a folder");
    let mut command = Command::new(wherefore());
    command.args(["inject", "--fault", fault, "-o"]).arg(folder.path().join("run.parquet"));
    answer(command.args(["--", "/usr/bin/env", "python3", "-c", listen]))
}

/// Without a compiler in the kernel its interpreter runs programs, where it is built in; nowhere tried it is.
#[test]
fn switched_off_compiler_of_programs() {
    require_guest();
    match fs::write(JIT, "0") {
        Err(refused) => assert_eq!(refused.raw_os_error(), Some(libc::EINVAL), "{refused}"),
        Ok(()) => {
            let (said, events) = record(&[]);
            let recorded = said.starts_with("exit 0") && events.contains("ECONNREFUSED");
            assert!(recorded || said.starts_with("exit 2"), "{said}{events}");
            fs::write(JIT, "1").expect("the guest is ours");
        }
    }
    assert_recorded(record(&[]));
}

#[test]
fn no_types() {
    require_guest();
    let hide = "mount -t tmpfs none /sys/kernel/btf && exec \"$0\" record -- true";
    let said = answer(Command::new("unshare").args(["-m", "sh", "-c", hide]).arg(wherefore()));
    assert!(said.starts_with("exit 2") && said.contains("CONFIG_DEBUG_INFO_BTF"), "{said}");
}

/// Booted with `lockdown=confidentiality`: programs may not read the kernel's memory, so that some hooks are
/// refused, each with the reason; the others record.
#[test]
fn locked_down() {
    require_guest();
    let state = fs::read_to_string("/sys/kernel/security/lockdown").expect("it can be asked");
    assert!(state.contains("[confidentiality]"), "{state}");
    let doctor = doctor();
    let refused: Vec<_> =
        doctor.lines().filter(|line| line.contains("this kernel is locked down")).collect();
    let no = doctor.lines().filter(|line| line.starts_with("  no ")).count();
    assert!(no > 0 && refused.len() == no, "{doctor}");
    let (said, events) = record(&[]);
    if doctor.contains("recording works here") {
        assert_recorded((said, events));
    } else {
        assert!(said.starts_with("exit 2") && said.contains("locked down"), "{said}");
    }
}
