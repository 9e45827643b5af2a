//! What each kind of edge may join.

use super::{Broken, Known, Violation, bytes, causes, mirrored};
use crate::event::{Event, EventIndex, Flags, Op, Protocol};
use crate::graph::{Edge, EdgeKind, Graph, Proof, Side};

type Point = (EventIndex, Side);

/// Why an edge breaks its rule, if it does.
pub(super) fn broken(known: &Known<'_>, from: Point, to: Point, edge: &Edge) -> Broken {
    let (cause, effect) = (known.event(from.0), known.event(to.0));
    match edge.kind {
        EdgeKind::Interval => interval(from, to, edge),
        EdgeKind::Program => program(known, from, to),
        EdgeKind::Bytes => bytes::broken(known, from, to, edge.proof),
        EdgeKind::Connection => connection(known, from.0, to.0, edge.proof),
        EdgeKind::Close => close(known, cause, effect, edge.proof),
        EdgeKind::Task if cause.op == Op::Exit => waited(known, from, to, edge.proof),
        EdgeKind::Task => {
            let forked = (cause.host, cause.target);
            (cause.op != Op::Fork
                || forked != (effect.host, effect.tid)
                || known.is_given_between(forked, cause, effect))
            .then_some(("task", "it does not lead from a fork to what was forked"))
        }
        EdgeKind::Signal => signal(known, cause, effect, edge.proof),
        EdgeKind::Fault => fault(known, from, to, edge.proof),
        EdgeKind::Wake => woken(known, from, to, edge.proof),
    }
}

/// From the end of a process to that of a call of its parent which told of it, with no other process of that number
/// between them.
fn waited(known: &Known<'_>, from: Point, to: Point, proof: Proof) -> Broken {
    let (exit, wait) = (known.event(from.0), known.event(to.0));
    let told = wait.op == Op::Call
        && exit.flags.has(Flags::LAST_THREAD)
        && (exit.host, exit.pid) == (wait.host, wait.target)
        && (from.1, to.1) == (Side::End, Side::End)
        && exit.time_ns <= wait.time_ns;
    let of_child = |event: &&Event| match event.op {
        Op::Fork => (event.host, event.target) == (wait.host, wait.target),
        Op::Exit => {
            (event.host, event.pid) == (wait.host, wait.target)
                && event.flags.has(Flags::LAST_THREAD)
        }
        _ => false,
    };
    let between = || known.history.events[from.0 as usize + 1..to.0 as usize].iter();
    let parent = || {
        let before = known.history.events[..from.0 as usize].iter().rev();
        let fork = before.filter(|event| event.op == Op::Fork).find(of_child);
        let listed = || {
            let host = known.history.hosts.get(usize::from(wait.host));
            let mut tasks = host.iter().flat_map(|host| &host.tasks);
            tasks.any(|task| task.pid == wait.target && task.parent == wait.pid)
        };
        fork.is_some_and(|fork| fork.pid == wait.pid) || listed()
    };
    // An earlier end may be what a wait told whose child's number was given again meanwhile.
    let events = &known.history.events;
    let doubted = || {
        let given = known.given.get(&(wait.host, wait.target));
        let meanwhile = |&ns: &u64| wait.begin_ns < ns && ns <= wait.time_ns;
        let before = || events[..from.0 as usize].iter().filter(of_child);
        given.is_some_and(|given| given.iter().any(meanwhile))
            && before().any(|e| e.op == Op::Exit)
            && before().any(|e| e.op == Op::Fork && e.time_ns > wait.begin_ns)
    };
    let right = told
        && from.0 < to.0
        && !between().any(|e| of_child(&e))
        && parent()
        && (proof == Proof::May || !doubted());
    (!right).then_some(("task", "it does not lead from an end to the parent that waited for it"))
}

fn interval(from: Point, to: Point, edge: &Edge) -> Broken {
    let right =
        from.0 == to.0 && from.1 == Side::Begin && to.1 == Side::End && edge.proof == Proof::Must;
    (!right).then_some(("interval", "it does not lead from an event's begin to its end"))
}

