//! Made-up but realistic traffic: threads of a client and a server, requests and responses over sockets.

use recorder::event::{Address, Event, Flags, History, Host, Name, Op, Proof, Ring, Task, Window};

const THREADS: u32 = 8;
const SOCKETS: usize = 100;

/// A small generator (xorshift): what is made depends on the seed alone.
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

struct End {
    cookie: u64,
    local: Address,
    remote: Address,
    iss: u32,
    irs: u32,
    sent: u64,
    received: u64,
    flags: Flags,
}

struct Thread {
    pid: u32,
    tid: u32,
    comm: Name,
    cpu: u16,
    count: u32,
    last_ns: u64,
}

pub fn host(name: &str) -> Host {
    Host {
        name: name.to_owned(),
        boot_id: format!("boot of {name}"),
        kernel: "6.18.0".to_owned(),
        cpus: 2,
        wall_offset_ns: 1_795_000_000_000_000_000,
        hooks: vec!["sock_send_length".to_owned(), "sock_recv_length".to_owned()],
        detail: "flow".to_owned(),
        scope: "all".to_owned(),
        ..Host::default()
    }
}

/// At least `events` events: requests of a few sizes and responses of many, on 100 connections.
pub fn requests(events: usize) -> History {
    let mut history = History { hosts: vec![host("alpha")], ..History::default() };
    let random = &mut Random(0x9e37_79b9_7f4a_7c15);
    let client = history.names.intern("wrk");
    let server = history.names.intern("nginx");
    let cgroup = history.names.intern("/system.slice/nginx.service");
    let mut threads: Vec<Thread> = (0..THREADS)
        .map(|n| Thread {
            pid: if n < THREADS / 2 { 4100 } else { 4200 + n },
            tid: 4100 + n + if n < THREADS / 2 { 0 } else { 100 },
            comm: if n < THREADS / 2 { client } else { server },
            cpu: (n % 2) as u16,
            count: 0,
            last_ns: 5_000_000_000,
        })
        .collect();
    let mut pairs: Vec<[End; 2]> = (0..SOCKETS).map(|n| pair(&mut history, n, random)).collect();
    let mut now_ns = 5_000_000_000;
    let mut positions = [0; 2];
    while history.events.len() < events {
        let socket = random.below(SOCKETS as u64) as usize;
        let (ours, theirs) = (socket % 4, 4 + socket % 4);
        let request = [78, 112, 340][random.below(3) as usize];
        let response = 180 + random.below(20) * 411;
        for (thread, side, op, bytes) in [
            (ours, 0, Op::Send, request),
            (theirs, 1, Op::Recv, request),
            (theirs, 1, Op::Send, response),
            (ours, 0, Op::Recv, response),
        ] {
            now_ns += 900 + random.below(9_000);
            let mut event = step(&mut threads[thread], &mut pairs[socket][side], op, bytes, now_ns);
            event.cgroup = if side == 1 { cgroup } else { Name::NONE };
            event.position = positions[usize::from(event.cpu)];
            positions[usize::from(event.cpu)] += 1;
            history.events.push(event);
        }
    }
    finish(&mut history, &threads, now_ns);
    history
}

fn pair(history: &mut History, number: usize, random: &mut Random) -> [End; 2] {
    let port = 40_000 + number;
    let client =
        history.names.intern_address(format!("127.0.0.1:{port}").parse().expect("an address"));
    let server = history.names.intern_address("127.0.0.1:80".parse().expect("an address"));
    let (iss, irs) = (random.below(1 << 32) as u32, random.below(1 << 32) as u32);
    let end = |cookie, local, remote, iss, irs, flags| End {
        cookie,
        local,
        remote,
        iss,
        irs,
        sent: 0,
        received: 0,
        flags,
    };
    let cookie = 2 * number as u64 + 1;
    let active = Flags::RANGE.with(Flags::ACTIVE);
    [
        end(cookie, client, server, iss, irs, active),
        end(cookie + 1, server, client, irs, iss, Flags::RANGE),
    ]
}

fn step(thread: &mut Thread, end: &mut End, op: Op, bytes: u64, now_ns: u64) -> Event {
    let stream = if op == Op::Send { &mut end.sent } else { &mut end.received };
    let stream_start = *stream;
    *stream += bytes;
    thread.count += 1;
    let begin_ns = std::mem::replace(&mut thread.last_ns, now_ns);
    Event {
        time_ns: now_ns,
        begin_ns,
        socket: end.cookie,
        stream_start,
        stream_end: *stream,
        result: bytes as i64,
        iss: end.iss,
        irs: end.irs,
        pid: thread.pid,
        tid: thread.tid,
        task_count: thread.count,
        netns: 4_026_531_840,
        comm: thread.comm,
        local: end.local,
        remote: end.remote,
        cpu: thread.cpu,
        ring: Ring::Bulk,
        proof: Proof::Established,
        flags: end.flags,
        ..Event::blank(op)
    }
}

fn finish(history: &mut History, threads: &[Thread], now_ns: u64) {
    let window = Window { from_ns: 5_000_000_000, to_ns: now_ns };
    let host = &mut history.hosts[0];
    host.bulk_window = window;
    host.rare_window = window;
    host.raised = history.events.len() as u64;
    host.tasks = threads
        .iter()
        .map(|t| Task {
            pid: t.pid,
            tid: t.tid,
            comm: history.names.text(t.comm).to_owned(),
            ..Task::default()
        })
        .collect();
}
