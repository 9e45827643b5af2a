//! Which event of an answer's chain is suspected, and the fault that would be it in another run.
//!
//! An injected fault is taken as it was defined. Any other cause is told again by what lasts (the program's name, the
//! kind of event, the service's port), by its number among such events, and by the deed that has its effect.

use super::{Arms, comm, is, port};
use crate::event::{Event, EventIndex, History, Op, Protocol};
use crate::explain::{Step, is_wait};
use crate::fault::parse;
use crate::fault::spec::{Action, Drop, Fault, Faults, Latch, Limit, Nature, Pick, Target, When};
use crate::incident::{Cause, Incident};
use crate::pattern::{Key, Pattern, Test, Value};
use crate::slice::Reach;

/// What is suspected.
#[derive(Clone, Debug, PartialEq)]
pub struct Suspect {
    /// The event in the recording; nothing for a cause that the user names.
    pub event: Option<EventIndex>,
    pub fault: Fault,
    /// What whoever reads the verdict should know.
    pub notes: Vec<String>,
}

/// A likely cause that cannot be had again, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejected {
    pub event: EventIndex,
    pub reason: String,
}

/// Names the fault in the recordings of the runs.
const NAME: &str = "suspected cause";

/// The suspect, and the likelier ones that had to be passed over; or all that were looked at. `can` says why a fault
/// cannot be injected here.
pub fn suspect(
    history: &History,
    incident: &Incident,
    can: &dyn Fn(&Fault) -> Result<(), String>,
) -> Result<(Suspect, Vec<Rejected>), Vec<Rejected>> {
    let mut rejected = Vec::new();
    for event in candidates(history, incident) {
        let tried = fault_of(history, event).map(|made| {
            let (fault, notes) = made?;
            can(&fault)?;
            Ok(Suspect { event: Some(event), fault, notes })
        });
        match tried {
            None => {}
            Some(Ok(mut suspect)) => {
                if event == incident.symptom {
                    suspect.notes.push("the cause is the symptom itself: this shows whether it comes by itself, and no more".to_owned());
                }
                return Ok((suspect, rejected));
            }
            Some(Err(reason)) => rejected.push(Rejected { event, reason }),
        }
    }
    Err(rejected)
}

/// Events that must have led to the symptom, in the order of suspicion: what was injected, the culprits as they are
/// ranked, connections that did not come about, the other steps of the chain. The symptom comes last.
fn candidates(history: &History, incident: &Incident) -> Vec<EventIndex> {
    let steps = &incident.answer.chain;
    let injected = steps.iter().map(|step| step.event);
    let injected = injected.filter(|&event| history.events[event as usize].op == Op::Fault);
    let ranked = incident.culprits.iter().filter(|c| c.reach == Reach::Must).map(|c| c.event);
    let failed = failed_connects(history, incident);
    let mut found: Vec<EventIndex> = Vec::new();
    for event in injected.chain(ranked).chain(failed).chain(by_depth(history, steps)) {
        if !found.contains(&event) {
            found.push(event);
        }
    }
    // A sort that keeps the order: the symptom last.
    found.sort_by_key(|&event| event == incident.symptom);
    found
}

/// The steps from the deepest to the nearest, but first those before the chain comes back to the symptom's process:
/// what lies behind that led to an earlier answer.
fn by_depth(history: &History, steps: &[Step]) -> impl Iterator<Item = EventIndex> {
    let process = |step: &Step| {
        let event = &history.events[step.event as usize];
        (event.host, event.pid)
    };
    let own = steps.first().map(process);
    let away = steps.iter().position(|step| Some(process(step)) != own).unwrap_or(steps.len());
    let back = steps[away..].iter().position(|step| Some(process(step)) == own);
    let (near, far) = steps.split_at(back.map_or(steps.len(), |back| away + back));
    let deepest_first = |steps: &[Step]| steps.iter().rev().map(|s| s.event).collect::<Vec<_>>();
    deepest_first(near).into_iter().chain(deepest_first(far))
}

/// Connects that must precede the symptom and failed, the latest first. Of a program that goes on after it the chain
/// tells only what it did then.
fn failed_connects(history: &History, incident: &Incident) -> Vec<EventIndex> {
    let slice = &incident.answer.slice;
    let must = slice.order.iter().copied().filter(|&event| slice.reach(event) == Reach::Must);
    let mut failed: Vec<EventIndex> = must.filter(|&e| failure(history, e).is_some()).collect();
    failed.sort_by_key(|&event| std::cmp::Reverse(history.events[event as usize].time_ns));
    failed
}

