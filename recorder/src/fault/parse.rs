//! From text to [`Faults`]: what is wrong is told with its place, before anything runs.

use std::collections::HashSet;
use std::ops::Range;
use std::str::FromStr;
use std::time::Duration;

use toml::Spanned;

use super::error::FaultError;
use super::form::{FaultForm, FileForm, LimitForm, OneOrMore, PartitionForm, WhenForm};
use super::never;
use super::spec::{
    Fault, Faults, Latch, Limit, Mechanism, Nature, Partition, Pick, Syscall, Target, When,
};
use crate::pattern::{self, Key, Pattern, PatternError, Value};

/// Longest name of a fault, in bytes.
const NAME_BYTES: usize = 64;

/// Parses a fault file; `name` is the file's, for errors.
pub fn file(name: &str, text: &str) -> Result<Faults, FaultError> {
    let source = Source { name, text };
    let form: FileForm = toml::from_str(text).map_err(|error| source.toml_error(&error))?;
    let mut faults = Vec::new();
    let mut names = HashSet::new();
    for form in &form.fault {
        source.name(&form.name, &mut names)?;
        faults.push(source.fault(form)?);
    }
    for form in &form.partition {
        source.name(&form.name, &mut names)?;
        faults.push(source.partition(form)?);
    }
    if faults.is_empty() {
        let hint = "write a table `[[fault]]` or `[[partition]]`; docs/faults.md has examples";
        return Err(source.fail(0..0, "it holds no fault").hint(hint));
    }
    Ok(Faults { seed: form.seed, faults })
}

/// A text and what it is called.
pub(super) struct Source<'a> {
    pub(super) name: &'a str,
    pub(super) text: &'a str,
}

type Result<T, E = FaultError> = std::result::Result<T, E>;

