//! What the programs of a control group can do: refuse connect, bind, and datagrams to an address; lose packets.

use probe_ebpf::fault::{action, hook};

use super::{Offer, calls, cut, hole, packet};
use crate::event::Protocol;
use crate::fault::spec::{Action, Drop, Fault, Nature, Syscall, Target};
use crate::pattern::{Key, Relation, Value, value_text};

pub(super) fn offer(fault: &Fault) -> Result<Offer, String> {
    let target = match &fault.nature {
        Nature::Event(target) => target,
        Nature::Partition(partition) => return cut::offer(partition),
    };
    let errno = match target.action {
        Action::Error(errno) => errno,
        Action::Drop(Drop::Blackhole) => return hole::offer(fault, target),
        Action::Crash => return hole::crash(fault, target),
        Action::Drop(what) => return packet::offer(target, what),
        Action::Return(_) => {
            return Err("it can refuse a call, but not return a value of choice".to_owned());
        }
        _ => return Err("it can only refuse calls, and lose packets".to_owned()),
    };
    let mut hooks = 0u64;
    let mut attached = Vec::new();
    for call in calls(target)? {
        let (hook, names) = match call {
            Syscall::Connect => (hook::CONNECT, "connect4, connect6"),
            Syscall::Bind => (hook::BIND, "bind4, bind6"),
            Syscall::Sendto | Syscall::Sendmsg | Syscall::Sendmmsg if datagrams(target) => {
                (hook::SENDMSG, "sendmsg4, sendmsg6")
            }
            // `op=send` stands for these as well, which datagrams to an address do not use.
            Syscall::Write | Syscall::Writev if datagrams(target) && target.syscalls.is_empty() => {
                continue;
            }
            call => return Err(format!("no program of a control group sees `{}`", call.as_str())),
        };
        if hooks & (1 << hook) == 0 {
            hooks |= 1 << hook;
            attached.push(names);
        }
    }
    let addressed = [(Key::Local, hook::CONNECT, "connect"), (Key::Remote, hook::BIND, "bind")];
    for (key, hook, call) in addressed {
        if hooks >> hook & 1 == 1 && target.pattern.keys().contains(&key) {
            let name = key.as_str();
            return Err(format!("`{name}` is not known when `{call}` is called"));
        }
    }
    let name = value_text(&Value::Error(errno));
    let mut notes = vec![
        "io_uring's calls are refused too, but their results are not seen".to_owned(),
        "while it is armed, every system call of the machine is slower by the hook where calls end"
            .to_owned(),
    ];
    if hooks >> hook::SENDMSG & 1 == 1 {
        notes.push(
            "only datagrams that are given an address: connected sockets pass no hook".to_owned(),
        );
    }
    Ok(Offer {
        hooks,
        socket: false,
        action: action::REFUSE,
        value: -i32::from(errno),
        does: format!("{}: bpf_set_retval(-{name})", attached.join(", ")),
        notes,
    })
}

/// Whether only UDP is meant.
pub(super) fn datagrams(target: &Target) -> bool {
    target.pattern.tests.iter().any(|test| {
        test.key == Key::Protocol
            && test.relation == Relation::Is
            && test.values.iter().all(|value| *value == Value::Protocol(Protocol::Udp))
    })
}