/// The errno with which a connect failed, as the kernel noticed it afterwards.
fn failure(history: &History, index: EventIndex) -> Option<u16> {
    let connect = &history.events[index as usize];
    if connect.op != Op::Connect || connect.error != 0 {
        return None;
    }
    let later = history.events[index as usize..].iter().take_while(|e| e.host == connect.host);
    let mut ended = later.filter(|e| on_socket(e, connect));
    let end = ended.find(|e| matches!(e.op, Op::Established | Op::Error))?;
    (end.error != 0).then_some(end.error)
}

type Made = Result<(Fault, Vec<String>), String>;

/// The fault that has an event's effect; nothing for events that harm nobody.
fn fault_of(history: &History, index: EventIndex) -> Option<Made> {
    let event = &history.events[index as usize];
    if event.op == Op::Fault {
        return Some(recorded(history, event).map(|fault| (fault, Vec::new())));
    }
    let made = |at: Option<EventIndex>, action: Action, missing: &str| {
        let at = at.ok_or_else(|| missing.to_owned())?;
        Ok(at_event(history, at, action))
    };
    match event.op {
        Op::Signal | Op::OomKill if Cause::of(event).is_some() => {
            let signal = if event.op == Op::OomKill { libc::SIGKILL as u8 } else { event.signal };
            let victim = process_of(history, event.host, event.target);
            let last = last_before(history, index, |e| Some(e.pid) == victim);
            let missing = "its victim did nothing before at which a fault could strike";
            Some(made(last, Action::Kill(signal), missing))
        }
        Op::Exit if event.signal != 0 => {
            let last = last_before(history, index, |e| e.pid == event.pid);
            let missing = "the process did nothing before at which a fault could strike";
            Some(made(last, Action::Kill(event.signal), missing))
        }
        Op::Exit if Cause::of(event).is_some() => {
            Some(Err("no fault makes a program give up by itself".to_owned()))
        }
        Op::Error | Op::ResetReceived | Op::ResetSent | Op::Abort | Op::Retransmit => {
            Some(on_connection(history, index))
        }
        Op::Close => {
            let last = last_before(history, index, |e| on_socket(e, event) && e.tid == event.tid);
            let missing = "it did nothing on the connection before it closed it";
            Some(made(last, Action::Kill(libc::SIGKILL as u8), missing).map(
                |(fault, mut notes)| {
                    notes.push(
                        "instead of closing the connection, the process dies where it closed it"
                            .to_owned(),
                    );
                    (fault, notes)
                },
            ))
        }
        Op::Connect if failure(history, index).is_some() => {
            Some(made(Some(index), Action::Error(failure(history, index)?), ""))
        }
        Op::Connect | Op::Send | Op::Recv | Op::Bind | Op::Listen
            if event.error != 0 && !is_wait(event.error) && !event.in_kernel_lane() =>
        {
            Some(made(Some(index), Action::Error(event.error), ""))
        }
        _ => None,
    }
}

/// What became of a connection, as the kernel noticed it: told again at the last call on the socket.
fn on_connection(history: &History, index: EventIndex) -> Made {
    let event = &history.events[index as usize];
    let Some(last) = last_before(history, index, |e| on_socket(e, event)) else {
        return Err(
            "no call on the connection is recorded at which a fault could strike".to_owned()
        );
    };
    let connecting = history.events[last as usize].op == Op::Connect;
    let refused = libc::ECONNREFUSED as u16;
    let action = match event.op {
        Op::Error if connecting => Action::Error(event.error),
        Op::ResetReceived if connecting => Action::Error(refused),
        Op::Retransmit => Action::Drop(Drop::Packet),
        Op::Error if Cause::of(event) == Some(Cause::Unreachable) => Action::Drop(Drop::Blackhole),
        _ => Action::Destroy,
    };
    Ok(at_event(history, last, action))
}

fn on_socket(event: &Event, other: &Event) -> bool {
    event.socket == other.socket && other.socket != 0
}

/// The last event before another at which a fault can strike.
fn last_before(
    history: &History,
    index: EventIndex,
    wanted: impl Fn(&Event) -> bool,
) -> Option<EventIndex> {
    let here = &history.events[index as usize];
    let before = history.events[..index as usize].iter().enumerate().rev();
    let mut before = before.take_while(|(_, event)| event.host == here.host);
    let found = before.find(|(_, event)| is_met(event) && wanted(event));
    found.map(|(at, _)| at as EventIndex)
}

