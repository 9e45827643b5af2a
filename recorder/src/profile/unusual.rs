//! What in a stretch is new or out of proportion, compared with what is usual. docs/deployment.md states the rule.

use std::collections::BTreeMap;
use std::fmt;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::shapes::{EOF, Pair, Shape, Shapes, is_failure};
use super::{Profile, Usual};
use crate::describe::printable;
use crate::explain::short_duration;
use crate::quantity::stretch;

/// One thing that is not as usual.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Unusual {
    pub who: String,
    pub port: u16,
    #[serde(flatten)]
    pub how: How,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "unusual", rename_all = "snake_case")]
pub enum How {
    /// A failure that was not there before.
    NewFailure { act: String, times: u64, samples_before: u64, seconds_before: u64 },
    /// Answers take longer than they did: what this share of them took at most.
    Slow { share: f64, wait_ns: u64, wait_before_ns: u64, answers: u64 },
    /// A failure has a larger share in all that goes on between the two.
    MoreFailures { act: String, times: u64, share: f64, share_before: f64 },
    /// Two who did not talk before.
    NewPair { times: u64, samples_before: u64, seconds_before: u64 },
}

/// More would not be read.
pub const MOST: usize = 5;
/// What fewer samples did not see may be there all the same.
pub const LEAST_SAMPLES: u64 = 20;
/// How much longer answers take, and how long at least: what is over in a moment bothers nobody.
const SLOWER: f64 = 4.0;
const LEAST_WAIT_NS: f64 = 1e6;
/// How much more often failures come, how many at least, and which share.
const OFTENER: f64 = 10.0;
const LEAST_TIMES: f64 = 5.0;
const LEAST_SHARE: f64 = 0.01;
/// Ports from here on are given to whoever asks for any: a new one means nothing.
const FIRST_EPHEMERAL: u16 = 32_768;

/// What a program sees of a failure.
const CALLS: [&str; 3] = ["connect", "recv", "send"];

/// What is unusual in shapes that were seen from a time on, the most telling first.
pub fn unusual(profile: &Profile, shapes: &Shapes, from: Timestamp) -> Vec<Unusual> {
    let before = Before {
        samples: profile.samples_before(from),
        seconds: from.duration_since(profile.begun).as_secs().max(0) as u64,
        from,
    };
    if before.samples < LEAST_SAMPLES {
        return Vec::new();
    }
    let mut found: Vec<Unusual> = shapes
        .iter()
        .flat_map(|(pair, shape)| {
            let how = match profile.pairs.get(pair).filter(|usual| usual.first < from) {
                Some(usual) => before.compare(usual, shape),
                None => before.unknown(pair, shape),
            };
            how.into_iter().map(|how| Unusual { who: pair.who.clone(), port: pair.port, how })
        })
        .collect();
    found.sort_by(|a, b| a.how.weight().total_cmp(&b.how.weight()).reverse());
    found.truncate(MOST);
    found
}

/// How much there is to compare with.
struct Before {
    samples: u64,
    seconds: u64,
    from: Timestamp,
}

impl Before {
    fn compare(&self, usual: &Usual, shape: &Shape) -> Vec<How> {
        let known = |act: &str| usual.acts.get(act).filter(|known| known.first < self.from);
        let (total, total_before) = (shape.count(), usual.count().max(1.0));
        let mut how = self.new_failures(shape, |act| known(act).is_none());
        how.extend(shape.acts.iter().filter(|(act, _)| is_failure(act)).filter_map(
            |(act, &times)| more(act, times, times / total, known(act)?.count / total_before),
        ));
        how.extend([0.5, 0.99].into_iter().find_map(|share| slow(usual, shape, share)));
        how
    }

    /// Those who talk for the first time; their failures, where there are any.
    fn unknown(&self, pair: &Pair, shape: &Shape) -> Vec<How> {
        let failures = self.new_failures(shape, |_| true);
        if failures.is_empty() && pair.port < FIRST_EPHEMERAL {
            let times = shape.count() as u64;
            let (samples_before, seconds_before) = (self.samples, self.seconds);
            return vec![How::NewPair { times, samples_before, seconds_before }];
        }
        failures
    }

