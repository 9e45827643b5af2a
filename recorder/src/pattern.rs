//! The one little language that says which events are meant: `comm=redis-server op=recv error=ECONNRESET`.
//!
//! A [`Pattern`] is text parsed into tests, all of which must hold. It knows no recording;
//! [`Pattern::bind`] looks its names and addresses up in one history, so that testing an event is a few
//! loads. docs/patterns.md is the reference.

mod bind;
mod key;
mod literal;
mod parse;
#[cfg(test)]
mod tests;
mod value;

use std::fmt;

pub use bind::Bound;
pub use key::{Key, Kind};
pub(crate) use literal::duration_ns;
pub(crate) use parse::near;
pub use value::{AddressTest, FlagName, Glob, Lane, TimeOfDay, Value};
pub(crate) use value::{duration_text, value_text};

use crate::event::{Event, History};

/// A conjunction of tests on one event; the default one has none and fits all. `parse`, which wants one at least, and
/// `Display` are inverse.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pattern {
    pub tests: Vec<Test>,
}

/// One `key=value,value`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Test {
    pub key: Key,
    pub relation: Relation,
    /// Any one of these suffices; exactly one where the relation orders.
    pub values: Vec<Value>,
}

/// How an event's column must stand to a test's values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Relation {
    Is,
    /// The opposite of [`Relation::Is`]: it holds, too, for an event that has no such column.
    IsNot,
    Greater,
    GreaterOrEqual,
    Less,
    LessOrEqual,
}

impl Relation {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Is => "=",
            Self::IsNot => "!=",
            Self::Greater => ">",
            Self::GreaterOrEqual => ">=",
            Self::Less => "<",
            Self::LessOrEqual => "<=",
        }
    }

    pub const fn orders(self) -> bool {
        !matches!(self, Self::Is | Self::IsNot)
    }
}

impl Pattern {
    /// Looks the pattern's names up in one history; events of that history alone can then be tested.
    pub fn bind(&self, history: &History) -> Bound {
        Bound::new(self, history)
    }

    /// Whether one event matches. For more than one event, [`bind`](Self::bind) once.
    pub fn matches(&self, history: &History, event: &Event) -> bool {
        self.bind(history).matches(event)
    }

    /// The keys that are tested, each once, in the order of the text.
    pub fn keys(&self) -> Vec<Key> {
        let mut keys = Vec::new();
        for test in &self.tests {
            if !keys.contains(&test.key) {
                keys.push(test.key);
            }
        }
        keys
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, test) in self.tests.iter().enumerate() {
            write!(f, "{}{test}", if i == 0 { "" } else { " " })?;
        }
        Ok(())
    }
}

impl fmt::Display for Test {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.key.as_str(), self.relation.as_str())?;
        for (i, value) in self.values.iter().enumerate() {
            if i > 0 {
                f.write_str(",")?;
            }
            value.print(self.key, f)?;
        }
        Ok(())
    }
}

/// What is wrong with a pattern, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct PatternError {
    /// The whole pattern.
    pub text: String,
    /// In characters, from 1.
    pub column: usize,
    pub message: String,
    /// What to write instead.
    pub hint: Option<String>,
}

impl fmt::Display for PatternError {
    /// The message, the pattern with a caret below the column, and the hint.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // One character stays one column, or the caret would point elsewhere.
        let shown: String =
            self.text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        write!(f, "bad pattern: {}", self.message)?;
        if !shown.trim().is_empty() {
            write!(f, "\n    {shown}\n    {:>width$}", "^", width = self.column)?;
        }
        match &self.hint {
            Some(hint) => write!(f, "\nhint: {hint}"),
            None => Ok(()),
        }
    }
}
