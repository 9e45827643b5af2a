//! Makes a recording of ten million events, of which the last are a kill and what came of it, for measuring:
//! `cargo run -p tests --example large_recording [EVENTS]` writes `target/large.parquet`. With a number of hosts after
//! the events, these are recorded on so many hosts, in the folder `target/large`.

use std::path::Path;

use recorder::event::{Event, Flags, History, Op, Ring};

#[path = "../offline/recording/traffic.rs"]
mod traffic;

fn main() {
    let number = |n: usize| std::env::args().nth(n).and_then(|text| text.parse().ok());
    let (events, hosts) = (number(1).unwrap_or(10_000_000), number(2).unwrap_or(1));
    let mut history = traffic::requests(events / hosts);
    kill_a_server(&mut history);
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target");
    let save = |path: &Path, history: &History| {
        recorder::recording::write::save(path, history, 0).expect("write the recording");
    };
    if hosts == 1 {
        return save(&target.join("large.parquet"), &history);
    }
    std::fs::create_dir_all(target.join("large")).expect("make the folder");
    for host in 0..hosts {
        history.hosts[0] = traffic::host(&format!("host-{host:03}"));
        save(&target.join(format!("large/{host}.parquet")), &history);
    }
}

/// The newest receiver is killed before it answers; its client sees the connection reset.
fn kill_a_server(history: &mut History) {
    let last = *history.events.last().expect("traffic");
    let reversed = history.events.iter().rev();
    let served =
        *reversed.clone().find(|e| e.op == Op::Recv && e.pid != last.pid).expect("a server");
    // The traffic's passive ends have even cookies, and their clients the one below.
    let client = reversed.clone().find(|e| e.socket == served.socket - 1);
    let client = *client.expect("a client");
    let shell = history.names.intern("sh");
    let mut at_ns = last.time_ns;
    let mut push = |event: Event| {
        at_ns += 1_000;
        let position = 1_000_000 + history.events.len() as u64;
        let begin_ns = event.time_ns.min(at_ns);
        history.events.push(Event {
            time_ns: at_ns,
            begin_ns,
            position,
            ring: Ring::Rare,
            cpu: 0,
            ..event
        });
    };
    let task = |op, of: Event| Event {
        pid: of.pid,
        tid: of.tid,
        comm: of.comm,
        time_ns: of.time_ns,
        signal: 9,
        ..Event::blank(op)
    };
    let sh = Event { pid: 77, tid: 77, comm: shell, time_ns: last.time_ns, ..served };
    push(Event { target: served.tid, flags: Flags::PROCESS, ..task(Op::Signal, sh) });
    push(task(Op::Deliver, served));
    push(Event { signal: 0, flags: Flags::LAST_THREAD, ..task(Op::Exit, served) });
    push(Event { op: Op::Abort, flags: Flags::NONE, result: 0, ..served });
    push(Event { op: Op::ResetSent, tid: 0, flags: Flags::NONE, result: 0, ..served });
    let client = Event { flags: Flags::NONE, result: 0, ..client };
    let reset = libc::ECONNRESET as u16;
    push(Event { op: Op::ResetReceived, tid: 0, ..client });
    push(Event { op: Op::Error, tid: 0, error: reset, ..client });
    push(Event { op: Op::Recv, error: reset, ..client });
    history.hosts[0].bulk_window.to_ns = at_ns;
    history.hosts[0].rare_window.to_ns = at_ns;
}