    /// Of each errno one: that of a call, which is what a program saw, before what the kernel did. Resets say
    /// nothing more where there is an errno.
    fn new_failures(&self, shape: &Shape, new: impl Fn(&str) -> bool) -> Vec<How> {
        let total = shape.count();
        let mut told: BTreeMap<&str, (&str, f64)> = BTreeMap::new();
        for (act, &times) in shape.acts.iter().filter(|(act, _)| is_failure(act) && new(act)) {
            let (op, errno) = act.split_once(' ').unwrap_or((act, ""));
            if errno == EOF && (times < LEAST_TIMES || times < LEAST_SHARE * total) {
                continue;
            }
            let best = told.entry(errno).or_insert((act, times));
            if CALLS.contains(&op) {
                *best = (act, times);
            }
        }
        if told.keys().any(|errno| !["", EOF].contains(errno)) {
            told.remove("");
        }
        let (samples_before, seconds_before) = (self.samples, self.seconds);
        let failure = |(act, times): (&str, f64)| How::NewFailure {
            act: act.to_owned(),
            times: times as u64,
            samples_before,
            seconds_before,
        };
        told.into_values().map(failure).collect()
    }
}

fn more(act: &str, times: f64, share: f64, share_before: f64) -> Option<How> {
    let more = share >= OFTENER * share_before && times >= LEAST_TIMES && share >= LEAST_SHARE;
    more.then(|| How::MoreFailures {
        act: act.to_owned(),
        times: times as u64,
        share,
        share_before,
    })
}

fn slow(usual: &Usual, shape: &Shape, share: f64) -> Option<How> {
    let (now, before) = (shape.waits.quantile(share)?, usual.waits.quantile(share)?);
    (now >= SLOWER * before && now >= LEAST_WAIT_NS).then(|| How::Slow {
        share,
        wait_ns: now as u64,
        wait_before_ns: before as u64,
        answers: shape.waits.count() as u64,
    })
}

impl How {
    /// Kinds in their order; of one kind what is more, or more out of proportion.
    fn weight(&self) -> f64 {
        let (kind, within) = match self {
            Self::NewFailure { times, .. } => (3.0, *times as f64),
            Self::Slow { wait_ns, wait_before_ns, .. } => {
                (2.0, *wait_ns as f64 / *wait_before_ns.max(&1) as f64)
            }
            Self::MoreFailures { share, share_before, .. } => (1.0, share / share_before.max(1e-9)),
            Self::NewPair { times, .. } => (0.0, *times as f64),
        };
        kind + within / (1.0 + within)
    }
}

impl fmt::Display for Unusual {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (who, port) = (printable(&self.who), self.port);
        let before = |samples: u64, seconds: u64| {
            format!("not in {samples} samples of {} before", stretch(seconds as f64))
        };
        let times =
            |times: u64| if times == 1 { "once".to_owned() } else { format!("{times} times") };
        match &self.how {
            How::NewFailure { act, times: n, samples_before, seconds_before } => {
                let before = before(*samples_before, *seconds_before);
                write!(f, "new      {who} to :{port}  {act}, {}; {before}", times(*n))
            }
            How::Slow { share, wait_ns, wait_before_ns, answers } => {
                let (now, before) = (short_duration(*wait_ns), short_duration(*wait_before_ns));
                let percent = share * 100.0;
                write!(
                    f,
                    "slow     {who} to :{port}  p{percent:.0} of {answers} answers {now}, before {before}"
                )
            }
            How::MoreFailures { act, times: n, share, share_before } => {
                let (now, before) = (share * 100.0, share_before * 100.0);
                write!(
                    f,
                    "more     {who} to :{port}  {act}, {}: {now:.1} % of what they do, before {before:.2} %",
                    times(*n)
                )
            }
            How::NewPair { times: n, samples_before, seconds_before } => {
                let before = before(*samples_before, *seconds_before);
                write!(f, "new      {who} to :{port}  {n} events; {before}")
            }
        }
    }
}
