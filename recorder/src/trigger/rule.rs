//! A trigger in the daemon's configuration: a `[[trigger]]` table. It names one thing to watch, and says what a
//! dump that it causes is to explain.

use std::path::PathBuf;

use regex::bytes::Regex;
use serde::Deserialize;

use super::Raise;
use super::kernel::{self, Above, Plan};
use super::symptom::Symptom;
use crate::pattern::Pattern;
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
    /// Where to look for both, and for what failed where neither is said.
    pub scope: Option<Symptom>,
    /// How long before it fires its cause may lie; default: as long as the rings reach back.
    pub lookback: Option<Time>,
    /// How long to go on recording.
    pub after: Option<Time>,
    /// What to record besides from then on, and for how long.
    pub raise: Option<Raise>,
}

/// What is watched.
#[derive(Clone, Debug)]
pub enum What {
    /// A line in a file.
    Log { path: PathBuf, matches: Line },
    /// A line that a systemd unit, or any (`*`), wrote to the journal.
    Journal { unit: String, matches: Line },
    /// Events, by the kernel; which key says so.
    Kernel { key: &'static str, plan: Plan },
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
    event: Option<Events>,
    exit: Option<Events>,
    count: Option<Events>,
    of: Option<Events>,
    above: Option<Above>,
    window: Option<Time>,
    symptom: Option<Symptom>,
    missing: Option<Symptom>,
    scope: Option<Symptom>,
    lookback: Option<Time>,
    after: Option<Time>,
    raise: Option<Raise>,
}

/// A pattern.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "String")]
struct Events(Pattern);

impl TryFrom<String> for Events {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse().map(Self).map_err(|error: crate::pattern::PatternError| error.to_string())
    }
}

/// The keys that say what is watched, of which a table has one.
const WATCHED: &str = "`log`, `journal`, `event`, `exit` or `count`";

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
        let what = table.what()?;
        let Table { name, symptom, missing, scope, lookback, after, raise, .. } = table;
        let rule = Self { name, what, symptom, missing, scope, lookback, after, raise };
        rule.labels_are_known()?;
        Ok(rule)
    }
}

impl Table {
    fn what(&self) -> Result<What, String> {
        let line = self.log.is_some() || self.journal.is_some();
        if !line && self.matches.is_some() {
            return Err("`matches` goes with `log` or `journal`".to_owned());
        }
        let counted = self.of.is_some() || self.above.is_some() || self.window.is_some();
        if self.count.is_none() && counted {
            return Err("`of`, `above` and `window` go with `count`".to_owned());
        }
        let matches = |key: &str| {
            self.matches.clone().ok_or_else(|| {
                format!("`{key}` needs `matches`, a regular expression that a line has to match")
            })
        };
        let mut all = Vec::new();
        if let Some(path) = &self.log {
            all.push(What::Log { path: path.clone(), matches: matches("log")? });
        }
        if let Some(unit) = &self.journal {
            all.push(What::Journal { unit: unit.clone(), matches: matches("journal")? });
        }
        if let Some(Events(pattern)) = &self.event {
            all.push(What::Kernel { key: "event", plan: Plan::event(pattern)? });
        }
        if let Some(Events(pattern)) = &self.exit {
            all.push(What::Kernel { key: "exit", plan: Plan::exit(pattern)? });
        }
        if let Some(Events(pattern)) = &self.count {
            all.push(What::Kernel { key: "count", plan: self.rate(pattern)? });
        }
        match all.pop() {
            Some(what) if all.is_empty() => Ok(what),
            _ => Err(format!("a trigger watches one thing: give it {WATCHED}")),
        }
    }

    fn rate(&self, count: &Pattern) -> Result<Plan, String> {
        let (Some(above), Some(window)) = (self.above, self.window) else {
            return Err(
                "`count` needs `above`, like \"10/s\", and `window`, like \"10s\"".to_owned()
            );
        };
        Plan::rate(count, self.of.as_ref().map(|Events(of)| of), above, window.0)
    }
}

impl Rule {
    /// Every `{label}` is one that the line's expression has.
    fn labels_are_known(&self) -> Result<(), String> {
        let known: Vec<&str> = match &self.what {
            What::Log { matches, .. } | What::Journal { matches, .. } => {
                matches.0.capture_names().flatten().collect()
            }
            What::Kernel { .. } => kernel::LABELS.to_vec(),
        };
        let said = self.symptom.iter().chain(&self.missing).chain(&self.scope);
        for label in said.flat_map(Symptom::labels) {
            if !known.contains(&label) {
                return Err(match self.what {
                    What::Kernel { .. } => format!(
                        "nothing is called `{label}`: there are {}",
                        kernel::LABELS.join(", ")
                    ),
                    _ => format!(
                        "nothing is called `{label}`: name a part of `matches` so, (?<{label}>…)"
                    ),
                });
            }
        }
        Ok(())
    }

    /// Which kind of source it has.
    pub const fn source(&self) -> &'static str {
        match self.what {
            What::Log { .. } => "log",
            What::Journal { .. } => "journal",
            What::Kernel { key, .. } => key,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(table: &str) -> Result<Rule, String> {
        toml::from_str(&format!("name = 'x'\n{table}"))
            .map_err(|error: toml::de::Error| error.message().to_owned())
    }

    #[test]
    fn what_the_kernel_watches_for_is_planned_when_it_is_read() {
        for (table, source) in [
            ("event = 'comm=nginx op=recv error=ECONNRESET'", "event"),
            ("event = 'op=exit comm=cron'", "event"),
            ("exit = 'comm=*'", "exit"),
            ("exit = 'signal=SIGKILL,SIGSEGV'", "exit"),
            (
                "count = 'op=recv,send error=* error!=EAGAIN'\nabove = '10/s'\nwindow = '10s'",
                "count",
            ),
            ("count = 'op=recv error=*'\nof = 'op=recv'\nabove = '5%'\nwindow = '30s'", "count"),
        ] {
            assert_eq!(parse(table).map(|rule| rule.source()), Ok(source), "{table}");
        }
    }

    #[test]
    fn what_does_not_fit_together_is_refused() {
        for (table, why) in [
            ("event = 'op=recv'\nexit = 'comm=*'", "a trigger watches one thing"),
            ("event = 'op=recv'\nmatches = 'x'", "`matches` goes with"),
            ("event = 'op=recv'\nwindow = '1s'", "go with `count`"),
            ("event = 'op=recv flag=eof'", "`flag=eof`: the kernel tests"),
            (
                "event = 'op=recv'\nsymptom = 'comm={who}'",
                "there are comm, pid, tid, local, remote",
            ),
            ("exit = 'result=0'", "can never hold"),
            ("count = 'op=recv'\nabove = '1/s'", "`count` needs `above`"),
            ("count = 'op=recv'\nabove = '1/s'\nwindow = '0s'", "longer than nothing"),
            ("count = 'op=recv'\nabove = '5%'\nwindow = '1s'", "a share needs `of`"),
            ("count = 'op=recv'\nof = 'op=recv'\nabove = '5/s'\nwindow = '1s'", "goes with `of`"),
            ("count = 'op=recv'\nabove = '-1/s'\nwindow = '1s'", "is no rate"),
            ("log = '/x'\nmatches = 'y'\nraise = { detail = '+nett' }", "there is no detail"),
        ] {
            let said = parse(table).expect_err(table);
            assert!(said.contains(why), "{table}: {said}");
        }
    }
}
