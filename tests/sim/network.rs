//! Packets: the handshake, what arrives at a socket, and what the kernel answers of its own accord.

use std::collections::{BTreeSet, VecDeque};
use std::net::SocketAddr;

use recorder::event::{Address, Event, Flags, Op};

use crate::sim::order::Moment;
use crate::sim::world::{End, EndId, Listener, Packet, ProcessId, State, Step, ThreadId, World};

const EPIPE: u16 = 32;
const ECONNRESET: u16 = 104;
const ECONNREFUSED: u16 = 111;

impl World {
    fn latency(&mut self, from: usize, to: usize) -> u64 {
        if from == to { self.delay(2_000) } else { 20_000 + self.delay(40_000) }
    }

    /// Sends a packet to the other end. Packets of one direction arrive in order.
    pub fn send_packet(&mut self, from: EndId, packet: Packet) {
        let Some(peer) = self.ends[from].peer else { return };
        // Nothing travels within a machine: what is sent lies in the other end's queue.
        let at_once = self.ends[from].unix
            && self.ends[peer].state == State::Open
            && self.ends[from].last_arrival <= self.now
            && matches!(packet, Packet::Data(_));
        if at_once {
            return self.arrive(peer, packet);
        }
        let mut latency = self.latency(self.ends[from].host, self.ends[peer].host);
        if let Packet::Data(chunk) = &packet
            && self.random.percent(1)
        {
            latency += 200_000;
            self.lane(from, Event::blank(Op::Retransmit), &[chunk.cause]);
        }
        let arrival = (self.now + latency).max(self.ends[from].last_arrival + 1);
        self.ends[from].last_arrival = arrival;
        self.at(arrival, Step::Arrive(peer, packet));
    }

    pub fn arrive(&mut self, end: EndId, packet: Packet) {
        let e = &mut self.ends[end];
        match packet {
            Packet::SynAck(cause) if e.state == State::Connecting => {
                self.establish(end, cause);
                self.wake(end, false, true);
                let cause = self.ends[end].established.unwrap_or(cause);
                self.send_packet(end, Packet::Ack(cause));
            }
            Packet::Ack(cause) if e.state == State::Connecting => self.accepted(end, cause),
            Packet::Reset { cause, event } if e.state != State::Dead => {
                self.reset(end, cause, event);
            }
            _ if e.state != State::Open => {}
            Packet::Data(chunk) if e.orphan => {
                let causes: Vec<Moment> = e.fin_sent.into_iter().chain([chunk.cause]).collect();
                let (event, cause) = self.lane(end, Event::blank(Op::ResetSent), &causes);
                self.gone(end, &[], 0);
                self.send_packet(end, Packet::Reset { cause, event: Some(event) });
            }
            Packet::Data(chunk) => {
                e.queue.push_back(chunk);
                self.wake(end, true, false);
            }
            Packet::Fin { cause, event } => {
                e.fin_received = Some((cause, event));
                self.wake(end, true, false);
                self.send_packet(end, Packet::FinAck(cause));
                self.perhaps_gone(end);
            }
            Packet::FinAck(cause) => {
                e.fin_acked = Some(cause);
                self.perhaps_gone(end);
            }
            Packet::Space { until, cause } => {
                e.limit = until;
                e.space = Some(cause);
                self.wake(end, false, true);
            }
            Packet::SynAck(_) | Packet::Ack(_) | Packet::Reset { .. } => {}
        }
    }

    /// A SYN at a port: an answer, or a reset when nobody listens.
    pub fn syn(&mut self, from: EndId, cause: Moment) {
        let target = self.ends[from].target;
        let found = self.listeners.iter().rposition(|l| (l.host, l.port) == target);
        let listener = found.filter(|&l| self.listeners[l].alive);
        let changed = found.map(|l| self.listeners[l].changed);
        let causes: Vec<Moment> = changed.into_iter().chain([cause]).collect();
        let Some(listener) = listener else {
            return self.refuse(from, target.0, &causes);
        };
        let over = self.order.add(&causes);
        let end = self.passive(from, listener, over);
        self.send_packet(end, Packet::SynAck(over));
    }

