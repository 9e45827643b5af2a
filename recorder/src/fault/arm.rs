//! Arming: writes what was planned into the kernel half's maps, and attaches the programs that it needs.
//!
//! Everything hangs on file descriptors of this process: it is gone when the process is.

mod callers;
pub mod calls;

use std::os::unix::fs::MetadataExt;

use anyhow::{Context, Result};
use aya::maps::{Array, MapData};
use aya::programs::{
    BtfTracePoint, CgroupAttachMode, CgroupSock, CgroupSockAddr, Program, RawTracePoint,
    RawTracePointRunOptions, TestRun,
};
use aya::{Btf, Ebpf};
use probe_ebpf::fault::{Cut, Matcher, Progress, Rule, Sieves, action, hook};

use super::plan::{Compiled, sieve};
use super::spec::Syscall;
use crate::capture::attach::family::Site;
use crate::capture::attach::preempt;
use crate::capture::control::Control;
use crate::capture::unpreempted::Unpreempted;
use crate::capture::{Capture, procfs, sockets};

/// Programs of the kernel half by the hook at which they meet events.
const PROGRAMS: [(u32, &[&str]); 10] = [
    (hook::CONNECT, &["refuse_connect4", "refuse_connect6"]),
    (hook::BIND, &["refuse_bind4", "refuse_bind6"]),
    (hook::SENDMSG, &["refuse_sendmsg4", "refuse_sendmsg6"]),
    (hook::SENT, &["met_sent"]),
    (hook::RECEIVED, &["met_received"]),
    (hook::CONNECTING, &["met_state"]),
    (hook::LISTENING, &["met_state"]),
    (hook::CLOSING, &["met_state"]),
    (hook::PACKET, &["packet_out", "packet_in", "socket_made"]),
    (hook::SILENCE, &["silent_out", "silent_in"]),
];

/// The tracepoints of the programs that have one.
/// Those of such names with `_again` behind it are attached as well where the kernel may skip the first.
const TRACEPOINTS: [(&str, &str); 6] = [
    ("met_sent", "sock_send_length"),
    ("met_received", "sock_recv_length"),
    ("met_state", "inet_sock_set_state"),
    ("program_began", "sched_process_exec"),
    ("call_begun", "sys_enter"),
    ("call_ended", "sys_exit"),
];

/// Arms what was compiled beside a recording, with the rules' names; what they tell at once can be read there.
///
/// # Errors
/// Those of [`arm`], and when this recording's control ring has been taken.
pub fn start<'a>(
    capture: &mut Capture,
    names: impl Iterator<Item = &'a str>,
    compiled: &Compiled,
) -> Result<Control> {
    let btf = Btf::from_sys_fs().context("read the kernel's types")?;
    let ebpf = capture.kernel_half(names);
    let control = Control::take(ebpf)?;
    arm(ebpf, &btf, compiled)?;
    Ok(control)
}

/// Arms what was compiled, and sees to it that it has an effect. From here on it can fire.
///
/// # Errors
/// When a map or a program is refused or has no effect; nothing stays attached then but what goes with `ebpf`.
pub fn arm(ebpf: &mut Ebpf, btf: &Btf, compiled: &Compiled) -> Result<()> {
    let calls = attach_rules(ebpf, btf, compiled)?;
    calls::prove_effect(ebpf, &calls)
}

