//! A small written history for the exports' tests: curl asks nginx, which asks a Python application, which
//! asks redis; the application is killed from outside before it answers.

use std::net::SocketAddr;

use crate::event::{Address, Event, EventIndex, Flags, History, Host, Name, Op, Proof, Ring};
use crate::graph::{Edge, EdgeKind, Graph, Proof as EdgeProof, Side, node};

/// A lane of the example.
#[derive(Clone, Copy)]
struct Lane {
    pid: u32,
    tid: u32,
    comm: Name,
}

/// One end of a connection.
#[derive(Clone, Copy)]
struct End {
    local: Address,
    remote: Address,
}

struct Story {
    history: History,
    graph: Graph,
    now_us: u64,
}

impl Story {
    fn lane(&mut self, comm: &str, pid: u32, tid: u32) -> Lane {
        Lane { pid, tid, comm: self.history.names.intern(comm) }
    }

    fn address(&mut self, text: &str) -> Address {
        self.history.names.intern_address(text.parse::<SocketAddr>().expect("an address"))
    }

    /// Both ends of a connection.
    fn connection(&mut self, client: &str, server: &str) -> [End; 2] {
        let (client, server) = (self.address(client), self.address(server));
        [End { local: client, remote: server }, End { local: server, remote: client }]
    }

    /// Adds an event some microseconds after the last one, with the edges of its interval and lane.
    fn event(&mut self, after_us: u64, lane: Lane, event: Event) -> EventIndex {
        self.now_us += after_us;
        let id = self.history.events.len() as EventIndex;
        let previous = self.history.events.iter().rposition(|e| {
            (e.pid, e.tid) == (lane.pid, lane.tid) && (e.tid != 0 || e.local == event.local)
        });
        let time_ns = self.now_us * 1000;
        let begin_ns = previous.map_or(time_ns, |p| self.history.events[p].time_ns);
        let Lane { pid, tid, comm } = lane;
        let ring = if matches!(event.op, Op::Send | Op::Recv) { Ring::Bulk } else { Ring::Rare };
        self.history.events.push(Event {
            time_ns,
            begin_ns,
            position: u64::from(id),
            pid,
            tid,
            comm,
            ring,
            ..event
        });
        self.graph.nodes.add_node(());
        self.graph.nodes.add_node(());
        self.edge(id, Side::Begin, id, Side::End, EdgeKind::Interval, EdgeProof::Must);
        if let Some(previous) = previous {
            let previous = previous as EventIndex;
            self.edge(previous, Side::End, id, Side::Begin, EdgeKind::Program, EdgeProof::Must);
        }
        id
    }

    fn edge(
        &mut self,
        from: EventIndex,
        from_side: Side,
        to: EventIndex,
        to_side: Side,
        kind: EdgeKind,
        proof: EdgeProof,
    ) {
        let edge = Edge { kind, proof };
        self.graph.nodes.add_edge(node(from, from_side), node(to, to_side), edge);
    }

    fn link(&mut self, from: EventIndex, to: EventIndex, kind: EdgeKind) {
        self.edge(from, Side::Begin, to, Side::End, kind, EdgeProof::Must);
    }

    /// A connect with its established at both ends.
    fn connect(&mut self, after_us: u64, [client, server]: [(Lane, End); 2]) {
        let kernel = |lane: Lane| Lane { tid: 0, ..lane };
        let connect = self.event(after_us, client.0, on(client.1, Op::Connect));
        let there = self.event(9, kernel(server.0), on(server.1, Op::Established));
        let here = self.event(4, kernel(client.0), on(client.1, Op::Established));
        self.link(connect, there, EdgeKind::Connection);
        self.link(there, here, EdgeKind::Connection);
    }

    /// Bytes from one end to the other; the receive is stamped before the send returns.
    fn message(&mut self, after_us: u64, [from, to]: [(Lane, End); 2], bytes: i64) {
        let moved = |end: End, op| Event {
            result: bytes,
            stream_end: bytes as u64,
            flags: Flags::RANGE,
            ..on(end, op)
        };
        let receive = self.event(after_us, to.0, moved(to.1, Op::Recv));
        let send = self.event(6, from.0, moved(from.1, Op::Send));
        self.link(send, receive, EdgeKind::Bytes);
    }
}

