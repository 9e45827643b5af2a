//! Loading the probes into the running kernel and attaching them; what is missing is said, not hidden.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use anyhow::{Context, Result, bail};
use aya::maps::{Map, MapData};
use aya::programs::{BtfTracePoint, Program};
use aya::{Btf, Ebpf, EbpfLoader, include_bytes_aligned};
use probe_ebpf::config::{Arguments, Config, NAMED_PER_CPU, Offsets};

use crate::capture::scope::Scope;
use crate::capture::{offsets, sockets};

/// The probes, built for the kernel's instruction set by the build script.
static PROBE: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/probe"));

/// What the user may choose about the rings.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Memory for all rings together, bytes.
    pub ring_bytes: u64,
    /// Hand out the probes' diagnostics.
    pub probe_log: bool,
    /// Record the recorder as well: only for measuring what an event costs.
    pub record_self: bool,
}

impl Settings {
    /// Slots per CPU: three quarters of the memory for `bulk`, the rest for `rare`. Powers of two, at least 1024.
    pub fn slots(&self, cpus: u32) -> (u32, u32) {
        let per_cpu = self.ring_bytes / u64::from(cpus.max(1));
        let power = |bytes: u64, size: u64| {
            let slots = (bytes / size).clamp(1024, 1 << 26);
            1u32 << slots.ilog2()
        };
        (power(per_cpu / 4 * 3, 64), power(per_cpu / 4, 128))
    }
}

/// One tracepoint and what is lost without it.
pub struct Hook {
    pub name: &'static str,
    pub gives: &'static str,
    pub need: Need,
}

/// Whether anything can be recorded without a hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    Required,
    Wanted,
}

const fn required(name: &'static str, gives: &'static str) -> Hook {
    Hook { name, gives, need: Need::Required }
}

const fn wanted(name: &'static str, gives: &'static str) -> Hook {
    Hook { name, gives, need: Need::Wanted }
}

/// The hooks of detail `flow`, in the order in which they are attached. All but the last three are BTF tracepoints,
/// and the program has the tracepoint's name.
pub const HOOKS: [Hook; 17] = [
    required("sched_process_fork", "new threads, and who is in scope"),
    required("sock_send_length", "bytes sent"),
    required("sock_recv_length", "bytes received, end of stream"),
    required("inet_sock_set_state", "connect, established, listen, close"),
    wanted("sched_process_exec", "programs started"),
    wanted("sched_process_exit", "ends of threads"),
    wanted("task_rename", "names of threads"),
    wanted("signal_generate", "who sent a signal"),
    wanted("signal_deliver", "who took a signal"),
    wanted("mark_victim", "kills for lack of memory"),
    wanted("tcp_send_reset", "resets sent"),
    wanted("tcp_receive_reset", "resets received"),
    wanted("tcp_retransmit_skb", "segments sent again"),
    wanted("inet_sk_error_report", "errors of connections"),
    wanted("datagram_peers", "addresses of datagrams on sockets that are not connected"),
    wanted("open_sockets", "names of sockets older than the recorder"),
    wanted("unix_sockets", "which Unix sockets are older than the recorder"),
];

/// A hook after the attempt to attach it.
pub struct Attached {
    pub name: &'static str,
    /// Why it is not attached.
    pub missing: Option<String>,
    /// The program's descriptor number, to ask the kernel about it. Valid while the programs live.
    program: Option<i32>,
}

impl Attached {
    /// How often the kernel skipped the program because it was already running on that CPU.
    pub fn missed(&self) -> u64 {
        let Some(fd) = self.program else { return 0 };
        let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).unwrap_or_default();
        let line = info.lines().find_map(|l| l.strip_prefix("recursion_misses:"));
        line.and_then(|l| l.trim().parse().ok()).unwrap_or(0)
    }
}

/// Loads maps and programs, nothing attached yet.
pub fn load(btf: &Btf, scope: &Scope, settings: &Settings) -> Result<Ebpf> {
    let (offsets, arguments) = offsets::read()?;
    let cpus = cpus()?;
    let (bulk_slots, rare_slots) = settings.slots(cpus);
    let mut config = Config {
        recorder: if settings.record_self { 0 } else { std::process::id() },
        bulk_slots,
        rare_slots,
        log: u32::from(settings.probe_log),
        ..Config::default()
    };
    scope.configure(&mut config)?;
    load_with(btf, &config, &offsets, &arguments, cpus)
}

