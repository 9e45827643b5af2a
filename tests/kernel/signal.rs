//! Signals: who sent them, who took them, and what died of them.

use std::process::Stdio;
use std::thread;
use std::time::Duration;

use expect_test::{Expect, expect};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use recorder::capture::Scope;
use recorder::event::{Flags, Op};

use crate::memory::SmallMemory;
use crate::recorded::{Recorder, python, python_command};

fn check(script: &str, tasks: Expect) {
    tasks.assert_eq(&python(script).tasks());
}

#[test]
fn a_kill_names_the_sender_and_the_thread_that_dies() {
    check(
        r"
of_victim, of_killer = turns()

def be_killed():
    of_victim.give()
    time.sleep(20)

victim = child('victim', be_killed)

def send():
    of_killer.take()
    os.kill(victim, signal.SIGTERM)

killer = child('killer', send)
os.waitpid(killer, 0), os.waitpid(victim, 0)
",
        expect![[r#"
            python3
              exec
              fork to victim
              fork to killer
              exit 0 last
              signal SIGCHLD to the recorder ignored
            killer
              signal SIGTERM to victim
              exit 0 last
              signal SIGCHLD to python3 ignored
            victim
              deliver SIGKILL
              exit 0 SIGTERM last
              signal SIGCHLD to python3 ignored
        "#]],
    );
}

#[test]
fn a_handler_takes_a_signal_and_goes_on() {
    check(
        r"
of_victim, of_killer = turns()

def take():
    taken = []
    signal.signal(signal.SIGUSR1, lambda *_: taken.append(True))
    of_victim.give()
    until(lambda: taken, 'the signal')

victim = child('victim', take)

def send():
    of_killer.take()
    os.kill(victim, signal.SIGUSR1)

finish(child('killer', send), victim)
",
        expect![[r#"
            python3
              exec
              fork to victim
              fork to killer
              exit 0 last
              signal SIGCHLD to the recorder ignored
            killer
              signal SIGUSR1 to victim
              exit 0 last
              signal SIGCHLD to python3 ignored
            victim
              deliver SIGUSR1
              exit 0 last
              signal SIGCHLD to python3 ignored
        "#]],
    );
}

#[test]
fn an_ignored_signal_is_sent_and_taken_by_nobody() {
    check(
        r"
of_victim, of_killer = turns()

def ignore():
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    of_victim.give()
    of_victim.take()

victim = child('victim', ignore)

def send():
    of_killer.take()
    os.kill(victim, signal.SIGUSR1)
    of_killer.give()

finish(child('killer', send), victim)
",
        expect![[r#"
            python3
              exec
              fork to victim
              fork to killer
              exit 0 last
              signal SIGCHLD to the recorder ignored
            killer
              signal SIGUSR1 to victim ignored
              exit 0 last
              signal SIGCHLD to python3 ignored
            victim
              exit 0 last
              signal SIGCHLD to python3 ignored
        "#]],
    );
}

#[test]
fn every_thread_of_a_killed_process_ends_by_the_signal() {
    let run = python(
        r"
of_victim, of_killer = turns()

def threads():
    for i in range(3):
        threading.Thread(target=lambda: time.sleep(60)).start()
    of_victim.give()
    time.sleep(60)

victim = child('victim', threads)
of_killer.take()
os.kill(victim, signal.SIGKILL)
os.waitpid(victim, 0)
say('victim', victim)
",
    );
    let victim = run.number("victim");
    let by_kill = |e: &&recorder::event::Event| e.pid == victim && e.signal == 9;
    let of = |op| run.history.events.iter().filter(move |e| e.op == op).filter(by_kill).count();
    assert_eq!(of(Op::Exit), 4);
    assert!(of(Op::Deliver) >= 1, "the thread that took it");
    let sent: Vec<_> = run.history.events.iter().filter(|e| e.op == Op::Signal).collect();
    let kill = sent.iter().find(|e| e.signal == 9 && e.flags.has(Flags::PROCESS));
    assert_eq!(kill.map(|e| (e.target, run.history.comm(e))), Some((victim, "python3")));
}

#[test]
fn a_timers_signal_has_no_sender() {
    check(
        r"
def wait():
    taken = []
    signal.signal(signal.SIGALRM, lambda *_: taken.append(True))
    signal.setitimer(signal.ITIMER_REAL, 0.02)
    until(lambda: taken, 'the signal')

finish(child('sleeper', wait))
",
        expect![[r#"
            python3
              exec
              fork to sleeper
              exit 0 last
              signal SIGCHLD to the recorder ignored
            kernel
              signal SIGALRM to sleeper
            sleeper
              deliver SIGALRM
              exit 0 last
              signal SIGCHLD to python3 ignored
        "#]],
    );
}

#[test]
fn a_fault_is_its_own_threads_signal() {
    check(
        r"
def fall():
    ctypes.string_at(8)

os.waitpid(child('faulty', fall), 0)
",
        expect![[r#"
            python3
              exec
              fork to faulty
              exit 0 last
              signal SIGCHLD to the recorder ignored
            faulty
              signal SIGSEGV to faulty
              deliver SIGSEGV
              exit 0 SIGSEGV last
              signal SIGCHLD to python3 ignored
        "#]],
    );
}

#[test]
fn a_broken_pipe_is_its_own_threads_signal() {
    check(
        r"
def write():
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    read, end = os.pipe()
    os.close(read)
    os.write(end, b'x')

os.waitpid(child('writer', write), 0)
",
        expect![[r#"
            python3
              exec
              fork to writer
              exit 0 last
              signal SIGCHLD to the recorder ignored
            writer
              signal SIGPIPE to writer
              deliver SIGKILL
              exit 0 SIGPIPE last
              signal SIGCHLD to python3 ignored
        "#]],
    );
}

/// The sender is not in the recorded tree; without it nobody could say why the process died.
#[test]
fn a_sender_outside_the_scope_is_recorded() {
    let mut recorder = Recorder::start(Scope::Command(String::new()));
    let mut victim =
        recorder.spawn(python_command("say('up')\ntime.sleep(60)").stdout(Stdio::piped()));
    let mut first = [0; 2];
    let out = victim.stdout.as_mut().expect("it is piped");
    std::io::Read::read_exact(out, &mut first).expect("it says so");
    let killer = format!("rename('outsider')\nos.kill({}, signal.SIGKILL)", victim.id());
    let mut killer = python_command(&killer).spawn().expect("python starts");
    assert!(killer.wait().expect("it is our child").success());
    recorder.follow(&mut victim);
    let history = recorder.finish();
    let sent: Vec<_> =
        history.events.iter().filter(|e| e.op == Op::Signal && e.signal == 9).collect();
    assert_eq!(sent.len(), 1);
    assert_eq!((sent[0].pid, sent[0].target), (killer.id(), victim.id()));
    assert_eq!(history.comm(sent[0]), "outsider");
    let of_outsider = history.events.iter().filter(|e| e.pid == killer.id()).count();
    assert_eq!(of_outsider, 1, "only what it did to the scope");
}

/// The recorder itself is never recorded, but what it does to the recorded is not its secret: a signal
/// from this process has no thread, and still its target dies of it.
#[test]
fn a_signal_from_the_recorder_still_has_its_effect() {
    let mut recorder = Recorder::start(Scope::Command(String::new()));
    let mut victim = recorder.spawn(&mut python_command("time.sleep(60)"));
    thread::sleep(Duration::from_millis(100));
    kill(Pid::from_raw(victim.id() as i32), Signal::SIGKILL).expect("it lives");
    recorder.follow(&mut victim);
    let history = recorder.finish();
    let exit = history.events.iter().find(|e| e.op == Op::Exit && e.pid == victim.id());
    assert_eq!(exit.map(|e| e.signal), Some(9));
}

#[test]
fn a_kill_for_memory_names_its_victim() {
    let Some(memory) = SmallMemory::make() else { return };
    let run = python(&format!(
        r"
def eat():
    with open('{}/cgroup.procs', 'w') as procs:
        procs.write(str(os.getpid()))
    with open('/proc/self/oom_score_adj', 'w') as adjust:
        adjust.write('1000')
    eaten = b'x' * (1 << 30)

glutton = child('glutton', eat)
say('glutton', glutton)
os.waitpid(glutton, 0)
",
        memory.path().display()
    ));
    let glutton = run.number("glutton");
    let kills: Vec<_> = run.history.events.iter().filter(|e| e.op == Op::OomKill).collect();
    assert_eq!(kills.iter().map(|e| (e.target, e.tid)).collect::<Vec<_>>(), [(glutton, 0)]);
    let exit = run.events("glutton", Op::Exit)[0];
    assert_eq!(exit.signal, 9);
    assert!(kills[0].time_ns < exit.time_ns);
}
