//! What `inject` prints: the plan beforehand, and what became of it afterwards.

use std::io::Write;

use anyhow::Result;
use probe_ebpf::fault::Progress;
use serde::Serialize;

use super::injection::Injection;
use crate::describe::printable;
use crate::fault::act::Done;
use crate::fault::plan::{Choice, Rejection};
use crate::fault::spec::Nature;
use crate::fault::witness::Seen;

#[derive(Serialize)]
struct Planned<'a> {
    fault: &'a str,
    mechanism: &'static str,
    does: &'a str,
    notes: &'a [String],
    rejected: &'a [Rejection],
}

/// How each fault would be done.
pub(super) fn plan(choices: &[Choice<'_>], json: bool, out: &mut impl Write) -> Result<()> {
    let planned = choices.iter().map(|choice| Planned {
        fault: &choice.fault.name,
        mechanism: choice.mechanism.as_str(),
        does: &choice.offer.does,
        notes: &choice.offer.notes,
        rejected: &choice.rejected,
    });
    if json {
        let faults: Vec<_> = planned.collect();
        serde_json::to_writer_pretty(&mut *out, &serde_json::json!({ "faults": faults }))?;
        return Ok(writeln!(out)?);
    }
    for (number, planned) in planned.enumerate() {
        if number > 0 {
            writeln!(out)?;
        }
        writeln!(out, "{}", printable(planned.fault))?;
        writeln!(out, "  {:<9} {}", planned.mechanism, planned.does)?;
        for note in planned.notes {
            writeln!(out, "            {note}")?;
        }
        for rejection in planned.rejected {
            writeln!(out, "  not {:<9} {}", rejection.mechanism, rejection.reason)?;
        }
    }
    Ok(())
}

/// What became of one fault.
#[derive(Debug, Serialize)]
pub(in crate::cli) struct Row {
    fault: String,
    mechanism: &'static str,
    /// Events that matched while it was armed.
    matched: u64,
    pub(in crate::cli) fired: u64,
    /// Firings whose event is in the recording and had the intended result.
    confirmed: u64,
    /// Firings whose event is in the recording and had another result.
    contradicted: u64,
    /// Whether it never fired; then `remark` says why.
    not_reached: bool,
    /// Of a cut: whether it has healed.
    #[serde(skip_serializing_if = "Option::is_none")]
    healed: Option<bool>,
    /// Where user space has a part in the deed: how often it has done that.
    #[serde(skip_serializing_if = "Option::is_none")]
    done: Option<u64>,
    /// What else there is to say, if anything.
    remark: String,
}

impl Row {
    pub(super) fn new(
        choice: &Choice<'_>,
        progress: &Progress,
        seen: Seen,
        done: Option<&Done>,
    ) -> Self {
        let mut row = Self {
            done: done.map(|done| done.count),
            fault: choice.fault.name.clone(),
            mechanism: choice.mechanism.as_str(),
            matched: progress.matched,
            fired: progress.fired,
            confirmed: seen.confirmed,
            contradicted: seen.contradicted,
            not_reached: progress.fired == 0,
            healed: choice.offer.heals().then_some(seen.healed),
            remark: String::new(),
        };
        row.remark = match choice.fault.nature {
            Nature::Partition(_) if row.not_reached => "no packet went across".to_owned(),
            _ => row.remarked(done, progress.unfit),
        };
        row
    }

    fn remarked(&self, done: Option<&Done>, unfit: u64) -> String {
        match (self.matched, self.fired) {
            _ if unfit > 0 => {
                format!("{unfit} not done: what the call was to send could not be read")
            }
            (0, _) => "no event matched".to_owned(),
            (_, 0) => "none of the matching events was the one".to_owned(),
            (_, fired) if let Some(why) = done.and_then(|done| done.remark(fired)) => why,
            (_, fired) if self.contradicted > 0 && self.healed.is_none() => {
                format!("{} of {fired} had another result", self.contradicted)
            }
            (_, fired) if self.confirmed < fired && self.healed.is_none() => {
                format!("{} of {fired} not seen in the recording", fired - self.confirmed)
            }
            _ => match self.healed {
                Some(true) => self.across("healed"),
                Some(false) => self.across("cut to the end"),
                None => String::new(),
            },
        }
    }

    /// What became of a cut, and what got through it.
    fn across(&self, became: &str) -> String {
        match self.contradicted {
            0 => became.to_owned(),
            ways => format!("{became}; bytes went across {ways} of the cut connections"),
        }
    }
}

/// The closing table.
pub(super) fn rows(
    injection: &Injection<'_>,
    seed: u64,
    json: bool,
    out: &mut impl Write,
) -> Result<()> {
    let Injection { rows, skipped, .. } = injection;
    if json {
        let report = serde_json::json!({ "seed": seed, "faults": rows, "skipped": skipped });
        serde_json::to_writer_pretty(&mut *out, &report)?;
        return Ok(writeln!(out)?);
    }
    let width = rows.iter().map(|row| printable(&row.fault).chars().count()).max().unwrap_or(0);
    let width = width.max("fault".len());
    writeln!(out, "{:<width$}  mechanism  matched  fired  confirmed", "fault")?;
    for row in rows {
        let name = printable(&row.fault);
        let not_reached = if row.not_reached { "not reached: " } else { "" };
        let line = format!(
            "{name:<width$}  {:<9}  {:>7}  {:>5}  {:>9}  {not_reached}{}",
            row.mechanism, row.matched, row.fired, row.confirmed, row.remark
        );
        writeln!(out, "{}", line.trim_end())?;
    }
    if *skipped > 0 {
        writeln!(
            out,
            "calls of any process that the kernel made past the override, whose program it skipped: {skipped}"
        )?;
    }
    writeln!(out, "seed {seed}")?;
    Ok(())
}
