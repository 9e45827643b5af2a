//! A trigger in the daemon's configuration: a `[[trigger]]` table. It names one thing to watch, and says what a
//! dump that it causes is to explain.

use std::path::PathBuf;

use regex::bytes::Regex;
use serde::Deserialize;

use super::symptom::Symptom;
use crate::quantity::Time;

/// One trigger.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "Table")]
pub struct Rule {
    /// Names its dumps.
    pub name: String,
    pub what: What,
    /// Which event to explain. `{label}` stands for what the line's expression calls so.
    pub symptom: Option<Symptom>,
    /// The event that did not happen.
    pub missing: Option<Symptom>,
    /// How long before it fires its cause may lie; default: as long as the rings reach back.
    pub lookback: Option<Time>,
    /// How long to go on recording.
    pub after: Option<Time>,
}

/// What is watched.
#[derive(Clone, Debug)]
pub enum What {
    /// A line in a file.
    Log { path: PathBuf, matches: Line },
    /// A line that a systemd unit, or any (`*`), wrote to the journal.
    Journal { unit: String, matches: Line },
}

/// What a line has to match.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "String")]
pub struct Line(pub Regex);

impl TryFrom<String> for Line {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Regex::new(&text).map(Self).map_err(|error| error.to_string())
    }
}

impl PartialEq for Rule {
    /// Two that are configured alike are alike.
    fn eq(&self, other: &Self) -> bool {
        format!("{self:?}") == format!("{other:?}")
    }
}

/// The table as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    name: String,
    log: Option<PathBuf>,
    journal: Option<String>,
    matches: Option<Line>,
    symptom: Option<Symptom>,
    missing: Option<Symptom>,
    lookback: Option<Time>,
    after: Option<Time>,
}

/// The keys that say what is watched, of which a table has one.
const WATCHED: &str = "`log` or `journal`";

impl TryFrom<Table> for Rule {
    type Error = String;

    fn try_from(table: Table) -> Result<Self, String> {
        let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        if table.name.is_empty() || !table.name.chars().all(plain) || table.name.len() > 64 {
            return Err(format!(
                "`{}` cannot be a trigger's name: take up to 64 letters, digits, `.`, `_` and `-`",
                table.name
            ));
        }
        if ["api", "signal", "alertmanager"].contains(&&*table.name) {
            return Err(format!("there is a trigger `{}` already: take another name", table.name));
        }
        let matches = |key: &str| {
            table.matches.clone().ok_or_else(|| {
                format!("`{key}` needs `matches`, a regular expression that a line has to match")
            })
        };
        let what = match (&table.log, &table.journal) {
            (Some(path), None) => What::Log { path: path.clone(), matches: matches("log")? },
            (None, Some(unit)) => {
                What::Journal { unit: unit.clone(), matches: matches("journal")? }
            }
            _ => return Err(format!("a trigger watches one thing: give it {WATCHED}")),
        };
        let Table { name, symptom, missing, lookback, after, .. } = table;
        let rule = Self { name, what, symptom, missing, lookback, after };
        rule.labels_are_known()?;
        Ok(rule)
    }
}

impl Rule {
    /// Every `{label}` is one that the line's expression has.
    fn labels_are_known(&self) -> Result<(), String> {
        let known: Vec<&str> = match &self.what {
            What::Log { matches, .. } | What::Journal { matches, .. } => {
                matches.0.capture_names().flatten().collect()
            }
        };
        let used = self.symptom.iter().chain(&self.missing).flat_map(Symptom::labels);
        for label in used {
            if !known.contains(&label) {
                return Err(format!(
                    "nothing is called `{label}`: name a part of `matches` so, (?<{label}>…)"
                ));
            }
        }
        Ok(())
    }

    /// Which kind of source it has.
    pub const fn source(&self) -> &'static str {
        match self.what {
            What::Log { .. } => "log",
            What::Journal { .. } => "journal",
        }
    }
}
