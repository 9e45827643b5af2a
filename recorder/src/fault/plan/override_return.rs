//! What `bpf_override_return` can do: give a system call any result without making it.

use probe_ebpf::fault::action;

use super::{Offer, calls, ops, target};
use crate::event::Op;
use crate::fault::spec::{Action, Drop, Fault, Syscall, Target};
use crate::pattern::{Key, Value, value_text};

/// What only a socket tells.
const OF_SOCKET: [Key; 5] = [Key::Remote, Key::Local, Key::Socket, Key::Netns, Key::Protocol];

pub(super) fn offer(fault: &Fault) -> Result<Offer, String> {
    let target = target(fault)?;
    let (action, value, text) = match target.action {
        Action::Error(errno) => {
            let text = format!("-{}", value_text(&Value::Error(errno)));
            (action::OVERRIDE, -i32::from(errno), text)
        }
        Action::Return(value) => {
            let value = i32::try_from(value).map_err(|_| "no call returns that much".to_owned())?;
            (action::OVERRIDE, value, value.to_string())
        }
        Action::Drop(Drop::Message) => (action::SWALLOW, 0, "what it was asked to send".to_owned()),
        Action::Delay(_) => return Err("a program in the kernel cannot wait".to_owned()),
        _ => return Err("it can only give a call another result".to_owned()),
    };
    let mut calls = calls(target)?;
    if action == action::SWALLOW {
        calls = swallowed(target, calls)?;
    }
    let socket = asked(target, &calls)?
        || action == action::SWALLOW
        || ops(&target.pattern).iter().any(|op| op.of_socket());
    if let Some(call) = calls.iter().find(|call| socket && !call.has_socket()) {
        return Err(format!("`{}` is called on no socket, and needs its own fault", call.as_str()));
    }
    let names: Vec<&str> = calls.iter().map(|call| call.as_str()).collect();
    let mut notes = vec![
        "the call is not made, however healthy its socket; nothing reaches the other end"
            .to_owned(),
        "io_uring goes around system calls, and is not met; nor are 32-bit programs".to_owned(),
        "while it is armed, every system call of the machine is slower by the hook where calls end"
            .to_owned(),
    ];
    if calls.contains(&Syscall::Close) {
        notes.push("an overridden close leaves the socket open in the program".to_owned());
    }
    if action == action::SWALLOW {
        notes.push("sendmmsg is not met: it also says in the program's memory how much of each message was sent".to_owned());
    }
    Ok(Offer {
        hooks: calls.iter().fold(0, |hooks, call| hooks | 1 << call.hook()),
        socket,
        action,
        value,
        does: format!("{}: bpf_override_return({text})", names.join(", ")),
        notes,
    })
}

/// The calls whose messages can be lost.
///
/// # Errors
/// When one sends nothing, or tells more than one number.
fn swallowed(target: &Target, calls: Vec<Syscall>) -> Result<Vec<Syscall>, String> {
    if let Some(call) = calls.iter().find(|call| call.op() != Op::Send) {
        return Err(format!("`{}` sends no message that could be lost", call.as_str()));
    }
    if target.syscalls.contains(&Syscall::Sendmmsg) {
        let reason =
            "`sendmmsg` also says in the program's memory how much of each message was sent";
        return Err(reason.to_owned());
    }
    Ok(calls.into_iter().filter(|call| *call != Syscall::Sendmmsg).collect())
}

/// Whether the pattern asks for something that only the call's socket tells.
///
/// # Errors
/// When one of the calls has no socket, or what is asked is not known of it yet.
fn asked(target: &Target, calls: &[Syscall]) -> Result<bool, String> {
    let mut asked = false;
    for key in target.pattern.keys().into_iter().filter(|key| OF_SOCKET.contains(key)) {
        asked = true;
        if key == Key::Remote && calls.contains(&Syscall::Connect) {
            let reason = "connect's address lies in the program's memory, where it may change: `via = \"cgroup\"` sees it";
            return Err(reason.to_owned());
        }
        let name = key.as_str();
        for call in calls {
            let early = matches!(call, Syscall::Connect | Syscall::Bind) && key == Key::Local;
            let reason = match call {
                _ if key == Key::Remote && !call.has_peer() => "has no peer",
                _ if !call.has_socket() => "is called on no socket",
                _ if early => "is called before the socket has one",
                _ => continue,
            };
            return Err(format!("`{}` {reason}, so `{name}` cannot be asked", call.as_str()));
        }
    }
    Ok(asked)
}