/// Arms what was compiled; tells which calls it overrides.
///
/// # Errors
/// When a map or a program is refused.
pub fn attach_rules(ebpf: &mut Ebpf, btf: &Btf, compiled: &Compiled) -> Result<Vec<Syscall>> {
    write(ebpf, compiled).context("write the faults into the kernel half's maps")?;
    let mut hooks = compiled.matchers.iter().fold(0, |hooks, matcher| hooks | matcher.hooks);
    if !compiled.cuts.is_empty() {
        hooks |= 1 << hook::PACKET;
    }
    if hooks & (1 << hook::PACKET | 1 << hook::SILENCE) != 0 {
        raw(ebpf, "cuts_turned")?.load().context("load cuts_turned")?;
    }
    let mut programs: Vec<&str> = Vec::new();
    let changes =
        |rule: &Rule| matches!(rule.action, action::REFUSE | action::OVERRIDE | action::SWALLOW);
    if compiled.rules.iter().any(changes) {
        programs.push("call_ended");
    }
    if compiled.rules.iter().any(|rule| rule.action == action::RESTART) {
        programs.push("program_began");
        raw(ebpf, "takes_place")?.load().context("load takes_place")?;
    }
    for (hook, names) in PROGRAMS {
        let new = names.iter().filter(|_| hooks >> hook & 1 == 1);
        for name in new {
            if !programs.contains(name) {
                programs.push(name);
            }
        }
    }
    attach_all(ebpf, btf, &programs)?;
    let calls = calls::of(hooks);
    calls::attach(ebpf, &calls)?;
    Ok(calls)
}

/// Loads and attaches programs.
fn attach_all(ebpf: &mut Ebpf, btf: &Btf, names: &[&str]) -> Result<()> {
    let mut noted = false;
    for name in names {
        let attached = match attach(ebpf, btf, name) {
            Err(error) if callers::are_hidden(&error) => {
                noted = true;
                attach(ebpf, btf, &callers::noted(name))
            }
            attached => attached,
        };
        attached.with_context(|| format!("attach {name}"))?;
    }
    if noted {
        callers::choose(ebpf)?;
        // Faults that change results have attached one of them.
        let missing: Vec<&str> =
            callers::PROGRAMS.into_iter().filter(|name| !names.contains(name)).collect();
        attach_all(ebpf, btf, &missing)?;
    }
    Ok(())
}

/// Loads and attaches one program, or two of the same at a tracepoint.
fn attach(ebpf: &mut Ebpf, btf: &Btf, name: &str) -> Result<()> {
    if let Some((_, tracepoint)) = TRACEPOINTS.iter().find(|(program, _)| *program == name) {
        trace(ebpf, btf, name, tracepoint)?;
        let again = format!("{name}_again");
        // `call_begun` has no second: kernels that preempt need none of it.
        if preempt::possible(Site::Tracepoint) && ebpf.program(&again).is_some() {
            trace(ebpf, btf, &again, tracepoint)?;
        }
        return Ok(());
    }
    let program = ebpf.program_mut(name).with_context(|| format!("find the program {name}"))?;
    let root = sockets::root_of_cgroups()?;
    // Links of cgroup programs always allow others beside them.
    const MODE: CgroupAttachMode = CgroupAttachMode::Single;
    match program {
        Program::CgroupSkb(program) => {
            let way = (*program.expected_attach_type()).context("which packets it is for")?;
            program.load()?;
            program.attach(root, way, MODE)?;
        }
        Program::CgroupSock(program) => {
            let program: &mut CgroupSock = program;
            program.load()?;
            program.attach(root, MODE)?;
        }
        program => {
            let program: &mut CgroupSockAddr = program.try_into()?;
            program.load()?;
            program.attach(root, MODE)?;
        }
    }
    Ok(())
}

/// Attaches a program that does nothing, where faults stand.
///
/// # Errors
/// When it is refused.
pub fn attach_idle(ebpf: &mut Ebpf, btf: &Btf, name: &str) -> Result<()> {
    let attached = match name {
        "idle" => trace(ebpf, btf, name, "sock_recv_length"),
        "idle_call_ended" => trace(ebpf, btf, name, "sys_exit"),
        "idle_call" => calls::attach_idle(ebpf, name),
        _ => attach(ebpf, btf, name),
    };
    attached.with_context(|| format!("attach {name}"))
}

fn trace(ebpf: &mut Ebpf, btf: &Btf, name: &str, tracepoint: &str) -> Result<()> {
    let program = ebpf.program_mut(name).with_context(|| format!("find the program {name}"))?;
    let program: &mut BtfTracePoint = program.try_into()?;
    program.load(tracepoint, btf)?;
    program.attach()?;
    Ok(())
}

