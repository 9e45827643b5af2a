//! Lives of threads and processes: who is there at the start, forks, execs and exits.

use recorder::event::{Event, Flags, Op};

use crate::sim::signal::SIGCHLD;
use crate::sim::world::{EndId, Process, ProcessId, State, Thread, ThreadId, World};

impl World {
    pub fn populate(&mut self) {
        for host in 0..self.shape.hosts {
            for number in 0..self.random.between(1, 4) {
                let comm = self.names.intern(["nginx", "app.py", "redis"][number as usize]);
                let recorded = !(self.shape.scoped && self.random.percent(30));
                let process = self.new_process(host, comm, None, recorded);
                let threads = self.random.between(1, 4);
                for _ in 1..threads {
                    let tid = self.new_tid(host);
                    self.new_thread(process, tid);
                }
                if self.random.percent(60) {
                    let thread = self.processes[process].threads[0];
                    self.listen(thread);
                }
            }
        }
        for _ in 0..self.shape.old_connections {
            let pair = [0, 1].map(|_| self.random.index(self.processes.len()));
            self.old_connection(pair);
        }
    }

    fn new_tid(&mut self, host: usize) -> u32 {
        if let Some(tid) = self.free_tids[host].pop() {
            self.seen.reused_tids += 1;
            return tid;
        }
        self.next_tid[host] += 1;
        self.next_tid[host]
    }

    fn new_process(
        &mut self,
        host: usize,
        comm: recorder::event::Name,
        parent: Option<ProcessId>,
        recorded: bool,
    ) -> ProcessId {
        let pid = self.new_tid(host);
        let mut handles: Vec<u8> = vec![10, 13, 15, 17];
        handles.retain(|_| self.random.percent(40));
        let mut ignores: Vec<u8> = vec![10, 13, 15];
        ignores.retain(|_| self.random.percent(30));
        self.processes.push(Process {
            host,
            pid,
            comm,
            parent,
            recorded,
            threads: Vec::new(),
            dying: None,
            dead: false,
            handles: handles.into_iter().collect(),
            ignores: ignores.into_iter().collect(),
        });
        self.new_thread(self.processes.len() - 1, pid);
        self.processes.len() - 1
    }

    fn new_thread(&mut self, process: ProcessId, tid: u32) -> ThreadId {
        let last = self.order.add(&[]);
        let comm = self.processes[process].comm;
        self.threads.push(Thread {
            process,
            tid,
            started: self.now,
            last,
            last_time: self.now,
            dead: false,
            epoch: 0,
            call: None,
            pending: Vec::new(),
            comm,
        });
        let thread = self.threads.len() - 1;
        self.processes[process].threads.push(thread);
        self.free(thread);
        thread
    }

    fn living_threads(&self) -> usize {
        self.threads.iter().filter(|t| !t.dead).count()
    }

    /// Makes a thread, or a process that shares all sockets.
    pub fn fork(&mut self, thread: ThreadId) {
        if self.living_threads() > 14 {
            return;
        }
        let process = self.threads[thread].process;
        let host = self.processes[process].host;
        let child = if self.random.percent(50) {
            let tid = self.new_tid(host);
            self.new_thread(process, tid)
        } else {
            let comm = self.threads[thread].comm;
            let recorded = self.processes[process].recorded;
            let child = self.new_process(host, comm, Some(process), recorded);
            for end in &mut self.ends {
                if end.holders.contains(&process) {
                    end.holders.insert(child);
                }
            }
            self.processes[child].threads[0]
        };
        let event = Event { target: self.threads[child].tid, ..Event::blank(Op::Fork) };
        let raw = self.act(thread, event, &[]);
        self.causes.forks.push((raw, child));
        let started = self.now;
        let t = &mut self.threads[child];
        t.last = self.raws[raw].end;
        t.last_time = started;
        t.started = started;
        self.free(child);
    }

    pub fn exec(&mut self, thread: ThreadId) {
        let process = self.threads[thread].process;
        if self.living(process).len() != 1 {
            return;
        }
        let comm = self.names.intern("sh");
        self.threads[thread].comm = comm;
        let p = &mut self.processes[process];
        p.comm = comm;
        p.handles.clear();
        self.threads[thread].pending.clear();
        self.act(thread, Event::blank(Op::Exec), &[]);
    }

    /// The thread ends, alone or with its process.
    pub fn exit(&mut self, thread: ThreadId) {
        let process = self.threads[thread].process;
        if self.living_threads() < 4 {
            return self.free(thread);
        }
        if self.living(process).len() > 1 && self.random.percent(40) {
            let cause = self.order.add(&[self.threads[thread].last]);
            self.threads[thread].last = cause;
            self.doom(process, cause, None);
        }
        self.die(thread);
    }

    /// The thread's last moments. The kernel tells of the exit first, then closes what was open.
    pub fn die(&mut self, thread: ThreadId) {
        let process = self.threads[thread].process;
        let last = self.living(process).len() == 1;
        let flags = if last { Flags::LAST_THREAD } else { Flags::NONE };
        self.act(thread, Event { flags, ..Event::blank(Op::Exit) }, &[]);
        self.threads[thread].dead = true;
        self.threads[thread].epoch += 1;
        if last {
            self.bury(thread, process);
        }
        let host = self.processes[process].host;
        if self.random.percent(30) {
            // Its process' first thread keeps its number until the whole process is gone.
            if self.threads[thread].tid != self.processes[process].pid || last {
                self.free_tids[host].push(self.threads[thread].tid);
            }
        }
    }

    fn bury(&mut self, thread: ThreadId, process: ProcessId) {
        self.processes[process].dead = true;
        let held: Vec<EndId> =
            (0..self.ends.len()).filter(|&e| self.ends[e].holders.contains(&process)).collect();
        for end in held {
            self.close(thread, end);
        }
        for listener in 0..self.listeners.len() {
            let l = &self.listeners[listener];
            if l.alive && l.process == process {
                self.unlisten(thread, listener);
            }
        }
        if let Some(parent) = self.processes[process].parent.filter(|&p| !self.processes[p].dead) {
            self.signal(Some(thread), parent, None, SIGCHLD);
        }
    }

    fn held(&self, thread: ThreadId) -> Vec<EndId> {
        let process = self.threads[thread].process;
        (0..self.ends.len()).filter(|&e| self.ends[e].holders.contains(&process)).collect()
    }

    pub fn close_some(&mut self, thread: ThreadId) {
        let held = self.held(thread);
        if let Some(end) = self.random.pick(&held) {
            self.close(thread, end);
        }
    }

    pub fn shutdown_some(&mut self, thread: ThreadId) {
        let mut held = self.held(thread);
        held.retain(|&e| self.ends[e].fin_sent.is_none() && self.ends[e].state == State::Open);
        if let Some(end) = self.random.pick(&held) {
            self.finish(thread, end);
        }
    }

    pub fn abort_some(&mut self, thread: ThreadId) {
        let mut held = self.held(thread);
        let alone = |&e: &EndId| {
            let e = &self.ends[e];
            e.state == State::Open && e.calls == 0 && e.holders.len() == 1
        };
        held.retain(alone);
        if let Some(end) = self.random.pick(&held) {
            self.abort(thread, end);
        }
    }

    pub fn unlisten_some(&mut self, thread: ThreadId) {
        let process = self.threads[thread].process;
        let found = self.listeners.iter().position(|l| l.alive && l.process == process);
        if let Some(listener) = found {
            self.unlisten(thread, listener);
        }
    }
}
