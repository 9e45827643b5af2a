//! io_uring: what its workers send and receive belongs to the process that asked.

use std::process::Command;

use recorder::capture::Scope;
use recorder::event::Op;

use crate::recorded::Recorder;

#[test]
fn a_worker_is_in_the_scope_of_its_process() {
    let mut recorder = Recorder::start(Scope::Command(String::new()));
    let program = concat!(env!("CARGO_MANIFEST_DIR"), "/kernel/uring.py");
    let mut child = recorder.spawn(Command::new("python3").arg(program));
    assert!(recorder.follow(&mut child).success(), "the program ran");
    let history = recorder.finish();
    let send = history.events.iter().find(|e| e.op == Op::Send).expect("the worker's send");
    let receive =
        history.events.iter().find(|e| e.op == Op::Recv && e.result > 0).expect("a receive");
    assert_ne!(send.tid, send.pid, "the kernel made a worker for it");
    assert_eq!(send.pid, receive.pid);
    assert_eq!((send.stream_start, send.stream_end), (0, 77));
}
