//! The planner: which mechanism does what was asked, on this kernel, and why the others were not taken.
//!
//! Pure: it is told what the kernel can do. What no mechanism does exactly is refused with every reason, and
//! never approximated.

mod cgroup;
mod compile;
mod cut;
mod destroy;
mod hole;
mod instead;
mod override_return;
mod packet;
pub mod sieve;
mod signal;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;

use probe_ebpf::fault::action;
use serde::Serialize;

use super::spec::{Fault, Faults, Mechanism, Nature, Syscall, Target};
use crate::event::Op;
use crate::pattern::{Key, Pattern, Relation, Value};

pub use compile::{Compiled, Sketch, alternatives, compile, telling, watch};

/// What the running kernel can do.
#[derive(Clone, Debug, Default)]
pub struct Capabilities {
    pub mechanisms: BTreeMap<Mechanism, Ability>,
}

/// Whether a mechanism works here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ability {
    Yes,
    /// And why.
    No(String),
    /// It could not be tried, and why.
    Unknown(String),
}

/// One fault and the mechanism that does it.
#[derive(Clone, Debug)]
pub struct Choice<'a> {
    pub fault: &'a Fault,
    pub mechanism: Mechanism,
    pub offer: Offer,
    /// The other mechanisms, and why not.
    pub rejected: Vec<Rejection>,
}

/// How a mechanism would do a fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// Hooks of the kernel half where the fault's event is met, as bits.
    pub hooks: u64,
    /// Only calls on sockets whose events are recorded.
    pub socket: bool,
    /// One of [`probe_ebpf::fault::action`], and what it needs.
    pub action: u32,
    pub value: i32,
    /// In words: where it is attached, and what it does there.
    pub does: String,
    /// What else one should know.
    pub notes: Vec<String>,
}

impl Offer {
    /// Whether the network is cut for some time, and then heals.
    pub fn heals(&self) -> bool {
        matches!(self.action, action::LOSE | action::HOLE | action::CRASH)
    }
}

/// Why a mechanism was not taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Rejection {
    pub mechanism: &'static str,
    pub reason: String,
}

/// A fault that cannot be armed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Refusal {
    pub fault: String,
    pub message: String,
    pub rejected: Vec<Rejection>,
    /// What could be done to the same events here, and by which mechanism.
    pub instead: Vec<String>,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "fault `{}`: {}", self.fault, self.message)?;
        self.rejected
            .iter()
            .try_for_each(|r| write!(f, "\n    {:<9} {}", r.mechanism, r.reason))?;
        match &self.instead[..] {
            [] => Ok(()),
            instead => write!(f, "\nhint: here works instead: {}", instead.join(", ")),
        }
    }
}

/// Whom faults may strike besides those whom they name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Victims {
    /// Only those whom each fault names by comm, pid, tid or cgroup.
    Named,
    /// Those in the recorder's scope: a command that is being run, a process, a cgroup.
    Scope,
}

/// Chooses a mechanism for each fault.
///
/// # Errors
/// The first fault that none can do.
pub fn plan<'a>(
    faults: &'a Faults,
    victims: Victims,
    can: &Capabilities,
) -> Result<Vec<Choice<'a>>, Refusal> {
    faults.faults.iter().map(|fault| choose(fault, victims, can)).collect()
}

fn choose<'a>(
    fault: &'a Fault,
    victims: Victims,
    can: &Capabilities,
) -> Result<Choice<'a>, Refusal> {
    let refuse = |message: String, rejected, instead| Refusal {
        fault: fault.name.clone(),
        message,
        rejected,
        instead,
    };
    if victims == Victims::Named && !names_victims(fault) {
        let message =
            "it names no victims: say whom by comm=, pid= or cgroup=, or run a command after `--`";
        return Err(refuse(message.to_owned(), Vec::new(), Vec::new()));
    }
    let mut rejected = Vec::new();
    let mut taken = None;
    for mechanism in Mechanism::ALL {
        let reject = |reason| Rejection { mechanism: mechanism.as_str(), reason };
        match (considered(fault, mechanism, can), &taken) {
            (Ok(offer), None) => taken = Some((mechanism, offer)),
            (Ok(_), Some((first, _))) => {
                rejected.push(reject(format!("could do it, but {} is cheaper", first.as_str())));
            }
            (Err(reason), _) => rejected.push(reject(reason)),
        }
    }
    match taken {
        Some((mechanism, offer)) => Ok(Choice { fault, mechanism, offer, rejected }),
        None => {
            let instead = instead::of(fault, can);
            Err(refuse("no mechanism can do this here".to_owned(), rejected, instead))
        }
    }
}

fn considered(fault: &Fault, mechanism: Mechanism, can: &Capabilities) -> Result<Offer, String> {
    if fault.via.is_some_and(|via| via != mechanism) {
        return Err("not the one that `via` asks for".to_owned());
    }
    let offer = match mechanism {
        Mechanism::Cgroup => cgroup::offer(fault),
        Mechanism::Destroy => destroy::offer(fault),
        Mechanism::Signal => signal::offer(fault),
        Mechanism::Override => override_return::offer(fault),
    }?;
    // Whether it can at all is said first: that would be so on every kernel.
    match can.mechanisms.get(&mechanism) {
        Some(Ability::Yes) => {}
        Some(Ability::No(why)) => return Err(format!("not on this kernel: {why}")),
        Some(Ability::Unknown(why)) => return Err(format!("could not be tried: {why}")),
        None => return Err("not on this kernel".to_owned()),
    }
    compile::sketches(fault, &offer)?;
    Ok(offer)
}

fn names_victims(fault: &Fault) -> bool {
    match &fault.nature {
        Nature::Event(target) => bounds(&target.pattern),
        Nature::Partition(cut) => cut.between.iter().any(bounds),
    }
}

/// Whether a pattern says whose events it means.
fn bounds(pattern: &Pattern) -> bool {
    pattern.tests.iter().any(|test| {
        let names = |value: &Value| match value {
            Value::Text(glob) => glob.pieces.iter().any(|piece| !piece.is_empty()),
            Value::Number(_) => true,
            _ => false,
        };
        test.relation == Relation::Is
            && matches!(test.key, Key::Comm | Key::Cgroup | Key::Pid | Key::Tid)
            && test.values.iter().all(names)
    })
}

/// The kinds of events that a pattern asks for; none: it does not say.
fn ops(pattern: &Pattern) -> Vec<Op> {
    let tests = pattern.tests.iter().filter(|t| t.key == Key::Op && t.relation == Relation::Is);
    let values = tests.flat_map(|test| &test.values);
    values.filter_map(|v| if let Value::Op(op) = v { Some(*op) } else { None }).collect()
}

/// The calls that a target is about.
fn calls(target: &Target) -> Result<Vec<Syscall>, String> {
    if !target.syscalls.is_empty() {
        return Ok(target.syscalls.clone());
    }
    let mut calls = Vec::new();
    for op in ops(&target.pattern) {
        let all = Syscall::ALL.into_iter().map(|(call, _)| call);
        let before = calls.len();
        calls.extend(all.filter(|call| call.op() == op));
        if calls.len() == before {
            return Err(format!("`{op}` is no call that a fault could change"));
        }
    }
    if calls.is_empty() {
        return Err(
            "it does not say which calls: add `op=` to the pattern, or `syscall`".to_owned()
        );
    }
    Ok(calls)
}

/// The target of a fault that is no partition.
fn target(fault: &Fault) -> Result<&Target, String> {
    match &fault.nature {
        Nature::Event(target) => Ok(target),
        Nature::Partition(_) => Err("it cannot cut a network".to_owned()),
    }
}
