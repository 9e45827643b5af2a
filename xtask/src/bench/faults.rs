//! What an armed fault costs those whom it is not for.

use std::process::Command;

use anyhow::{Context, Result};

use super::table::{Budget, Table};
use crate::process::{self, wherefore};

/// A row for each mechanism that works here: a call in scope that is not the victim's, over empty programs on the same hooks.
pub fn spared(table: &mut Table, rounds: usize) -> Result<()> {
    let measure = ["doctor", "--json", "--faults", "--measure", &rounds.to_string()];
    let said = process::stdout(Command::new(wherefore()).args(measure))?;
    let costs: serde_json::Value = serde_json::from_str(&said)?;
    for cost in costs["faults"].as_array().with_context(|| format!("find costs in {said}"))? {
        let ns = |key: &str| cost[key].as_f64().with_context(|| format!("find {key} in {said}"));
        let text = |key: &str| cost[key].as_str().unwrap_or_default();
        let (bare, idle) = (ns("bare_ns")?, ns("idle_ns")?);
        let (outside, spared) = (ns("outside_ns")?, ns("spared_ns")?);
        let note = format!(
            "{}: {bare:.0} ns bare, {idle:.0} ns with empty programs, {outside:.0} ns out of scope, \
             {spared:.0} ns in scope",
            text("call")
        );
        let what = format!("a fault armed for somebody else, {}", text("mechanism"));
        table.add(what, spared / idle, "×", Budget::AtMost(1.3), note);
    }
    Ok(())
}
