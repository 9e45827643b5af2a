//! Alertmanager's webhook: a group of alerts becomes at most one firing. What is resolved, and what was
//! dumped before, fires nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::symptom::{Symptom, within};
use super::{Firing, Raise};
use crate::pattern::Glob;
use crate::quantity::Time;

/// What alerts with certain labels mean: a part of the configuration.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AlertRule {
    /// Labels that an alert must have; `*` stands for anything.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Which event to explain. `{label}` stands for the alert's label of that name.
    pub symptom: Option<Symptom>,
    /// The event that did not happen.
    pub missing: Option<Symptom>,
    /// Where to look for both, and for what failed where neither is said.
    pub scope: Option<Symptom>,
    /// How long before the alert began its cause may lie: the rule's own `for` and range, and the intervals
    /// of scraping and evaluation.
    #[serde(default = "lookback")]
    pub lookback: Time,
    /// What to record besides from then on, and for how long.
    pub raise: Option<Raise>,
}

const fn lookback() -> Time {
    Time(Duration::from_secs(600))
}

/// What Alertmanager posts, version 4: what of it is needed.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
pub struct Notification {
    #[serde(default)]
    alerts: Vec<Alert>,
}

#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct Alert {
    status: String,
    labels: BTreeMap<String, String>,
    #[schemars(with = "String")]
    starts_at: Timestamp,
    #[serde(default)]
    fingerprint: String,
}

/// Of one group more are not looked at.
const MOST_ALERTS: usize = 1000;
/// Different patterns of one group that are tried.
const MOST_SYMPTOMS: usize = 8;

/// What a notification asks for; nothing when all its alerts are resolved.
pub fn firing(
    notification: &Notification,
    rules: &[AlertRule],
    said: serde_json::Value,
) -> Option<Firing> {
    let all = notification.alerts.iter().take(MOST_ALERTS);
    let mut alerts: Vec<&Alert> = all.filter(|alert| alert.status == "firing").collect();
    alerts.sort_by_key(|alert| alert.starts_at);
    let first = alerts.first()?;
    let rule_of = |alert: &&Alert| rules.iter().find(|rule| rule.applies(alert));
    let lookback = alerts.iter().filter_map(rule_of).map(|rule| rule.lookback).max_by_key(|t| t.0);
    let mut symptoms: Vec<String> = Vec::new();
    let scope_of = |alert: &Alert, rule: &AlertRule| rule.scope.as_ref()?.of(&alert.labels);
    let scoped = |alert: &Alert, rule: &AlertRule, pattern: &Symptom| {
        Some(within(scope_of(alert, rule).as_deref(), pattern.of(&alert.labels)?))
    };
    let symptom_of = |alert: &&Alert| {
        let rule = rule_of(alert)?;
        scoped(alert, rule, rule.symptom.as_ref()?)
    };
    let missing_of = |alert: &&Alert| {
        let rule = rule_of(alert)?;
        scoped(alert, rule, rule.missing.as_ref()?)
    };
    for symptom in alerts.iter().filter_map(symptom_of) {
        if symptoms.len() < MOST_SYMPTOMS && !symptoms.contains(&symptom) {
            symptoms.push(symptom);
        }
    }
    let name = first.labels.get("alertname").map_or("alert", String::as_str);
    let mut keys: Vec<String> = alerts.iter().map(|alert| alert.identity()).collect();
    keys.sort();
    Some(Firing {
        key: keys.join(" "),
        occurrences: alerts.iter().map(|a| format!("{} {}", a.identity(), a.starts_at)).collect(),
        symptoms,
        missing: alerts.iter().find_map(missing_of),
        scope: alerts.iter().find_map(|alert| scope_of(alert, rule_of(alert)?)),
        since: first.starts_at.checked_sub(lookback.unwrap_or_else(self::lookback).0).ok(),
        began: Some(first.starts_at),
        raise: alerts.iter().find_map(|alert| rule_of(alert)?.raise),
        said,
        ..Firing::new(name, "alertmanager")
    })
}

impl AlertRule {
    fn applies(&self, alert: &Alert) -> bool {
        self.labels.iter().all(|(name, wanted)| {
            alert.labels.get(name).is_some_and(|value| glob(wanted).matches(value))
        })
    }
}

fn glob(text: &str) -> Glob {
    Glob { pieces: text.split('*').map(str::to_owned).collect() }
}

impl Alert {
    /// What it is about: not when.
    fn identity(&self) -> String {
        if !self.fingerprint.is_empty() {
            return self.fingerprint.clone();
        }
        let labels = self.labels.iter().map(|(name, value)| format!("{name}={value}"));
        labels.collect::<Vec<_>>().join(",")
    }
}

#[cfg(test)]
mod tests;
