//! What could be done here where what was asked for cannot: other deeds at the same events, and the same deed where a
//! connection begins.

use super::{Capabilities, considered, ops, target};
use crate::event::Op;
use crate::fault::spec::{Action, Drop, Fault, Mechanism, Nature};
use crate::pattern::{Key, Value};

/// Each as it is written in a fault's line, with its mechanism. Nothing for what no kernel does.
pub(super) fn of(fault: &Fault, can: &Capabilities) -> Vec<String> {
    let elsewhere =
        Capabilities { mechanisms: Mechanism::ALL.map(|m| (m, super::Ability::Yes)).into() };
    let by = |fault: &Fault, can: &Capabilities| {
        Mechanism::ALL.into_iter().find(|mechanism| considered(fault, *mechanism, can).is_ok())
    };
    if by(fault, &elsewhere).is_none() {
        return Vec::new();
    }
    let told = |other: &Fault, what: String| {
        by(other, can).map(|mechanism| format!("{what} ({})", mechanism.as_str()))
    };
    let deeds = [Action::Kill(libc::SIGKILL as u8), Action::Destroy, Action::Drop(Drop::Packet)];
    let begun = connecting(fault).and_then(|other| {
        let what = target(&other).ok()?.action;
        told(&other, format!("`op=connect => {what}`"))
    });
    let deeds =
        deeds.into_iter().filter_map(|deed| told(&doing(fault, deed)?, format!("`{deed}`")));
    begun.into_iter().chain(deeds).collect()
}

/// The fault with another deed, by whatever mechanism.
fn doing(fault: &Fault, action: Action) -> Option<Fault> {
    let mut other = Fault { via: None, ..fault.clone() };
    let Nature::Event(target) = &mut other.nature else { return None };
    target.action = action;
    Some(other)
}

/// The fault where a connection begins instead of where it is used.
fn connecting(fault: &Fault) -> Option<Fault> {
    let mut other = Fault { via: None, ..fault.clone() };
    let Nature::Event(target) = &mut other.nature else { return None };
    if !matches!(target.action, Action::Error(_)) || ops(&target.pattern).is_empty() {
        return None;
    }
    for test in target.pattern.tests.iter_mut().filter(|test| test.key == Key::Op) {
        test.values = vec![Value::Op(Op::Connect)];
    }
    target.syscalls.clear();
    Some(other)
}