    fn refuse(&mut self, client: EndId, host: usize, causes: &[Moment]) {
        self.seen.refused += 1;
        let (to, port) = self.ends[client].target;
        let local = self.address([10, 0, to as u8 + 1, 1], port);
        let remote = self.ends[client].local;
        let event = Event { local, remote, ..Event::blank(Op::ResetSent) };
        let (event, cause) = self.nobody(host, event, causes, true);
        let latency = self.latency(host, self.ends[client].host);
        let packet = Packet::Reset { cause, event: Some(event) };
        self.after(latency, Step::Arrive(client, packet));
    }

    /// The server's end of a connection that a client asked for.
    fn passive(&mut self, from: EndId, listener: usize, birth: Moment) -> EndId {
        let l = &self.listeners[listener];
        let (host, local, process) = (l.host, l.local, l.process);
        let client_host = self.ends[from].host;
        let nat = client_host != host && self.ends[from].remote != local;
        let remote = if nat {
            let port = 20_000 + self.random.below(9_000) as u16;
            self.address([192, 0, 2, client_host as u8 + 1], port)
        } else {
            self.ends[from].local
        };
        let end = self.end(host, local, remote, birth);
        let (iss, peer_iss) = (self.ends[end].iss, self.ends[from].iss);
        self.ends[from].peer = Some(end);
        self.ends[from].irs = iss;
        let recorded = self.processes[process].recorded;
        self.perhaps_unix([from, end]);
        let e = &mut self.ends[end];
        e.peer = Some(from);
        e.irs = peer_iss;
        e.listener = Some(listener);
        e.recorded = recorded;
        end
    }

    /// Makes some connections within a host those of Unix sockets.
    fn perhaps_unix(&mut self, ends: [EndId; 2]) {
        let [one, other] = ends.map(|end| self.ends[end].host);
        if self.shape.unix && one == other && self.random.percent(70) {
            for end in ends {
                self.ends[end].unix = true;
            }
        }
    }

    fn establish(&mut self, end: EndId, cause: Moment) {
        let mut event = Event::blank(Op::Established);
        if self.ends[end].active {
            event.flags = Flags::ACTIVE;
        }
        let (raw, over) = self.lane(end, event, &[cause]);
        let connect = if self.ends[end].active {
            self.ends[end].connect
        } else {
            self.ends[end].peer.and_then(|p| self.ends[p].connect)
        };
        self.causes.connections.extend(connect.map(|c| (c, raw)));
        let e = &mut self.ends[end];
        e.state = State::Open;
        e.since = Some(self.now);
        e.established = Some(over);
    }

    fn accepted(&mut self, end: EndId, cause: Moment) {
        let listener = self.ends[end].listener.expect("a passive end has a listener");
        if self.listeners[listener].alive {
            self.establish(end, cause);
            self.listeners[listener].queue.push_back(end);
            return;
        }
        self.ends[end].state = State::Dead;
        let causes = [cause, self.listeners[listener].changed];
        let host = self.ends[end].host;
        let (local, remote) = (self.ends[end].local, self.ends[end].remote);
        let event = Event { local, remote, ..Event::blank(Op::ResetSent) };
        let (event, cause) = self.nobody(host, event, &causes, true);
        self.send_packet(end, Packet::Reset { cause, event: Some(event) });
    }

    /// A reset came in.
    fn reset(&mut self, end: EndId, cause: Moment, event: Option<usize>) {
        self.seen.resets += 1;
        let e = &self.ends[end];
        let error = match e.state {
            State::Connecting => ECONNREFUSED,
            _ if e.fin_received.is_some() => EPIPE,
            _ => ECONNRESET,
        };
        let (received, over) = self.lane(end, Event::blank(Op::ResetReceived), &[cause]);
        self.causes.resets.extend(event.map(|sent| (sent, received)));
        self.gone(end, &[over], error);
        self.ends[end].error_cause = Some(over);
        if !self.ends[end].orphan {
            let (_, told) = self.lane(end, Event { error, ..Event::blank(Op::Error) }, &[over]);
            self.ends[end].error = error;
            // All of this happens under the socket's lock: who sees the error comes after.
            self.ends[end].error_cause = Some(told);
        }
        self.wake(end, true, true);
    }

