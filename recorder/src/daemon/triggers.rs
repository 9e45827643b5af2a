//! The triggers: those of the configuration are watched as long as this lives, and of each, and of those that
//! need no configuration, it is counted what became of it.

use std::collections::BTreeMap;
use std::mem::{Discriminant, discriminant};
use std::sync::{Arc, Mutex, PoisonError};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::store::Refusal;
use crate::capture::Capture;
use crate::capture::control::Control;
use crate::trigger::bell::Standing;
use crate::trigger::kernel::{self, Bells, Plan};
use crate::trigger::{Bell, Firing, Rule, What, journal, log};

/// Firings that wait for the daemon to take them.
const MOST_WAITING: usize = 64;

pub struct Triggers {
    watched: Vec<Watched>,
    /// To the daemon.
    to: mpsc::Sender<Firing>,
    /// Of those that the kernel watches for.
    bells: Bells,
    /// What listens to the kernel, once there is a reason.
    listener: Option<JoinHandle<()>>,
    tallies: BTreeMap<String, Tally>,
}

/// A trigger of the configuration.
struct Watched {
    rule: Arc<Rule>,
    standing: Arc<Standing>,
    by: Watcher,
}

/// What watches a trigger.
enum Watcher {
    /// A task in user space.
    Task(JoinHandle<()>),
    /// The kernel half, which rings this.
    Kernel(Arc<Mutex<Bell>>),
}

impl Watched {
    fn begin(rule: &Rule, to: mpsc::Sender<Firing>) -> Self {
        let rule = Arc::new(rule.clone());
        let bell = Bell::new(Arc::clone(&rule), to);
        let standing = bell.standing();
        let by = match rule.what {
            What::Kernel { .. } => Watcher::Kernel(Arc::new(Mutex::new(bell))),
            _ => Watcher::Task(tokio::spawn(look(Arc::clone(&rule), bell))),
        };
        Self { rule, standing, by }
    }

    /// What the kernel is to watch for, and what it rings.
    fn kernel(&self) -> Option<(Plan, Arc<Mutex<Bell>>)> {
        match &self.by {
            Watcher::Kernel(bell) => Some((self.rule.what.plan()?.clone(), Arc::clone(bell))),
            Watcher::Task(_) => None,
        }
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        if let Watcher::Task(task) = &self.by {
            task.abort();
        }
    }
}

#[derive(Default)]
struct Tally {
    source: &'static str,
    fired: u64,
    refused: u64,
    /// How it was refused since a dump was made last.
    refusals: Vec<Discriminant<Refusal>>,
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
        let (watched, bells, tallies) = Default::default();
        (Self { watched, to, bells, listener: None, tallies }, fired)
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

    /// Has the kernel watch for what it is to watch for. Where it refuses, the others are watched all the same.
    pub fn arm(&mut self, capture: &mut Capture) {
        let kernels: Vec<(Plan, Arc<Mutex<Bell>>)> =
            self.watched.iter().filter_map(Watched::kernel).collect();
        if kernels.is_empty() && self.listener.is_none() {
            return;
        }
        let plans: Vec<&Plan> = kernels.iter().map(|(plan, _)| plan).collect();
        let ebpf = capture.maps_mut();
        let mut bells = self.bells.lock().unwrap_or_else(PoisonError::into_inner);
        let armed = match &self.listener {
            Some(_) => Ok(()),
            None => Control::take(ebpf).map(|control| {
                self.listener = Some(tokio::spawn(listen(control, Arc::clone(&self.bells))));
            }),
        };
        let armed = armed.and_then(|()| kernel::arm(ebpf, &plans));
        let trouble = armed.err().map(|error| format!("the kernel does not watch: {error:#}"));
        for (_, bell) in &kernels {
            bell.lock().unwrap_or_else(PoisonError::into_inner).trouble(trouble.clone());
        }
        *bells = kernels;
    }

    /// Counts what became of a firing. Whether that is news: a refusal like one since the last dump is none.
    pub fn count(&mut self, firing: &Firing, refusal: Option<&Refusal>) -> bool {
        let tally = self.tallies.entry(firing.trigger().to_owned()).or_default();
        tally.source = firing.source;
        tally.fired += 1;
        tally.refused += u64::from(refusal.is_some());
        let Some(refusal) = refusal.map(discriminant) else {
            tally.refusals.clear();
            return true;
        };
        let known = tally.refusals.contains(&refusal);
        if !known {
            tally.refusals.push(refusal);
        }
        !known
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
        What::Kernel { .. } => {}
    }
}

async fn listen(control: Control, bells: Bells) {
    if let Err(error) = kernel::listen(control, bells).await {
        ::log::error!("the kernel is not heard any more: {error:#}");
    }
}
