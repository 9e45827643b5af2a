//! `wherefore status`.

use std::io::{Write, stdout};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::capture::Coverage;
use crate::cli::{Hinted, record::grouped};
use crate::daemon::client;
use crate::daemon::config::SOCKET;
use crate::daemon::history::HistoryStatus;
use crate::daemon::profile::ProfileStatus;
use crate::daemon::status::{Status, TriggerStatus};
use crate::daemon::upload::UploadStatus;
use crate::describe::printable;
use crate::event::Ring;
use crate::fault::armed::folder::{self, FOLDER};
use crate::fault::armed::{Armed, ArmedFault};
use crate::quantity::{Size, stretch};

/// Say how the daemon stands (how far back its rings reach, what it costs, what it lost) and which faults are armed
///
/// Exit status 2 when no daemon answers; armed faults are told all the same.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Where the daemon answers
    #[arg(long, value_name = "PATH", default_value = SOCKET)]
    socket: PathBuf,
    /// Measure the probes for a second
    #[arg(long)]
    measure: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub fn run(arguments: Arguments) -> Result<ExitCode> {
    let mut out = stdout().lock();
    let query = if arguments.measure { "?measure_ms=1000" } else { "" };
    let answer = asked(&arguments.socket, "GET", &format!("/v1/status{query}"), Vec::new());
    let answer = match answer {
        Ok(answer) => answer,
        Err(error) => {
            without_daemon(arguments.json, &mut out)?;
            return Err(error);
        }
    };
    let status: Status = serde_json::from_slice(&answer).context("understand the daemon")?;
    if arguments.json {
        serde_json::to_writer_pretty(&mut out, &status)?;
        writeln!(out)?;
    } else {
        text(&status, &mut out)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Faults are armed by others, and are told though no daemon answers.
fn without_daemon(json: bool, out: &mut impl Write) -> Result<()> {
    let armed = folder::all(Path::new(FOLDER))
        .with_context(|| format!("look into {FOLDER} for what is armed"))?;
    if json {
        serde_json::to_writer_pretty(&mut *out, &serde_json::json!({ "armed": armed }))?;
        writeln!(out)?;
    } else {
        faults(&armed, out)?;
    }
    Ok(())
}

fn faults(armed: &[Armed], out: &mut impl Write) -> Result<()> {
    if armed.is_empty() {
        writeln!(out, "armed    no fault")?;
    }
    for by in armed {
        let (scope, age) = (printable(&by.scope), stretch(by.age_s()));
        for fault in &by.faults {
            let ArmedFault { line, mechanism, matched, fired, .. } = fault;
            writeln!(out, "armed    {}", printable(line))?;
            writeln!(
                out,
                "         by {mechanism}, in process {} ({scope}) for {age}: matched {matched}, fired {fired}",
                by.pid
            )?;
        }
    }
    Ok(())
}

/// Asks the daemon; a refusal is an error.
pub fn asked(socket: &Path, method: &str, path: &str, body: Vec<u8>) -> Result<Vec<u8>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let answer = runtime.block_on(client::ask(socket, method, path, body));
    let (status, body) = answer.map_err(|error| {
        error.context(Hinted {
            message: "is the daemon running?".to_owned(),
            hint: "start it with `wherefore daemon`; --socket says where it answers".to_owned(),
        })
    })?;
    if status.is_success() {
        return Ok(body.to_vec());
    }
    let said: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
    bail!("the daemon refused: {}", said["error"].as_str().unwrap_or(status.as_str()));
}

fn text(status: &Status, out: &mut impl Write) -> Result<()> {
    let uptime = Duration::from_secs_f64(status.uptime_s);
    writeln!(
        out,
        "daemon   {} recording {} on Linux {}, {} CPUs, for {}",
        status.pid,
        status.scope,
        status.kernel,
        status.cpus,
        stretch(uptime.as_secs_f64())
    )?;
    status.rings.iter().try_for_each(|ring| writeln!(out, "{}", window(ring)))?;
    writeln!(
        out,
        "memory   {}, and {} of rings; {:.2} s of CPU so far",
        Size(status.resident_bytes),
        Size(status.ring_bytes),
        status.cpu_s
    )?;
    if let Some(cost) = &status.cost {
        let (runs, ns, share) = (cost.runs, cost.ns_per_run, cost.share_of_a_cpu * 100.0);
        writeln!(
            out,
            "cost     {ns:.0} ns per event by the kernel's count, {share:.3} % of a CPU ({} events)",
            grouped(runs)
        )?;
    }
    let missing = status.missing_hooks.iter().map(|hook| format!("; missing: {hook}"));
    writeln!(out, "hooks    {}{}", status.hooks.len(), missing.collect::<String>())?;
    let left = status.detail.left_s.map(|s| format!(", for another {}", stretch(s)));
    writeln!(out, "detail   {}{}", status.detail.detail, left.unwrap_or_default())?;
    writeln!(out, "lost     {} events", grouped(status.lost))?;
    if let Some(history) = &status.history {
        writeln!(out, "{}", past(history))?;
    }
    if let Some(profile) = &status.profile {
        writeln!(out, "{}", usual(profile))?;
    }
    for trigger in &status.triggers {
        writeln!(out, "{}", told(trigger))?;
    }
    faults(&status.armed, out)?;
    for warning in &status.warnings {
        writeln!(out, "warning  {warning}")?;
    }
    let dumps = &status.dumps;
    writeln!(
        out,
        "dumps    {} in {}, {} of {}; {} made, {} refused, {} failed, {} too late",
        dumps.held,
        dumps.directory,
        Size(dumps.bytes),
        Size(dumps.quota_bytes),
        dumps.counts.kept,
        dumps.counts.refused,
        dumps.counts.failed,
        dumps.counts.late,
    )?;
    if let Some(upload) = &dumps.upload {
        writeln!(out, "{}", uploads(upload))?;
    }
    Ok(())
}

/// How copies of dumps to a store stand.
fn uploads(upload: &UploadStatus) -> String {
    let UploadStatus { to, waiting, counts, failure } = upload;
    let failure = failure.as_ref().map(|why| format!("; the last: {}", printable(why)));
    format!(
        "upload   {} to {to}, {}; {waiting} waiting, {} given up, {} tries failed{}",
        counts.uploaded,
        Size(counts.uploaded_bytes),
        counts.given_up,
        counts.failed,
        failure.unwrap_or_default(),
    )
}

fn told(trigger: &TriggerStatus) -> String {
    let TriggerStatus { trigger: name, source, fired, refused, .. } = trigger;
    let kind = if source == name { String::new() } else { format!(" ({source})") };
    let trouble = trigger.trouble.as_ref().map(|why| format!("; {why}")).unwrap_or_default();
    format!("trigger  {}{kind}: fired {fired}, {refused} refused{trouble}", printable(name))
}

/// How far back the daemon at its usual place reaches, and what somebody should do about it; nothing where none runs.
pub fn reach_of_the_daemon() -> Option<Vec<String>> {
    let answer = asked(SOCKET.as_ref(), "GET", "/v1/status", Vec::new()).ok()?;
    let status: Status = serde_json::from_slice(&answer).ok()?;
    let windows = status.rings.iter().map(window);
    let warnings = status.warnings.iter().map(|warning| format!("warning  {warning}"));
    Some(windows.chain(status.history.as_ref().map(past)).chain(warnings).collect())
}

fn window(ring: &Coverage) -> String {
    let what = match ring.ring {
        Ring::Bulk => "sends and receives",
        Ring::Rare => "all else",
    };
    let fits = ring.fits_s.map_or_else(
        || "nothing has happened yet".to_owned(),
        |fits_s| format!("at {:.0}/s it lasts {}", ring.per_second, stretch(fits_s)),
    );
    format!("window   {} of {what} in {}; {fits}", stretch(ring.window_s), Size(ring.bytes))
}

/// How far back the history reaches, or why it does not.
fn past(history: &HistoryStatus) -> String {
    let HistoryStatus { state, directory, .. } = history;
    let (held, most) = (Size(history.bytes), Size(history.most_bytes));
    let reach = match (&state.paused, history.reach_s) {
        (Some(why), _) => format!("pauses: {why}"),
        (None, Some(reach_s)) => format!("back to {} ago", stretch(reach_s)),
        (None, None) => match &history.failure {
            Some(why) => format!("its follower does not answer: {why}"),
            None => "its follower does not answer".to_owned(),
        },
    };
    let (missed, lost) = (grouped(state.missed), grouped(state.lost));
    format!(
        "history  {reach}; {held} of {most} in {directory}; {missed} events missed, {lost} lost"
    )
}

/// What is known of what is usual, and what that costs.
fn usual(profile: &ProfileStatus) -> String {
    let ProfileStatus { samples, known_s, acts, taken, failed, cpu_s, pause_s, .. } = profile;
    let failure = profile.failure.as_ref().filter(|_| *failed > 0);
    let failure = failure.map(|why| format!("; {failed} failed: {}", printable(why)));
    format!(
        "profile  {samples} samples in {} show {acts} outcomes; {taken} taken at {:.1} ms of CPU each, the next after {}{}",
        stretch(*known_s),
        cpu_s * 1e3 / (*taken).max(1) as f64,
        stretch(*pause_s),
        failure.unwrap_or_default(),
    )
}