    fn gone(&mut self, end: EndId, causes: &[Moment], error: u16) {
        self.ends[end].state = State::Dead;
        self.lane(end, Event { error, ..Event::blank(Op::Closed) }, causes);
    }

    fn perhaps_gone(&mut self, end: EndId) {
        let e = &self.ends[end];
        let (Some(sent), Some(acked), Some(received)) = (e.fin_sent, e.fin_acked, e.fin_received)
        else {
            return;
        };
        self.gone(end, &[sent, acked, received.0], 0);
    }

    pub fn address(&mut self, ip: [u8; 4], port: u16) -> Address {
        self.names.intern_address(SocketAddr::from((ip, port)))
    }

    /// A new socket.
    pub fn end(&mut self, host: usize, local: Address, remote: Address, birth: Moment) -> EndId {
        let cookie = self.next_cookie[host];
        self.next_cookie[host] += 1;
        let iss = self.random.draw() as u32;
        self.ends.push(End {
            host,
            peer: None,
            active: false,
            unix: false,
            counted_sent: 0,
            counted_received: 0,
            recorded: true,
            owner: 0,
            cookie,
            local,
            remote,
            target: (0, 0),
            listener: None,
            iss,
            irs: 0,
            since: None,
            established: None,
            connect: None,
            birth,
            lane: None,
            state: State::Connecting,
            orphan: false,
            holders: BTreeSet::new(),
            calls: 0,
            writers: Vec::new(),
            readers: Vec::new(),
            claimed_writer: None,
            claimed_reader: None,
            written: 0,
            limit: self.shape.capacity,
            space: None,
            fin_sent: None,
            fin_acked: None,
            queue: VecDeque::new(),
            copied: 0,
            fin_received: None,
            error: 0,
            error_cause: None,
            last_arrival: 0,
        });
        self.ends.len() - 1
    }

    /// A thread connects to some listener, or to where one was.
    pub fn connect(&mut self, thread: ThreadId) {
        let choices: Vec<usize> = (0..self.listeners.len()).collect();
        let Some(listener) = self.random.pick(&choices) else { return };
        let alive = self.listeners[listener].alive;
        if !alive && self.random.percent(60) {
            return;
        }
        let l = &self.listeners[listener];
        let (to, port, server) = (l.host, l.port, l.local);
        let host = self.host_of(thread);
        let remote = if to != host && self.random.percent(30) {
            self.address([198, 51, 100, to as u8 + 1], 80)
        } else {
            server
        };
        let Some(local) = self.free_port(host, remote) else { return };
        let birth = self.threads[thread].last;
        let end = self.end(host, local, remote, birth);
        let process = self.threads[thread].process;
        let (owner, recorded) = (self.processes[process].pid, self.processes[process].recorded);
        let e = &mut self.ends[end];
        e.active = true;
        e.target = (to, port);
        e.owner = owner;
        e.recorded = recorded;
        e.holders.insert(process);
        let raw = self.act_on(thread, end, Event::blank(Op::Connect), &[]);
        self.ends[end].connect = Some(raw);
        let cause = self.raws[raw].begin;
        let latency = self.latency(host, to);
        self.after(latency, Step::Syn { from: end, cause });
    }

    /// Few ports, so that they are used again.
    fn free_port(&mut self, host: usize, remote: Address) -> Option<Address> {
        let first = self.random.below(4);
        for i in 0..4 {
            let port = 40_000 + ((first + i) % 4) as u16;
            let local = self.address([10, 0, host as u8 + 1, 1], port);
            let used = self.ends.iter().any(|e| {
                e.host == host
                    && (e.local, e.remote) == (local, remote)
                    && (e.state != State::Dead
                        || e.peer.is_some_and(|p| self.ends[p].state != State::Dead))
            });
            if !used {
                return Some(local);
            }
        }
        None
    }

