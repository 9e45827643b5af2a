//! Loading the probes into the running kernel and attaching them; what is missing is said, not hidden.

pub mod family;
pub mod preempt;
pub(crate) mod prove;

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::path::Path;

use anyhow::{Context, Result, bail};
use aya::maps::{Map, MapData};
use aya::programs::{Program, ProgramError};
use aya::{Btf, Ebpf, EbpfLoader, include_bytes_aligned};
use probe_ebpf::config::{Arguments, Config, NAMED_PER_CPU, Offsets, SOCKETS_BY_COOKIE};
use serde::{Deserialize, Serialize};

use crate::capture::scope::Scope;
use crate::capture::{offsets, sockets};
use family::{ACCEPT, COMMON, Family, Hook, Need, Site};

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
    /// The family of hooks to use; otherwise the first that works.
    pub family: Option<Family>,
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

/// A hook after the attempt to attach it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Attached {
    pub name: String,
    /// Why it is not attached.
    pub missing: Option<String>,
    /// The program's descriptor number, to ask the kernel about it. Valid while the programs live.
    program: Option<RawFd>,
    role: Role,
}

/// What is missing where the kernel skips a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Role {
    /// An event, unless a second program of this name records it.
    Events,
    /// Nothing that the first program of this name has seen.
    Second,
    /// When a call began, which is then bounded only.
    Begins,
}

impl Attached {
    pub fn there(ebpf: &Ebpf, hook: &Hook) -> Self {
        let program = ebpf.program(hook.program).and_then(|program| program.fd().ok());
        let program = program.map(|fd| fd.as_fd().as_raw_fd());
        let role = if hook.site == Site::Fentry { Role::Begins } else { Role::Events };
        Self { name: hook.to_string(), missing: None, program, role }
    }

    const fn missing(name: String, why: String) -> Self {
        Self { name, missing: Some(why), program: None, role: Role::Events }
    }

    /// How often the kernel skipped the program because it was already running on that CPU; asked of the process
    /// that has it open.
    pub fn missed(&self, owner: u32) -> u64 {
        self.program.map_or(0, |fd| misses(owner, fd))
    }
}

/// How often the kernel skipped a program, asked of the process that has it open as this descriptor.
pub fn misses(owner: u32, program: RawFd) -> u64 {
    let info =
        std::fs::read_to_string(format!("/proc/{owner}/fdinfo/{program}")).unwrap_or_default();
    let line = info.lines().find_map(|l| l.strip_prefix("recursion_misses:"));
    line.and_then(|l| l.trim().parse().ok()).unwrap_or(0)
}

