//! What makes the daemon keep its window: each source of triggers is a file below, and all of them hand over
//! the same thing, a [`Firing`].
//!
//! Sources that are configured ([`Rule`]) are watched until the task that does so is ended. They tell what they
//! see to a [`Bell`], which makes firings of it.

pub mod alertmanager;
pub mod bell;
mod hidden;
pub mod journal;
pub mod kernel;
mod lines;
pub mod log;
pub mod rule;
pub mod symptom;

use std::time::Duration;

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;

use crate::capture::detail::Detail;
use crate::quantity::Time;
pub use bell::{Bell, Seen};
pub use rule::{Rule, What};

/// A reason to make a dump now.
#[derive(Clone, Debug, PartialEq)]
pub struct Firing {
    /// Names the folder: `HighErrorRate`.
    pub name: String,
    /// Who says so: `api`, `signal`, `alertmanager`, `log`.
    pub source: &'static str,
    /// What two firings share that are about the same symptom: one dump per cool-down is made for it.
    pub key: String,
    /// Occurrences that this is about; of each, one dump is made and no more. Empty: nobody counts them.
    pub occurrences: Vec<String>,
    /// Patterns of events to explain; the first that something matches is taken.
    pub symptoms: Vec<String>,
    /// An event that should have happened and did not.
    pub missing: Option<String>,
    /// A pattern of where to look: the symptoms and what is missing hold it already.
    pub scope: Option<String>,
    /// Nothing from before this is needed.
    pub since: Option<Timestamp>,
    /// When it began, as far as the source knows: a window that begins later has lost the cause.
    pub began: Option<Timestamp>,
    /// How long to go on recording, ms; by default what the configuration says.
    pub after_ms: Option<u64>,
    /// What to record besides from now on.
    pub raise: Option<Raise>,
    /// What all hosts call that which it is part of, where another host asks.
    pub incident: Option<String>,
    /// What the source had to say, kept beside the recording.
    pub said: Value,
}

impl Firing {
    /// One of which nothing is known but its name and where it comes from.
    pub fn new(name: &str, source: &'static str) -> Self {
        Self {
            name: name.to_owned(),
            source,
            key: format!("{source} {name}"),
            occurrences: Vec::new(),
            symptoms: Vec::new(),
            missing: None,
            scope: None,
            since: None,
            began: None,
            after_ms: None,
            raise: None,
            incident: None,
            said: Value::Null,
        }
    }

    /// Which trigger it is counted for: alerts and requests have names that others choose, without number.
    pub fn trigger(&self) -> &str {
        match self.source {
            "api" | "signal" | "alertmanager" => self.source,
            _ => &self.name,
        }
    }
}

/// What to record besides when a trigger fires, and for how long: the next time leaves more evidence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Raise {
    pub detail: Detail,
    /// At most a day.
    #[serde(default = "usual")]
    pub r#for: Time,
}

impl Raise {
    pub const USUAL: Time = Time(Duration::from_secs(600));
}

const fn usual() -> Time {
    Raise::USUAL
}
