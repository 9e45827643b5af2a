//! A connection that was destroyed: from the fault to the error that its users get, and to the reset that its other end
//! gets. A socket is destroyed once, so the first such error after the fault is its doing.

use super::super::endpoint::Notable;
use super::super::{EdgeKind, Graph, Proof, Side};
use crate::event::{EventIndex, History, Op};

pub(super) fn edges(history: &History, fault: EventIndex, notable: &Notable, graph: &mut Graph) {
    let Some(endpoint) = graph.endpoint_of(history, fault) else { return };
    let error = history.events[fault as usize].error;
    let after = |op: Op| {
        let mut events = notable.of(endpoint).iter().copied();
        events.find(|&event| event > fault && history.events[event as usize].op == op)
    };
    let aborted = after(Op::Error).filter(|&e| history.events[e as usize].error == error);
    // Without the error its user may have closed it first, and the reset may be that close's.
    let proof = if aborted.is_some() { Proof::Must } else { Proof::May };
    let reset = after(Op::ResetSent);
    for (effect, proof) in [(aborted, Proof::Must), (reset, proof)] {
        if let Some(effect) = effect {
            graph.push((fault, Side::End), (effect, Side::Begin), EdgeKind::Fault, proof);
        }
    }
}