/// Loads maps and programs, nothing attached yet.
pub fn load(btf: &Btf, scope: &Scope, settings: &Settings, family: Family) -> Result<Ebpf> {
    let (offsets, arguments) = offsets::read()?;
    let cpus = cpus()?;
    let (bulk_slots, rare_slots) = settings.slots(cpus);
    let mut config = Config {
        recorder: if settings.record_self { 0 } else { std::process::id() },
        bulk_slots,
        rare_slots,
        log: u32::from(settings.probe_log),
        kprobes: u32::from(family == Family::Kprobe),
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
        .map_max_entries("BY_COOKIE", if config.kprobes == 0 { 64 } else { SOCKETS_BY_COOKIE })
        .map_max_entries("AYA_LOGS", log_bytes)
        .load(PROBE)
        .context("create the probes' maps (root, or CAP_BPF and CAP_PERFMON, is needed)")
}

/// The probes in the kernel, with the hooks that see sends and receives attached.
pub struct Loaded {
    pub ebpf: Ebpf,
    pub family: Family,
    pub hooks: Vec<Attached>,
}

/// Loads the probes and attaches the family that was asked for, or else the first that works. What belongs to
/// the others is not loaded into the kernel.
pub fn load_family(btf: &Btf, scope: &Scope, settings: &Settings) -> Result<Loaded> {
    if let Some(family) = settings.family {
        let mut ebpf = load(btf, scope, settings, family)?;
        let hooks = attach_for(&mut ebpf, btf, family, settings)
            .with_context(|| format!("use hooks of the family {family}"))?;
        return Ok(Loaded { ebpf, family, hooks });
    }
    let mut refused = Vec::new();
    for family in Family::ALL {
        let mut ebpf = load(btf, scope, settings, family)?;
        match attach_for(&mut ebpf, btf, family, settings) {
            Ok(hooks) => return Ok(Loaded { ebpf, family, hooks }),
            Err(error) => refused.push(format!("{family}: {}", root_cause(&error))),
        }
    }
    bail!("no family of hooks works on this kernel: {}", refused.join("; "));
}

/// Attaches what every family needs or wants; a wanted hook that is refused is named with the reason.
///
/// # Errors
/// When a required one is refused.
pub fn attach_common(ebpf: &mut Ebpf, btf: &Btf, family: Family) -> Result<Vec<Attached>> {
    let mut hooks = Vec::new();
    let (walks, steady): (Vec<_>, Vec<_>) = COMMON.iter().partition(|hook| hook.site.is_walk());
    for hook in steady {
        hooks.push(attach_wanted(ebpf, btf, hook)?);
    }
    hooks.push(attach_accept(ebpf, btf, family));
    // What is there before is looked at when everything new is seen.
    for hook in walks {
        hooks.push(attach_wanted(ebpf, btf, hook)?);
    }
    Ok(hooks)
}

/// Attaches a hook; one that is only wanted may be refused.
fn attach_wanted(ebpf: &mut Ebpf, btf: &Btf, hook: &Hook) -> Result<Attached> {
    match attach_hook(ebpf, btf, hook) {
        Ok(()) => Ok(Attached::there(ebpf, hook)),
        Err(error) if hook.need == Need::Required => Err(error),
        Err(error) => Ok(Attached::missing(hook.to_string(), root_cause(&error))),
    }
}

/// Attaches a family. Programs that record the recorder do not tell whether they fire.
fn attach_for(
    ebpf: &mut Ebpf,
    btf: &Btf,
    family: Family,
    settings: &Settings,
) -> Result<Vec<Attached>> {
    // The kernel runs an exit's newest program first, and a tracepoint's oldest.
    let mut again = Vec::new();
    if family == Family::Trampoline {
        again = attach_again(ebpf, btf, family)?;
    }
    let hooks = match settings.record_self {
        true => attach_all(ebpf, btf, family)?,
        false => attach_family(ebpf, btf, family)?,
    };
    if family != Family::Trampoline {
        again = attach_again(ebpf, btf, family)?;
    }
    again.extend(hooks.into_iter().map(|hook| Attached::there(ebpf, hook)));
    Ok(again)
}

/// Attaches the family's second programs where the kernel may preempt the first.
fn attach_again(ebpf: &mut Ebpf, btf: &Btf, family: Family) -> Result<Vec<Attached>> {
    if !preempt::possible(family) {
        return Ok(Vec::new());
    }
    let fits = |hook: &&Hook| !hook.target.starts_with("inet6") || prove::has_v6();
    let mut attached = Vec::new();
    for hook in family.again().iter().filter(fits) {
        attach_hook(ebpf, btf, hook)?;
        attached.push(Attached { role: Role::Second, ..Attached::there(ebpf, hook) });
    }
    Ok(attached)
}

/// Attaches all hooks of a family and sees to it that they fire. What was attached is gone where one is refused.
pub fn attach_family(ebpf: &mut Ebpf, btf: &Btf, family: Family) -> Result<Vec<&'static Hook>> {
    let attached = attach_all(ebpf, btf, family).and_then(|hooks| {
        if let Some(silent) = prove::silent(ebpf, &hooks)?.first() {
            bail!("{}", without_effect(silent));
        }
        Ok(hooks)
    });
    if attached.is_err() {
        detach(ebpf, family.hooks())?;
    }
    attached
}

fn attach_all(ebpf: &mut Ebpf, btf: &Btf, family: Family) -> Result<Vec<&'static Hook>> {
    let mut hooks = Vec::new();
    for hook in family.hooks() {
        if hook.need != Need::RequiredForV6 || prove::has_v6() {
            attach_hook(ebpf, btf, hook)?;
            hooks.push(hook);
        }
    }
    Ok(hooks)
}

fn without_effect(hook: &Hook) -> String {
    format!("{hook} is attached, but has no effect: {}", prove::reason())
}

/// Attaches the first hook that tells which thread accepts; where sends are seen by kprobes, only such a one.
fn attach_accept(ebpf: &mut Ebpf, btf: &Btf, family: Family) -> Attached {
    let mut refused = Vec::new();
    let fits = |hook: &&Hook| family != Family::Kprobe || hook.site == Site::Kretprobe;
    for hook in ACCEPT.iter().filter(fits) {
        match attach_alone(ebpf, btf, hook) {
            Ok(()) => return Attached::there(ebpf, hook),
            Err(error) => refused.push(format!("{hook}: {}", root_cause(&error))),
        }
    }
    Attached::missing("accept".to_owned(), refused.join("; "))
}