fn load_with(
    btf: &Btf,
    config: &Config,
    offsets: &Offsets,
    arguments: &Arguments,
    cpus: u32,
) -> Result<Ebpf> {
    let log_bytes = if config.log == 0 { 4096 } else { 1 << 20 };
    EbpfLoader::new()
        .btf(Some(btf))
        .allow_unsupported_maps()
        .override_global("CONFIG", bytemuck::bytes_of(config), true)
        .override_global("OFFSETS", bytemuck::bytes_of(offsets), true)
        .override_global("ARGUMENTS", bytemuck::bytes_of(arguments), true)
        .map_max_entries("HEADS", cpus)
        .map_max_entries("NAMED", NAMED_PER_CPU * cpus)
        .map_max_entries("PEERS", NAMED_PER_CPU * cpus)
        .map_max_entries("BULK", config.bulk_slots * cpus)
        .map_max_entries("RARE", config.rare_slots * cpus)
        .map_max_entries("AYA_LOGS", log_bytes)
        .load(PROBE)
        .context("create the probes' maps (root, or CAP_BPF and CAP_PERFMON, is needed)")
}

/// Attaches every hook; a wanted one that is refused is named with the reason.
///
/// # Errors
/// When a required one is refused.
pub fn attach(ebpf: &mut Ebpf, btf: &Btf) -> Result<Vec<Attached>> {
    let mut attached = Vec::new();
    for hook in &HOOKS {
        let result = attach_one(ebpf, btf, hook.name);
        if hook.need == Need::Required {
            result.with_context(|| format!("attach {} ({})", hook.name, hook.gives))?;
            attached.push(Attached {
                name: hook.name,
                missing: None,
                program: fd(ebpf, hook.name),
            });
            continue;
        }
        let missing = result.err().map(|error| root_cause(&error));
        attached.push(Attached { name: hook.name, missing, program: fd(ebpf, hook.name) });
    }
    Ok(attached)
}

/// The first line of what lies at the bottom of an error.
pub fn root_cause(error: &anyhow::Error) -> String {
    error.root_cause().to_string().lines().next().unwrap_or_default().to_owned()
}

/// Loads the programs of a hook and attaches them; those that only look at what is there do so now.
pub fn attach_one(ebpf: &mut Ebpf, btf: &Btf, name: &str) -> Result<()> {
    match name {
        "open_sockets" => sockets::name_open(ebpf, btf),
        "unix_sockets" => sockets::find_older(ebpf, btf),
        "datagram_peers" => sockets::attach_peers(ebpf),
        _ => attach_to(ebpf, btf, name, name),
    }
}

/// Loads a program and attaches it to a tracepoint.
pub fn attach_to(ebpf: &mut Ebpf, btf: &Btf, name: &str, tracepoint: &str) -> Result<()> {
    let program = ebpf.program_mut(name).with_context(|| format!("find the program {name}"))?;
    let program: &mut BtfTracePoint = program.try_into()?;
    program.load(tracepoint, btf)?;
    program.attach()?;
    Ok(())
}

fn fd(ebpf: &Ebpf, name: &str) -> Option<i32> {
    let Program::BtfTracePoint(program) = ebpf.program(name)? else { return None };
    program.fd().ok().map(|fd| fd.as_fd().as_raw_fd())
}

/// The descriptor of one of the probes' maps.
pub fn map_fd<'a>(ebpf: &'a Ebpf, name: &str) -> Result<BorrowedFd<'a>> {
    Ok(map_data(ebpf, name)?.fd().as_fd())
}

fn map_data<'a>(ebpf: &'a Ebpf, name: &str) -> Result<&'a MapData> {
    match ebpf.map(name) {
        Some(Map::Array(data) | Map::Unsupported(data) | Map::SkStorage(data)) => Ok(data),
        _ => bail!("the probes have no map {name}"),
    }
}

/// How many CPUs the kernel may ever have.
pub fn cpus() -> Result<u32> {
    aya::util::nr_cpus()
        .map(|n| n as u32)
        .map_err(|(path, error)| anyhow::anyhow!("{path}: {error}"))
}