fn program(known: &Known<'_>, from: Point, to: Point) -> Broken {
    let (cause, effect) = (known.event(from.0), known.event(to.0));
    // What a wake precedes may have begun before it.
    let leaves_wake = cause.op == Op::Wake && effect.op != Op::Wake;
    let side = if leaves_wake { Side::End } else { Side::Begin };
    if from.1 != Side::End || to.1 != side {
        return Some(("program", "it does not lead from an end to a begin"));
    }
    if cause.tid == 0 {
        let same = effect.tid == 0 && (cause.host, cause.socket) == (effect.host, effect.socket);
        return (!same).then_some(("program", "it joins two kernel lanes"));
    }
    let acts = cause.op != Op::Wake && effect.op != Op::Wake;
    let next = if acts { &known.order.next_act } else { &known.order.next };
    let neighbours = next[from.0 as usize] == to.0;
    (!neighbours || cause.pid != effect.pid)
        .then_some(("program", "the two are not neighbours in one thread"))
}

/// From a wake to the end of the next event of the thread that was woken, which its own counter tells.
fn woken(known: &Known<'_>, from: Point, to: Point, proof: Proof) -> Broken {
    let (wake, next) = (known.event(from.0), known.event(to.0));
    let before = known.order.before[to.0 as usize];
    let earlier = known.event(before);
    let first = before == to.0 || earlier.pid != next.pid || earlier.time_ns < wake.time_ns;
    let right = wake.op == Op::Wake
        && (wake.host, wake.target) == (next.host, next.tid)
        && (from.1, to.1) == (Side::End, Side::End)
        && wake.result == i64::from(next.task_count) - 1
        && wake.time_ns <= next.time_ns
        && !known.is_given_between((next.host, next.tid), wake, next)
        && first;
    let host = known.history.hosts.get(usize::from(wake.host));
    let whole = host.is_none_or(|host| host.lost == 0 && host.gaps.is_empty());
    let proven = whole || proof == Proof::May;
    (!right || !proven).then_some(("wake", "it does not lead to what the woken thread did next"))
}

/// Two neighbours whose own counters say that nothing is between them are joined, and two with nothing but wakes between.
pub(super) fn missing_program_edges(known: &Known<'_>, graph: &Graph) -> Vec<Violation> {
    let mut violations = Vec::new();
    for (from, &to) in known.order.next.iter().enumerate() {
        let from = from as EventIndex;
        let (one, other) = (known.event(from), known.event(to));
        // After an exit, or a death, the number may be another thread's.
        let act = known.order.next_act[from as usize];
        let ended = known.order.is_last[from as usize];
        let across = act != to && act != from && one.op != Op::Wake && is_run(known, from, act);
        if across && !ended && !causes(graph, act, EdgeKind::Program).any(|cause| cause == from) {
            let text = format!("events {from} and {act} of one thread are not joined");
            violations.push(Violation { edge: None, rule: "program", text });
        }
        let next = from != to
            && one.pid == other.pid
            && !ended
            && one.task_count != 0
            && other.task_count == one.task_count.wrapping_add(1);
        if next && !causes(graph, to, EdgeKind::Program).any(|cause| cause == from) {
            let text = format!("events {from} and {to} of one thread are not joined");
            violations.push(Violation { edge: None, rule: "program", text });
        }
    }
    violations
}

/// Whether the counters say that all events of a thread between two of them are there.
fn is_run(known: &Known<'_>, from: EventIndex, to: EventIndex) -> bool {
    let (mut at, mut count) = (from, known.event(from).task_count);
    while at != to {
        let next = known.order.next[at as usize];
        count = count.wrapping_add(1);
        if known.event(next).task_count != count || known.event(next).pid != known.event(from).pid {
            return false;
        }
        at = next;
    }
    known.event(from).task_count != 0
}

fn connection(known: &Known<'_>, from: EventIndex, to: EventIndex, proof: Proof) -> Broken {
    let (cause, effect) = (known.event(from), known.event(to));
    let same = (cause.host, cause.socket) == (effect.host, effect.socket);
    let joined = same || known.joined(cause, effect);
    let right = match (cause.op, effect.op) {
        (Op::Connect, Op::Established) => joined,
        (Op::Connect, Op::Error | Op::ResetReceived) => same,
        (Op::Established, Op::Established) => {
            mirrored(cause, effect)
                && !effect.flags.has(Flags::ACTIVE)
                && cause.protocol != Some(Protocol::Mptcp)
        }
        (Op::Established, Op::Send | Op::Recv) => same && effect.error == 0,
        (Op::Established, Op::Accept) => same && effect.tid != 0,
        // Who else has the socket has it from the thread that accepted.
        (Op::Accept, Op::Send | Op::Recv) => {
            same && effect.error == 0 && cause.tid != effect.tid && effect.time_ns >= cause.time_ns
        }
        (Op::Listen, Op::Established) => same_port(known, cause, effect),
        // What a thread did when its connect had failed.
        (Op::Error, _) => effect.tid != 0 && cause.host == effect.host && proof == Proof::May,
        _ => false,
    };
    (!right).then_some(("connection", "the two have no part in one connection's making"))
}

