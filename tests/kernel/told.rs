//! What the kernel half tells at once: each firing that a rule asks to be told, with whose it was, and a count of
//! those that found no room. The event itself stays as it was.

use std::os::fd::AsFd;
use std::process::Child;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use probe_ebpf::fault::{CONTROL_BYTES, Progress, Rule, Told, hook, pick, role};
use recorder::capture::Scope;
use recorder::capture::control::Control;
use recorder::event::Op;
use recorder::fault::arm;
use recorder::fault::plan::{Compiled, telling, watch};
use tests::patience;

use crate::recorded::{Recorder, of, python_command};

/// A recorder of commands, which tells of the patterns' events.
fn telling_of(rules: &[(&str, Rule)]) -> (Recorder, Control) {
    let mut recorder = Recorder::start(Scope::Command(String::new()));
    let mut compiled = Compiled::default();
    for (pattern, rule) in rules {
        let pattern = pattern.parse().expect("a pattern");
        let sketches = watch(&pattern, role::TARGET).expect("the kernel can test it");
        compiled.add(*rule, true, sketches, &arm::cgroup).expect("it fits");
    }
    let control = recorder.arm(&compiled);
    (recorder, control)
}

/// Whether there is something to read within a time.
fn is_readable(control: &Control, milliseconds: u16) -> bool {
    let mut wanted = [PollFd::new(control.as_fd(), PollFlags::POLLIN)];
    poll(&mut wanted, PollTimeout::from(milliseconds)).expect("it can be waited for") == 1
}

fn play(recorder: &mut Recorder, script: &str) -> u32 {
    let mut child: Child = recorder.spawn(&mut python_command(script));
    assert!(recorder.follow(&mut child).success());
    child.id()
}

const TALK: &str = "
listener = socket.socket()
listener.bind(('127.0.0.1', 0))
listener.listen()
rename('talker')
a = socket.create_connection(listener.getsockname())
b = listener.accept()[0]
for _ in range(COUNT):
    a.send(b'x')
    b.recv(1)
";

#[test]
fn each_rule_that_asks_for_it_is_told_beside_the_others() {
    let second = Rule { pick: pick::NTH, number: 2, ..telling() };
    let quiet = Rule { flags: 0, ..telling() };
    let (mut recorder, mut control) = telling_of(&[
        ("comm=talker op=send", telling()),
        ("comm=talk* op=send,connect", second),
        ("comm=talker op=send", quiet),
        ("comm=other op=send", telling()),
    ]);
    assert!(!is_readable(&control, 0));
    let pid = play(&mut recorder, &TALK.replace("COUNT", "3"));
    assert!(is_readable(&control, 1000));
    let told: Vec<Told> = control.by_ref().collect();
    assert!(!is_readable(&control, 0), "all of it was read");
    let progress: Vec<Progress> = recorder.progress(4);
    let history = recorder.finish();
    let sends = of(&history, "talker", Op::Send);
    // The connect is the second rule's first event, so that its second is the first send.
    let expected: Vec<_> = sends.iter().zip([0b11, 0b1, 0b1]).collect();
    assert_eq!(told.len(), 3, "{told:?}");
    for (told, (send, rules)) in told.iter().zip(expected) {
        assert_eq!((told.rules, told.hook, told.socket), (rules, hook::SENT, send.socket));
        assert_eq!((told.subject.pid, told.subject.tid), (pid, pid));
        assert_eq!(told.subject.comm, comm_words("talker"));
        // (The machine may stand still between the two.)
        let apart = Duration::from_nanos(told.time_ns.abs_diff(send.time_ns));
        assert!(apart < patience::seconds(1), "{told:?} {send:?}");
    }
    assert_eq!(progress.iter().map(|p| p.fired).collect::<Vec<_>>(), [3, 1, 3, 0]);
    assert_eq!(of(&history, "talker", Op::Fault).len(), 0, "nothing was injected");
    assert_eq!(control.lost().expect("it can be read"), 0);
}

/// A name as the kernel keeps it.
fn comm_words(name: &str) -> [u64; 2] {
    let mut bytes = [0u8; 16];
    bytes[..name.len()].copy_from_slice(name.as_bytes());
    let word = |at: usize| u64::from_ne_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
    [word(0), word(8)]
}

#[test]
fn what_nobody_reads_is_counted() {
    let (mut recorder, mut control) = telling_of(&[("comm=talker op=send", telling())]);
    play(&mut recorder, &TALK.replace("COUNT", "1000"));
    let read = control.by_ref().count() as u64;
    let lost = control.lost().expect("it can be read");
    let place = size_of::<Told>() as u64 + 8;
    assert_eq!(read, u64::from(CONTROL_BYTES) / place);
    assert_eq!(read + lost, 1000);
}
