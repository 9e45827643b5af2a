//! The hooks beyond `flow`. What they give costs something, so that they are attached when it is asked for, and
//! detached when it is not any more: a hook that is not attached costs nothing.

use std::process;

use anyhow::{Context, Result, bail};
use aya::programs::Program;
use aya::programs::tp_btf::{BtfTracePoint, BtfTracePointLinkId};
use aya::{Btf, Ebpf};

use super::{Detail, More, calls, wakes};
use crate::capture::attach::family::Hook;
use crate::capture::attach::{Attached, program};
use crate::capture::offsets;
use crate::event::Detailed;

/// What is recorded now, and since when each stretch of more detail has lasted.
#[derive(Default)]
pub struct Details {
    now: Detail,
    links: Vec<(&'static Hook, BtfTracePointLinkId)>,
    /// Kept while their programs are loaded, also while they are not attached.
    loaded: Vec<Attached>,
    stretches: Vec<Detailed>,
    /// How often `syscall` was raised.
    raised_calls: u32,
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
        self.loaded.iter().map(|hook| hook.missed(process::id())).sum()
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
    /// When the kernel refuses a hook; the detail stays what it was.
    pub fn set(&mut self, ebpf: &mut Ebpf, detail: Detail, now_ns: u64) -> Result<()> {
        if detail == self.now {
            return Ok(());
        }
        let before = self.now;
        for more in detail.more().filter(|&more| !before.has(more)) {
            if let Err(error) = self.raise(ebpf, more) {
                let raised = More::ALL.into_iter().filter(|&more| !before.has(more));
                raised.into_iter().try_for_each(|more| self.lower(ebpf, more))?;
                return Err(error).with_context(|| format!("record {detail}"));
            }
        }
        for more in before.more().filter(|&more| !detail.has(more)) {
            self.lower(ebpf, more)?;
        }
        self.now = detail;
        self.note(detail, now_ns);
        Ok(())
    }

    /// Begins a stretch, and ends the one before.
    fn note(&mut self, detail: Detail, now_ns: u64) {
        if let Some(last) = self.stretches.last_mut().filter(|last| last.to_ns == 0) {
            last.to_ns = now_ns;
        }
        if detail != Detail::FLOW {
            self.stretches.push(Detailed { detail: detail.to_string(), from_ns: now_ns, to_ns: 0 });
        }
        let surplus = self.stretches.len().saturating_sub(MOST_STRETCHES);
        self.stretches.drain(..surplus);
    }

    fn raise(&mut self, ebpf: &mut Ebpf, more: More) -> Result<()> {
        match more {
            More::Syscall => {
                self.raised_calls += 1;
                calls::choose(ebpf, self.raised_calls)?;
            }
            More::Sched => wakes::possible()?,
            More::Net => self.learn_reasons()?,
        }
        self.load(ebpf, more)?;
        for hook in more.hooks() {
            let link = tracepoint(ebpf, hook)?.attach();
            self.links.push((hook, link.with_context(|| told(hook, more))?));
        }
        match more {
            More::Sched => wakes::prove(ebpf),
            More::Syscall | More::Net => Ok(()),
        }
    }

    /// Once: what was loaded stays.
    fn load(&mut self, ebpf: &mut Ebpf, more: More) -> Result<()> {
        let is_loaded = |hook: &&Hook| {
            let name = hook.to_string();
            self.loaded.iter().any(|loaded| loaded.name == name)
        };
        let missing: Vec<&Hook> = more.hooks().iter().filter(|hook| !is_loaded(hook)).collect();
        if missing.is_empty() {
            return Ok(());
        }
        let btf = Btf::from_sys_fs().context("read the kernel's types")?;
        for hook in missing {
            let loaded = tracepoint(ebpf, hook)?.load(hook.target, &btf);
            loaded.with_context(|| told(hook, more))?;
            self.loaded.push(Attached::there(ebpf, hook));
        }
        Ok(())
    }

    fn lower(&mut self, ebpf: &mut Ebpf, more: More) -> Result<()> {
        for hook in more.hooks() {
            let place = self.links.iter().position(|(held, _)| held.program == hook.program);
            let Some(place) = place else { continue };
            let (_, link) = self.links.swap_remove(place);
            tracepoint(ebpf, hook)?.detach(link).with_context(|| format!("detach {hook}"))?;
        }
        Ok(())
    }

    fn learn_reasons(&mut self) -> Result<()> {
        if self.reasons.is_empty() {
            self.reasons = offsets::drop_reasons()?;
        }
        if self.reasons.is_empty() {
            bail!("this kernel does not say why it drops packets (Linux 5.17 does)");
        }
        Ok(())
    }
}

fn told(hook: &Hook, more: More) -> String {
    format!("attach {hook} ({}, detail `{}`)", hook.gives, more.as_str())
}

fn tracepoint<'a>(ebpf: &'a mut Ebpf, hook: &Hook) -> Result<&'a mut BtfTracePoint> {
    match program(ebpf, hook.program)? {
        Program::BtfTracePoint(program) => Ok(program),
        _ => bail!("the program {} is of another kind", hook.program),
    }
}
