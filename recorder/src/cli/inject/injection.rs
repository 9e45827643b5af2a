//! Faults armed while a recording is made.

use std::path::Path;

use anyhow::{Context, Result};
use probe_ebpf::fault::{Rule, action};

use super::report;
use crate::capture::{Capture, clock};
use crate::cli::record::Besides;
use crate::event::{Event, Names};
use crate::fault::act::{Actor, Deed};
use crate::fault::arm;
use crate::fault::armed::Armed;
use crate::fault::armed::folder::{FOLDER, Noted};
use crate::fault::guardian::Guardian;
use crate::fault::plan::{self, Choice};
use crate::fault::spec::{Fault, Faults, Nature};
use crate::fault::witness::Witness;

/// Something that is different every time; told, so that a run can be made again.
pub(in crate::cli) fn chosen_seed() -> u64 {
    clock::monotonic_ns() ^ u64::from(std::process::id()) << 32
}

/// Faults at work beside a recording.
pub(in crate::cli) struct Injection<'a> {
    choices: &'a [Choice<'a>],
    seed: u64,
    /// Whether the same faults as another recorder's may be armed.
    pub(in crate::cli) beside: bool,
    witness: Witness,
    /// Tells others what is armed.
    noted: Option<Noted>,
    /// Where processes may be stopped.
    guardian: Option<Guardian>,
    /// Where user space has a part in a deed.
    actor: Option<Actor>,
    /// What has become of each fault.
    pub(in crate::cli) rows: Vec<report::Row>,
    /// Calls that were made without an override's program.
    pub(super) skipped: u64,
}

impl<'a> Injection<'a> {
    pub(in crate::cli) fn new(choices: &'a [Choice<'a>], seed: u64) -> Self {
        Self {
            choices,
            seed,
            beside: false,
            witness: Witness::default(),
            noted: None,
            guardian: None,
            actor: None,
            rows: Vec::new(),
            skipped: 0,
        }
    }

    /// The fault file that says all of it.
    fn file(&self) -> String {
        let faults = self.choices.iter().map(|choice| choice.fault.clone()).collect();
        Faults { seed: Some(self.seed), faults }.to_toml()
    }
}

impl Besides for Injection<'_> {
    fn begin(&mut self, capture: &mut Capture) -> Result<()> {
        let now_ns = clock::monotonic_ns();
        let compiled = plan::compile(self.choices, self.seed, now_ns, &arm::cgroup)
            .map_err(|message| anyhow::anyhow!(message))
            .context("compile the faults")?;
        let armed = Armed::here(capture.scope(), self.choices);
        self.noted = Some(Noted::note(Path::new(FOLDER), armed, self.beside)?);
        let names = self.choices.iter().map(|choice| choice.fault.name.as_str());
        capture.note_faults(self.file());
        let stops = |rule: &Rule| matches!(rule.action, action::PAUSE | action::RESTART);
        if compiled.rules.iter().any(stops) {
            self.guardian = Some(Guardian::start(capture.maps())?);
        }
        let control = arm::start(capture, names, &compiled)?;
        let deeds: Vec<_> = self.choices.iter().map(|choice| deed(choice.fault)).collect();
        if deeds.iter().any(Option::is_some) {
            self.actor = Some(Actor::start(capture, control, deeds)?);
        }
        Ok(())
    }

    fn see(&mut self, _names: &Names, events: &[Event]) {
        self.witness.see(events);
    }

    fn turn(&mut self, capture: &mut Capture) -> Result<()> {
        if self.choices.iter().any(|choice| choice.offer.heals()) {
            arm::turn_cuts(capture.maps_mut())?;
        }
        if let Some(guardian) = &mut self.guardian {
            guardian.look_after()?;
        }
        let progress = arm::progress(capture.maps(), self.choices.len())?;
        if let Some(noted) = &mut self.noted {
            noted.tell(progress.iter().map(|progress| (progress.matched, progress.fired)));
        }
        self.skipped = arm::calls::skipped(capture.maps());
        let names = capture.names();
        let done = self.actor.as_ref().map(Actor::done).unwrap_or_default();
        self.rows = self
            .choices
            .iter()
            .zip(progress)
            .enumerate()
            .map(|(rule, (choice, progress))| {
                let seen = self.witness.of(names, &choice.fault.name);
                let done = deed(choice.fault).and_then(|_| done.get(rule));
                report::Row::new(choice, &progress, seen, done)
            })
            .collect();
        Ok(())
    }

    fn goes_on(&mut self, command: u32) -> bool {
        self.actor.as_ref().is_some_and(|actor| actor.lives_on(command))
    }

    fn end(&mut self, capture: &mut Capture) -> Result<()> {
        if let Some(actor) = &mut self.actor {
            actor.end();
        }
        self.turn(capture)
    }
}

/// The part of a fault's deed that user space has.
fn deed(fault: &Fault) -> Option<Deed> {
    match &fault.nature {
        Nature::Event(target) => Deed::of(target.action),
        Nature::Partition(_) => None,
    }
}
