//! What `bpf_override_return` can do: give a system call any result without making it.

use probe_ebpf::fault::action;

use super::{Offer, calls, target};
use crate::fault::spec::{Action, Fault, Syscall};
use crate::pattern::{Key, Value, value_text};

pub(super) fn offer(fault: &Fault) -> Result<Offer, String> {
    let target = target(fault)?;
    let (value, text) = match target.action {
        Action::Error(errno) => {
            (-i32::from(errno), format!("-{}", value_text(&Value::Error(errno))))
        }
        Action::Return(value) => {
            let value = i32::try_from(value).map_err(|_| "no call returns that much".to_owned())?;
            (value, value.to_string())
        }
        Action::Delay(_) => return Err("a program in the kernel cannot wait".to_owned()),
        _ => return Err("it can only give a call another result".to_owned()),
    };
    let calls = calls(target)?;
    let addresses = [Key::Remote, Key::Local, Key::Socket, Key::Netns, Key::Protocol];
    let asked = target.pattern.keys().into_iter().find(|key| addresses.contains(key));
    if let Some(key) = asked
        && let Some(call) = calls.iter().find(|call| !call.has_peer())
    {
        return Err(format!(
            "`{}` has no peer, so `{}` cannot be asked",
            call.as_str(),
            key.as_str()
        ));
    }
    if asked.is_some() && calls.contains(&Syscall::Connect) {
        let reason = "connect's address lies in the program's memory, where it may change: `via = \"cgroup\"` sees it";
        return Err(reason.to_owned());
    }
    let names: Vec<&str> = calls.iter().map(|call| call.as_str()).collect();
    let mut notes = vec!["io_uring goes around system calls, and is not met".to_owned()];
    if calls.contains(&Syscall::Close) {
        notes.push("an overridden close leaves the socket open in the program".to_owned());
    }
    Ok(Offer {
        hooks: 0,
        action: action::REFUSE,
        value,
        does: format!("{}: bpf_override_return({text})", names.join(", ")),
        notes,
    })
}
