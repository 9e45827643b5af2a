//! Which faults are armed on this machine, and by whom. Each recorder notes its own in a folder ([`folder`]), so that
//! others see them, and that no two strike the same events without knowing of each other.

pub mod folder;
#[cfg(test)]
mod tests;

use std::path::Path;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::plan::Choice;
use super::print;
use super::spec::{Fault, Nature, Target, When};
use crate::capture::{Scope, procfs};
use crate::pattern::Pattern;

/// What one recorder has armed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Armed {
    /// The recorder.
    pub pid: u32,
    /// Whose events it records, in words.
    pub scope: String,
    pub within: Within,
    /// RFC 3339.
    pub since: String,
    pub faults: Vec<ArmedFault>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ArmedFault {
    pub fault: String,
    /// The fault in one line.
    pub line: String,
    /// What it does to which events, whenever it does it.
    pub strikes: String,
    pub mechanism: String,
    /// Events that matched so far, and those that it struck.
    pub matched: u64,
    pub fired: u64,
}

/// Whom a recorder's faults can strike.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Within {
    Machine,
    /// A process and its descendants: of a command, those of the recorder that runs it.
    Process(u32),
    /// A path below the cgroup2 mount, with all below it.
    Cgroup(String),
}

impl Armed {
    /// What this process is about to arm.
    pub fn here(scope: &Scope, choices: &[Choice<'_>]) -> Self {
        let faults = choices.iter().map(|choice| ArmedFault {
            fault: choice.fault.name.clone(),
            line: print::told(choice.fault),
            strikes: strikes(choice.fault),
            mechanism: choice.mechanism.as_str().to_owned(),
            matched: 0,
            fired: 0,
        });
        Self {
            pid: std::process::id(),
            scope: scope.to_string(),
            within: Within::of(scope),
            since: Timestamp::now().to_string(),
            faults: faults.collect(),
        }
    }

    /// For how long, s.
    pub fn age_s(&self) -> f64 {
        let since: Option<Timestamp> = self.since.parse().ok();
        since.map_or(0.0, |since| Timestamp::now().duration_since(since).as_secs_f64())
    }

    /// A fault of this recorder's that strikes the same events of the same processes as one of another's.
    pub fn shared_with<'a>(&'a self, other: &Self) -> Option<&'a ArmedFault> {
        if !self.within.meets(&other.within) {
            return None;
        }
        let struck = |fault: &&ArmedFault| other.faults.iter().any(|o| o.strikes == fault.strikes);
        self.faults.iter().find(struck)
    }
}

impl Within {
    fn of(scope: &Scope) -> Self {
        match scope {
            Scope::All => Self::Machine,
            Scope::Process(pid) => Self::Process(*pid),
            Scope::Command(_) => Self::Process(std::process::id()),
            Scope::Cgroup(path) => {
                let mount = procfs::cgroup_mount().unwrap_or_default();
                let below = path.strip_prefix(mount).unwrap_or(path);
                Self::Cgroup(Path::new("/").join(below).display().to_string())
            }
        }
    }

    /// Whether some process is in both, as far as can be known now.
    fn meets(&self, other: &Self) -> bool {
        let below = |path: &str, top: &str| Path::new(path).starts_with(top);
        match (self, other) {
            (Self::Machine, _) | (_, Self::Machine) => true,
            (Self::Process(one), Self::Process(other)) => {
                descends(*one, *other) || descends(*other, *one)
            }
            (Self::Cgroup(one), Self::Cgroup(other)) => below(one, other) || below(other, one),
            (Self::Process(pid), Self::Cgroup(path)) | (Self::Cgroup(path), Self::Process(pid)) => {
                procfs::cgroup(*pid).is_some_and(|own| below(&own, path))
            }
        }
    }
}

/// Whether a process is another, or came of it.
fn descends(mut pid: u32, ancestor: u32) -> bool {
    while pid != ancestor {
        match procfs::parent(pid) {
            Some(parent) if parent != 0 => pid = parent,
            _ => return false,
        }
    }
    true
}

/// What a fault does to which events, without which of these and when: the same text for the same thing.
fn strikes(fault: &Fault) -> String {
    match &fault.nature {
        Nature::Event(target) => {
            let when = When::default();
            let mut target = Target { when, pattern: sorted(&target.pattern), ..target.clone() };
            target.syscalls.sort();
            target.to_string()
        }
        Nature::Partition(cut) => {
            let mut between = cut.between.each_ref().map(sorted);
            if !cut.one_way {
                between.sort_by_key(ToString::to_string);
            }
            print::cut(&between, cut.one_way)
        }
    }
}

fn sorted(pattern: &Pattern) -> Pattern {
    let mut pattern = pattern.clone();
    pattern.tests.sort_by_key(ToString::to_string);
    pattern
}
