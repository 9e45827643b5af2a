//! How much the probes record: `flow` always, and what was asked for beyond, for as long as it was asked for.

mod calls;
mod raised;
mod wakes;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::attach::family::{self, Hook};
pub use raised::Details;

/// One thing that is recorded beyond `flow`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum More {
    /// System calls in which a thread waits, or that are about sockets and pipes.
    Syscall,
    /// Which thread woke which.
    Sched,
    /// Packets that the kernel dropped.
    Net,
}

impl More {
    pub const ALL: [Self; 3] = [Self::Syscall, Self::Sched, Self::Net];

    /// As in `--detail`, and in the recording.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Syscall => "syscall",
            Self::Sched => "sched",
            Self::Net => "net",
        }
    }

    /// What it adds.
    pub const fn gives(self) -> &'static str {
        self.hooks()[0].gives
    }

    /// Where its programs meet the kernel, in the order in which they are attached.
    pub const fn hooks(self) -> &'static [Hook] {
        match self {
            Self::Syscall => &family::SYSCALL,
            Self::Sched => &family::SCHED,
            Self::Net => &family::NET,
        }
    }
}

/// What is recorded: `flow`, and any of [`More`] besides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Detail(u8);

impl Detail {
    pub const FLOW: Self = Self(0);

    pub const fn of(more: More) -> Self {
        Self(1 << more as u8)
    }

    pub const fn has(self, more: More) -> bool {
        self.0 & Self::of(more).0 != 0
    }

    /// What one or the other asks for.
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// What is recorded beyond `flow`.
    pub fn more(self) -> impl Iterator<Item = More> {
        More::ALL.into_iter().filter(move |&more| self.has(more))
    }
}

/// `flow+net`.
impl fmt::Display for Detail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("flow")?;
        self.more().try_for_each(|more| write!(f, "+{}", more.as_str()))
    }
}

/// A word that names no detail.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no detail `{word}`: say `flow`{known}", known = known())]
pub struct NoSuchDetail {
    word: String,
}

/// What else there is to say: ``, or `+net` for packets that the kernel drops``.
fn known() -> String {
    let one = |more: More| format!(", or `+{}` for {}", more.as_str(), more.gives());
    More::ALL.map(one).concat()
}

impl From<Detail> for String {
    fn from(detail: Detail) -> Self {
        detail.to_string()
    }
}

impl TryFrom<String> for Detail {
    type Error = NoSuchDetail;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

/// `flow`, `flow+net`, or `+net`: any words, with `+` between them.
impl FromStr for Detail {
    type Err = NoSuchDetail;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut detail = Self::FLOW;
        for word in text.strip_prefix('+').unwrap_or(text).split('+') {
            match More::ALL.into_iter().find(|more| more.as_str() == word) {
                Some(more) => detail = detail.with(Self::of(more)),
                None if word == "flow" => {}
                None => return Err(NoSuchDetail { word: word.to_owned() }),
            }
        }
        Ok(detail)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_detail_is_read_as_it_is_written() {
        for bits in 0..1 << More::ALL.len() {
            let detail = Detail(bits);
            let text = detail.to_string();
            assert_eq!(text.parse(), Ok(detail), "{text}");
            let words = text.trim_start_matches("flow");
            assert_eq!(words.is_empty(), detail == Detail::FLOW);
            if !words.is_empty() {
                assert_eq!(words.parse(), Ok(detail), "{words}");
                assert_eq!(words[1..].parse(), Ok(detail), "{words}");
            }
        }
        for text in ["", "+", "flow+", "netz", "flow net"] {
            assert!(text.parse::<Detail>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_detail_is_what_was_asked_for_together() {
        for one in More::ALL {
            assert!(!Detail::FLOW.has(one));
            for other in More::ALL {
                let both = Detail::of(one).with(Detail::of(other));
                let asked = More::ALL.into_iter().filter(|&more| more == one || more == other);
                assert_eq!(both.more().collect::<Vec<_>>(), asked.collect::<Vec<_>>());
            }
        }
    }
}
