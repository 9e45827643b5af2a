//! What runs with a cause and runs without it prove.

use std::fmt;

/// What came of the runs of one kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Tally {
    pub runs: u32,
    /// Runs in which the cause was there; of those without it, none.
    pub fired: u32,
    /// Runs with the symptom; where the cause was to be there, of those in which it was.
    pub came: u32,
    /// Runs that show nothing: without the symptom, but with events lost.
    pub unclear: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Confirmed,
    NotConfirmed(Because),
    CannotTell(Because),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Because {
    NeverFired,
    Lost,
    NotWith,
    NotAlwaysWith(Tally),
    WithoutToo(Tally),
}

/// Judges by the runs in which the cause was there, and those without it.
pub const fn judge(with: Tally, without: Tally) -> Verdict {
    let (fired, clear) = (with.fired - with.unclear, without.runs - without.unclear);
    if with.fired == 0 {
        Verdict::CannotTell(Because::NeverFired)
    } else if without.came > 0 {
        Verdict::NotConfirmed(Because::WithoutToo(without))
    } else if fired == 0 || clear == 0 {
        Verdict::CannotTell(Because::Lost)
    } else if with.came == 0 {
        Verdict::NotConfirmed(Because::NotWith)
    } else if with.came < fired {
        Verdict::NotConfirmed(Because::NotAlwaysWith(with))
    } else {
        Verdict::Confirmed
    }
}

impl Verdict {
    /// For programs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Confirmed => "confirmed",
            Self::NotConfirmed(_) => "not_confirmed",
            Self::CannotTell(_) => "cannot_tell",
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Confirmed => {
                f.write_str("confirmed: it came whenever the cause was there, and never without it")
            }
            Self::NotConfirmed(why) => write!(f, "not confirmed: {why}"),
            Self::CannotTell(why) => write!(f, "could not tell: {why}"),
        }
    }
}

impl fmt::Display for Because {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NeverFired => f.write_str("the fault was never reached"),
            Self::Lost => f.write_str("events were lost, so that a symptom may have been missed"),
            Self::NotWith => f.write_str("the cause was there, and the symptom did not come"),
            Self::NotAlwaysWith(with) => write!(
                f,
                "it came in {} of {} runs with the cause: that alone does not make it come",
                with.came,
                with.fired - with.unclear
            ),
            Self::WithoutToo(without) => {
                let runs = if without.runs == 1 { "run" } else { "runs" };
                write!(
                    f,
                    "it came without the cause too, in {} of {} {runs}",
                    without.came, without.runs
                )
            }
        }
    }
}