/// Lets the kernel half tell which cuts have begun and healed since.
///
/// # Errors
/// When the program cannot be run; it was loaded when cuts were armed.
pub fn turn_cuts(ebpf: &mut Ebpf) -> Result<()> {
    raw(ebpf, "cuts_turned")?
        .test_run(RawTracePointRunOptions::new())
        .context("run cuts_turned")?;
    Ok(())
}

/// A program that is run when it is wanted, and attached to nothing.
pub(super) fn raw<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut RawTracePoint> {
    let program = ebpf.program_mut(name).with_context(|| format!("find the program {name}"))?;
    Ok(program.try_into()?)
}

fn write(ebpf: &mut Ebpf, compiled: &Compiled) -> Result<()> {
    const RULE: usize = size_of::<Rule>();
    const PROGRESS: usize = size_of::<Progress>();
    const MATCHER: usize = size_of::<Matcher>();
    let mut rules: Array<_, [u8; RULE]> = map(ebpf, "RULES")?.try_into()?;
    for (index, rule) in (0..).zip(&compiled.rules) {
        rules.set(index, bytemuck::cast::<Rule, [u8; RULE]>(*rule), 0)?;
    }
    let mut progress: Array<_, [u8; PROGRESS]> = map(ebpf, "PROGRESS")?.try_into()?;
    for (index, open) in (0..).zip(&compiled.open) {
        let start = Progress { open: u32::from(*open), ..Progress::default() };
        progress.set(index, bytemuck::cast::<Progress, [u8; PROGRESS]>(start), 0)?;
    }
    let mut matchers: Array<_, [u8; MATCHER]> = map(ebpf, "MATCHERS")?.try_into()?;
    for (index, matcher) in (0..).zip(&compiled.matchers) {
        matchers.set(index, bytemuck::cast::<Matcher, [u8; MATCHER]>(*matcher), 0)?;
    }
    let sifting = sieve::sieves(&compiled.matchers);
    sieves(ebpf)?.set(0, bytemuck::cast::<Sieves, SievesBytes>(sifting), 0)?;
    const CUT: usize = size_of::<Cut>();
    let mut cuts: Array<_, [u8; CUT]> = map(ebpf, "CUTS")?.try_into()?;
    for (index, cut) in (0..).zip(&compiled.cuts) {
        cuts.set(index, bytemuck::cast::<Cut, [u8; CUT]>(*cut), 0)?;
    }
    Ok(())
}

type SievesBytes = [u8; size_of::<Sieves>()];

/// What is tested before all matchers.
fn sieves(ebpf: &mut Ebpf) -> Result<Array<&mut MapData, SievesBytes>> {
    Ok(map(ebpf, ".bss.sieves")?.try_into()?)
}

pub(super) fn map<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut aya::maps::Map> {
    ebpf.map_mut(name).with_context(|| format!("the probes have no map {name}"))
}

/// What became of each rule so far.
pub fn progress(ebpf: &Ebpf, rules: usize) -> Result<Vec<Progress>> {
    let map = ebpf.map("PROGRESS").context("the probes have no map PROGRESS")?;
    let map: Array<_, [u8; size_of::<Progress>()]> = map.try_into()?;
    let _unpreempted = Unpreempted::begin();
    let read = |index| Ok(bytemuck::cast(map.get(&index, 0)?));
    (0..rules as u32).map(read).collect()
}

/// A cgroup's identifier and its depth below the root of the second hierarchy.
pub fn cgroup(path: &str) -> Option<(u64, u32)> {
    let mount = procfs::cgroup_mount()?;
    let full = mount.join(path.strip_prefix('/').unwrap_or(path));
    let number = std::fs::metadata(&full).ok().filter(|found| found.is_dir())?.ino();
    let below = full.strip_prefix(&mount).ok()?;
    Some((number, below.components().count() as u32))
}

/// Tries the programs of a mechanism for real: each is loaded, and attached without a rule that could fire.
pub fn try_programs(ebpf: &mut Ebpf, btf: &Btf, names: &[&str]) -> Result<()> {
    attach_all(ebpf, btf, names)
}
