//! Threads and processes: how they begin, what they become and are called, how they end.

use expect_test::{Expect, expect};
use recorder::event::{Flags, History, Op};

use crate::recorded::{Recorder, SMALL, name_of, python, python_command, record};
use recorder::capture::Scope;
use std::process::{Command, Stdio};

fn check(script: &str, tasks: Expect) {
    tasks.assert_eq(&python(script).tasks());
}

#[test]
fn a_child_that_ends_with_a_status() {
    check(
        r"
def act():
    os._exit(7)

os.waitpid(child('worker', act), 0)
",
        expect![[r#"
            python3
              exec
              fork to worker
              exit 0 last
              signal SIGCHLD to the recorder ignored
            worker
              exit 7 last
              signal SIGCHLD to python3 ignored
        "#]],
    );
}

#[test]
fn a_thread_begins_and_ends_and_the_last_of_a_process_is_told() {
    check(
        r"
def act():
    rename('second')

def first():
    thread = threading.Thread(target=act)
    thread.start()
    thread.join()
    # Joined is what cleared its identifier; its end comes a moment later.
    until(lambda: len(os.listdir('/proc/self/task')) == 1)

finish(child('first', first))
",
        expect![[r#"
            python3
              exec
              fork to first
              exit 0 last
              signal SIGCHLD to the recorder ignored
            first
              fork to second
              exit 0 last
              signal SIGCHLD to python3 ignored
            second
              exit 0
        "#]],
    );
}

#[test]
fn another_program_is_an_exec_and_bears_its_name() {
    let run = record(Command::new("/bin/sh").args(["-c", "/bin/true; exec /bin/sleep 0.3"]));
    expect![[r#"
        sleep
          exec
          fork to true
          deliver SIGCHLD
          exec
          exit 0 last
          signal SIGCHLD to the recorder ignored
        true
          exec
          exit 0 last
          signal SIGCHLD to sleep
    "#]]
    .assert_eq(&run.tasks());
    let task = |comm: &str| {
        let tasks = &run.history.hosts[0].tasks;
        tasks.iter().rfind(|t| t.comm == comm).unwrap_or_else(|| panic!("no task {comm}"))
    };
    assert!(task("sleep").executable.ends_with("/sleep"), "{:?}", task("sleep"));
    assert_eq!(task("true").parent, task("sleep").pid);
}

/// An event bears the name that its thread had then.
#[test]
fn a_thread_that_renames_itself_is_called_so_from_then_on() {
    let run = python(
        r"
def act():
    rename('before')
    finish(child('one', lambda: None))
    rename('after')
    finish(child('two', lambda: None))
    with open('/proc/self/comm', 'w') as comm:
        comm.write('written')
    finish(child('three', lambda: None))

finish(child('x', act))
",
    );
    let target = |comm| {
        let forks = run.events(comm, Op::Fork);
        assert_eq!(forks.len(), 1, "{comm}");
        name_of(&run.history, forks[0].target)
    };
    assert_eq!([target("before"), target("after"), target("written")], ["one", "two", "three"]);
}

#[test]
fn a_thread_counts_its_events_without_a_hole() {
    let run = python(
        r"
def server(connection, turn):
    for _ in range(500):
        connection.sendall(connection.recv(100))

def client(connection, turn):
    for _ in range(500):
        connection.send(b'x')
        connection.recv(100)

play(server, client)
",
    );
    let threads = count_events(&run.history);
    assert!(threads >= 3, "{threads}");
    assert!(run.history.events.iter().all(|e| !e.flags.has(Flags::AFTER_GAP)));
}

/// Checks every thread's counts; how many threads there were.
fn count_events(history: &History) -> usize {
    let mut counts = std::collections::HashMap::<u32, u32>::new();
    for event in history.events.iter().filter(|e| e.tid != 0) {
        let count = counts.entry(event.tid).or_default();
        *count += 1;
        assert_eq!(event.task_count, *count, "{event:?}");
    }
    counts.len()
}

#[test]
fn a_threads_events_begin_where_its_last_one_ended() {
    let run = python("finish(child('a', lambda: time.sleep(0.02)), child('b', lambda: None))");
    let mut last = std::collections::HashMap::<u32, u64>::new();
    for event in run.history.events.iter().filter(|e| e.tid != 0) {
        if let Some(end) = last.insert(event.tid, event.time_ns) {
            assert_eq!(event.begin_ns, end, "{event:?}");
        }
    }
    let fork = run.history.events.iter().find(|e| e.op == Op::Fork).expect("a fork");
    let exit = run.history.events.iter().find(|e| e.tid == fork.target).expect("its end");
    assert!(exit.begin_ns >= fork.time_ns, "a child begins with its fork");
}

/// Nothing of it is there before the recorder is, nor after.
#[test]
fn only_what_happens_while_recorded_is_recorded() {
    let mut child = python_command("sys.stdin.readline()\nfinish(child('seen', lambda: None))\nsys.stdin.readline()\nfinish(child('unseen', lambda: None))")
        .stdin(Stdio::piped())
        .spawn()
        .expect("python starts");
    let mut input = child.stdin.take().expect("it is piped");
    let mut go = || std::io::Write::write_all(&mut input, b"\n").expect("it reads");
    let mut recorder = Recorder::with(Scope::Process(child.id()), SMALL);
    go();
    let tasks = format!("/proc/{}/task/{}/children", child.id(), child.id());
    for _ in 0..100 {
        recorder.turn();
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    assert_eq!(std::fs::read_to_string(tasks).expect("it lives"), "", "its child is gone");
    let history = recorder.finish();
    go();
    assert!(child.wait().expect("it is our child").success());
    let forks: Vec<_> = history.events.iter().filter(|e| e.op == Op::Fork).collect();
    assert_eq!(forks.len(), 1);
    assert_eq!(name_of(&history, forks[0].target), "seen");
}
