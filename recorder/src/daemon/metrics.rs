//! The status in the text format of Prometheus.

use std::fmt::Write;

use super::history::HistoryStatus;
use super::status::Status;

/// One line per metric, with its help and type.
pub fn text(status: &Status) -> String {
    let mut text = String::new();
    let mut metric = |name: &str, kind: &str, help: &str, values: &[(String, f64)]| {
        let _ = writeln!(text, "# HELP wherefore_{name} {help}\n# TYPE wherefore_{name} {kind}");
        for (labels, value) in values {
            let _ = writeln!(text, "wherefore_{name}{labels} {value}");
        }
    };
    let one = |value: f64| vec![(String::new(), value)];
    let rings = |of: fn(&crate::capture::Coverage) -> f64| {
        let label =
            |ring: &crate::capture::Coverage| format!("{{ring=\"{}\"}}", ring.ring.as_str());
        status.rings.iter().map(|ring| (label(ring), of(ring))).collect::<Vec<_>>()
    };
    metric(
        "slots_written_total",
        "counter",
        "Slots written into the rings: events, and what names what they refer to.",
        &rings(|r| r.written as f64),
    );
    metric("window_seconds", "gauge", "How far back a ring is complete.", &rings(|r| r.window_s));
    metric("ring_bytes", "gauge", "Memory of a ring on all CPUs.", &rings(|r| r.bytes as f64));
    metric(
        "lost_events_total",
        "counter",
        "Events that could not be written.",
        &one(status.lost as f64),
    );
    metric(
        "missing_hooks",
        "gauge",
        "Hooks that the kernel refused.",
        &one(status.missing_hooks.len() as f64),
    );
    metric(
        "raised_detail_seconds",
        "gauge",
        "For how long more is going to be recorded than always.",
        &one(status.detail.left_s.unwrap_or(0.0)),
    );
    metric(
        "resident_bytes",
        "gauge",
        "Memory of the daemon without its rings.",
        &one(status.resident_bytes as f64),
    );
    metric("cpu_seconds_total", "counter", "CPU time of the daemon.", &one(status.cpu_s));
    if let Some(cost) = &status.cost {
        metric(
            "probe_run_seconds",
            "gauge",
            "What one run of a probe took on average, by the kernel's count, while it was measured.",
            &one(cost.ns_per_run / 1e9),
        );
    }
    let counts = status.dumps.counts;
    metric("triggers_total", "counter", "Reasons to make a dump.", &one(counts.triggered as f64));
    let outcomes = [("kept", counts.kept), ("refused", counts.refused), ("failed", counts.failed)];
    let outcomes = outcomes.map(|(name, n)| (format!("{{outcome=\"{name}\"}}"), n as f64));
    metric(
        "dumps_total",
        "counter",
        "Dumps that were asked for, by what became of them.",
        &outcomes,
    );
    metric(
        "late_dumps_total",
        "counter",
        "Dumps whose window began too late.",
        &one(counts.late as f64),
    );
    if let Some(history) = &status.history {
        past(history, &mut metric);
    }
    metric("dumps_bytes", "gauge", "Size of all dumps held.", &one(status.dumps.bytes as f64));
    text
}

type Metric<'a> = dyn FnMut(&str, &str, &str, &[(String, f64)]) + 'a;

/// The same of what is kept on disk.
fn past(history: &HistoryStatus, metric: &mut Metric<'_>) {
    let state = &history.state;
    let mut one = |name: &str, kind: &str, help: &str, value: f64| {
        metric(name, kind, help, &[(String::new(), value)]);
    };
    let reach_s = history.reach_s.unwrap_or(0.0);
    one("history_seconds", "gauge", "How far back the history reaches.", reach_s);
    one("history_bytes", "gauge", "Size of the history.", history.bytes as f64);
    let paused = f64::from(u8::from(state.paused.is_some()));
    one("history_paused", "gauge", "Whether the disk refuses the history.", paused);
    let cpu_s = state.cpu_ns as f64 / 1e9;
    one("history_cpu_seconds_total", "counter", "CPU time of the history's follower.", cpu_s);
    let gone = [("missed", state.missed), ("lost", state.lost)];
    let gone = gone.map(|(name, n)| (format!("{{how=\"{name}\"}}"), n as f64));
    let help =
        "Events that the history lacks: refused by the disk, or overwritten before they were read.";
    metric("history_gone_events_total", "counter", help, &gone);
}
