//! A fault in one line: `comm=app op=connect peer=:5432 => error=ECONNREFUSED, nth=3`.
//!
//! Left of the arrow stands the pattern, right of it the keys of the fault file without their tables.

use std::ops::Range;

use toml::Spanned;

use super::action::ACTIONS;
use super::error::FaultError;
use super::form::{ActionForm, FaultForm, LimitForm, OneOrMore, WhenForm};
use super::parse::Source;
use super::spec::Fault;
use crate::pattern::near;

/// The keys that are not what the fault does.
const OTHERS: [&str; 12] = [
    "nth",
    "every",
    "probability",
    "after",
    "before",
    "from",
    "until",
    "count",
    "for",
    "syscall",
    "via",
    "name",
];

/// Parses one line; `name` is the fault's unless it says otherwise.
pub fn parse(text: &str, name: &str) -> Result<Fault, FaultError> {
    parse_from(text, name, "--fault")
}

/// The same of a text that errors call `from`.
pub fn parse_from(text: &str, name: &str, from: &str) -> Result<Fault, FaultError> {
    let source = Source { name: from, text };
    let Some(arrow) = unquoted(text, "=>").next() else {
        let hint = "write PATTERN => error=ECONNREFUSED, nth=3";
        let end = text.len();
        return Err(source.fail(end..end, "it does not say what to do").hint(hint));
    };
    let mut form = FaultForm {
        name: Spanned::new(0..0, name.to_owned()),
        r#match: trimmed(text, 0..arrow),
        syscall: None,
        when: None,
        from: None,
        until: None,
        r#do: Spanned::new(arrow..arrow, ActionForm::default()),
        limit: None,
        via: None,
    };
    let mut start = arrow + 2;
    let ends = unquoted(&text[start..], ",").map(|comma| start + comma).chain([text.len()]);
    for end in ends.collect::<Vec<_>>() {
        source.item(&mut form, trimmed(text, start..end))?;
        start = end + 1;
    }
    source.fault(&form)
}

/// Where `wanted` begins outside of quotes.
fn unquoted<'a>(text: &'a str, wanted: &'a str) -> impl Iterator<Item = usize> + 'a {
    let (mut quoted, mut escaped) = (false, false);
    text.char_indices().filter_map(move |(at, c)| {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            _ => {}
        }
        (!quoted && text[at..].starts_with(wanted)).then_some(at)
    })
}

/// A stretch of the text without the spaces around it.
fn trimmed(text: &str, span: Range<usize>) -> Spanned<String> {
    let raw = &text[span.clone()];
    let start = span.start + (raw.len() - raw.trim_start().len());
    let word = raw.trim();
    Spanned::new(start..start + word.len(), word.to_owned())
}

impl Source<'_> {
    fn item(&self, form: &mut FaultForm, item: Spanned<String>) -> Result<(), FaultError> {
        let span = item.span();
        let (key, value) = match item.get_ref().split_once('=') {
            Some((key, value)) => (key, Some(value)),
            None => (item.get_ref().as_str(), None),
        };
        let known = || ACTIONS.into_iter().chain(OTHERS);
        let Some(key) = known().find(|known| *known == key) else {
            let fail = self.fail(span, format!("there is no key `{key}` here"));
            return Err(match near(key, known()) {
                Some(near) => fail.hint(format!("did you mean {near}?")),
                None => fail.hint(format!("keys: {}", known().collect::<Vec<_>>().join(" "))),
            });
        };
        let begin = span.start + key.len() + 1;
        if matches!(key, "destroy" | "crash" | "restart") {
            return self.deed(form, key, span, value);
        }
        let Some(value) = value else {
            let hint = format!("write `{key}=VALUE`");
            return Err(self.fail(span, format!("`{key}` has no value")).hint(hint));
        };
        let value = self.unquote(Spanned::new(begin..span.end, value.to_owned()))?;
        self.set(form, key, value)
    }

    /// A deed that needs no more words.
    fn deed(
        &self,
        form: &mut FaultForm,
        key: &str,
        span: Range<usize>,
        value: Option<&str>,
    ) -> Result<(), FaultError> {
        if value.is_some_and(|value| value != "true") {
            return Err(self.fail(span, format!("`{key}` takes no value")));
        }
        let flag = Some(Spanned::new(span, true));
        let deeds = form.r#do.get_mut();
        match key {
            "destroy" => deeds.destroy = flag,
            "crash" => deeds.crash = flag,
            _ => deeds.restart = flag,
        }
        Ok(())
    }

    fn set(
        &self,
        form: &mut FaultForm,
        key: &str,
        value: Spanned<String>,
    ) -> Result<(), FaultError> {
        let span = value.span();
        if matches!(key, "nth" | "every" | "probability" | "after" | "before") {
            let when = form.when.get_or_insert_with(|| Spanned::new(span, WhenForm::default()));
            let when = when.get_mut();
            match key {
                "nth" => when.nth = Some(self.number(&value)?),
                "every" => when.every = Some(self.number(&value)?),
                "probability" => when.probability = Some(self.number(&value)?),
                "after" => when.after = Some(value),
                _ => when.before = Some(value),
            }
            return Ok(());
        }
        if matches!(key, "count" | "for") {
            let limit = form.limit.get_or_insert_with(|| Spanned::new(span, LimitForm::default()));
            match key {
                "count" => limit.get_mut().count = Some(self.number(&value)?),
                _ => limit.get_mut().duration = Some(value),
            }
            return Ok(());
        }
        let deeds = form.r#do.get_mut();
        match key {
            "error" => deeds.error = Some(value),
            "return" => deeds.r#return = Some(self.number(&value)?),
            "drop" => deeds.drop = Some(value),
            "delay" => deeds.delay = Some(value),
            "pause" => deeds.pause = Some(value),
            "kill" => deeds.kill = Some(value),
            "from" => form.from = Some(value),
            "until" => form.until = Some(value),
            "via" => form.via = Some(value),
            "name" => form.name = value,
            _ => {
                let names = value.get_ref().split_whitespace().map(str::to_owned).collect();
                form.syscall = Some(Spanned::new(span, OneOrMore::More(names)));
            }
        }
        Ok(())
    }

    fn number<T: std::str::FromStr>(
        &self,
        value: &Spanned<String>,
    ) -> Result<Spanned<T>, FaultError> {
        match value.get_ref().parse() {
            Ok(number) => Ok(Spanned::new(value.span(), number)),
            Err(_) => {
                let message = format!("`{}` is not such a number", value.get_ref());
                Err(self.fail(value.span(), message))
            }
        }
    }

    /// A value that stands wholly in quotes, without them.
    fn unquote(&self, value: Spanned<String>) -> Result<Spanned<String>, FaultError> {
        let Some(inside) = value.get_ref().strip_prefix('"') else { return Ok(value) };
        let (mut text, mut chars) = (String::new(), inside.chars());
        loop {
            match chars.next() {
                Some('"') if chars.as_str().is_empty() => {
                    return Ok(Spanned::new(value.span(), text));
                }
                Some('\\') => text.extend(chars.next()),
                Some('"') | None => {
                    let hint = "a value in quotes ends with one; within, write \\\" for a quote";
                    return Err(self.fail(value.span(), "these quotes do not match").hint(hint));
                }
                Some(c) => text.push(c),
            }
        }
    }
}
