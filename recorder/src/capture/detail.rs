//! How much the probes record: `flow` always, and what was asked for beyond, for as long as it was asked for.
//!
//! What goes beyond costs something, so that its hooks are attached when it is raised, and detached when it is
//! lowered: a hook that is not attached costs nothing.

use std::fmt;
use std::process;
use std::str::FromStr;

use anyhow::{Context, Result, bail};
use aya::programs::Program;
use aya::programs::tp_btf::BtfTracePointLinkId;
use aya::{Btf, Ebpf};
use serde::{Deserialize, Serialize};

use super::attach::family::{self, Hook};
use super::attach::{Attached, program};
use super::offsets;
use crate::event::Detailed;

/// What is recorded besides `flow`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Detail {
    /// Packets that the kernel dropped.
    pub net: bool,
}

impl Detail {
    pub const FLOW: Self = Self { net: false };

    /// What one or the other asks for.
    pub const fn with(self, other: Self) -> Self {
        Self { net: self.net || other.net }
    }
}

impl fmt::Display for Detail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.net { "flow+net" } else { "flow" })
    }
}

/// A word that names no detail.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no detail `{0}`: say `flow`, or `+net` for packets that the kernel drops")]
pub struct NoSuchDetail(String);

impl From<Detail> for String {
    fn from(detail: Detail) -> Self {
        detail.to_string()
    }
}

impl TryFrom<String> for Detail {
    type Error = NoSuchDetail;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

/// `flow`, `flow+net`, or `+net`.
impl FromStr for Detail {
    type Err = NoSuchDetail;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut detail = Self::FLOW;
        let words = text.strip_prefix('+').unwrap_or(text);
        for word in words.split('+') {
            match word {
                "flow" => {}
                "net" => detail.net = true,
                other => return Err(NoSuchDetail(other.to_owned())),
            }
        }
        Ok(detail)
    }
}

/// The hooks beyond `flow`, and since when each stretch of more detail has lasted.
#[derive(Default)]
pub struct Details {
    now: Detail,
    link: Option<BtfTracePointLinkId>,
    /// Kept while the program is loaded, also while it is not attached.
    loaded: Option<Attached>,
    stretches: Vec<Detailed>,
    reasons: Vec<(u32, String)>,
}

/// Stretches that are remembered: a trigger that fires all day must not fill memory.
const MOST_STRETCHES: usize = 256;

impl Details {
    pub const fn now(&self) -> Detail {
        self.now
    }

    /// Events that its hooks could not record.
    pub fn missed(&self) -> u64 {
        self.loaded.as_ref().map_or(0, |hook| hook.missed(process::id()))
    }

    /// When there was more detail than `flow`, oldest first.
    pub fn stretches(&self) -> &[Detailed] {
        &self.stretches
    }

    /// What the kernel calls its reasons, once they have been asked for.
    pub fn reasons(&self) -> &[(u32, String)] {
        &self.reasons
    }

    /// Records this from now on.
    ///
    /// # Errors
    /// When the kernel refuses the hook; the detail stays what it was.
    pub fn set(&mut self, ebpf: &mut Ebpf, detail: Detail, now_ns: u64) -> Result<()> {
        if detail == self.now {
            return Ok(());
        }
        match detail.net {
            true => self.attach(ebpf).with_context(|| format!("record {detail}"))?,
            false => self.detach(ebpf)?,
        }
        self.now = detail;
        if let Some(last) = self.stretches.last_mut().filter(|last| last.to_ns == 0) {
            last.to_ns = now_ns;
        }
        if detail != Detail::FLOW {
            self.stretches.push(Detailed { detail: detail.to_string(), from_ns: now_ns, to_ns: 0 });
        }
        let surplus = self.stretches.len().saturating_sub(MOST_STRETCHES);
        self.stretches.drain(..surplus);
        Ok(())
    }

    fn attach(&mut self, ebpf: &mut Ebpf) -> Result<()> {
        let hook = &family::DROPS;
        if self.loaded.is_none() {
            let reasons = offsets::drop_reasons()?;
            if reasons.is_empty() {
                bail!("this kernel does not say why it drops packets (Linux 5.17 does)");
            }
            let btf = Btf::from_sys_fs().context("read the kernel's types")?;
            let Program::BtfTracePoint(program) = program(ebpf, hook.program)? else {
                bail!("the program {} is of another kind", hook.program)
            };
            program.load(hook.target, &btf).with_context(|| told(hook))?;
            self.reasons = reasons;
            self.loaded = Some(Attached::there(ebpf, hook));
        }
        let Program::BtfTracePoint(program) = program(ebpf, hook.program)? else { return Ok(()) };
        self.link = Some(program.attach().with_context(|| told(hook))?);
        Ok(())
    }

    fn detach(&mut self, ebpf: &mut Ebpf) -> Result<()> {
        let Program::BtfTracePoint(program) = program(ebpf, family::DROPS.program)? else {
            return Ok(());
        };
        if let Some(link) = self.link.take() {
            program.detach(link).with_context(|| format!("detach {}", family::DROPS))?;
        }
        Ok(())
    }
}

fn told(hook: &Hook) -> String {
    format!("attach {hook} ({})", hook.gives)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_detail_is_read_as_it_is_written() {
        for (text, detail) in [
            ("flow", Detail::FLOW),
            ("flow+net", Detail { net: true }),
            ("+net", Detail { net: true }),
            ("net", Detail { net: true }),
        ] {
            assert_eq!(text.parse(), Ok(detail), "{text}");
            assert_eq!(detail.to_string().parse(), Ok(detail));
        }
        for text in ["", "+", "flow+", "netz", "flow net"] {
            assert!(text.parse::<Detail>().is_err(), "{text}");
        }
    }
}
