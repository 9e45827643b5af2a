//! What an armed fault costs those whom it is not for: a call that passes its hooks, timed bare, with programs on the same
//! hooks that do nothing, and with the fault armed for somebody else.

use std::io::Read;
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};

use anyhow::{Context, Result, ensure};
use aya::{Btf, Ebpf};
use serde::Serialize;

use super::{CALLS, median};
use crate::capture::attach::family::Family;
use crate::capture::attach::{self, Settings};
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
    /// Makes the call so many times.
    make: fn(&Sockets, u32) -> Result<()>,
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
        make: receive,
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
    to: std::net::SocketAddr,
    stream: TcpStream,
    _peer: TcpStream,
}

/// Times each mechanism that works here, `rounds` times.
///
/// # Errors
/// When sockets cannot be made, or a program that works a moment ago is refused.
pub fn costs(rounds: usize) -> Result<Vec<Cost>> {
    let can = ability::find_out();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("listen on loopback")?;
    let stream = TcpStream::connect(listener.local_addr()?)?;
    stream.set_nonblocking(true)?;
    let sockets = Sockets {
        datagrams: UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?,
        to: listener.local_addr()?,
        stream,
        _peer: listener.accept()?.0,
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
    let (mut bare, mut idle, mut outside, mut spared) = (vec![], vec![], vec![], vec![]);
    for _ in 0..rounds.max(1) {
        bare.push(time(case, sockets)?);
        let mut watcher = load(&btf, &Scope::All)?;
        case.idle.iter().try_for_each(|name| arm::attach_idle(&mut watcher, &btf, name))?;
        idle.push(time(case, sockets)?);
        drop(watcher);
        let watcher = armed(&Scope::Command(String::new()))?;
        outside.push(time(case, sockets)?);
        drop(watcher);
        let watcher = armed(&Scope::All)?;
        spared.push(time(case, sockets)?);
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
    let settings = Settings {
        ring_bytes: 1 << 20,
        probe_log: false,
        record_self: true,
        family: Some(Family::Tracepoint),
    };
    attach::load(btf, scope, &settings, Family::Tracepoint)
}

/// CPU time of a call, ns.
fn time(case: &Case, sockets: &Sockets) -> Result<f64> {
    let started = clock::own_cpu_ns();
    (case.make)(sockets, CALLS)?;
    Ok((clock::own_cpu_ns() - started) as f64 / f64::from(CALLS))
}

fn connect(sockets: &Sockets, calls: u32) -> Result<()> {
    (0..calls).try_for_each(|_| sockets.datagrams.connect(sockets.to)).context("connect")
}

fn receive(sockets: &Sockets, calls: u32) -> Result<()> {
    let mut buffer = [0; 16];
    for _ in 0..calls {
        let nothing = (&sockets.stream).read(&mut buffer);
        ensure!(nothing.is_err(), "nothing was sent, and yet something came");
    }
    Ok(())
}

fn shutdown(_: &Sockets, calls: u32) -> Result<()> {
    for _ in 0..calls {
        // SAFETY: a system call on numbers, which fails.
        unsafe { libc::shutdown(-1, libc::SHUT_WR) };
    }
    Ok(())
}
