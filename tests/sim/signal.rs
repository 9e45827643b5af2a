//! Signals: fatal ones, handled ones, blocked ones, and those that cause nothing.

use recorder::event::{Event, Flags, Op};

use crate::sim::order::Moment;
use crate::sim::world::{Pending, ProcessId, RawId, Step, ThreadId, World};

const SIGKILL: u8 = 9;
const SIGUSR1: u8 = 10;
const SIGTERM: u8 = 15;
pub const SIGCHLD: u8 = 17;

/// What a signal does when it gets there.
enum Effect {
    Nothing,
    Handler,
    Death,
}

impl World {
    /// A thread signals some process of its host, or the kernel kills one for memory.
    pub fn signal_some(&mut self, thread: ThreadId) {
        let host = self.host_of(thread);
        let on_host: Vec<ProcessId> =
            (0..self.processes.len()).filter(|&p| self.processes[p].host == host).collect();
        let target = self.random.pick(&on_host).expect("the thread's own is there");
        if self.processes[target].dead {
            return;
        }
        let signal = [SIGKILL, SIGTERM, SIGTERM, SIGUSR1][self.random.index(4)];
        let deadly = matches!(self.effect(target, None, signal), Effect::Death);
        if deadly && self.processes.iter().filter(|p| !p.dead && p.dying.is_none()).count() < 3 {
            return;
        }
        if self.random.percent(10) {
            self.out_of_memory(host, target);
        } else {
            let threads = self.living(target);
            let chosen = self.random.pick(&threads).filter(|_| self.random.percent(30));
            self.signal(Some(thread), target, chosen, signal);
        }
    }

    fn out_of_memory(&mut self, host: usize, target: ProcessId) {
        // The choice comes first, then the kill; the hook tells of the choice after it.
        let choice = self.order.add(&[]);
        let raw = self.signal(None, target, None, SIGKILL);
        let victim = Event { target: self.processes[target].pid, ..Event::blank(Op::OomKill) };
        let (killed, recorded) = (self.raws[raw].begin, self.processes[target].recorded);
        self.order.precede(choice, killed);
        let (chosen, _) = self.nobody(host, victim, &[choice], recorded);
        self.raws[chosen].begin = choice;
    }

    pub fn signal_self(&mut self, thread: ThreadId, signal: u8) {
        let process = self.threads[thread].process;
        self.signal(Some(thread), process, Some(thread), signal);
    }

    pub fn living(&self, process: ProcessId) -> Vec<ThreadId> {
        let threads = &self.processes[process].threads;
        threads.iter().copied().filter(|&t| !self.threads[t].dead).collect()
    }

    fn effect(&self, process: ProcessId, thread: Option<ThreadId>, signal: u8) -> Effect {
        let p = &self.processes[process];
        let threads = self.living(process);
        let to = |t: &&ThreadId| thread.is_none_or(|wanted| wanted == **t);
        let queued = threads
            .iter()
            .filter(to)
            .any(|&t| self.threads[t].pending.iter().any(|p| p.signal == signal));
        if p.dead || p.dying.is_some() || threads.is_empty() {
            Effect::Nothing
        } else if signal == SIGKILL {
            Effect::Death
        } else if p.handles.contains(&signal) {
            if queued { Effect::Nothing } else { Effect::Handler }
        } else if p.ignores.contains(&signal) || signal == SIGCHLD {
            Effect::Nothing
        } else {
            Effect::Death
        }
    }

    /// Sends a signal to a process, or to one thread of it.
    pub fn signal(
        &mut self,
        from: Option<ThreadId>,
        process: ProcessId,
        thread: Option<ThreadId>,
        signal: u8,
    ) -> RawId {
        let effect = self.effect(process, thread, signal);
        let mut event = Event { signal, ..Event::blank(Op::Signal) };
        event.target = thread.map_or(self.processes[process].pid, |t| self.threads[t].tid);
        if thread.is_none() {
            event.flags = Flags::PROCESS;
        }
        if matches!(effect, Effect::Nothing) {
            event.flags = event.flags.with(Flags::IGNORED);
        }
        let raw = match from {
            Some(thread) => self.act(thread, event, &[]),
            None => {
                let p = &self.processes[process];
                self.nobody(p.host, event, &[], p.recorded).0
            }
        };
        let cause = self.raws[raw].end;
        match effect {
            Effect::Nothing => {}
            Effect::Death => self.doom(process, cause, Some(raw)),
            Effect::Handler => self.queue_signal(process, thread, signal, cause, raw),
        }
        raw
    }

    /// All threads of a process shall die.
    pub fn doom(&mut self, process: ProcessId, cause: Moment, event: Option<RawId>) {
        self.seen.kills += usize::from(event.is_some());
        self.processes[process].dying = Some((cause, event));
        for thread in self.living(process) {
            self.interrupt(thread);
        }
    }

    fn queue_signal(
        &mut self,
        process: ProcessId,
        thread: Option<ThreadId>,
        signal: u8,
        cause: Moment,
        event: RawId,
    ) {
        let living = self.living(process);
        let taker = thread.or_else(|| self.random.pick(&living)).expect("it has threads");
        let blocked_ns = if self.random.percent(30) { 1 + self.random.below(100_000) } else { 0 };
        let not_before = self.now + blocked_ns;
        self.threads[taker].pending.push(Pending { signal, cause, event, not_before });
        if blocked_ns > 0 {
            self.at(not_before, Step::Nudge(taker));
        } else {
            self.interrupt(taker);
        }
    }

    /// Takes a signal, if one is there to be taken.
    pub fn take_signals(&mut self, thread: ThreadId) -> bool {
        if self.processes[self.threads[thread].process].dying.is_some() {
            self.die_of_signal(thread);
            return true;
        }
        let now = self.now;
        let pending = &mut self.threads[thread].pending;
        let Some(i) = pending.iter().position(|p| p.not_before <= now) else { return false };
        let Pending { signal, cause, event, .. } = pending.remove(i);
        let deliver = Event { signal, ..Event::blank(Op::Deliver) };
        let raw = self.act(thread, deliver, &[cause]);
        self.causes.signals.push((event, raw));
        self.free(thread);
        true
    }

    fn die_of_signal(&mut self, thread: ThreadId) {
        let process = self.threads[thread].process;
        let (cause, event) = self.processes[process].dying.expect("it is dying");
        let deliver = Event { signal: SIGKILL, ..Event::blank(Op::Deliver) };
        let raw = self.act(thread, deliver, &[cause]);
        self.causes.signals.extend(event.map(|signal| (signal, raw)));
        self.die(thread);
    }
}
