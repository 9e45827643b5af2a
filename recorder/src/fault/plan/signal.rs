//! What `bpf_send_signal` can do: pause and kill the process that raised an event, at that event.

use std::time::Duration;

use probe_ebpf::fault::{action, hook};

use super::{Offer, ops, target};
use crate::event::Op;
use crate::fault::spec::{Action, Fault, Target};
use crate::pattern::{Key, Value, duration_text, value_text};

pub(super) fn offer(fault: &Fault) -> Result<Offer, String> {
    let target = target(fault)?;
    let (action, value, does) = match target.action {
        Action::Kill(signal) => {
            let name = value_text(&Value::Signal(signal));
            (action::SIGNAL, i32::from(signal), format!("bpf_send_signal({name})"))
        }
        Action::Pause(time) => (action::PAUSE, milliseconds(time)?, pausing(time)),
        Action::Restart => {
            spares_the_first(target)?;
            let does = "bpf_send_signal(SIGSTOP), then SIGKILL, and the same program anew";
            (action::RESTART, RESTART_WITHIN_MS, does.to_owned())
        }
        Action::Delay(_) => {
            return Err("it strikes whole processes, and cannot delay one call".to_owned());
        }
        _ => return Err("it can only send signals".to_owned()),
    };
    let (hooks, at) = at_events(target)?;
    let mut notes =
        vec!["it strikes the whole process, and acts when the call has ended".to_owned()];
    if action == action::RESTART {
        notes.push("it is killed and started from user space; what it had inherited open besides its standard files is not there again".to_owned());
    }
    Ok(Offer { hooks, socket: false, action, value, does: format!("{at}: {does}"), notes })
}

/// The hooks of the recorded events that a target is about, and these in words.
pub(super) fn at_events(target: &Target) -> Result<(u64, String), String> {
    if !target.syscalls.is_empty() {
        return Err("it acts at recorded events: say `op=` instead of `syscall`".to_owned());
    }
    let (mut hooks, mut attached) = (0u64, Vec::new());
    for op in ops(&target.pattern) {
        let Some(hook) = watched(op) else {
            return Err(format!("it is not at hand where `{op}` is noticed"));
        };
        hooks |= 1 << hook;
        attached.push(op.as_str());
    }
    if attached.is_empty() {
        return Err("it does not say at which events: add `op=` to the pattern".to_owned());
    }
    Ok((hooks, format!("at {}", attached.join(", "))))
}

/// How long a process that is to be started anew stands still at most, if that does not come about.
const RESTART_WITHIN_MS: i32 = 10_000;

/// What is asked of whoever is process 1 would end the machine.
fn spares_the_first(target: &Target) -> Result<(), String> {
    let pids = target.pattern.tests.iter().filter(|test| test.key == Key::Pid);
    match pids.flat_map(|test| &test.values).any(|pid| *pid == Value::Number(1)) {
        true => Err("process 1 cannot be restarted: the machine ends with it".to_owned()),
        false => Ok(()),
    }
}

/// Shorter pauses would be over before anybody could end them.
const SHORTEST: Duration = Duration::from_millis(10);

fn milliseconds(time: Duration) -> Result<i32, String> {
    if time < SHORTEST {
        return Err("a process cannot be stopped for less than 10ms".to_owned());
    }
    i32::try_from(time.as_millis())
        .map_err(|_| "a pause cannot last longer than 24 days".to_owned())
}

fn pausing(time: Duration) -> String {
    format!(
        "bpf_send_signal(SIGSTOP), and SIGCONT after {}",
        duration_text(time.as_nanos() as i128)
    )
}

/// Where in the kernel half a thread's event of a kind is met.
pub(super) fn watched(op: Op) -> Option<u32> {
    Some(match op {
        Op::Connect => hook::CONNECTING,
        Op::Listen => hook::LISTENING,
        Op::Close => hook::CLOSING,
        Op::Send => hook::SENT,
        Op::Recv => hook::RECEIVED,
        _ => return None,
    })
}
