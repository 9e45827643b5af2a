//! The one thing that a fault does, from the table that may name it.

use toml::Spanned;

use super::error::FaultError;
use super::form::ActionForm;
use super::parse::Source;
use super::spec::{Action, Drop};
use crate::pattern::{Key, Value};

/// The keys of a fault's `do`.
pub(super) const ACTIONS: [&str; 9] =
    ["error", "return", "drop", "delay", "pause", "kill", "destroy", "crash", "restart"];

impl Source<'_> {
    pub(super) fn action(&self, form: &Spanned<ActionForm>) -> Result<Action, FaultError> {
        let action = form.get_ref();
        let asked = [
            action.error.as_ref().map(|error| self.errno(error).map(Action::Error)),
            action.r#return.as_ref().map(|value| self.returned(value)),
            action.drop.as_ref().map(|what| self.drop(what).map(Action::Drop)),
            action.delay.as_ref().map(|time| self.duration(time).map(Action::Delay)),
            action.pause.as_ref().map(|time| self.duration(time).map(Action::Pause)),
            action.kill.as_ref().map(|signal| self.signal(signal).map(Action::Kill)),
            action.destroy.as_ref().map(|flag| self.flag(flag, Action::Destroy)),
            action.crash.as_ref().map(|flag| self.flag(flag, Action::Crash)),
            action.restart.as_ref().map(|flag| self.flag(flag, Action::Restart)),
        ];
        let mut asked = asked.into_iter().flatten();
        let hint = format!("one of: {}", ACTIONS.join(" "));
        let Some(first) = asked.next() else {
            return Err(self.fail(form.span(), "nothing is done to the event").hint(hint));
        };
        if asked.next().is_some() {
            return Err(self.fail(form.span(), "a fault does one thing").hint(hint));
        }
        first
    }

    /// The kernel's calls return −4095 to −1 for errors, and no number of bytes beyond 31 bits.
    fn returned(&self, value: &Spanned<i64>) -> Result<Action, FaultError> {
        let number = *value.get_ref();
        if (-4095..=i64::from(i32::MAX)).contains(&number) {
            return Ok(Action::Return(number));
        }
        let message = format!("no system call of these returns {number}");
        Err(self.fail(value.span(), message))
    }

    fn drop(&self, what: &Spanned<String>) -> Result<Drop, FaultError> {
        let found = Drop::ALL.into_iter().find(|drop| drop.as_str() == what.get_ref());
        found.ok_or_else(|| {
            let hint = format!("`drop` takes {}", Drop::ALL.map(Drop::as_str).join(" "));
            self.fail(what.span(), format!("`{}` cannot be dropped", what.get_ref())).hint(hint)
        })
    }

    fn signal(&self, text: &Spanned<String>) -> Result<u8, FaultError> {
        match self.value(Key::Signal, text)? {
            Value::Signal(signal) => Ok(signal),
            _ => Err(self.fail(text.span(), "it is not a signal")),
        }
    }

    fn flag(&self, flag: &Spanned<bool>, action: Action) -> Result<Action, FaultError> {
        if *flag.get_ref() {
            return Ok(action);
        }
        Err(self.fail(flag.span(), "`false` does nothing: leave the key out"))
    }
}
