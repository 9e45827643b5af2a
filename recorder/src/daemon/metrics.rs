//! The status in the text format of Prometheus.

use std::fmt::Write;

use super::history::HistoryStatus;
use super::profile::ProfileStatus;
use super::status::{Status, TriggerStatus};
use super::upload::UploadStatus;
use crate::capture::Coverage;
use crate::fault::armed::ArmedFault;

/// All metrics, each with its help and type.
pub fn text(status: &Status) -> String {
    let mut page = Page::default();
    rings(&mut page, status);
    probes(&mut page, status);
    if let Some(history) = &status.history {
        past(&mut page, history);
    }
    if let Some(profile) = &status.profile {
        usual(&mut page, profile);
    }
    dumps(&mut page, status);
    faults(&mut page, status);
    page.0
}

#[derive(Default)]
struct Page(String);

const COUNTER: &str = "counter";
const GAUGE: &str = "gauge";

impl Page {
    fn metric(&mut self, kind: &str, name: &str, help: &str, value: f64) {
        self.labelled(kind, name, help, &[(String::new(), value)]);
    }

    fn labelled(&mut self, kind: &str, name: &str, help: &str, values: &[(String, f64)]) {
        let text = &mut self.0;
        // A String takes all that is written to it.
        let _ = writeln!(text, "# HELP wherefore_{name} {help}\n# TYPE wherefore_{name} {kind}");
        for (labels, value) in values {
            let _ = writeln!(text, "wherefore_{name}{labels} {value}");
        }
    }
}

fn rings(page: &mut Page, status: &Status) {
    let values = |of: fn(&Coverage) -> f64| {
        let label = |ring: &Coverage| format!("{{ring=\"{}\"}}", ring.ring.as_str());
        status.rings.iter().map(|ring| (label(ring), of(ring))).collect::<Vec<_>>()
    };
    let help = "Slots written into the rings: events, and what names what they refer to.";
    page.labelled(COUNTER, "slots_written_total", help, &values(|r| r.written as f64));
    let help = "How far back a ring is complete.";
    page.labelled(GAUGE, "window_seconds", help, &values(|r| r.window_s));
    let help = "Memory of a ring on all CPUs.";
    page.labelled(GAUGE, "ring_bytes", help, &values(|r| r.bytes as f64));
}

fn probes(page: &mut Page, status: &Status) {
    let help = "Events that could not be written.";
    page.metric(COUNTER, "lost_events_total", help, status.lost as f64);
    let help = "Hooks that the kernel refused.";
    page.metric(GAUGE, "missing_hooks", help, status.missing_hooks.len() as f64);
    let help = "For how long more is going to be recorded than always.";
    page.metric(GAUGE, "raised_detail_seconds", help, status.detail.left_s.unwrap_or(0.0));
    let help = "Memory of the daemon without its rings.";
    page.metric(GAUGE, "resident_bytes", help, status.resident_bytes as f64);
    page.metric(COUNTER, "cpu_seconds_total", "CPU time of the daemon.", status.cpu_s);
    if let Some(cost) = &status.cost {
        let help = "What a run of a probe took by the kernel's count, while it was measured.";
        page.metric(GAUGE, "probe_run_seconds", help, cost.ns_per_run / 1e9);
    }
}

fn dumps(page: &mut Page, status: &Status) {
    let counts = status.dumps.counts;
    page.metric(COUNTER, "triggers_total", "Reasons to make a dump.", counts.triggered as f64);
    let outcomes = [("kept", counts.kept), ("refused", counts.refused), ("failed", counts.failed)];
    let outcomes = outcomes.map(|(name, n)| (format!("{{outcome=\"{name}\"}}"), n as f64));
    let help = "Dumps that were asked for, by what became of them.";
    page.labelled(COUNTER, "dumps_total", help, &outcomes);
    let help = "Dumps whose window began too late.";
    page.metric(COUNTER, "late_dumps_total", help, counts.late as f64);
    let help = "Parts of dumps that other hosts were asked for and that did not come.";
    page.metric(COUNTER, "missing_parts_total", help, counts.missing_parts as f64);
    let help = "How often a trigger fired, by whether the limits allowed a dump.";
    page.labelled(COUNTER, "trigger_fired_total", help, &triggers(&status.triggers));
    let troubled = status.triggers.iter().filter(|t| t.trouble.is_some()).count();
    let help = "Triggers that cannot see what they look for.";
    page.metric(GAUGE, "troubled_triggers", help, troubled as f64);
    page.metric(GAUGE, "dumps_bytes", "Size of all dumps held.", status.dumps.bytes as f64);
    if let Some(upload) = &status.dumps.upload {
        uploads(page, upload);
    }
}

