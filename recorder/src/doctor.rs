//! What this kernel can do: found out by trying each thing for real and undoing it.

pub mod measure;

use std::path::Path;

use anyhow::Result;
use aya::Btf;
use serde::Serialize;

use crate::capture::attach::family::{ACCEPT, COMMON, Family, Hook, NUMBERED, Need};
use crate::capture::attach::{self, Probes, Settings, root_cause};
use crate::capture::detail::More;
use crate::capture::{Scope, procfs};
use crate::fault::ability;
use crate::fault::plan::{Ability, Capabilities};
use crate::fault::spec::Mechanism;

/// All that was found out.
#[derive(Debug, Serialize)]
pub struct Report {
    pub kernel: String,
    pub architecture: &'static str,
    pub cpus: u32,
    /// Whether everything is there without which nothing can be recorded.
    pub can_record: bool,
    pub checks: Vec<Check>,
}

/// One thing that was tried.
#[derive(Debug, Serialize)]
pub struct Check {
    pub section: &'static str,
    pub name: String,
    pub answer: Answer,
    pub required: bool,
    /// What it is good for.
    pub gives: &'static str,
    /// Why not, what is used instead, and what to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Answer {
    Yes,
    No,
    /// It could not be tried.
    Unknown,
}

impl Report {
    /// Tries everything. Needs the privileges that recording needs; says so where they are missing.
    pub fn make() -> Self {
        let mut checks = capabilities();
        checks.push(types());
        kernel_half(&mut checks);
        checks.extend(injectors(&ability::find_out()));
        Self {
            kernel: procfs::kernel_release(),
            architecture: std::env::consts::ARCH,
            cpus: attach::cpus().unwrap_or(0),
            can_record: checks.iter().all(|c| !c.required || c.answer == Answer::Yes)
                && checks.iter().any(|c| c.section == FAMILIES && c.answer == Answer::Yes),
            checks,
        }
    }
}

const CAPABILITIES: [(&str, u32, &str, bool); 4] = [
    ("CAP_BPF", 39, "load programs and make maps", true),
    ("CAP_PERFMON", 38, "attach to tracepoints and read kernel memory", true),
    ("CAP_SYS_PTRACE", 19, "name the programs and sockets of other users' processes", false),
    ("CAP_DAC_READ_SEARCH", 2, "read other users' /proc entries", false),
];

fn capabilities() -> Vec<Check> {
    let effective = procfs::capabilities();
    let has = |bit: u32| effective.map(|set| set >> bit & 1 == 1);
    CAPABILITIES
        .iter()
        .map(|&(name, bit, gives, required)| {
            // CAP_SYS_ADMIN includes the two that were split from it.
            let held = has(bit).map(|held| held || (required && has(21) == Some(true)));
            Check {
                section: "capabilities",
                name: name.to_owned(),
                answer: answer(held),
                required,
                gives,
                note: (held == Some(false)).then(|| {
                    "run as root, or give the binary this capability with setcap".to_owned()
                }),
            }
        })
        .collect()
}

fn answer(held: Option<bool>) -> Answer {
    match held {
        Some(true) => Answer::Yes,
        Some(false) => Answer::No,
        None => Answer::Unknown,
    }
}

fn types() -> Check {
    let there = Path::new("/sys/kernel/btf/vmlinux").exists();
    Check {
        section: "kernel",
        name: "BTF".to_owned(),
        answer: answer(Some(there)),
        required: true,
        gives: "where the kernel keeps its fields",
        note: (!there).then(|| {
            "needs a kernel built with CONFIG_DEBUG_INFO_BTF=y (most distributions' are)".to_owned()
        }),
    }
}

