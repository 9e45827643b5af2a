//! Bytes that went with a SYN (TCP Fast Open): sent before the connection had both its initial numbers.

use std::collections::HashMap;

use crate::event::{Event, History, Proof};

/// The history with such sends numbered as their socket was next; nothing where there are none.
pub(super) fn numbered(history: &History) -> Option<History> {
    let early = |event: &Event| event.proof == Proof::Unknown && event.has_range();
    if !history.events.iter().any(early) {
        return None;
    }
    let mut history = history.clone();
    let mut next: HashMap<(u16, u64), (u32, u32, Proof)> = HashMap::new();
    for event in history.events.iter_mut().rev() {
        let socket = (event.host, event.socket);
        if event.proof != Proof::Unknown {
            next.insert(socket, (event.iss, event.irs, event.proof));
        } else if early(event)
            && let Some(&numbers) = next.get(&socket)
        {
            (event.iss, event.irs, event.proof) = numbers;
        }
    }
    Some(history)
}
