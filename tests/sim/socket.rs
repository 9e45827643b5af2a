//! Sends, receives and closes: what happens under a socket's lock, and what the hooks see after it.

use recorder::event::{Event, Flags, Op};

use crate::sim::order::Moment;
use crate::sim::world::{
    Call, CallId, Chunk, EndId, Packet, RawId, State, Step, ThreadId, What, World,
};

const EINTR: u16 = 4;
const EAGAIN: u16 = 11;
const EPIPE: u16 = 32;
const SIGPIPE: u8 = 13;

impl World {
    pub fn begin(&mut self, thread: ThreadId, end: EndId, what: What, length: u64) {
        let begin = self.order.add(&[self.threads[thread].last, self.ends[end].birth]);
        let id = self.call_events.len();
        self.call_events.push(None);
        let sending = matches!(what, What::Send { .. });
        let raced = self.mark_race(thread, end, sending);
        self.ends[end].calls += 1;
        self.threads[thread].call = Some(Call {
            id,
            what,
            end,
            length,
            begin,
            causes: Vec::new(),
            done: 0,
            true_start: None,
            true_end: 0,
            scattered: false,
            senders: Default::default(),
            close: None,
            error: 0,
            blocked: false,
            finished: false,
            raced,
        });
        self.relock(thread, 400);
    }

    /// Whether another thread is at the same direction of the same socket; that one learns of it too.
    fn mark_race(&mut self, thread: ThreadId, end: EndId, sending: bool) -> bool {
        let mut raced = false;
        for (other, t) in self.threads.iter_mut().enumerate() {
            let Some(call) = t.call.as_mut().filter(|_| other != thread) else { continue };
            if call.end == end && matches!(call.what, What::Send { .. }) == sending {
                call.raced = true;
                raced = true;
            }
        }
        raced
    }

    /// The call gets the lock some time from now.
    fn relock(&mut self, thread: ThreadId, typical: u64) {
        let delay = self.delay(typical);
        self.threads[thread].epoch += 1;
        let epoch = self.threads[thread].epoch;
        self.after(delay, Step::Lock(thread, epoch));
    }

    pub fn lock(&mut self, thread: ThreadId) {
        let mut call = self.threads[thread].call.take().expect("a locking thread is in a call");
        let end = call.end;
        self.ends[end].writers.retain(|&t| t != thread);
        self.ends[end].readers.retain(|&t| t != thread);
        call.causes.extend(self.ends[end].established);
        if call.blocked && self.interrupted(thread) {
            call.error = if call.done == 0 { EINTR } else { 0 };
            call.finished = true;
        } else if matches!(call.what, What::Send { .. }) {
            self.write(&mut call);
        } else {
            self.read(&mut call);
        }
        if !call.finished && self.interrupted(thread) {
            call.error = if call.done == 0 { EINTR } else { 0 };
            call.finished = true;
        }
        let (finished, sending) = (call.finished, matches!(call.what, What::Send { .. }));
        if !finished {
            if !call.blocked && self.random.percent(70) {
                let patience = 100_000 + self.delay(100_000);
                self.after(patience, Step::Timeout(thread, call.id));
            }
            call.blocked = true;
            let e = &mut self.ends[end];
            (if sending { &mut e.writers } else { &mut e.readers }).push(thread);
        }
        self.threads[thread].call = Some(call);
        if finished {
            // The wait between the lock's release and the hook is where others slip in.
            let delay = self.delay(1_000);
            self.after(delay, Step::Hook(thread));
        }
    }

    fn interrupted(&self, thread: ThreadId) -> bool {
        let t = &self.threads[thread];
        let signalled = t.pending.iter().any(|p| p.not_before <= self.now);
        signalled || self.processes[t.process].dying.is_some()
    }

    fn write(&mut self, call: &mut Call) {
        let e = &mut self.ends[call.end];
        call.finished = true;
        if e.state == State::Dead || e.fin_sent.is_some() {
            call.causes.extend(e.error_cause);
            call.causes.extend(e.fin_sent);
            if call.done == 0 {
                call.error = if e.error == 0 { EPIPE } else { e.error };
                e.error = 0;
            }
            return;
        }
        let wait = call.what == What::Send { wait: true };
        let space = if e.state == State::Open { e.limit.saturating_sub(e.written) } else { 0 };
        let now = space.min(call.length - call.done);
        if now > 0 {
            let mut causes = vec![call.begin];
            causes.extend(e.established);
            causes.extend(e.space.filter(|_| call.blocked));
            let cause = self.order.add(&causes);
            call.causes.push(cause);
            let (start, stop) = (e.written, e.written + now);
            e.written = stop;
            let contiguous = call.true_start.is_none() || call.true_end == start;
            call.true_start.get_or_insert(start);
            call.true_end = stop;
            call.scattered |= !contiguous;
            call.done += now;
            self.transmit(call.end, Chunk { start, end: stop, cause, call: call.id });
        }
        let stuck = call.done < call.length;
        call.finished = !(stuck && wait);
        if stuck && wait && !call.blocked {
            self.seen.blocked_sends += 1;
        }
        if call.finished && call.done == 0 {
            call.error = EAGAIN;
        }
    }