/// Loads the maps, then every hook by itself; all of it is gone when this returns.
fn kernel_half(checks: &mut Vec<Check>) {
    let loaded = load();
    let maps = |answer, note| Check {
        section: "kernel",
        name: "maps".to_owned(),
        answer,
        required: true,
        gives: "task and socket storage, rings that can be mapped into memory",
        note,
    };
    match loaded {
        Ok((btf, mut probes)) => {
            checks.push(maps(Answer::Yes, None));
            checks.extend(COMMON.iter().chain(beyond_flow()).map(|hook| {
                let tried = attach::attach_hook(&mut probes, &btf, hook);
                check(hook, tried)
            }));
            checks.extend(ACCEPT.iter().map(|hook| {
                let tried = attach::attach_alone(&mut probes, &btf, hook);
                check(hook, tried.map(drop))
            }));
            checks.extend(Family::ALL.map(|family| {
                let tried = attach::attach_family(&mut probes, &btf, family, true);
                check_family(family, tried.map(drop), &probes)
            }));
        }
        Err(error) => {
            let privileged = checks.iter().all(|c| !c.required || c.answer == Answer::Yes);
            let answer = if privileged { Answer::No } else { Answer::Unknown };
            checks.push(maps(answer, Some(root_cause(&error))));
            checks.extend(COMMON.iter().chain(beyond_flow()).chain(&ACCEPT).map(untried));
            checks.extend(Family::ALL.map(untried_family));
        }
    }
}

/// The hooks of all details, and what only kprobes need.
fn beyond_flow() -> impl Iterator<Item = &'static Hook> {
    More::ALL.into_iter().flat_map(More::hooks).chain([&NUMBERED])
}

fn load() -> Result<(Btf, Probes)> {
    attach::clear_leftovers();
    let btf = Btf::from_sys_fs()?;
    let settings =
        Settings { ring_bytes: 1 << 20, probe_log: false, record_self: false, family: None };
    let ebpf = attach::load(&btf, &Scope::Command(String::new()), &settings, Family::Kprobe)?;
    Ok((btf, ebpf.into()))
}

const HOOKS: &str = "hooks";
const FAMILIES: &str = "families of hooks (one is enough)";

fn untried(hook: &Hook) -> Check {
    Check {
        section: HOOKS,
        name: hook.to_string(),
        answer: Answer::Unknown,
        required: hook.need == Need::Required,
        gives: hook.gives,
        note: None,
    }
}

fn check(hook: &Hook, tried: Result<()>) -> Check {
    let consequence = match hook.need {
        Need::Required => "nothing can be recorded without it",
        _ => "recorded without it; the recording says so",
    };
    Check {
        answer: answer(Some(tried.is_ok())),
        note: tried.err().map(|error| format!("{}; {consequence}", root_cause(&error))),
        ..untried(hook)
    }
}

fn untried_family(family: Family) -> Check {
    Check {
        section: FAMILIES,
        name: family.to_string(),
        answer: Answer::Unknown,
        required: false,
        gives: family.gives(),
        note: None,
    }
}

fn check_family(family: Family, tried: Result<()>, probes: &Probes) -> Check {
    let note = match &tried {
        Ok(()) if family == Family::Kprobe => {
            let places = probes.returns.places(attach::cpus().unwrap_or(0));
            format!("{}; places for each function: {places}", family.cannot())
        }
        Ok(()) => family.cannot().to_owned(),
        Err(error) if error.chain().len() == 1 => error.to_string(),
        Err(error) => format!("{error}: {}", root_cause(error)),
    };
    Check { answer: answer(Some(tried.is_ok())), note: Some(note), ..untried_family(family) }
}

/// Mechanisms by which faults are injected, each of which has been tried.
fn injectors(can: &Capabilities) -> impl Iterator<Item = Check> {
    Mechanism::ALL.into_iter().map(|mechanism| {
        let (answer, note) = match can.mechanisms.get(&mechanism) {
            Some(Ability::Yes) => (Answer::Yes, None),
            Some(Ability::No(why)) => (Answer::No, Some(why.clone())),
            Some(Ability::Unknown(why)) => (Answer::Unknown, Some(why.clone())),
            None => (Answer::No, Some("no fault of this version is done by it".to_owned())),
        };
        let gives = match mechanism {
            Mechanism::Cgroup => "refuse connect, bind and datagrams; cut networks",
            Mechanism::Destroy => "break connections at both ends",
            Mechanism::Signal => "kill and pause processes at an event",
            Mechanism::Override => "give system calls any result",
        };
        let name = mechanism.as_str().to_owned();
        Check { section: "injectors", name, answer, required: false, gives, note }
    })
}