fn same_port(known: &Known<'_>, listen: &Event, event: &Event) -> bool {
    let port = |address| known.history.names.address(address).map(|a| a.port());
    listen.host == event.host && port(listen.local) == port(event.local)
}

fn close(known: &Known<'_>, cause: &Event, effect: &Event, proof: Proof) -> Broken {
    let same = (cause.host, cause.socket) == (effect.host, effect.socket);
    let address = cause.socket == 0 && (cause.local, cause.remote) == (effect.remote, effect.local);
    let joined = address || known.joined(cause, effect);
    let failed = effect.error != 0 && i32::from(effect.error) != libc::EAGAIN;
    let same_error = cause.op != Op::Error
        || effect.error == cause.error
        || i32::from(effect.error) == libc::EPIPE;
    let right = match (cause.op, effect.op) {
        (Op::Close, Op::Recv) => {
            let shift = u64::from(cause.iss.wrapping_sub(effect.irs));
            let placed = cause.has_range() && effect.has_range();
            let meet = !placed || cause.stream_start + shift == effect.stream_start;
            mirrored(cause, effect) && effect.flags.has(Flags::EOF) && meet
        }
        (Op::Close | Op::Abort, Op::ResetSent) => same || effect.socket == 0,
        (Op::Abort | Op::ResetSent, Op::ResetReceived) => joined,
        (Op::Send, Op::ResetSent) => proof == Proof::May && joined,
        // A datagram that found nobody.
        (Op::Send, Op::Error | Op::Send | Op::Recv) => {
            same && failed && proof == Proof::May && cause.protocol == Some(Protocol::Udp)
        }
        (Op::ResetReceived, Op::Error) => same,
        (Op::ResetReceived | Op::Error, Op::Send | Op::Recv) => same && failed && same_error,
        (Op::Unlisten, Op::Error) => {
            let port = |address| known.history.names.address(address).map(|a| a.port());
            cause.host == effect.host && port(cause.local) == port(effect.remote)
        }
        _ => false,
    };
    (!right).then_some(("close", "the two have no part in one connection's end"))
}

fn fault(known: &Known<'_>, from: Point, to: Point, proof: Proof) -> Broken {
    let (cause, effect) = (known.event(from.0), known.event(to.0));
    if cause.op == Op::Fault && (cause.tid == 0 || cause.is_hole() && effect.op == Op::Fault) {
        return cut(known, from, to, proof);
    }
    if cause.op == Op::Fault && cause.flags.has(Flags::EOF) {
        return destroyed(known, from, to, proof);
    }
    if effect.takes_place() && cause.is_restart() {
        let same =
            (cause.host, cause.fault, cause.pid) == (effect.host, effect.fault, effect.target);
        let right = same && (from.1, to.1) == (Side::End, Side::End);
        return (!right).then_some(("fault", "it does not lead to who took the process's place"));
    }
    let late = if effect.op == Op::Signal { Side::Begin } else { Side::End };
    let sides = (from.1, to.1) == (Side::End, late);
    let next = known.order.next_act[from.0 as usize] == to.0;
    let deed = match effect.op {
        Op::Signal => {
            let victim = if cause.takes_place() { cause.target } else { cause.pid };
            effect.signal == cause.signal && effect.target == victim
        }
        Op::Fault => false,
        Op::Send => effect.socket == cause.socket && cause.signal == 0,
        _ => effect.fault == cause.fault && cause.signal == 0,
    };
    (cause.op != Op::Fault || !sides || !next || !deed)
        .then_some(("fault", "it does not lead from a fault to what that changed"))
}

/// From a fault that destroys a connection to the error and the reset that come of it, at the same end.
fn destroyed(known: &Known<'_>, from: Point, to: Point, proof: Proof) -> Broken {
    let (cause, effect) = (known.event(from.0), known.event(to.0));
    let same = (cause.host, cause.socket) == (effect.host, effect.socket) && from.0 < to.0;
    let aborted = |event: &Event| {
        (event.host, event.socket, event.op, event.error)
            == (cause.host, cause.socket, Op::Error, cause.error)
    };
    let right = match effect.op {
        Op::Error => aborted(effect),
        Op::ResetSent => {
            proof == Proof::May || known.history.events[from.0 as usize..].iter().any(aborted)
        }
        _ => false,
    };
    (!same || !right)
        .then_some(("fault", "it does not lead from a fault to the end of what that destroyed"))
}

