//! io_uring: whose event a request is.

use std::process::Command;

use recorder::capture::Scope;
use recorder::event::{Event, History, Op};

use crate::recorded::Recorder;

/// One send through io_uring, made by whom `mode` says, and the receive of its bytes.
fn sent_by(mode: &str) -> (History, Event) {
    let mut recorder = Recorder::start(Scope::Command(String::new()));
    let program = concat!(env!("CARGO_MANIFEST_DIR"), "/kernel/uring.py");
    let mut child = recorder.spawn(Command::new("python3").args([program, mode]));
    assert!(recorder.follow(&mut child).success(), "the program ran");
    let history = recorder.finish();
    let find = |op| history.events.iter().find(|e| e.op == op && e.result > 0);
    let send = *find(Op::Send).expect("a send");
    let receive = find(Op::Recv).expect("a receive");
    assert_eq!((send.stream_start, send.stream_end), (0, 77));
    assert_eq!(send.pid, receive.pid);
    assert_eq!(receive.tid, receive.pid, "the program has one thread of its own");
    (history, send)
}

#[test]
fn the_submitters_own_call_is_its_event() {
    let (_, send) = sent_by("own");
    assert_eq!(send.tid, send.pid);
}

#[test]
fn a_worker_is_in_the_scope_of_its_process() {
    let (history, send) = sent_by("worker");
    assert_ne!(send.tid, send.pid, "the kernel made a worker for it");
    assert_eq!(history.comm(&send), format!("iou-wrk-{}", send.pid));
}

/// The thread that polls the queue makes the call, at no system call of the submitter: it must not be put
/// into the submitter's order.
#[test]
fn what_the_polling_thread_does_is_the_polling_threads() {
    let (history, send) = sent_by("poller");
    assert_ne!(send.tid, send.pid);
    assert_eq!(history.comm(&send), format!("iou-sqp-{}", send.pid));
}