    /// Cuts a chunk into segments, which travel one after the other.
    fn transmit(&mut self, end: EndId, chunk: Chunk) {
        let mut start = chunk.start;
        while start < chunk.end {
            let longest = if self.random.percent(30) { 1 + self.random.below(60) } else { 1 << 40 };
            let stop = chunk.end.min(start + longest).max(start + (chunk.end - start) / 4);
            self.send_packet(end, Packet::Data(Chunk { start, end: stop, ..chunk }));
            start = stop;
        }
    }

    fn read(&mut self, call: &mut Call) {
        let (wait, peek, all) = match call.what {
            What::Receive { wait, peek, all } => (wait, peek, all && wait && !peek),
            What::Splice | What::Send { .. } => (false, false, false),
        };
        self.take(call, peek);
        let e = &mut self.ends[call.end];
        call.finished = true;
        if call.done == call.length || (call.done > 0 && !all) {
            return;
        }
        if let Some((cause, event)) = e.fin_received.filter(|_| e.queue.is_empty()) {
            call.causes.push(cause);
            call.close = Some(event).filter(|_| call.done == 0);
        } else if e.state == State::Dead {
            call.causes.extend(e.error_cause);
            if call.done == 0 {
                call.error = e.error;
                e.error = 0;
            }
        } else if wait {
            call.finished = false;
        } else if call.done == 0 {
            call.error = EAGAIN;
        }
    }

    /// Moves bytes from the receive queue into the call, or looks at them.
    fn take(&mut self, call: &mut Call, peek: bool) {
        let mut seen_chunks = 0;
        while call.done < call.length {
            let e = &mut self.ends[call.end];
            let Some(chunk) = e.queue.get(seen_chunks).copied() else { break };
            let now = (chunk.end - chunk.start).min(call.length - call.done);
            let stop = chunk.start + now;
            call.scattered |= call.true_start.is_some() && call.true_end != chunk.start;
            call.true_start.get_or_insert(chunk.start);
            call.true_end = stop;
            call.done += now;
            call.senders.insert(chunk.call);
            call.causes.push(chunk.cause);
            if peek {
                seen_chunks += 1;
                continue;
            }
            e.copied = stop;
            e.queue[0].start = stop;
            if stop == chunk.end {
                e.queue.pop_front();
            }
        }
        if call.done > 0 && !peek {
            self.make_space(call);
        }
    }

    fn make_space(&mut self, call: &Call) {
        let mut causes = call.causes.clone();
        causes.push(call.begin);
        let cause = self.order.add(&causes);
        let until = self.ends[call.end].copied + self.shape.capacity;
        self.send_packet(call.end, Packet::Space { until, cause });
    }

    /// Wakes who waits on the socket.
    pub fn wake(&mut self, end: EndId, readers: bool, writers: bool) {
        let e = &self.ends[end];
        let mut woken = Vec::new();
        if readers {
            woken.extend(&e.readers);
        }
        if writers {
            woken.extend(&e.writers);
        }
        self.random.shuffle(&mut woken);
        for thread in woken {
            self.relock(thread, 1_500);
        }
    }

    /// A call that still waits tries once more, and then returns.
    pub fn time_out(&mut self, thread: ThreadId, id: CallId) {
        let Some(call) = self.threads[thread].call.as_mut() else { return };
        if call.id != id || call.finished || !call.blocked {
            return;
        }
        match &mut call.what {
            What::Send { wait } | What::Receive { wait, .. } => *wait = false,
            What::Splice => {}
        }
        self.relock(thread, 400);
    }

    /// Ends a blocked call early, so that a signal can be taken.
    pub fn interrupt(&mut self, thread: ThreadId) {
        let blocked = self.threads[thread].call.as_ref().is_some_and(|c| c.blocked && !c.finished);
        if blocked {
            self.relock(thread, 1_500);
        } else if self.threads[thread].call.is_none() && !self.threads[thread].dead {
            let delay = self.delay(1_500);
            self.threads[thread].epoch += 1;
            let epoch = self.threads[thread].epoch;
            self.after(delay, Step::Decide(thread, epoch));
        }
    }

    /// The call returned: its hook reads the socket's position, without the lock.
    pub fn hook(&mut self, thread: ThreadId) {
        let call = self.threads[thread].call.take().expect("a hooked thread is in a call");
        let mut causes = vec![call.begin];
        causes.extend(&call.causes);
        let over = self.order.add(&causes);
        let end = call.end;
        if call.what == What::Splice {
            self.threads[thread].last = over;
            self.seen.spliced += 1;
        } else {
            self.report(thread, &call, over);
        }
        self.ends[end].calls -= 1;
        let e = &self.ends[end];
        if e.calls == 0 && e.holders.is_empty() && !e.orphan {
            self.release(thread, end);
        }
        if call.error == EPIPE && self.random.percent(50) {
            self.signal_self(thread, SIGPIPE);
        }
        self.free(thread);
    }

