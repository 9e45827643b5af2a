//! Injected faults: from a fault to the end of the call that it changed, or to the begin of the signal that it sent.
//! Exact, since both are the same thread's and the kernel half notes one right after the other. Cut networks are in a file of
//! their own, and so are destroyed connections.
//! A process that takes another's place says so in its first event, to which the fault's in the other one leads.

mod cut;
mod destroyed;

use std::collections::HashMap;

use super::endpoint::Notable;
use super::{EdgeKind, Graph, Proof, Side};
use crate::event::{Event, EventIndex, Flags, History, Name, Op};

pub(super) fn edges(history: &History, rare: &[EventIndex], notable: &Notable, graph: &mut Graph) {
    cut::edges(history, rare, notable, graph);
    // By host, process and name: the last event at which one was to be restarted.
    let mut restarts: HashMap<(u16, u32, Name), EventIndex> = HashMap::new();
    for &index in rare {
        let fault = &history.events[index as usize];
        if fault.op != Op::Fault || fault.in_kernel_lane() {
            continue;
        }
        if fault.flags.has(Flags::EOF) {
            destroyed::edges(history, index, notable, graph);
            continue;
        }
        let key = (fault.host, fault.target, fault.fault);
        if fault.is_restart() {
            restarts.insert(key, index);
        } else if fault.takes_place()
            && let Some(&restart) = restarts.get(&key)
        {
            let (from, to) = ((restart, Side::End), (index, Side::End));
            graph.push(from, to, EdgeKind::Fault, Proof::Must);
        }
        let next = graph.lives_of(fault.host, fault.tid).iter().find_map(|life| {
            let events = graph.events_of_thread(life);
            let place = events.binary_search(&index).ok()?;
            // A signal wakes its target before it is noted.
            let acts = |&&e: &&EventIndex| history.events[e as usize].op != Op::Wake;
            events[place + 1..].iter().find(acts).copied()
        });
        if let Some(next) = next.filter(|&next| changed(fault, &history.events[next as usize])) {
            // A signal is the fault's from its begin on, where its own effects start; a call had begun before.
            let is_signal = history.events[next as usize].op == Op::Signal;
            let side = if is_signal { Side::Begin } else { Side::End };
            let (from, to) = ((index, Side::End), (next, side));
            graph.push(from, to, EdgeKind::Fault, Proof::Must);
        }
    }
}

/// Whether a thread's next event is what the fault did: the call it is the result of, or its signal.
pub fn changed(fault: &Event, next: &Event) -> bool {
    match next.op {
        _ if fault.flags.has(Flags::EOF) || fault.is_hole() && fault.signal == 0 => false,
        Op::Fault => false,
        // (A datagram that was refused is recorded as any send is, and bears no fault's name.)
        Op::Send if next.fault == Name::NONE => {
            fault.signal == 0 && fault.socket == next.socket && next.socket != 0
        }
        Op::Signal => {
            // The whole process is struck, whichever thread raised the event.
            let victim = if fault.takes_place() { fault.target } else { fault.pid };
            fault.signal != 0 && fault.signal == next.signal && next.target == victim
        }
        _ => fault.signal == 0 && fault.fault == next.fault,
    }
}
