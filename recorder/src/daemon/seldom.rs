//! What whoever may knock can have the daemon say: once a minute, and with how much was left out, so that nobody fills
//! its log.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::describe::printable;

const PAUSE: Duration = Duration::from_secs(60);
/// Of what others wrote no more is repeated.
const MOST: usize = 200;

#[derive(Default)]
pub struct Seldom(Mutex<Said>);

#[derive(Default)]
struct Said {
    last: Option<Instant>,
    left_out: u64,
}

impl Seldom {
    /// What to say now, if anything.
    pub fn say(&self, text: &str, now: Instant) -> Option<String> {
        let mut said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if said.last.is_some_and(|last| now.duration_since(last) < PAUSE) {
            said.left_out += 1;
            return None;
        }
        said.last = Some(now);
        let text = clipped(text);
        match std::mem::take(&mut said.left_out) {
            0 => Some(text),
            left_out => Some(format!("{text} ({left_out} like this before)")),
        }
    }
}

/// A text of others, as it may stand in the log.
pub fn clipped(text: &str) -> String {
    printable(text).chars().take(MOST).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_said_once_a_minute_and_not_at_length() {
        let (seldom, begin) = (Seldom::default(), Instant::now());
        let said = |after_s| seldom.say("no\n", begin + Duration::from_secs(after_s));
        assert_eq!(said(0).as_deref(), Some("no\\n"));
        assert_eq!((said(1), said(59)), (None, None));
        assert_eq!(said(60).as_deref(), Some("no\\n (2 like this before)"));
        assert_eq!(said(61), None);
        assert_eq!(clipped(&"x".repeat(10_000)).len(), MOST);
    }
}
