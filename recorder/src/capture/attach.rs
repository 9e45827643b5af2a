//! Loading the probes into the running kernel and attaching them; what is missing is said, not hidden.

pub mod family;
pub mod preempt;
pub(crate) mod prove;
pub(crate) mod returns;

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::path::Path;

use anyhow::{Context, Result, bail};
use aya::maps::{Map, MapData};
use aya::programs::{Program, ProgramError};
use aya::{Btf, Ebpf, EbpfLoader, include_bytes_aligned};
use aya_obj::btf::BtfKind;
use probe_ebpf::config::{Arguments, Config, NAMED_PER_CPU, Offsets, SOCKETS_BY_COOKIE};
use probe_ebpf::storage::seen::STANDBYS;
use serde::{Deserialize, Serialize};

use crate::capture::scope::Scope;
use crate::capture::{offsets, sockets};
use family::{ACCEPT, COMMON, Family, Hook, NUMBERED, Need, Site};
use returns::Returns;

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
    /// An event, unless a program of this name that stands by records it.
    Events,
    /// Nothing that another program of this name records.
    Standby,
    /// The last that stands by under this name: what nobody has recorded.
    Last,
    /// When a call began, which is then bounded only.
    Begins,
}

impl Attached {
    pub fn there(ebpf: &Ebpf, hook: &Hook) -> Self {
        Self::of(ebpf, hook, hook.program)
    }

    /// The same of another program where the hook is.
    fn of(ebpf: &Ebpf, hook: &Hook, program: &str) -> Self {
        let program = ebpf.program(program).and_then(|program| program.fd().ok());
        let program = program.map(|fd| fd.as_fd().as_raw_fd());
        let role = if hook.site == Site::Fentry { Role::Begins } else { Role::Events };
        Self { name: hook.to_string(), missing: None, program, role }
    }

    const fn missing(name: String, why: String) -> Self {
        Self { name, missing: Some(why), program: None, role: Role::Events }
    }

    /// Whether it only does what others were skipped for.
    pub fn stands_by(&self) -> bool {
        matches!(self.role, Role::Standby | Role::Last)
    }

    /// How often the kernel skipped the program because it was already running on that CPU; asked of the process
    /// that has it open.
    pub fn missed(&self, owner: u32) -> u64 {
        self.program.map_or(0, |fd| misses(owner, fd))
    }
}

/// How often the kernel skipped one of this process's programs because it was at work; 0 if it is not loaded.
pub fn skipped(ebpf: &Ebpf, program: &str) -> u64 {
    let program = ebpf.program(program).and_then(|program| program.fd().ok());
    program.map_or(0, |fd| misses(std::process::id(), fd.as_fd().as_raw_fd()))
}