/// Attaches one hook and sees to it that it fires.
pub fn attach_alone(ebpf: &mut Ebpf, btf: &Btf, hook: &'static Hook) -> Result<()> {
    attach_hook(ebpf, btf, hook)?;
    if !prove::silent(ebpf, &[hook])?.is_empty() {
        detach(ebpf, std::slice::from_ref(hook))?;
        bail!("{}", without_effect(hook));
    }
    Ok(())
}

/// The first line of what lies at the bottom of an error.
pub fn root_cause(error: &anyhow::Error) -> String {
    let cause = error.root_cause().to_string();
    let first = cause.lines().next().unwrap_or_default();
    if is_locked_down() {
        return format!("{first} (this kernel is locked down: programs may not read its memory)");
    }
    first.to_owned()
}

/// Whether the kernel keeps its memory even from root: then it refuses helpers, with errors that do not say why.
fn is_locked_down() -> bool {
    let lockdown = std::fs::read_to_string("/sys/kernel/security/lockdown");
    lockdown.is_ok_and(|text| text.contains("[confidentiality]"))
}

/// Loads a hook's program and attaches it.
pub fn attach_hook(ebpf: &mut Ebpf, btf: &Btf, hook: &Hook) -> Result<()> {
    attach_program(ebpf, btf, hook).with_context(|| format!("attach {hook} ({})", hook.gives))
}

fn attach_program(ebpf: &mut Ebpf, btf: &Btf, hook: &Hook) -> Result<()> {
    let target = hook.target;
    let function =
        !(hook.site == Site::Tracepoint || hook.site == Site::Cgroups || hook.site.is_walk());
    if let Some(reason) = prove::forbidden().filter(|_| function) {
        bail!("{reason}");
    }
    match (hook.site, program(ebpf, hook.program)?) {
        (Site::Tracepoint, Program::BtfTracePoint(program)) => {
            program.load(target, btf)?;
            program.attach()?;
        }
        (Site::Fentry, Program::FEntry(program)) => {
            program.load(target, btf)?;
            program.attach()?;
        }
        (Site::Fexit, Program::FExit(program)) => {
            program.load(target, btf)?;
            program.attach()?;
        }
        (Site::Kprobe | Site::Kretprobe, Program::KProbe(program)) => {
            if !Path::new("/sys/bus/event_source/devices/kprobe").exists() {
                bail!("this kernel has no kprobes (CONFIG_KPROBE_EVENTS)");
            }
            program.load()?;
            program.attach(target, 0)?;
        }
        (Site::Files, _) => sockets::name_open(ebpf, btf)?,
        (Site::UnixSockets, _) => sockets::find_older(ebpf, btf)?,
        (Site::Cgroups, _) => sockets::attach_peers(ebpf)?,
        _ => bail!("the program {} is of another kind", hook.program),
    }
    Ok(())
}

/// One of the probes' programs.
pub fn program<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut Program> {
    ebpf.program_mut(name).with_context(|| format!("find the program {name}"))
}

/// Detaches and unloads what was attached of some hooks.
pub fn detach(ebpf: &mut Ebpf, hooks: &[Hook]) -> Result<()> {
    for hook in hooks {
        let unloaded = match program(ebpf, hook.program)? {
            Program::BtfTracePoint(program) => program.unload(),
            Program::FEntry(program) => program.unload(),
            Program::FExit(program) => program.unload(),
            Program::KProbe(program) => program.unload(),
            _ => continue,
        };
        match unloaded {
            Ok(()) | Err(ProgramError::NotLoaded) => {}
            Err(error) => return Err(error).with_context(|| format!("detach {hook}")),
        }
    }
    Ok(())
}

/// The descriptor of one of the probes' maps.
pub fn map_fd<'a>(ebpf: &'a Ebpf, name: &str) -> Result<BorrowedFd<'a>> {
    Ok(map_data(ebpf, name)?.fd().as_fd())
}

fn map_data<'a>(ebpf: &'a Ebpf, name: &str) -> Result<&'a MapData> {
    match ebpf.map(name) {
        Some(
            Map::Array(data)
            | Map::HashMap(data)
            | Map::RingBuf(data)
            | Map::SkStorage(data)
            | Map::Unsupported(data),
        ) => Ok(data),
        _ => bail!("the probes have no map {name}"),
    }
}

/// How many CPUs the kernel may ever have.
pub fn cpus() -> Result<u32> {
    aya::util::nr_cpus()
        .map(|n| n as u32)
        .map_err(|(path, error)| anyhow::anyhow!("{path}: {error}"))
}
