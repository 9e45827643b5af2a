//! What the daemon starts to learn what is usual: adds the shapes of the newest events to a file.

use std::io::{stdin, stdout};
use std::process::ExitCode;

use anyhow::{Context, Result};
use jiff::Timestamp;

use crate::capture::{clock, newest};
use crate::daemon::job::{attend, inherited};
use crate::daemon::profile::{Job, Sampled, file};
use crate::profile::Profile;
use crate::profile::shapes::Shaper;

/// Take one sample for the profile, as the daemon says on standard input
#[derive(Debug, clap::Args)]
pub struct Arguments {}

/// Sends and receives that are looked at, per CPU: thousands show what goes on, and take milliseconds.
const MOST: u32 = 8192;

pub fn run(_: Arguments) -> Result<ExitCode> {
    // Others go first.
    attend(19, 1000)?;
    let job: Job = serde_json::from_reader(stdin()).context("understand the job")?;
    let rings = inherited(job.maps, job.source.shape)?;
    let history = newest::take(&rings, &job.source, MOST);
    let mut shaper = Shaper::new(0, job.hide);
    shaper.add(&history.names, &history.events);
    let until_ns = history.hosts.first().map_or(0, |host| host.bulk_window.to_ns);
    let (shapes, left_out) = shaper.end(until_ns);
    let now = Timestamp::now();
    let (mut profile, anew) = match file::read(&job.file) {
        Ok(profile) => (profile.unwrap_or_else(|| Profile::new(now)), None),
        Err(error) => {
            file::put_aside(&job.file)?;
            (Profile::new(now), Some(format!("{error:#}")))
        }
    };
    profile.learn(&shapes, now);
    profile.left_out += left_out;
    file::write(&job.file, &profile)?;
    let sampled = Sampled {
        samples: profile.samples,
        known_s: now.duration_since(profile.begun).as_secs_f64(),
        acts: profile.acts(),
        left_out: profile.left_out,
        cpu_ns: clock::process_cpu_ns(),
        anew,
    };
    serde_json::to_writer(stdout().lock(), &sampled)?;
    Ok(ExitCode::SUCCESS)
}
