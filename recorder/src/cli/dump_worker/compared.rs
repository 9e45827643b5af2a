//! What a dump's events are compared with: the profile, as far as it was learnt before the incident.

use std::time::Duration;

use jiff::Timestamp;

use crate::capture::clock::monotonic_ns;
use crate::daemon::job::Job;
use crate::daemon::profile::file;
use crate::event::{Event, Names};
use crate::profile::Profile;
use crate::profile::shapes::Shaper;
use crate::profile::unusual::{Unusual, unusual};

/// Takes in what the rings hold of the incident; nothing, where it is not known what is usual.
#[derive(Default)]
pub struct Compared(Option<(Profile, Shaper, u64)>);

/// Causes lie before their effects are noticed: so long before the trigger's own time what happens counts as new.
const INCIDENT: Duration = Duration::from_secs(60);

impl Compared {
    pub fn new(job: &Job) -> Self {
        let profile = job.profile.as_ref().and_then(|path| file::read(path).ok().flatten());
        let Some(profile) = profile else { return Self::default() };
        let began_ns = job.began_ns(job.source.wall_offset_ns);
        let began_ns = began_ns.map_or(u64::MAX, |began_ns| u64::try_from(began_ns).unwrap_or(0));
        let now_ns = monotonic_ns();
        let from_ns = began_ns.min(now_ns).saturating_sub(INCIDENT.as_nanos() as u64);
        let from_ns = from_ns.max(job.cut.since_ns);
        Self(Some((profile, Shaper::new(from_ns, job.hide.clone()), from_ns)))
    }

    pub fn is_wanted(&self) -> bool {
        self.0.is_some()
    }

    pub fn add(&mut self, names: &Names, events: &[Event]) {
        if let Some((_, shaper, _)) = &mut self.0 {
            shaper.add(names, events);
        }
    }

    /// Also where the rings hold less than what is compared: what was learnt since then counts as new.
    pub fn unusual(self, until_ns: u64, wall_offset_ns: i64) -> Vec<Unusual> {
        let Some((profile, shaper, from_ns)) = self.0 else { return Vec::new() };
        let from_ns = i128::from(from_ns) + i128::from(wall_offset_ns);
        let from = Timestamp::from_nanosecond(from_ns).unwrap_or(Timestamp::MAX);
        let (shapes, _) = shaper.end(until_ns);
        unusual(&profile, &shapes, from)
    }
}