/// From a cut's beginning to a packet it lost, from that to the same bytes sent again or a connection given up.
fn cut(known: &Known<'_>, from: Point, to: Point, proof: Proof) -> Broken {
    let (cause, effect) = (known.event(from.0), known.event(to.0));
    let hole = || {
        let before = &known.history.events[..to.0 as usize];
        let named = |event: &&Event| (event.host, event.fault) == (cause.host, cause.fault);
        let holes = before.iter().filter(|event| event.is_hole()).filter(named).count();
        let one = (cause.host, cause.socket) == (effect.host, effect.socket);
        cause.is_hole() && (one || holes == 1 || known.joined(cause, effect))
    };
    let begins = cause.socket == 0 && !cause.flags.has(Flags::HEALED) || hole();
    let same = (cause.host, cause.socket) == (effect.host, effect.socket);
    let sender = if cause.flags.has(Flags::INCOMING) { known.joined(cause, effect) } else { same };
    let shift = match cause.flags.has(Flags::INCOMING) {
        true => u64::from(effect.iss.wrapping_sub(cause.irs)),
        false => 0,
    };
    let placed = |event: &Event| {
        let both = event.op == Op::Retransmit && cause.has_range() && event.has_range();
        both.then(|| [event.stream_start, event.stream_end].map(|at| at.wrapping_add(shift)))
    };
    let again = |event: &Event| placed(event).is_some_and(|[at, _]| at == cause.stream_start);
    let is_cut = || {
        known.history.events[..from.0 as usize].iter().any(|event| {
            (event.host, event.fault) == (cause.host, cause.fault)
                && (event.in_kernel_lane() && event.socket == 0 || event.is_hole())
        })
    };
    // It has some of the packet's bytes, or any behind a cut's first packet, which lost them as well.
    let perhaps = |event: &Event| {
        placed(event).is_some_and(|[start, end]| {
            end > cause.stream_start && (start < cause.stream_end || is_cut())
        })
    };
    let right = match effect.op {
        Op::Fault => {
            let lost = effect.flags.has(Flags::LOST);
            begins && lost && (cause.host, cause.fault) == (effect.host, effect.fault)
        }
        Op::Retransmit => sender && (again(effect) || proof == Proof::May && perhaps(effect)),
        Op::Error => {
            let between = &known.history.events[from.0 as usize..to.0 as usize];
            let healed = between.iter().any(|event| {
                (event.host, event.fault) == (cause.host, cause.fault)
                    && event.flags.has(Flags::HEALED)
            });
            let socket = (effect.host, effect.socket);
            let tried = between.iter().any(|e| (e.host, e.socket) == socket && again(e));
            let proven = is_cut() && !healed && (tried || !cause.has_range());
            sender && i32::from(effect.error) == libc::ETIMEDOUT && (proof == Proof::May || proven)
        }
        _ => false,
    };
    let lost = cause.flags.has(Flags::LOST) || effect.op == Op::Fault;
    (!right || !lost).then_some(("fault", "it does not lead from a cut to what that made happen"))
}

fn signal(known: &Known<'_>, cause: &Event, effect: &Event, proof: Proof) -> Broken {
    let kill = u8::try_from(libc::SIGKILL).expect("a small number");
    let right = cause.host == effect.host
        && match (cause.op, effect.op) {
            (Op::Signal, Op::Deliver) => {
                let number = cause.signal == effect.signal || effect.signal == kill;
                let whole = cause.flags.has(Flags::PROCESS) || effect.signal == kill;
                let thread = cause.target == effect.tid
                    || whole && known.may_be_of(effect.host, cause.target, effect.pid);
                // Another deadly signal comes as SIGKILL; that is proven only where no SIGKILL was sent before the
                // first of the process's threads died of it.
                let converted = cause.signal != effect.signal && proof == Proof::Must;
                let until_ns = known.first_death(effect, cause.time_ns);
                let killed = known.kills.iter().any(|&(host, target, time_ns)| {
                    host == effect.host
                        && (cause.time_ns..=until_ns).contains(&time_ns)
                        && known.may_be_of(host, target, effect.pid)
                });
                number && thread && !(converted && killed) && !cause.flags.has(Flags::IGNORED)
            }
            (Op::Exit, Op::Deliver) => {
                cause.pid == effect.pid && effect.signal == kill && proof == Proof::May
            }
            (Op::OomKill, Op::Signal | Op::Deliver) => effect.signal == kill,
            _ => false,
        };
    (!right).then_some(("signal", "it is not that signal's way to that thread"))
}
