//! What is usual on this machine: who asks whom, with which outcomes, and how long answers take. Learnt from samples, of
//! which the old fade, so that an answer can say what in it is new or out of proportion.
//!
//! It is an observation, not a proof: it points to what a person should look at, and orders nothing.

pub mod shapes;
pub mod unusual;
pub mod waits;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use shapes::{Pair, Shapes};
use waits::Waits;

/// What many samples have shown.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    pub version: u32,
    /// When the first sample was taken, and the last.
    pub begun: Timestamp,
    pub updated: Timestamp,
    pub samples: u64,
    /// When the last ones were taken.
    pub recent: VecDeque<Timestamp>,
    /// Outcomes for which there was no room, in all samples.
    pub left_out: u64,
    pub pairs: BTreeMap<Pair, Usual>,
}

/// What usually goes on between two.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Usual {
    pub first: Timestamp,
    pub acts: BTreeMap<String, Known>,
    pub waits: Waits,
}

/// An outcome: how often it came, of which the old has faded.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Known {
    pub count: f64,
    pub first: Timestamp,
}

pub const VERSION: u32 = 1;
/// After so long a count is half as much.
const HALF_LIFE: Duration = Duration::from_secs(86_400);
/// What has faded to less is forgotten: one event after four days.
const LEAST: f64 = 0.05;
/// Outcomes that are remembered: some hundred bytes each.
pub const MOST_ACTS: usize = 4096;
/// Samples whose time is known.
const MOST_RECENT: usize = 64;

impl Profile {
    pub const fn new(now: Timestamp) -> Self {
        Self {
            version: VERSION,
            begun: now,
            updated: now,
            samples: 0,
            recent: VecDeque::new(),
            left_out: 0,
            pairs: BTreeMap::new(),
        }
    }

    /// Takes in another sample.
    pub fn learn(&mut self, shapes: &Shapes, now: Timestamp) {
        self.fade(now);
        self.samples += 1;
        self.recent.push_back(now);
        let surplus = self.recent.len().saturating_sub(MOST_RECENT);
        self.recent.drain(..surplus);
        let mut room = MOST_ACTS.saturating_sub(self.acts());
        for (pair, shape) in shapes {
            if room == 0 && !self.pairs.contains_key(pair) {
                self.left_out += shape.acts.len() as u64;
                continue;
            }
            let unknown = || Usual { first: now, acts: BTreeMap::new(), waits: Waits::default() };
            let usual = self.pairs.entry(pair.clone()).or_insert_with(unknown);
            usual.waits.add_all(&shape.waits);
            for (act, count) in &shape.acts {
                match usual.acts.get_mut(act) {
                    Some(known) => known.count += count,
                    None if room == 0 => self.left_out += 1,
                    None => {
                        room -= 1;
                        usual.acts.insert(act.clone(), Known { count: *count, first: now });
                    }
                }
            }
        }
    }

    /// Outcomes that are remembered.
    pub fn acts(&self) -> usize {
        self.pairs.values().map(|usual| usual.acts.len()).sum()
    }

    /// How many samples were taken before a time; at least so many, where it is long ago.
    pub fn samples_before(&self, time: Timestamp) -> u64 {
        let since = self.recent.iter().filter(|sample| **sample >= time).count() as u64;
        self.samples - since
    }

    fn fade(&mut self, now: Timestamp) {
        // A clock that was set back fades nothing.
        let passed = now.duration_since(self.updated).as_secs_f64().max(0.0);
        let factor = (-passed / HALF_LIFE.as_secs_f64()).exp2();
        self.updated = now;
        self.pairs.retain(|_, usual| {
            usual.waits.fade(factor);
            usual.acts.retain(|_, known| {
                known.count *= factor;
                known.count >= LEAST
            });
            !usual.acts.is_empty()
        });
    }
}

impl Usual {
    /// Of all outcomes.
    pub fn count(&self) -> f64 {
        self.acts.values().map(|known| known.count).sum()
    }
}

/// As a key of JSON: `nginx:8081`.
impl Serialize for Pair {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{}:{}", self.who, self.port))
    }
}

impl<'de> Deserialize<'de> for Pair {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let pair = text
            .rsplit_once(':')
            .and_then(|(who, port)| Some(Self { who: who.to_owned(), port: port.parse().ok()? }));
        pair.ok_or_else(|| serde::de::Error::custom(format!("`{text}` is not `name:port`")))
    }
}

#[cfg(test)]
mod tests;
