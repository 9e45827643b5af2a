//! What `SOCK_DESTROY` can do: break a TCP connection for both of its ends, from user space.

use probe_ebpf::fault::{action, hook};

use super::signal::at_events;
use super::{Offer, target};
use crate::event::Protocol;
use crate::fault::spec::{Action, Fault};
use crate::pattern::{Key, Value};

pub(super) fn offer(fault: &Fault) -> Result<Offer, String> {
    let target = target(fault)?;
    if target.action != Action::Destroy {
        return Err("it can only destroy connections".to_owned());
    }
    let spoken = target.pattern.tests.iter().filter(|test| test.key == Key::Protocol);
    for value in spoken.flat_map(|test| &test.values) {
        if *value != Value::Protocol(Protocol::Tcp) {
            return Err("it destroys connections of TCP, and no others".to_owned());
        }
    }
    let (hooks, at) = at_events(target)?;
    if hooks >> hook::LISTENING & 1 == 1 {
        return Err("a socket that listens is no connection".to_owned());
    }
    Ok(Offer {
        hooks,
        socket: false,
        action: action::DESTROY,
        value: -libc::ECONNABORTED,
        does: format!("{at}: SOCK_DESTROY, for TCP alone"),
        notes: vec![
            "it acts from user space, a moment after the event: what both ends do until then goes through".to_owned(),
            "this end gets ECONNABORTED, the other a reset".to_owned(),
        ],
    })
}
