//! What an event costs on this machine: a call that a hook sees, timed bare, with a program attached that
//! does nothing, and with the recorder's own.

pub mod fault;

use std::io::Read;
use std::net::{TcpListener, TcpStream};

use anyhow::{Context, Result};
use aya::Btf;
use serde::Serialize;

use crate::capture::attach::family::Family;
use crate::capture::attach::{self, Probes, Settings};
use crate::capture::{Capture, Scope, clock};

/// Medians over interleaved rounds, ns per call.
#[derive(Debug, Serialize)]
pub struct Cost {
    /// The family of hooks.
    pub hooks: &'static str,
    pub rounds: usize,
    pub calls_per_round: u32,
    /// A receive that finds nothing, nobody watching.
    pub bare_ns: f64,
    /// The same with a program that does nothing on the hook.
    pub idle_ns: f64,
    /// The same recorded.
    pub recorded_ns: f64,
    /// Median of the rounds' own differences between recorded and idle.
    pub event_over_idle_ns: f64,
}

const CALLS: u32 = 100_000;

/// Times the three in turn, `rounds` times, with one family of hooks.
pub fn cost(rounds: usize, family: Family) -> Result<Cost> {
    let quiet = Quiet::connect()?;
    let receive = || quiet.receive();
    let btf = Btf::from_sys_fs()?;
    let (mut bare, mut idle, mut recorded, mut over) = (vec![], vec![], vec![], vec![]);
    for _ in 0..rounds.max(1) {
        bare.push(time(receive)?);
        let watcher = attach_idle(&btf, family)?;
        idle.push(time(receive)?);
        drop(watcher);
        let settings = settings(64 << 20, family);
        let capture = Capture::start(Scope::All, settings)?;
        recorded.push(time(receive)?);
        drop(capture);
        over.push(recorded[recorded.len() - 1] - idle[idle.len() - 1]);
    }
    Ok(Cost {
        hooks: family.as_str(),
        rounds,
        calls_per_round: CALLS,
        bare_ns: median(&mut bare),
        idle_ns: median(&mut idle),
        recorded_ns: median(&mut recorded),
        event_over_idle_ns: median(&mut over),
    })
}

fn settings(ring_bytes: u64, family: Family) -> Settings {
    Settings { ring_bytes, probe_log: false, record_self: true, family: Some(family) }
}

fn attach_idle(btf: &Btf, family: Family) -> Result<Probes> {
    let ebpf = attach::load(btf, &Scope::All, &settings(1 << 20, family), family)?;
    let mut probes = Probes::from(ebpf);
    for hook in family.idle() {
        attach::attach_hook(&mut probes, btf, hook)?;
    }
    Ok(probes)
}

/// A connection over which nothing is sent.
struct Quiet {
    stream: TcpStream,
    _peer: TcpStream,
}

impl Quiet {
    fn connect() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").context("listen on loopback")?;
        let stream = TcpStream::connect(listener.local_addr()?)?;
        stream.set_nonblocking(true)?;
        Ok(Self { stream, _peer: listener.accept()?.0 })
    }

    /// Receives that find nothing.
    fn receive(&self) -> Result<()> {
        let mut buffer = [0; 16];
        for _ in 0..CALLS {
            let nothing = (&self.stream).read(&mut buffer);
            anyhow::ensure!(nothing.is_err(), "nothing was sent, and yet something came");
        }
        Ok(())
    }
}

/// CPU time of one of [`CALLS`] calls, ns: other work on the machine does not count.
fn time(calls: impl FnOnce() -> Result<()>) -> Result<f64> {
    let started = clock::own_cpu_ns();
    calls()?;
    Ok((clock::own_cpu_ns() - started) as f64 / f64::from(CALLS))
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values[values.len() / 2]
}
