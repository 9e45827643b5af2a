//! What an armed fault costs those whom it is not for: a call that passes its hooks, timed bare, with programs on the same
//! hooks that do nothing, and with the fault armed for somebody else.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};

use anyhow::{Context, Result};
use aya::{Btf, Ebpf};
use serde::Serialize;

use super::{CALLS, Quiet, median, settings, time};
use crate::capture::attach;
use crate::capture::attach::family::Family;
use crate::capture::{Scope, clock};
use crate::fault::plan::{self, Capabilities, Victims};
use crate::fault::spec::{Faults, Mechanism};
use crate::fault::{ability, arm, line};

/// Medians over interleaved rounds, ns per call.
#[derive(Debug, Serialize)]
pub struct Cost {
    pub mechanism: &'static str,
    /// What is called.
    pub call: &'static str,
    /// Nobody watching.
    pub bare_ns: f64,
    /// With programs that do nothing on all hooks of the fault.
    pub idle_ns: f64,
    /// With the fault armed, for the calls of a process that is not in its scope.
    pub outside_ns: f64,
    /// The same in its scope, but not one of its victims.
    pub spared_ns: f64,
}

/// A fault of each mechanism that stands at hooks which calls pass, and the empty programs for the same hooks.
struct Case {
    mechanism: Mechanism,
    fault: &'static str,
    idle: &'static [&'static str],
    call: &'static str,
    /// Makes the call [`CALLS`] times.
    make: fn(&Sockets) -> Result<()>,
}

const CASES: [Case; 3] = [
    Case {
        mechanism: Mechanism::Cgroup,
        fault: "comm=nobody op=connect => error=EIO, count=1, via=cgroup",
        idle: &["idle_connect4", "idle_call_ended"],
        call: "connect of a UDP socket",
        make: connect,
    },
    Case {
        mechanism: Mechanism::Signal,
        fault: "comm=nobody op=recv => kill=SIGKILL, count=1, via=signal",
        idle: &["idle"],
        call: "receive that finds nothing",
        make: |sockets| sockets.quiet.receive(),
    },
    Case {
        mechanism: Mechanism::Override,
        fault: "comm=nobody => error=EIO, count=1, syscall=shutdown, via=override",
        idle: &["idle_call", "idle_call_ended"],
        call: "shutdown of no descriptor",
        make: shutdown,
    },
];

struct Sockets {
    datagrams: UdpSocket,
    to: SocketAddr,
    quiet: Quiet,
}

/// Times each mechanism that works here, `rounds` times.
///
/// # Errors
/// When sockets cannot be made, or a program that works a moment ago is refused.
pub fn costs(rounds: usize) -> Result<Vec<Cost>> {
    let can = ability::find_out();
    let quiet = Quiet::connect()?;
    let sockets = Sockets {
        datagrams: UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?,
        to: quiet.stream.peer_addr()?,
        quiet,
    };
    let possible = |case: &&Case| can.mechanisms.get(&case.mechanism) == Some(&plan::Ability::Yes);
    CASES.iter().filter(possible).map(|case| cost(case, &sockets, &can, rounds)).collect()
}

fn cost(case: &Case, sockets: &Sockets, can: &Capabilities, rounds: usize) -> Result<Cost> {
    let btf = Btf::from_sys_fs().context("read the kernel's types")?;
    let faults = Faults { seed: None, faults: vec![line::parse(case.fault, "measured")?] };
    let choices = plan::plan(&faults, Victims::Scope, can)?;
    let armed = |scope: &Scope| -> Result<Ebpf> {
        let compiled = plan::compile(&choices, 0, clock::monotonic_ns(), &arm::cgroup)
            .map_err(anyhow::Error::msg)?;
        let mut ebpf = load(&btf, scope)?;
        // The proof is a call of the recorder's own, which is in scope here as any other process.
        arm::attach_rules(&mut ebpf, &btf, &compiled)?;
        Ok(ebpf)
    };
    let calls = || (case.make)(sockets);
    let (mut bare, mut idle, mut outside, mut spared) = (vec![], vec![], vec![], vec![]);
    for _ in 0..rounds.max(1) {
        bare.push(time(calls)?);
        let mut watcher = load(&btf, &Scope::All)?;
        case.idle.iter().try_for_each(|name| arm::attach_idle(&mut watcher, &btf, name))?;
        idle.push(time(calls)?);
        drop(watcher);
        let watcher = armed(&Scope::Command(String::new()))?;
        outside.push(time(calls)?);
        drop(watcher);
        let watcher = armed(&Scope::All)?;
        spared.push(time(calls)?);
        drop(watcher);
    }
    Ok(Cost {
        mechanism: case.mechanism.as_str(),
        call: case.call,
        bare_ns: median(&mut bare),
        idle_ns: median(&mut idle),
        outside_ns: median(&mut outside),
        spared_ns: median(&mut spared),
    })
}

fn load(btf: &Btf, scope: &Scope) -> Result<Ebpf> {
    attach::load(btf, scope, &settings(1 << 20, Family::Tracepoint), Family::Tracepoint)
}

fn connect(sockets: &Sockets) -> Result<()> {
    (0..CALLS).try_for_each(|_| sockets.datagrams.connect(sockets.to)).context("connect")
}

fn shutdown(_: &Sockets) -> Result<()> {
    for _ in 0..CALLS {
        // SAFETY: a system call on numbers, which fails.
        unsafe { libc::shutdown(-1, libc::SHUT_WR) };
    }
    Ok(())
}