/// How often the kernel skipped a program, asked of the process that has it open as this descriptor.
fn misses(owner: u32, program: RawFd) -> u64 {
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
        standbys: u32::from(preempt::possible(family.hooks()[0].site)),
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

/// The probes' maps and programs. Dropping it detaches them.
pub struct Probes {
    pub ebpf: Ebpf,
    pub returns: Returns,
}

impl From<Ebpf> for Probes {
    fn from(ebpf: Ebpf) -> Self {
        Self { ebpf, returns: Returns::default() }
    }
}

/// The probes in the kernel, with the hooks that see sends and receives attached.
pub struct Loaded {
    pub probes: Probes,
    pub family: Family,
    pub hooks: Vec<Attached>,
}

/// Loads the probes and attaches the family that was asked for, or else the first that works. What belongs to
/// the others is not loaded into the kernel.
pub fn load_family(btf: &Btf, scope: &Scope, settings: &Settings) -> Result<Loaded> {
    clear_leftovers();
    if let Some(family) = settings.family {
        let mut probes = Probes::from(load(btf, scope, settings, family)?);
        let hooks = attach_family(&mut probes, btf, family, !settings.record_self)
            .with_context(|| format!("use hooks of the family {family}"))?;
        return Ok(Loaded { probes, family, hooks });
    }
    let mut refused = Vec::new();
    for family in Family::ALL {
        let mut probes = Probes::from(load(btf, scope, settings, family)?);
        match attach_family(&mut probes, btf, family, !settings.record_self) {
            Ok(hooks) => return Ok(Loaded { probes, family, hooks }),
            Err(error) => refused.push(format!("{family}: {}", root_cause(&error))),
        }
    }
    bail!("no family of hooks works on this kernel: {}", refused.join("; "));
}

/// Removes what recorders that were killed have left in the kernel, where that can be seen.
pub fn clear_leftovers() {
    if let Err(error) = returns::clear() {
        log::info!("look for leftovers in tracefs: {error:#}");
    }
}

/// Attaches what every family needs or wants; a wanted hook that is refused is named with the reason. From then on
/// everything new is seen.
///
/// # Errors
/// When a required one is refused.
pub fn attach_common(probes: &mut Probes, btf: &Btf, family: Family) -> Result<Vec<Attached>> {
    let mut hooks = Vec::new();
    for hook in COMMON.iter().filter(|hook| !hook.site.is_walk()) {
        hooks.extend(attach_wanted(probes, btf, hook)?);
    }
    if family == Family::Kprobe {
        hooks.extend(attach_wanted(probes, btf, &NUMBERED)?);
    }
    hooks.extend(attach_accept(probes, btf, family));
    Ok(hooks)
}

/// Looks at the sockets that were there before, of the threads that are in scope by now.
///
/// # Errors
/// When what is required is refused.
pub fn walk_older(probes: &mut Probes, btf: &Btf) -> Result<Vec<Attached>> {
    let mut hooks = Vec::new();
    for hook in COMMON.iter().filter(|hook| hook.site.is_walk()) {
        hooks.extend(attach_wanted(probes, btf, hook)?);
    }
    Ok(hooks)
}

/// Attaches a hook, and what stands by there; one that is only wanted may be refused.
fn attach_wanted(probes: &mut Probes, btf: &Btf, hook: &Hook) -> Result<Vec<Attached>> {
    let attached = attach_hook(probes, btf, hook).and_then(|()| attach_standbys(probes, btf, hook));
    match attached {
        Ok(mut attached) => {
            attached.push(Attached::there(&probes.ebpf, hook));
            Ok(attached)
        }
        Err(error) if hook.need == Need::Required => Err(error),
        Err(error) => {
            detach(probes, std::slice::from_ref(hook))?;
            Ok(vec![Attached::missing(hook.to_string(), root_cause(&error))])
        }
    }
}

/// Attaches all hooks of a family, and what stands by there; what was attached is gone where one is refused. `proven`: sees
/// to it that they fire, which programs that record the recorder do not tell.
pub fn attach_family(
    probes: &mut Probes,
    btf: &Btf,
    family: Family,
    proven: bool,
) -> Result<Vec<Attached>> {
    let hooks: Vec<_> = family.hooks().iter().filter(|hook| is_needed(hook, btf)).collect();
    let attached = attach_in_order(probes, btf, &hooks, proven);
    if attached.is_err() {
        detach(probes, family.hooks())?;
    }
    attached
}

/// Attaches hooks, and what stands by there, so that it runs after them.
fn attach_in_order(
    probes: &mut Probes,
    btf: &Btf,
    hooks: &[&'static Hook],
    proven: bool,
) -> Result<Vec<Attached>> {
    let mut attached = Vec::new();
    // The kernel runs an exit's newest program first, and a tracepoint's oldest.
    for hook in hooks.iter().filter(|hook| hook.site == Site::Fexit) {
        attached.extend(attach_standbys(probes, btf, hook)?);
    }
    for hook in hooks {
        attach_hook(probes, btf, hook)?;
        attached.push(Attached::there(&probes.ebpf, hook));
    }
    if proven && let Some(silent) = prove::silent(&mut probes.ebpf, hooks)?.first() {
        bail!("{}", without_effect(silent));
    }
    for hook in hooks.iter().filter(|hook| hook.site == Site::Tracepoint) {
        attached.extend(attach_standbys(probes, btf, hook)?);
    }
    Ok(attached)
}

/// Whether the machine has what the hook is for.
fn is_needed(hook: &Hook, btf: &Btf) -> bool {
    match hook.need {
        Need::RequiredForV6 => prove::has_v6(),
        Need::RequiredIfThere => btf.id_by_type_name_kind(hook.target, BtfKind::Func).is_ok(),
        Need::Required | Need::Wanted => true,
    }
}

/// Attaches the programs that stand by where a hook's own may be at work for somebody else, if it has such, so that they
/// run in their order.
fn attach_standbys(probes: &mut Probes, btf: &Btf, hook: &Hook) -> Result<Vec<Attached>> {
    let last = preempt::standbys(hook);
    let mut turns: Vec<u32> = (1..=last).collect();
    if hook.site == Site::Fexit {
        turns.reverse();
    }
    let mut attached = Vec::new();
    for turn in turns {
        let program = standby(hook, turn);
        if probes.ebpf.program(&program).is_none() {
            continue;
        }
        attach_program(probes, btf, hook, &program)
            .with_context(|| format!("attach {hook} (what others were skipped for)"))?;
        let role = if turn == last { Role::Last } else { Role::Standby };
        attached.push(Attached { role, ..Attached::of(&probes.ebpf, hook, &program) });
    }
    Ok(attached)
}

fn without_effect(hook: &Hook) -> String {
    format!("{hook} is attached, but has no effect: {}", prove::reason())
}

/// Attaches the first hook that tells which thread accepts; where sends are seen by kprobes, only such a one.
fn attach_accept(probes: &mut Probes, btf: &Btf, family: Family) -> Vec<Attached> {
    let mut refused = Vec::new();
    let fits = |hook: &&Hook| family != Family::Kprobe || hook.site == Site::Kretprobe;
    for hook in ACCEPT.iter().filter(fits) {
        match attach_alone(probes, btf, hook) {
            Ok(attached) => return attached,
            Err(error) => refused.push(format!("{hook}: {}", root_cause(&error))),
        }
    }
    vec![Attached::missing("accept".to_owned(), refused.join("; "))]
}

/// Attaches one hook, and what stands by there, and sees to it that it fires.
pub fn attach_alone(probes: &mut Probes, btf: &Btf, hook: &'static Hook) -> Result<Vec<Attached>> {
    let attached = attach_in_order(probes, btf, &[hook], true);
    if attached.is_err() {
        detach(probes, std::slice::from_ref(hook))?;
    }
    attached
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
pub fn attach_hook(probes: &mut Probes, btf: &Btf, hook: &Hook) -> Result<()> {
    attach_program(probes, btf, hook, hook.program)
        .with_context(|| format!("attach {hook} ({})", hook.gives))
}

/// Loads a program and attaches it where a hook is.
fn attach_program(probes: &mut Probes, btf: &Btf, hook: &Hook, name: &str) -> Result<()> {
    let target = hook.target;
    let function = matches!(hook.site, Site::Fentry | Site::Fexit | Site::Kprobe | Site::Kretprobe);
    if let Some(reason) = prove::forbidden().filter(|_| function) {
        bail!("{reason}");
    }
    match (hook.site, program(&mut probes.ebpf, name)?) {
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
            if hook.site == Site::Kretprobe {
                probes.returns.attach(hook.program, program, target)?;
            } else {
                program.attach(target, 0)?;
            }
        }
        (Site::Files, _) => sockets::name_open(&mut probes.ebpf, btf)?,
        (Site::UnixSockets, _) => sockets::find_older(&mut probes.ebpf, btf)?,
        (Site::Cgroups, _) => sockets::attach_peers(&mut probes.ebpf)?,
        (Site::SocketMade, Program::CgroupSock(program)) => sockets::attach_made(program)?,
        _ => bail!("the program {name} is of another kind"),
    }
    Ok(())
}

/// One of the probes' programs.
pub fn program<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut Program> {
    ebpf.program_mut(name).with_context(|| format!("find the program {name}"))
}

/// Detaches and unloads what was attached of some hooks.
pub fn detach(probes: &mut Probes, hooks: &[Hook]) -> Result<()> {
    for hook in hooks {
        probes.returns.detach(hook.program);
        unload(program(&mut probes.ebpf, hook.program)?)
            .with_context(|| format!("detach {hook}"))?;
        for turn in 1..=STANDBYS {
            if let Some(program) = probes.ebpf.program_mut(&standby(hook, turn)) {
                unload(program).with_context(|| format!("detach what stands by at {hook}"))?;
            }
        }
    }
    Ok(())
}

fn unload(program: &mut Program) -> Result<(), ProgramError> {
    let unloaded = match program {
        Program::BtfTracePoint(program) => program.unload(),
        Program::FEntry(program) => program.unload(),
        Program::FExit(program) => program.unload(),
        Program::KProbe(program) => program.unload(),
        _ => Ok(()),
    };
    match unloaded {
        Err(ProgramError::NotLoaded) => Ok(()),
        unloaded => unloaded,
    }
}

/// The name of a program that stands by.
fn standby(hook: &Hook, turn: u32) -> String {
    format!("{}_{turn}", hook.program)
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
