//! From [`Faults`] back to text: as a file, and as one line. Parsing what is printed gives the same faults.

use std::fmt;
use std::time::Duration;

use toml::Spanned;

use super::form::{ActionForm, FaultForm, FileForm, LimitForm, OneOrMore, PartitionForm, WhenForm};
use super::spec::{Action, Fault, Faults, Latch, Limit, Nature, Partition, Pick, Target, When};
use crate::pattern::{Pattern, Value, duration_text, value_text};

impl Faults {
    /// The fault file that says the same.
    pub fn to_toml(&self) -> String {
        let mut form = FileForm { seed: self.seed, ..FileForm::default() };
        for fault in &self.faults {
            match &fault.nature {
                Nature::Event(target) => form.fault.push(fault_form(fault, target)),
                Nature::Partition(cut) => form.partition.push(partition_form(fault, cut)),
            }
        }
        toml::to_string(&form).expect("tables of texts and numbers can be written")
    }
}

fn place<T>(value: T) -> Spanned<T> {
    Spanned::new(0..0, value)
}

fn text(value: impl fmt::Display) -> Option<Spanned<String>> {
    Some(place(value.to_string()))
}

fn time(duration: Duration) -> String {
    duration_text(duration.as_nanos() as i128)
}

fn number(n: u64) -> Option<Spanned<i64>> {
    Some(place(i64::try_from(n).expect("it was read from one")))
}

fn fault_form(fault: &Fault, target: &Target) -> FaultForm {
    let syscalls: Vec<String> = target.syscalls.iter().map(|s| s.as_str().to_owned()).collect();
    FaultForm {
        name: place(fault.name.clone()),
        r#match: place(target.pattern.to_string()),
        syscall: (!syscalls.is_empty()).then(|| place(OneOrMore::More(syscalls))),
        when: (target.when != When::default()).then(|| place(when_form(&target.when))),
        from: latch(&fault.from, &Latch::Now),
        until: latch(&fault.until, &Latch::Never),
        r#do: place(action_form(target.action)),
        limit: limit_form(fault.limit),
        via: fault.via.and_then(|via| text(via.as_str())),
    }
}

fn partition_form(fault: &Fault, cut: &Partition) -> PartitionForm {
    PartitionForm {
        name: place(fault.name.clone()),
        between: place(cut.between.iter().map(|side| place(side.to_string())).collect()),
        one_way: cut.one_way,
        error: cut.error.map(|errno| place(value_text(&Value::Error(errno)))),
        from: latch(&fault.from, &Latch::Now),
        until: latch(&fault.until, &Latch::Never),
        limit: limit_form(fault.limit),
        via: fault.via.and_then(|via| text(via.as_str())),
    }
}

fn latch(latch: &Latch, default: &Latch) -> Option<Spanned<String>> {
    if latch == default {
        return None;
    }
    match latch {
        Latch::Now => text("now"),
        Latch::Never => text("never"),
        Latch::After(duration) => text(time(*duration)),
        Latch::At(pattern) => text(pattern),
    }
}

fn when_form(when: &When) -> WhenForm {
    let mut form = WhenForm {
        after: when.after.as_ref().and_then(text),
        before: when.before.as_ref().and_then(text),
        ..WhenForm::default()
    };
    match when.pick {
        Pick::All => {}
        Pick::Nth(n) => form.nth = number(n),
        Pick::Every(n) => form.every = number(n),
        Pick::Probability(p) => form.probability = Some(place(p)),
    }
    form
}

fn action_form(action: Action) -> ActionForm {
    let mut form = ActionForm::default();
    match action {
        Action::Error(errno) => form.error = text(value_text(&Value::Error(errno))),
        Action::Return(value) => form.r#return = Some(place(value)),
        Action::Drop(drop) => form.drop = text(drop.as_str()),
        Action::Delay(duration) => form.delay = text(time(duration)),
        Action::Pause(duration) => form.pause = text(time(duration)),
        Action::Kill(signal) => form.kill = text(value_text(&Value::Signal(signal))),
        Action::Destroy => form.destroy = Some(place(true)),
        Action::Crash => form.crash = Some(place(true)),
        Action::Restart => form.restart = Some(place(true)),
    }
    form
}

fn limit_form(limit: Limit) -> Option<Spanned<LimitForm>> {
    (limit != Limit::default()).then(|| {
        place(LimitForm {
            count: limit.count.and_then(number),
            duration: limit.duration.and_then(|duration| text(time(duration))),
        })
    })
}

impl fmt::Display for Target {
    /// The one line, as far as it is about events: `comm=app op=connect => error=ECONNREFUSED, nth=3`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} => {}", self.pattern, self.action)?;
        match self.when.pick {
            Pick::All => {}
            Pick::Nth(n) => write!(f, ", nth={n}")?,
            Pick::Every(n) => write!(f, ", every={n}")?,
            Pick::Probability(p) => write!(f, ", probability={p}")?,
        }
        let patterns = [("after", &self.when.after), ("before", &self.when.before)];
        for (key, pattern) in patterns {
            if let Some(pattern) = pattern {
                write!(f, ", {key}={}", quoted(&pattern.to_string()))?;
            }
        }
        if !self.syscalls.is_empty() {
            let names: Vec<&str> = self.syscalls.iter().map(|s| s.as_str()).collect();
            write!(f, ", syscall={}", quoted(&names.join(" ")))?;
        }
        Ok(())
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Error(errno) => write!(f, "error={}", value_text(&Value::Error(errno))),
            Self::Return(value) => write!(f, "return={value}"),
            Self::Drop(drop) => write!(f, "drop={}", drop.as_str()),
            Self::Delay(duration) => write!(f, "delay={}", time(duration)),
            Self::Pause(duration) => write!(f, "pause={}", time(duration)),
            Self::Kill(signal) => write!(f, "kill={}", value_text(&Value::Signal(signal))),
            Self::Destroy => f.write_str("destroy"),
            Self::Crash => f.write_str("crash"),
            Self::Restart => f.write_str("restart"),
        }
    }
}

/// Nothing for a partition, which has no one line.
pub fn line(fault: &Fault) -> Option<String> {
    matches!(fault.nature, Nature::Event(_)).then(|| told(fault))
}

/// The fault in one line, for people: a partition's cannot be read back.
pub fn told(fault: &Fault) -> String {
    let mut line = match &fault.nature {
        Nature::Event(target) => target.to_string(),
        Nature::Partition(partition) => cut(&partition.between, partition.one_way),
    };
    let latches = [("from", &fault.from, Latch::Now), ("until", &fault.until, Latch::Never)];
    for (key, value, default) in latches {
        if let Some(value) = latch(value, &default) {
            line += &format!(", {key}={}", quoted(value.get_ref()));
        }
    }
    line.extend(fault.limit.count.map(|count| format!(", count={count}")));
    line.extend(fault.limit.duration.map(|duration| format!(", for={}", time(duration))));
    line.extend(fault.via.map(|via| format!(", via={}", via.as_str())));
    line + &format!(", name={}", quoted(&fault.name))
}

/// Which packets a partition loses.
pub fn cut([one, other]: &[Pattern; 2], one_way: bool) -> String {
    let (from, to) = if one_way { ("from", "to") } else { ("between", "and") };
    format!("packets {from} `{one}` {to} `{other}` are lost")
}

fn quoted(text: &str) -> String {
    if text.chars().all(|c| c.is_alphanumeric() || matches!(c, '-' | '_' | '.')) {
        return text.to_owned();
    }
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}