    fn report(&mut self, thread: ThreadId, call: &Call, over: u32) {
        let sending = matches!(call.what, What::Send { .. });
        let peek = matches!(call.what, What::Receive { peek: true, .. });
        let e = &mut self.ends[call.end];
        let counted = if sending { &mut e.counted_sent } else { &mut e.counted_received };
        *counted += if peek { 0 } else { call.done };
        let counted = *counted + if peek { call.done } else { 0 };
        let mut event = Event::blank(if sending { Op::Send } else { Op::Recv });
        event.result = call.done as i64;
        event.error = call.error;
        let reached = if e.unix {
            counted
        } else if sending {
            e.written
        } else if peek {
            e.copied + call.done
        } else {
            e.copied
        };
        if call.done > 0 {
            // With a race less may have been counted than a peek saw.
            event.stream_start = reached - call.done;
            event.stream_end = reached;
            event.flags = Flags::RANGE;
        } else if call.close.is_some() && e.unix {
            event.flags = Flags::EOF;
        } else if call.close.is_some() {
            event.stream_start = e.copied;
            event.stream_end = e.copied + 1;
            event.flags = Flags::RANGE.with(Flags::EOF);
        }
        if peek {
            event.flags = event.flags.with(Flags::PEEK);
            self.seen.peeks += usize::from(call.done > 0);
        }
        self.seen.unix += usize::from(e.unix && call.done > 0);
        self.seen.unix_races += usize::from(e.unix && call.raced && call.done > 0);
        self.seen.races += usize::from(call.raced);
        self.seen.scattered += usize::from(call.scattered);
        let told = call.done == 0 || call.true_start == Some(event.stream_start);
        self.seen.misreported += usize::from(!told);
        self.seen.far_offsets += usize::from(event.stream_end > 1 << 32);
        let event = self.about(call.end, event);
        let raw = self.raise(thread, event, call.begin, over);
        self.raws[raw].socket = Some(call.end);
        self.call_events[call.id] = Some(raw);
        self.causes.bytes.extend(call.senders.iter().map(|&sender| (sender, raw)));
        self.causes.eof.extend(call.close.map(|close| (close, raw)));
    }

    /// One process lets go of the socket; the last one ends it, unless a call still runs on it.
    pub fn close(&mut self, thread: ThreadId, end: EndId) {
        let process = self.threads[thread].process;
        self.ends[end].holders.remove(&process);
        let e = &self.ends[end];
        if e.holders.is_empty() && e.calls == 0 && !e.orphan {
            self.release(thread, end);
        }
    }

    /// The last reference goes: the end of the stream, or a reset when bytes lie unread.
    fn release(&mut self, thread: ThreadId, end: EndId) {
        self.ends[end].orphan = true;
        let e = &self.ends[end];
        match e.state {
            State::Dead => {}
            State::Connecting => {
                self.ends[end].state = State::Dead;
                let last = self.threads[thread].last;
                self.lane(end, Event::blank(Op::Closed), &[last]);
            }
            State::Open if !e.queue.is_empty() => self.abort(thread, end),
            State::Open if e.fin_sent.is_some() => {}
            State::Open => self.finish(thread, end),
        }
    }

    /// Queues a FIN: close or shutdown.
    pub fn finish(&mut self, thread: ThreadId, end: EndId) {
        let position = self.ends[end].written;
        let mut event = Event::blank(Op::Close);
        event.stream_start = position;
        event.stream_end = position + 1;
        event.flags = Flags::RANGE.with(Flags::EOF);
        let established: Vec<u32> = self.ends[end].established.into_iter().collect();
        let raw = self.act_on(thread, end, event, &established);
        let cause = self.raws[raw].begin;
        self.ends[end].fin_sent = Some(cause);
        self.wake(end, false, true);
        self.send_packet(end, Packet::Fin { cause, event: raw });
    }

    /// Throws the connection away.
    pub fn abort(&mut self, thread: ThreadId, end: EndId) {
        let raw = self.act_on(thread, end, Event::blank(Op::Abort), &[]);
        let cause = self.raws[raw].begin;
        let e = &mut self.ends[end];
        e.state = State::Dead;
        e.orphan = true;
        e.holders.clear();
        e.error_cause = Some(cause);
        e.queue.clear();
        self.wake(end, true, true);
        let causes: Vec<u32> = self.ends[end].lane.into_iter().chain([cause]).collect();
        let begin = self.order.add(&causes);
        self.ends[end].lane = Some(begin);
        self.send_packet(end, Packet::Reset { cause: begin, event: Some(raw) });
        let delay = self.delay(1_000);
        self.after(delay, Step::ResetSent { end, begin, abort: raw });
    }

    /// The kernel tells of a reset of its own when it has gone out, perhaps even arrived.
    pub fn reset_sent(&mut self, end: EndId, begin: Moment, abort: RawId) {
        let (sent, over) = self.lane(end, Event::blank(Op::ResetSent), &[begin]);
        self.raws[sent].begin = begin;
        self.ends[end].lane = Some(over);
        self.causes.resets.push((abort, sent));
    }
}
