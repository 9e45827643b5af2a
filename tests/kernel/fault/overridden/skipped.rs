//! The kernel runs no program of a kprobe on a CPU where a call on a map is under way, and may take that CPU from the
//! caller: what the recorder itself does lets no call pass, and what others let pass is told.

use std::fs;

use super::{assert_refused_as_missing, inject, missing};
use crate::recorded::python_path;

const FAULT: &str = "comm=deceived op=recv => error=ENOTCONN, for=3600s, via=override, name=deaf";

/// Makes calls that are all meant to fail, for some seconds, and tells how many did not.
const CALLS: &str = "
import ctypes, os, socket, sys, time
a, b = socket.socketpair()
a.send(b'x')
ctypes.CDLL(None).prctl(15, b'deceived', 0, 0, 0)
until, passed = time.monotonic() + 10, 0
while time.monotonic() < until:
    for _ in range(100):
        try:
            b.recv(1, socket.MSG_PEEK)
            passed += 1
        except OSError:
            pass
print(passed)
";

/// Before it does, has another process read a map all the time.
const WITH_A_READER: &str = "
import ctypes, os, signal, struct
reader = os.fork()
if reader == 0:
    libc = ctypes.CDLL(None)
    libc.prctl(1, signal.SIGKILL, 0, 0, 0)
    def bpf(command, attributes):
        attributes = attributes.ljust(120, b'\\0')
        return libc.syscall(321, command, attributes, len(attributes))
    entries, size = 1000, 4096
    array = bpf(0, struct.pack('IIII', 2, 4, size, entries))
    assert array >= 0
    keys, values = ctypes.create_string_buffer(4 * entries), ctypes.create_string_buffer(size * entries)
    token = ctypes.create_string_buffer(8)
    address = ctypes.addressof
    while True:
        batch = struct.pack('QQQQII', 0, address(token), address(keys), address(values), entries, array)
        assert bpf(24, batch) == 0
";

#[test]
fn what_the_recorder_does_lets_no_call_pass() {
    need_override!("what_the_recorder_does_lets_no_call_pass");
    // The more faults there are, the more it reads; and where somebody may be paused there is a guardian.
    let mut faults: Vec<String> = (0..25)
        .map(|number| {
            format!("comm=nobody{number} op=recv => error=EIO, nth=1, name=other{number}")
        })
        .collect();
    faults.push(FAULT.to_owned());
    faults.push("comm=nobody op=recv => pause=40ms, every=7, for=3600s, name=nap".to_owned());
    let run = inject(&faults, &[python_path(), "-c", CALLS]);
    assert_eq!((run.said.as_str(), run.skipped), ("0\n", 0));
}

#[test]
fn what_others_let_pass_is_told() {
    need_override!("what_others_let_pass_is_told");
    let script = format!("{WITH_A_READER}{CALLS}");
    let run = inject(&[FAULT.to_owned()], &[python_path(), "-c", &script]);
    let passed: u64 = run.said.trim().parse().expect("a number");
    assert!(passed <= run.skipped, "{passed} passed, {} are told", run.skipped);
    // Where it says how it preempts; not all kernels do.
    let preempts = fs::read_to_string("/sys/kernel/debug/sched/preempt").unwrap_or_default();
    if ["(lazy)", "(full)"].iter().any(|model| preempts.contains(model)) {
        assert!(passed > 0, "the kernel took the CPU from the reader");
    }
}