fn is_met(event: &Event) -> bool {
    let op = matches!(event.op, Op::Connect | Op::Listen | Op::Close | Op::Send | Op::Recv);
    op && !event.in_kernel_lane()
}

/// The process of a thread: the target of a signal is either.
fn process_of(history: &History, host: u16, target: u32) -> Option<u32> {
    let of_host = || history.events.iter().filter(|e| e.host == host && e.pid != 0);
    let process =
        of_host().find(|e| e.pid == target).or_else(|| of_host().find(|e| e.tid == target));
    process.map(|event| event.pid)
}

/// A deed at the event that stands where this one stood.
fn at_event(history: &History, index: EventIndex, action: Action) -> (Fault, Vec<String>) {
    let event = &history.events[index as usize];
    let pattern = Pattern { tests: tests(history, event) };
    let bound = pattern.bind(history);
    let matches = |e: &&Event| e.host == event.host && !e.in_kernel_lane() && bound.matches(e);
    let mut nth = history.events[..=index as usize].iter().filter(matches).count() as u64;
    let mut notes = Vec::new();
    if !from_the_beginning(history, event) {
        nth = 1;
        notes.push("the recording was not made of a command from its beginning: the fault strikes at the first such event".to_owned());
    }
    let when = When { pick: Pick::Nth(nth), ..When::default() };
    let target = Target { pattern, syscalls: Vec::new(), when, action };
    (named(Nature::Event(target)), notes)
}

fn named(nature: Nature) -> Fault {
    Fault {
        name: NAME.to_owned(),
        nature,
        from: Latch::Now,
        until: Latch::Never,
        limit: Limit::default(),
        via: None,
    }
}

/// What lasts of an event, as far as the kernel can test it.
fn tests(history: &History, event: &Event) -> Vec<Test> {
    let mut tests: Vec<Test> = comm(history, event).into_iter().collect();
    tests.push(is(Key::Op, Value::Op(event.op)));
    if let Some(protocol @ (Protocol::Tcp | Protocol::Udp)) = event.protocol {
        tests.push(is(Key::Protocol, Value::Protocol(protocol)));
    }
    // What a connect comes from is not known when it is called.
    let port = port(history, event).filter(|t| event.op != Op::Connect || t.key == Key::Remote);
    tests.extend(port);
    tests
}

/// Whether the events of a command are counted from its beginning.
fn from_the_beginning(history: &History, event: &Event) -> bool {
    let scope = history.hosts.get(usize::from(event.host)).map_or("", |host| &host.scope);
    !(scope == "all" || scope.starts_with("pid ") || scope.starts_with("cgroup "))
}

/// How the fault of an injection was defined.
fn recorded(history: &History, event: &Event) -> Result<Fault, String> {
    let name = history.names.text(event.fault);
    let faults = armed(history)?.faults;
    faults.into_iter().find(|fault| fault.name == name).ok_or_else(|| {
        format!("the recording does not say how the fault `{name}` was defined: make it again")
    })
}

/// What was armed while it was recorded.
///
/// # Errors
/// When this version does not understand it.
pub fn armed(history: &History) -> Result<Faults, String> {
    let mut all = Faults::default();
    for file in history.hosts.iter().flat_map(|host| &host.faults) {
        let faults = parse::file("the recording's faults", file).map_err(|e| e.to_string())?;
        all.seed = all.seed.or(faults.seed);
        for fault in faults.faults {
            if !all.faults.iter().any(|known| known.name == fault.name) {
                all.faults.push(fault);
            }
        }
    }
    Ok(all)
}

/// Names a suspected fault otherwise than those that are armed beside it.
pub fn rename(suspected: &mut Fault, armed: &Faults) {
    let taken = |name: &str| armed.faults.iter().any(|fault| fault.name == name);
    if armed.faults.contains(suspected) {
        return;
    }
    let first = suspected.name.clone();
    for number in 2.. {
        if !taken(&suspected.name) {
            break;
        }
        suspected.name = format!("{first} {number}");
    }
}

/// The runs that tell: with all that was armed and the suspected fault, and the same without it.
pub fn arms(armed: &Faults, suspected: &Fault) -> Arms {
    let mut without = armed.clone();
    without.faults.retain(|fault| fault != suspected);
    let mut with = armed.clone();
    if !with.faults.contains(suspected) {
        with.faults.push(suspected.clone());
    }
    Arms { with, without }
}
