//! What somebody should be told before it is too late: alerts whose cause will be gone, a history that is not kept, and
//! triggers that miss events.

use std::time::Duration;

use super::config::Config;
use super::history::HistoryStatus;
use crate::capture::Coverage;

/// In the order of their weight.
pub fn of(
    config: &Config,
    rings: &[Coverage],
    history: Option<&HistoryStatus>,
    unwatched: u64,
) -> Vec<String> {
    let mut warnings = Vec::new();
    if let Some(HistoryStatus { state, .. }) = history
        && let Some(why) = &state.paused
    {
        warnings.push(format!("the history pauses ({why}); dumps have only what the rings hold"));
    }
    if unwatched > 0 {
        warnings.push(format!(
            "{unwatched} times the kernel skipped a program that watches for triggers, since it was at work: what happened then set off none"
        ));
    }
    warnings.extend(too_late(config, rings, history));
    warnings
}

/// Whether alerts look back further than what is kept lasts at the present rate.
fn too_late(
    config: &Config,
    rings: &[Coverage],
    history: Option<&HistoryStatus>,
) -> Option<String> {
    let wanted_s = config.alert.iter().map(|rule| rule.lookback.0).max()?.as_secs_f64();
    let rings_s = rings.iter().filter_map(|ring| ring.fits_s).fold(f64::INFINITY, f64::min);
    let kept_s = history.map_or(0.0, lasts_s).max(rings_s);
    (kept_s < wanted_s).then(|| {
        let (kept, wanted) = (Duration::from_secs(kept_s as u64), Duration::from_secs(wanted_s as u64));
        format!(
            "alerts look back {wanted:?}, and what is kept lasts {kept:?} at this rate: set `ring` higher, or `history`",
        )
    })
}

/// How long a history is before the oldest of it goes, at the rate at which it has grown so far.
fn lasts_s(history: &HistoryStatus) -> f64 {
    let age_s = history.age_s.unwrap_or(f64::INFINITY);
    let reach_s = history.reach_s.unwrap_or(0.0);
    let by_size_s = reach_s * history.most_bytes as f64 / history.bytes.max(1) as f64;
    if history.state.paused.is_some() { 0.0 } else { age_s.min(by_size_s) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::history::control::State;
    use crate::event::Ring;

    fn config(lookback: &str) -> Config {
        let alert = format!("[[alert]]\nlabels = {{ job = 'web' }}\nlookback = '{lookback}'\n");
        toml::from_str(&alert).expect("it is right")
    }

    fn ring(fits_s: f64) -> Coverage {
        let (ring, fits_s) = (Ring::Bulk, Some(fits_s));
        Coverage { ring, bytes: 0, window_s: 0.0, fits_s, per_second: 0.0, written: 0 }
    }

    /// One that has taken a quarter of its room in so long.
    fn history(reach_s: f64, paused: Option<&str>) -> HistoryStatus {
        HistoryStatus {
            directory: String::new(),
            segments: 1,
            bytes: 1 << 20,
            most_bytes: 4 << 20,
            reach_s: Some(reach_s),
            age_s: Some(500.0),
            state: State { paused: paused.map(str::to_owned), ..State::default() },
            restarts: 0,
            failure: None,
        }
    }

    fn told(lookback: &str, fits_s: f64, history: Option<HistoryStatus>) -> Vec<String> {
        of(&config(lookback), &[ring(fits_s)], history.as_ref(), 0)
    }

    #[test]
    fn an_alert_that_looks_back_too_far_is_warned_about() {
        assert_eq!(told("100s", 200.0, None), [""; 0]);
        let late = told("300s", 200.0, None);
        assert!(
            late[0].starts_with("alerts look back 300s, and what is kept lasts 200s"),
            "{late:?}"
        );
        assert_eq!(told("300s", 200.0, Some(history(100.0, None))), [""; 0]);
        assert_eq!(told("300s", 200.0, Some(history(10.0, None))).len(), 1, "40 s fit");
        assert_eq!(told("600s", 200.0, Some(history(1000.0, None))).len(), 1, "500 s are kept");
    }

    #[test]
    fn a_history_that_pauses_is_told_first() {
        let told = told("300s", 200.0, Some(history(1000.0, Some("no space"))));
        assert_eq!(told.len(), 2);
        assert!(told[0].starts_with("the history pauses (no space)"), "{told:?}");
    }
}