/// Copies of dumps to a store.
fn uploads(page: &mut Page, upload: &UploadStatus) {
    let counts = upload.counts;
    let help = "Dumps that wait to be uploaded.";
    page.metric(GAUGE, "uploads_waiting", help, upload.waiting as f64);
    page.metric(COUNTER, "uploads_total", "Dumps that were uploaded.", counts.uploaded as f64);
    let help = "Size of the dumps that were uploaded.";
    page.metric(COUNTER, "uploaded_bytes_total", help, counts.uploaded_bytes as f64);
    let help = "Tries to upload a dump that failed.";
    page.metric(COUNTER, "failed_uploads_total", help, counts.failed as f64);
    let help = "Dumps that will not be uploaded.";
    page.metric(COUNTER, "given_up_uploads_total", help, counts.given_up as f64);
}

fn faults(page: &mut Page, status: &Status) {
    let armed = || status.armed.iter().flat_map(|by| by.faults.iter().map(move |f| (by.pid, f)));
    let help = "Faults that recorders of this machine have armed.";
    page.metric(GAUGE, "armed_faults", help, armed().count() as f64);
    let values = |of: fn(&ArmedFault) -> u64| {
        let value = |(pid, fault): (u32, &ArmedFault)| {
            let labels = format!("{{fault=\"{}\",pid=\"{pid}\"}}", escaped(&fault.fault));
            (labels, of(fault) as f64)
        };
        armed().map(value).collect::<Vec<_>>()
    };
    let help = "Events that an armed fault is about.";
    page.labelled(COUNTER, "fault_matched_total", help, &values(|fault| fault.matched));
    let help = "Events that an armed fault struck.";
    page.labelled(COUNTER, "fault_fired_total", help, &values(|fault| fault.fired));
}

/// A label's value as the format has it.
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

fn triggers(triggers: &[TriggerStatus]) -> Vec<(String, f64)> {
    let counted = triggers.iter().flat_map(|t| {
        let labels = |outcome| {
            format!("{{trigger=\"{}\",source=\"{}\",outcome=\"{outcome}\"}}", t.trigger, t.source)
        };
        let admitted = t.fired - t.refused;
        [(labels("admitted"), admitted as f64), (labels("refused"), t.refused as f64)]
    });
    counted.collect()
}

/// What is kept on disk.
fn past(page: &mut Page, history: &HistoryStatus) {
    let state = &history.state;
    let reach_s = history.reach_s.unwrap_or(0.0);
    page.metric(GAUGE, "history_seconds", "How far back the history reaches.", reach_s);
    page.metric(GAUGE, "history_bytes", "Size of the history.", history.bytes as f64);
    let paused = f64::from(u8::from(state.paused.is_some()));
    page.metric(GAUGE, "history_paused", "Whether the disk refuses the history.", paused);
    let cpu_s = state.cpu_ns as f64 / 1e9;
    let help = "CPU time of the history's follower.";
    page.metric(COUNTER, "history_cpu_seconds_total", help, cpu_s);
    let gone = [("missed", state.missed), ("lost", state.lost)];
    let gone = gone.map(|(name, n)| (format!("{{how=\"{name}\"}}"), n as f64));
    let help =
        "Events that the history lacks: refused by the disk, or overwritten before they were read.";
    page.labelled(COUNTER, "history_gone_events_total", help, &gone);
}

/// What is known of what is usual.
fn usual(page: &mut Page, profile: &ProfileStatus) {
    let outcomes = [("taken", profile.taken), ("failed", profile.failed)];
    let outcomes = outcomes.map(|(name, n)| (format!("{{outcome=\"{name}\"}}"), n as f64));
    page.labelled(COUNTER, "profile_samples_total", "Samples for the profile.", &outcomes);
    let help = "CPU time of the profile's samples.";
    page.metric(COUNTER, "profile_cpu_seconds_total", help, profile.cpu_s);
    let help = "Outcomes that the profile knows.";
    page.metric(GAUGE, "profile_outcomes", help, profile.acts as f64);
}
