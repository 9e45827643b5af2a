//! What a source rings when its trigger fires. It makes the firing, keeps a source that sees the same thing a
//! thousand times a second from asking for as many dumps, and remembers what keeps the source from seeing.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde_json::Value;
use tokio::sync::mpsc;

use super::symptom::within;
use super::{Firing, Rule};

/// What a source has seen.
#[derive(Clone, Debug)]
pub struct Seen {
    pub began: Timestamp,
    /// Values for the labels in the trigger's patterns.
    pub labels: BTreeMap<String, String>,
    /// Kept beside the recording.
    pub said: Value,
}

/// How a source stands, for those who ask.
#[derive(Debug, Default)]
pub struct Standing {
    /// How often it saw what it looks for.
    seen: AtomicU64,
    /// What keeps it from seeing.
    trouble: Mutex<Option<String>>,
}

impl Standing {
    pub fn seen(&self) -> u64 {
        self.seen.load(Ordering::Relaxed)
    }

    pub fn trouble(&self) -> Option<String> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// For so long after a firing what a source sees is only counted.
const QUIET: Duration = Duration::from_secs(1);

/// Rings for one trigger.
#[derive(Debug)]
pub struct Bell {
    rule: Arc<Rule>,
    standing: Arc<Standing>,
    to: mpsc::Sender<Firing>,
    rang: Option<Instant>,
}

impl Bell {
    pub fn new(rule: Arc<Rule>, to: mpsc::Sender<Firing>) -> Self {
        Self { rule, standing: Arc::default(), to, rang: None }
    }

    pub fn standing(&self) -> Arc<Standing> {
        Arc::clone(&self.standing)
    }

    /// Says that it was seen.
    pub fn ring(&mut self, seen: Seen) {
        self.standing.seen.fetch_add(1, Ordering::Relaxed);
        if self.rang.is_some_and(|rang| rang.elapsed() < QUIET) {
            return;
        }
        // A daemon with so much to do has its reasons to make a dump already.
        if self.to.try_send(firing(&self.rule, seen)).is_ok() {
            self.rang = Some(Instant::now());
        }
    }

    /// Says what keeps the source from seeing, or that nothing does. Told once, until it changes.
    pub fn trouble(&self, trouble: Option<String>) {
        let mut known = self.standing.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        if *known == trouble {
            return;
        }
        match &trouble {
            Some(why) => ::log::warn!("trigger {}: {why}", self.rule.name),
            None => ::log::info!("trigger {}: it is watched again", self.rule.name),
        }
        *known = trouble;
    }
}

fn firing(rule: &Rule, seen: Seen) -> Firing {
    let since = rule.lookback.and_then(|lookback| seen.began.checked_sub(lookback.0).ok());
    let symptom = match (&rule.symptom, rule.what.plan()) {
        (Some(symptom), _) => symptom.of(&seen.labels),
        (None, plan) => plan.map(|plan| plan.symptom(&seen.labels)),
    };
    let scope = rule.scope.as_ref().and_then(|scope| scope.of(&seen.labels));
    let missing = rule.missing.as_ref().and_then(|missing| missing.of(&seen.labels));
    Firing {
        symptoms: symptom.map(|symptom| within(scope.as_deref(), symptom)).into_iter().collect(),
        missing: missing.map(|missing| within(scope.as_deref(), missing)),
        scope,
        since,
        began: Some(seen.began),
        after_ms: rule.after.map(|after| after.0.as_millis() as u64),
        raise: rule.raise,
        said: seen.said,
        ..Firing::new(&rule.name, rule.source())
    }
}
