//! What `why --confirm` says.

use std::io::{Write, stdout};

use anyhow::Result;
use serde_json::json;

use super::Inquiry;
use crate::confirm::verdict::Tally;
use crate::describe::{clock, describe, lane, printable};
use crate::event::EventIndex;
use crate::export::EventRow;
use crate::fault::print;

pub(super) fn tell(inquiry: &Inquiry<'_>, as_json: bool) -> Result<()> {
    let mut out = stdout().lock();
    if as_json { json(inquiry, &mut out) } else { text(inquiry, &mut out) }
}

fn fault(inquiry: &Inquiry<'_>) -> String {
    let line = print::line(&inquiry.suspect.fault);
    line.unwrap_or_else(|| format!("partition `{}`", inquiry.name))
}

fn json(inquiry: &Inquiry<'_>, out: &mut impl Write) -> Result<()> {
    let row = |event: EventIndex| EventRow::new(inquiry.history, event);
    let passed_over = inquiry.passed_over.iter();
    let answer = json!({
        "symptom": row(inquiry.symptom),
        "pattern": inquiry.pattern.to_string(),
        "cause": inquiry.suspect.event.map(row),
        "fault": fault(inquiry),
        "notes": inquiry.suspect.notes,
        "passed_over": passed_over
            .map(|r| json!({ "event": row(r.event), "reason": r.reason }))
            .collect::<Vec<_>>(),
        "with": inquiry.with,
        "without": inquiry.without,
        "verdict": inquiry.verdict.as_str(),
        "because": inquiry.verdict.to_string(),
    });
    serde_json::to_writer_pretty(&mut *out, &answer)?;
    Ok(writeln!(out)?)
}

fn text(inquiry: &Inquiry<'_>, out: &mut impl Write) -> Result<()> {
    let told = |event: EventIndex| {
        let event = &inquiry.history.events[event as usize];
        let history = inquiry.history;
        format!("{}  {}  {}", clock(history, event), lane(history, event), describe(history, event))
    };
    writeln!(out, "symptom  {}", told(inquiry.symptom))?;
    writeln!(out, "         {}", printable(&inquiry.pattern.to_string()))?;
    for rejected in &inquiry.passed_over {
        writeln!(out, "not      {}", told(rejected.event))?;
        writeln!(out, "         {}", printable_lines(&rejected.reason))?;
    }
    match inquiry.suspect.event {
        Some(event) => writeln!(out, "cause    {}", told(event))?,
        None => writeln!(out, "cause    as it was named")?,
    }
    writeln!(out, "         {}", printable(&fault(inquiry)))?;
    for note in &inquiry.suspect.notes {
        writeln!(out, "         {note}")?;
    }
    let Tally { runs, fired, came, .. } = inquiry.with;
    writeln!(out, "with     it fired in {fired} of {}; the symptom came in {came}", plural(runs))?;
    let Tally { runs, came, .. } = inquiry.without;
    writeln!(out, "without  the symptom came in {came} of {}", plural(runs))?;
    writeln!(out)?;
    Ok(writeln!(out, "{}", inquiry.verdict)?)
}

/// Reasons have several lines.
fn printable_lines(text: &str) -> String {
    text.lines().map(printable).collect::<Vec<_>>().join("\n         ")
}

fn plural(runs: u32) -> String {
    if runs == 1 { "1 run".to_owned() } else { format!("{runs} runs") }
}