fn on(end: End, op: Op) -> Event {
    Event {
        socket: u64::from(end.local.0) + 1,
        local: end.local,
        remote: end.remote,
        iss: 1000 + end.local.0,
        irs: 1000 + end.remote.0,
        proof: Proof::Established,
        ..Event::blank(op)
    }
}

fn begin() -> Story {
    let host = Host {
        name: "demo".into(),
        // 12:00:00 UTC at monotonic 0.
        wall_offset_ns: (20_000 * 86_400 + 43_200) * 1_000_000_000,
        ..Host::default()
    };
    let history = History { hosts: vec![host], ..History::default() };
    Story { history, graph: Graph::default(), now_us: 1_204_000 }
}

/// curl → nginx → app → redis, and a kill.
pub fn three_tiers() -> (History, Graph) {
    let mut story = begin();
    let curl = story.lane("curl", 4312, 4312);
    let nginx = story.lane("nginx", 4290, 4290);
    let (app, worker) = (story.lane("app.py", 4301, 4301), story.lane("app.py", 4301, 4304));
    let redis = story.lane("redis-server", 4288, 4288);
    let shell = story.lane("sh", 4299, 4299);
    let front = story.connection("127.0.0.1:53122", "127.0.0.1:8080");
    let middle = story.connection("127.0.0.1:41800", "127.0.0.1:9000");
    let back = story.connection("127.0.0.1:38290", "127.0.0.1:6379");

    story.connect(0, [(curl, front[0]), (nginx, front[1])]);
    story.message(40, [(curl, front[0]), (nginx, front[1])], 78);
    story.connect(31, [(nginx, middle[0]), (app, middle[1])]);
    story.message(22, [(nginx, middle[0]), (app, middle[1])], 112);
    let taken = story.history.events.len() as EventIndex - 2;
    story.connect(160, [(worker, back[0]), (redis, back[1])]);
    let first = story.history.events.len() as EventIndex - 3;
    story.edge(taken, Side::End, first, Side::Begin, EdgeKind::Program, EdgeProof::May);
    story.message(12, [(worker, back[0]), (redis, back[1])], 31);
    story.message(25, [(redis, back[1]), (worker, back[0])], 5);
    killed(&mut story, [shell, app, worker, nginx], middle);
    story.message(61, [(nginx, front[1]), (curl, front[0])], 497);
    story.event(80, curl, on(front[0], Op::Close));
    (story.history, story.graph)
}

/// The kill, the death, the reset, and the proxy's error.
fn killed(story: &mut Story, [shell, app, worker, nginx]: [Lane; 4], [here, there]: [End; 2]) {
    let kill = Event { target: 4301, signal: 9, flags: Flags::PROCESS, ..Event::blank(Op::Signal) };
    let kill = story.event(1_300_000, shell, kill);
    let dead = |signal, op| Event { signal, ..Event::blank(op) };
    let deliver = story.event(79, app, dead(9, Op::Deliver));
    let other = story.event(3, worker, dead(9, Op::Deliver));
    story.link(kill, deliver, EdgeKind::Signal);
    story.link(kill, other, EdgeKind::Signal);
    let sent = story.event(60, Lane { tid: 0, ..app }, on(there, Op::ResetSent));
    story.edge(deliver, Side::End, sent, Side::Begin, EdgeKind::Close, EdgeProof::May);
    let received = story.event(5, Lane { tid: 0, ..nginx }, on(here, Op::ResetReceived));
    story.link(sent, received, EdgeKind::Close);
    let error = story.event(46, nginx, Event { error: 104, ..on(here, Op::Recv) });
    story.edge(received, Side::End, error, Side::End, EdgeKind::Close, EdgeProof::Must);
    story.event(8, worker, dead(9, Op::Exit));
    story.event(9, app, dead(9, Op::Exit));
}

/// `count` requests from one of some clients to a server with some threads.
pub fn busy(count: usize) -> (History, Graph) {
    let mut story = begin();
    for i in 0..count as u32 {
        let client = story.lane("wrk", 900, 900 + i % 3);
        let server = story.lane("python3", 700, 700 + i % 4);
        let ends = story.connection(&format!("10.0.0.1:{}", 50_000 + i % 3), "10.0.0.2:80");
        let [(c, ce), (s, se)] = [(client, ends[0]), (server, ends[1])];
        story.message(u64::from(i % 7) * 40 + 5, [(c, ce), (s, se)], 70 + i64::from(i));
        story.message(30, [(s, se), (c, ce)], 12_345);
    }
    (story.history, story.graph)
}
