//! More detail for a time: what a trigger or a person asks for is recorded until its time is up, so that the next
//! occurrence of a fault leaves more evidence and nothing is paid for it afterwards.

use std::time::{Duration, Instant};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Daemon;
use crate::capture::detail::Detail;
use crate::quantity::Time;
use crate::trigger::Raise;

/// A [`Raise`], as it is asked of the API.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DetailRequest {
    /// `flow`, or with more: any of `+syscall`, `+sched` and `+net`, as in `flow+syscall+net`.
    #[schemars(with = "String")]
    pub detail: Detail,
    /// For how long, ms; default: ten minutes.
    pub for_ms: Option<u64>,
}

impl From<DetailRequest> for Raise {
    fn from(request: DetailRequest) -> Self {
        let time = request.for_ms.map_or(Raise::USUAL, |ms| Time(Duration::from_millis(ms)));
        Self { detail: request.detail, r#for: time }
    }
}

const MOST: Duration = Duration::from_secs(86_400);

/// What is recorded now, and how much longer.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct DetailStatus {
    /// `flow`, or with more: any of `+syscall`, `+sched` and `+net`, as in `flow+syscall+net`.
    #[schemars(with = "String")]
    pub detail: Detail,
    /// Until it is `flow` again, s.
    pub left_s: Option<f64>,
}

impl Daemon {
    /// Records more from now on. What was asked for before stays, and the longest time counts for all.
    pub(super) fn raise(&mut self, raise: Raise) -> anyhow::Result<DetailStatus> {
        let detail = match raise.detail {
            Detail::FLOW => Detail::FLOW,
            more => self.capture.detail().with(more),
        };
        self.capture.set_detail(detail)?;
        let until = Instant::now() + raise.r#for.0.min(MOST);
        self.raised_until = match (detail, self.raised_until) {
            (Detail::FLOW, _) => None,
            (_, Some(before)) => Some(before.max(until)),
            (_, None) => Some(until),
        };
        super::give_back_memory();
        log::info!("recording {detail}");
        Ok(self.detail_status())
    }

    /// Goes back to `flow`; what cannot be detached is tried again a little later.
    pub(super) fn lower(&mut self) {
        self.raised_until = None;
        match self.capture.set_detail(Detail::FLOW) {
            Ok(()) => log::info!("recording {}", Detail::FLOW),
            Err(error) => {
                log::error!("stop recording {}: {error:#}", self.capture.detail());
                self.raised_until = Some(Instant::now() + Raise::USUAL.0);
            }
        }
    }

    pub(super) fn detail_status(&self) -> DetailStatus {
        let left = self.raised_until.map(|until| until.saturating_duration_since(Instant::now()));
        DetailStatus { detail: self.capture.detail(), left_s: left.map(|left| left.as_secs_f64()) }
    }
}
