//! What threads do of their own accord, and how their acts become events.

use recorder::event::{Event, Op, Ring};

use crate::sim::order::Moment;
use crate::sim::world::{EndId, Raw, RawId, State, Step, ThreadId, What, World};

impl World {
    /// A thread does something that takes no time worth telling: begin and end at once.
    pub fn act(&mut self, thread: ThreadId, event: Event, causes: &[Moment]) -> RawId {
        let begin = self.order.add(&[self.threads[thread].last]);
        let mut all = vec![begin];
        all.extend(causes);
        let end = self.order.add(&all);
        self.raise(thread, event, begin, end)
    }

    /// A thread's event, whose begin and end are known.
    pub fn raise(&mut self, thread: ThreadId, event: Event, begin: Moment, end: Moment) -> RawId {
        self.now = (self.now + 1 + self.random.below(40)).max(self.threads[thread].last_time + 70);
        let cpu = self.random.below(self.shape.cpus as u64) as u16;
        let t = &mut self.threads[thread];
        t.last = end;
        t.last_time = self.now;
        let process = &self.processes[t.process];
        let event = Event { pid: process.pid, tid: t.tid, comm: t.comm, ..event };
        let (host, recorded) = (process.host, process.recorded);
        self.push(host, cpu, event, [begin, end], recorded, Some(thread), None)
    }

    /// An event of a socket's kernel lane, or of no socket's when there is none.
    pub fn lane(&mut self, end: EndId, event: Event, causes: &[Moment]) -> (RawId, Moment) {
        self.now += 1 + self.random.below(40);
        let mut all = causes.to_vec();
        all.extend(self.ends[end].lane);
        let begin = self.order.add(&all);
        let over = self.order.add(&[begin]);
        let e = &mut self.ends[end];
        e.lane = Some(over);
        let event = Event { pid: e.owner, ..event };
        let (host, recorded) = (e.host, e.recorded);
        let cpu = self.cpu;
        let event = self.about(end, event);
        let raw = self.push(host, cpu, event, [begin, over], recorded, None, Some(end));
        (raw, over)
    }

    /// An event of the kernel's that belongs to no socket.
    pub fn nobody(
        &mut self,
        host: usize,
        event: Event,
        causes: &[Moment],
        recorded: bool,
    ) -> (RawId, Moment) {
        self.now += 1 + self.random.below(40);
        let begin = self.order.add(causes);
        let over = self.order.add(&[begin]);
        let cpu = self.cpu;
        (self.push(host, cpu, event, [begin, over], recorded, None, None), over)
    }

    #[expect(clippy::too_many_arguments, reason = "the one place where all of it comes together")]
    fn push(
        &mut self,
        host: usize,
        cpu: u16,
        event: Event,
        [begin, end]: [Moment; 2],
        recorded: bool,
        thread: Option<ThreadId>,
        socket: Option<EndId>,
    ) -> RawId {
        let ring = if matches!(event.op, Op::Send | Op::Recv) { Ring::Bulk } else { Ring::Rare };
        let event = Event { time_ns: self.now, host: host as u16, cpu, ring, ..event };
        self.raws.push(Raw { event, begin, end, thread, socket, recorded });
        self.raws.len() - 1
    }

    /// Fills in what names a socket.
    pub fn about(&self, end: EndId, event: Event) -> Event {
        let e = &self.ends[end];
        Event {
            socket: e.cookie,
            local: e.local,
            remote: e.remote,
            iss: e.iss,
            irs: e.irs,
            netns: 4_026_531_840,
            ..event
        }
    }

    /// An act on a socket.
    pub fn act_on(
        &mut self,
        thread: ThreadId,
        end: EndId,
        event: Event,
        causes: &[Moment],
    ) -> RawId {
        let event = self.about(end, event);
        let raw = self.act(thread, event, causes);
        self.raws[raw].socket = Some(end);
        raw
    }

    /// Plans the thread's next free moment.
    pub fn free(&mut self, thread: ThreadId) {
        if self.threads[thread].dead {
            return;
        }
        let think = self.delay(8_000);
        self.threads[thread].epoch += 1;
        let epoch = self.threads[thread].epoch;
        self.after(think, Step::Decide(thread, epoch));
    }

    pub fn decide(&mut self, thread: ThreadId) {
        if self.take_signals(thread) {
            return;
        }
        if self.accept(thread) {
            return self.free(thread);
        }
        let kills = self.shape.kills;
        match self.random.below(100 + kills) {
            0..42 => return self.begin_send(thread),
            42..84 => return self.begin_receive(thread),
            84..89 => self.connect(thread),
            89..91 => self.close_some(thread),
            91 => self.shutdown_some(thread),
            92 if self.random.percent(40) => self.abort_some(thread),
            93..95 => self.fork(thread),
            95 => self.exec(thread),
            96 => return self.exit(thread),
            97..99 => self.listen(thread),
            99 if self.random.percent(50) => self.unlisten_some(thread),
            100.. => self.signal_some(thread),
            _ => {}
        }
        self.free(thread);
    }

    /// The open sockets of the thread's process that this thread may use in one direction.
    fn usable(&self, thread: ThreadId, sending: bool) -> Vec<EndId> {
        let process = self.threads[thread].process;
        (0..self.ends.len())
            .filter(|&id| {
                let e = &self.ends[id];
                let claimed = if sending { e.claimed_writer } else { e.claimed_reader };
                let mine = claimed.is_none_or(|t| t == thread || self.threads[t].dead);
                let ready = e.established.is_some() || (sending && e.state != State::Dead);
                e.holders.contains(&process) && ready && (self.shape.races || mine)
            })
            .collect()
    }

    fn begin_send(&mut self, thread: ThreadId) {
        let mut ends = self.usable(thread, true);
        if self.random.percent(90) {
            let open = |&id: &EndId| {
                let e = &self.ends[id];
                e.fin_sent.is_none() && e.state != State::Dead
            };
            ends.retain(open);
        }
        let Some(end) = self.random.pick(&ends) else { return self.free(thread) };
        self.ends[end].claimed_writer = Some(thread);
        let capacity = self.shape.capacity;
        let length = match self.random.below(10) {
            0 => 1,
            1 if capacity > 1 << 30 => 0x7fff_f000,
            1 | 2 => self.random.between(1, capacity.min(5_000) * 3),
            _ => self.random.between(1, 120),
        };
        let what = What::Send { wait: self.random.percent(80) };
        self.begin(thread, end, what, length);
    }

    fn begin_receive(&mut self, thread: ThreadId) {
        let ends = self.usable(thread, false);
        let readable = |&id: &EndId| {
            let e = &self.ends[id];
            !e.queue.is_empty() || e.error != 0 || e.fin_received.is_some()
        };
        let ready: Vec<EndId> = ends.iter().copied().filter(readable).collect();
        let from = if ready.is_empty() || self.random.percent(10) { ends } else { ready };
        let Some(end) = self.random.pick(&from) else { return self.free(thread) };
        self.ends[end].claimed_reader = Some(thread);
        let huge = self.shape.capacity > 1 << 30 && self.random.percent(60);
        let length = if huge { 1 << 31 } else { self.random.between(1, 200) };
        let spliced = self.shape.splices && !self.ends[end].unix;
        let what = if spliced && self.random.percent(20) {
            What::Splice
        } else {
            What::Receive {
                wait: self.random.percent(50),
                peek: self.random.percent(8),
                all: self.random.percent(10),
            }
        };
        self.begin(thread, end, what, length);
    }
}