    pub fn listen(&mut self, thread: ThreadId) {
        let process = self.threads[thread].process;
        if self.listeners.iter().any(|l| l.alive && l.process == process) {
            return;
        }
        let host = self.host_of(thread);
        let free = |&port: &u16| {
            !self.listeners.iter().any(|l| l.alive && (l.host, l.port) == (host, port))
        };
        let ports: Vec<u16> = (8_000..8_003).filter(free).collect();
        let Some(port) = self.random.pick(&ports) else { return };
        let cookie = self.next_cookie[host];
        self.next_cookie[host] += 1;
        let local = self.address([10, 0, host as u8 + 1, 1], port);
        let event = Event { socket: cookie, local, ..Event::blank(Op::Listen) };
        let raw = self.act(thread, event, &[]);
        let changed = self.raws[raw].end;
        self.listeners.push(Listener {
            host,
            port,
            process,
            cookie,
            local,
            alive: true,
            changed,
            queue: VecDeque::new(),
        });
    }

    /// Stops listening; who was not accepted yet is reset.
    pub fn unlisten(&mut self, thread: ThreadId, listener: usize) {
        let l = &mut self.listeners[listener];
        l.alive = false;
        let event = Event { socket: l.cookie, local: l.local, ..Event::blank(Op::Unlisten) };
        let waiting: Vec<EndId> = l.queue.drain(..).collect();
        let raw = self.act(thread, event, &[]);
        self.listeners[listener].changed = self.raws[raw].begin;
        for end in waiting {
            if self.ends[end].state == State::Open {
                self.abort(thread, end);
            }
        }
    }

    /// Takes a connection that waits, which no hook shows.
    pub fn accept(&mut self, thread: ThreadId) -> bool {
        let process = self.threads[thread].process;
        let found = self.listeners.iter().position(|l| l.process == process && !l.queue.is_empty());
        let Some(listener) = found.filter(|_| self.random.percent(70)) else { return false };
        let end = self.listeners[listener].queue.pop_front().expect("the queue is not empty");
        let established = self.ends[end].established.expect("only these wait");
        let birth = self.order.add(&[self.threads[thread].last, established]);
        self.threads[thread].last = birth;
        let owner = self.processes[process].pid;
        let e = &mut self.ends[end];
        e.birth = birth;
        e.owner = owner;
        e.holders.insert(process);
        true
    }

    /// A connection that stands when all begins, with bytes behind it.
    pub fn old_connection(&mut self, processes: [ProcessId; 2]) {
        let start = self.order.add(&[]);
        let hosts = processes.map(|p| self.processes[p].host);
        let port = 7_000 + self.ends.len() as u16;
        let local = hosts.map(|h| [10, 0, h as u8 + 1, 1]);
        let addresses = [self.address(local[0], port), self.address(local[1], 9_000)];
        let bases = [0, 1].map(|_| [1, 777, (1u64 << 32) - 500, 5 << 32][self.random.index(4)]);
        let first = self.end(hosts[0], addresses[0], addresses[1], start);
        let second = self.end(hosts[1], addresses[1], addresses[0], start);
        self.perhaps_unix([first, second]);
        for (i, (end, peer)) in [(first, second), (second, first)].into_iter().enumerate() {
            let process = &self.processes[processes[i]];
            let (owner, recorded) = (process.pid, process.recorded);
            let irs = self.ends[peer].iss;
            let limit = bases[i] + self.shape.capacity;
            let e = &mut self.ends[end];
            e.peer = Some(peer);
            e.active = i == 0;
            e.irs = irs;
            e.state = State::Open;
            e.established = Some(start);
            e.owner = owner;
            e.recorded = recorded;
            e.holders.insert(processes[i]);
            e.written = bases[i];
            e.limit = limit;
            e.copied = bases[1 - i];
        }
    }
}