impl Source<'_> {
    pub(super) fn fail(&self, span: Range<usize>, message: impl Into<String>) -> FaultError {
        FaultError::at(self.name, self.text, span, message.into())
    }

    /// The TOML crate's error; for an unknown key with the nearest that is known.
    fn toml_error(&self, error: &toml::de::Error) -> FaultError {
        let message = error.message().lines().next().unwrap_or("it cannot be read");
        let fail = |message: &str| self.fail(error.span().unwrap_or(0..0), message);
        let Some(rest) = message.strip_prefix("unknown field `") else { return fail(message) };
        let mut words = rest.split('`').step_by(2);
        let word = words.next().unwrap_or_default();
        let known: Vec<&str> = rest.split('`').skip(2).step_by(2).collect();
        let fail = fail(&format!("there is no key `{word}` here"));
        match pattern::near(word, known.iter().copied()) {
            Some(near) => fail.hint(format!("did you mean {near}?")),
            None => fail.hint(format!("keys: {}", known.join(" "))),
        }
    }

    fn name(&self, name: &Spanned<String>, names: &mut HashSet<String>) -> Result<()> {
        let text = name.get_ref();
        let wrong = if text.is_empty() || text.len() > NAME_BYTES {
            format!("a name has 1 to {NAME_BYTES} bytes")
        } else if text.chars().any(char::is_control) {
            "a name has no control characters".to_owned()
        } else if !names.insert(text.clone()) {
            format!("there are two faults called `{text}`")
        } else {
            return Ok(());
        };
        Err(self.fail(name.span(), wrong))
    }

    pub(super) fn fault(&self, form: &FaultForm) -> Result<Fault> {
        let pattern = self.pattern(&form.r#match)?;
        let syscalls = self.syscalls(form.syscall.as_ref())?;
        if let Some(why) = never::matches(&pattern) {
            let fail = self.fail(form.r#match.span(), format!("it can never match: {why}"));
            return Err(fail);
        }
        let when = form.when.as_ref().map_or(Ok(When::default()), |when| self.when(when))?;
        let (from, until) = self.latches(form.from.as_ref(), form.until.as_ref())?;
        let action = self.action(&form.r#do)?;
        let limit = self.limit(form.limit.as_ref())?;
        let ends = limit != Limit::default() || matches!(when.pick, Pick::Nth(_));
        if !ends && until == Latch::Never {
            let hint = "say `count = 1` or `for = \"30s\"`; in a file, within `limit = { }`";
            let name = form.name.get_ref();
            return Err(self
                .fail(form.name.span(), format!("nothing ends the fault `{name}`"))
                .hint(hint));
        }
        Ok(Fault {
            name: form.name.get_ref().clone(),
            nature: Nature::Event(Target { pattern, syscalls, when, action }),
            from,
            until,
            limit,
            via: self.via(form.via.as_ref())?,
        })
    }

    fn partition(&self, form: &PartitionForm) -> Result<Fault> {
        let [one, other] = &form.between.get_ref()[..] else {
            let fail = self.fail(form.between.span(), "a partition has two sides");
            return Err(fail.hint("write `between = [\"PATTERN\", \"PATTERN\"]`"));
        };
        let between = [self.pattern(one)?, self.pattern(other)?];
        let error = form.error.as_ref().map(|error| self.errno(error)).transpose()?;
        let (from, until) = self.latches(form.from.as_ref(), form.until.as_ref())?;
        let limit = self.limit(form.limit.as_ref())?;
        if limit == Limit::default() && until == Latch::Never {
            let fail = self.fail(form.name.span(), "nothing ends this partition");
            return Err(fail.hint("add `until = \"10s\"` or `limit = { for = \"30s\" }`"));
        }
        Ok(Fault {
            name: form.name.get_ref().clone(),
            nature: Nature::Partition(Partition { between, one_way: form.one_way, error }),
            from,
            until,
            limit,
            via: self.via(form.via.as_ref())?,
        })
    }

    /// A pattern in a string; its error is moved to its place in the whole text.
    fn pattern(&self, text: &Spanned<String>) -> Result<Pattern> {
        let whole = text.get_ref();
        Pattern::from_str(whole).map_err(|error| {
            let bytes = whole.chars().take(error.column - 1).map(char::len_utf8).sum();
            self.within(text, bytes, &error)
        })
    }

    /// An error at a byte of a string's value. Where escapes stand between, it is the string's beginning.
    fn within(&self, text: &Spanned<String>, at: usize, error: &PatternError) -> FaultError {
        let span = text.span();
        let raw = &self.text[span.clone()];
        let start = match raw.find(text.get_ref().as_str()) {
            Some(quote) => span.start + quote + at,
            None => span.start,
        };
        let fail = self.fail(start..span.end, error.message.clone());
        FaultError { hint: error.hint.clone(), ..fail }
    }

    /// One value as a pattern has it to the right of `key=`.
    pub(super) fn value(&self, key: Key, text: &Spanned<String>) -> Result<Value> {
        let prefix = format!("{}=", key.as_str());
        let pattern = Pattern::from_str(&format!("{prefix}{}", text.get_ref())).map_err(|e| {
            let at = e.column.saturating_sub(prefix.len() + 1);
            self.within(text, at, &e)
        })?;
        match &pattern.tests[..] {
            [test] if test.values.len() == 1 => match &test.values[0] {
                Value::None | Value::Any => {}
                value => return Ok(value.clone()),
            },
            _ => {}
        }
        let message = format!("`{}` is not one {}", text.get_ref(), key.as_str());
        Err(self.fail(text.span(), message))
    }

    pub(super) fn errno(&self, text: &Spanned<String>) -> Result<u16> {
        match self.value(Key::Error, text)? {
            Value::Error(errno) => Ok(errno),
            _ => Err(self.fail(text.span(), "it is not an errno")),
        }
    }

    pub(super) fn duration(&self, text: &Spanned<String>) -> Result<Duration> {
        let ns = pattern::duration_ns(text.get_ref());
        match ns.and_then(|ns| u64::try_from(ns).ok()) {
            Some(0) => Err(self.fail(text.span(), "it is no time at all")),
            Some(ns) => Ok(Duration::from_nanos(ns)),
            None => {
                let message = format!("`{}` is not a duration", text.get_ref());
                let hint = "write a number with ns, us, ms or s, such as 200ms";
                Err(self.fail(text.span(), message).hint(hint))
            }
        }
    }

    fn syscalls(&self, form: Option<&Spanned<OneOrMore>>) -> Result<Vec<Syscall>> {
        let Some(form) = form else { return Ok(Vec::new()) };
        let names = match form.get_ref() {
            OneOrMore::One(name) => std::slice::from_ref(name),
            OneOrMore::More(names) => names,
        };
        let mut syscalls = Vec::new();
        for name in names {
            let Some(&(found, _)) = Syscall::ALL.iter().find(|(_, known)| known == name) else {
                let fail = self.fail(form.span(), format!("no fault is known for `{name}`"));
                let known = Syscall::ALL.map(|(_, name)| name);
                return Err(match pattern::near(name, known.into_iter()) {
                    Some(near) => fail.hint(format!("did you mean {near}?")),
                    None => fail.hint(format!("system calls: {}", known.join(" "))),
                });
            };
            if !syscalls.contains(&found) {
                syscalls.push(found);
            }
        }
        if syscalls.is_empty() {
            return Err(self.fail(form.span(), "no system call is named"));
        }
        Ok(syscalls)
    }

    fn when(&self, form: &Spanned<WhenForm>) -> Result<When> {
        let when = form.get_ref();
        let number = |n: &Spanned<i64>| self.positive(n);
        let picks = [
            when.nth.as_ref().map(|n| number(n).map(Pick::Nth)),
            when.every.as_ref().map(|n| number(n).map(Pick::Every)),
            when.probability.as_ref().map(|p| self.probability(p).map(Pick::Probability)),
        ];
        let mut picks = picks.into_iter().flatten();
        let pick = picks.next().unwrap_or(Ok(Pick::All))?;
        if picks.next().is_some() {
            let message = "`nth`, `every` and `probability` exclude each other";
            return Err(self.fail(form.span(), message));
        }
        let pattern = |text: &Spanned<String>| self.pattern(text);
        Ok(When {
            pick,
            after: when.after.as_ref().map(pattern).transpose()?,
            before: when.before.as_ref().map(pattern).transpose()?,
        })
    }

    fn positive(&self, number: &Spanned<i64>) -> Result<u64> {
        match u64::try_from(*number.get_ref()) {
            Ok(n @ 1..) => Ok(n),
            _ => Err(self.fail(number.span(), "it counts from 1: this would never fire")),
        }
    }

    fn probability(&self, text: &Spanned<f64>) -> Result<f64> {
        let p = *text.get_ref();
        if p > 0.0 && p <= 1.0 {
            return Ok(p);
        }
        let message = if p == 0.0 {
            "with this probability it would never fire".to_owned()
        } else {
            format!("{p} is not a probability")
        };
        let hint = "a probability is above 0 and at most 1: one in ten is 0.1";
        Err(self.fail(text.span(), message).hint(hint))
    }

    fn latches(
        &self,
        from: Option<&Spanned<String>>,
        until: Option<&Spanned<String>>,
    ) -> Result<(Latch, Latch)> {
        let begin = from.map_or(Ok(Latch::Now), |from| self.latch(from))?;
        let end = until.map_or(Ok(Latch::Never), |until| self.latch(until))?;
        if let (Some(from), Latch::Never) = (from, &begin) {
            return Err(self.fail(from.span(), "from `never` on, it would never fire"));
        }
        let empty = match (&begin, &end) {
            (_, Latch::Now) => true,
            (Latch::After(begin), Latch::After(end)) => begin >= end,
            _ => false,
        };
        match until {
            Some(until) if empty => {
                Err(self.fail(until.span(), "it would end before it begins, and never fire"))
            }
            _ => Ok((begin, end)),
        }
    }

    fn latch(&self, text: &Spanned<String>) -> Result<Latch> {
        match text.get_ref().as_str() {
            "now" => Ok(Latch::Now),
            "never" => Ok(Latch::Never),
            word if word.starts_with(|c: char| c.is_ascii_digit()) => {
                self.duration(text).map(Latch::After)
            }
            _ => self.pattern(text).map(Latch::At).map_err(|error| {
                let hint = "write `now`, `never`, a time such as 30s, or a pattern";
                if text.get_ref().contains('=') { error } else { error.hint(hint) }
            }),
        }
    }

    fn limit(&self, form: Option<&Spanned<LimitForm>>) -> Result<Limit> {
        let Some(form) = form else { return Ok(Limit::default()) };
        let limit = form.get_ref();
        if limit.count.is_none() && limit.duration.is_none() {
            let fail = self.fail(form.span(), "the limit is empty");
            return Err(fail.hint("write `count = 1`, `for = \"30s\"`, or both"));
        }
        Ok(Limit {
            count: limit.count.as_ref().map(|n| self.positive(n)).transpose()?,
            duration: limit.duration.as_ref().map(|time| self.duration(time)).transpose()?,
        })
    }

    fn via(&self, form: Option<&Spanned<String>>) -> Result<Option<Mechanism>> {
        let Some(form) = form.filter(|form| form.get_ref() != "auto") else { return Ok(None) };
        let word = form.get_ref().as_str();
        let found = Mechanism::ALL.into_iter().find(|mechanism| mechanism.as_str() == word);
        found.map(Some).ok_or_else(|| {
            let known = Mechanism::ALL.map(Mechanism::as_str).join(" ");
            self.fail(form.span(), format!("there is no mechanism `{word}`"))
                .hint(format!("mechanisms: auto {known}"))
        })
    }
}
