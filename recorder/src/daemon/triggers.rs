//! The triggers: those of the configuration are watched as long as this lives, and of each, and of those that
//! need no configuration, it is counted what became of it.

use std::collections::BTreeMap;
use std::mem::{Discriminant, discriminant};
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::store::Refusal;
use crate::trigger::bell::Standing;
use crate::trigger::{Bell, Firing, Rule, What, journal, log};

/// Firings that wait for the daemon to take them.
const MOST_WAITING: usize = 64;

pub struct Triggers {
    watched: Vec<Watched>,
    /// To the daemon.
    to: mpsc::Sender<Firing>,
    tallies: BTreeMap<String, Tally>,
}

/// A trigger of the configuration.
struct Watched {
    rule: Arc<Rule>,
    standing: Arc<Standing>,
    /// What watches it, where that is done in user space.
    task: JoinHandle<()>,
}

impl Watched {
    fn begin(rule: &Rule, to: mpsc::Sender<Firing>) -> Self {
        let rule = Arc::new(rule.clone());
        let bell = Bell::new(Arc::clone(&rule), to);
        let standing = bell.standing();
        let task = tokio::spawn(look(Arc::clone(&rule), bell));
        Self { rule, standing, task }
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[derive(Default)]
struct Tally {
    source: &'static str,
    fired: u64,
    refused: u64,
    /// The last was refused, and so.
    refusal: Option<Discriminant<Refusal>>,
}

/// How a trigger stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TriggerStatus {
    pub trigger: String,
    pub source: String,
    /// How often it asked for a dump.
    pub fired: u64,
    /// How often it got none, because of the limits.
    pub refused: u64,
    /// How often it saw what it looks for; several times in a second it asks once.
    pub seen: Option<u64>,
    /// What keeps it from seeing.
    pub trouble: Option<String>,
}

impl Triggers {
    /// Nothing is watched yet; what fires comes out of the channel.
    pub fn new() -> (Self, mpsc::Receiver<Firing>) {
        let (to, fired) = mpsc::channel(MOST_WAITING);
        (Self { watched: Vec::new(), to, tallies: BTreeMap::new() }, fired)
    }

    /// Watches these from now on. What was watched before and is the same goes on, so that it misses nothing.
    pub fn watch(&mut self, rules: &[Rule]) {
        let mut before = std::mem::take(&mut self.watched);
        for rule in rules {
            let same = before.iter().position(|watched| *watched.rule == *rule);
            self.watched.push(match same {
                Some(place) => before.swap_remove(place),
                None => Watched::begin(rule, self.to.clone()),
            });
        }
    }

    /// Counts what became of a firing. Whether that is news: a refusal like the last one is none.
    pub fn count(&mut self, firing: &Firing, refusal: Option<&Refusal>) -> bool {
        let tally = self.tallies.entry(firing.trigger().to_owned()).or_default();
        tally.source = firing.source;
        tally.fired += 1;
        tally.refused += u64::from(refusal.is_some());
        let refusal = refusal.map(discriminant);
        std::mem::replace(&mut tally.refusal, refusal) != refusal
    }

    pub fn status(&self, tcp: bool) -> Vec<TriggerStatus> {
        let always = [("api", true), ("signal", true), ("alertmanager", tcp)];
        let always = always.into_iter().filter(|(_, there)| *there);
        let always = always.map(|(name, _)| self.told(name, name, None));
        let watched = self.watched.iter();
        let watched = watched.map(|w| self.told(&w.rule.name, w.rule.source(), Some(&w.standing)));
        always.chain(watched).collect()
    }

    fn told(&self, name: &str, source: &str, standing: Option<&Standing>) -> TriggerStatus {
        let tally = self.tallies.get(name);
        TriggerStatus {
            trigger: name.to_owned(),
            source: source.to_owned(),
            fired: tally.map_or(0, |tally| tally.fired),
            refused: tally.map_or(0, |tally| tally.refused),
            seen: standing.map(Standing::seen),
            trouble: standing.and_then(Standing::trouble),
        }
    }
}

async fn look(rule: Arc<Rule>, bell: Bell) {
    match &rule.what {
        What::Log { path, matches } => log::watch(path, matches, bell).await,
        What::Journal { unit, matches } => journal::watch(unit, matches, bell).await,
    }
}
