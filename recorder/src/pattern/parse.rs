//! From text to [`Pattern`]; every error names its column and says what to write instead.

use std::str::FromStr;

use super::literal::{address, digits, duration_ns, number, time_of_day};
use super::value::{FlagName, Glob, Lane, Value, errno_name, signal_name};
use super::{Key, Kind, Pattern, PatternError, Relation, Test};
use crate::event::{Op, Protocol, Ring};

/// The kernel keeps this much of a thread's name; no more characters than that can come of it.
const COMM_BYTES: usize = 15;
/// Names for one errno besides the kernel's first.
const ERRNO_ALIASES: [(&str, &str); 3] =
    [("EWOULDBLOCK", "EAGAIN"), ("ENOTSUP", "EOPNOTSUPP"), ("EDEADLOCK", "EDEADLK")];

impl FromStr for Pattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        let mut cursor = Cursor { chars: text.chars().collect(), at: 0 };
        let tests = tests(&mut cursor);
        tests.map(|tests| Self { tests }).map_err(|Problem { column, message, hint }| {
            PatternError { text: text.to_owned(), column, message, hint }
        })
    }
}

/// A [`PatternError`] without the text around it.
struct Problem {
    column: usize,
    message: String,
    hint: Option<String>,
}

fn problem<T>(
    column: usize,
    message: impl Into<String>,
    hint: impl Into<String>,
) -> Result<T, Problem> {
    Err(Problem { column, message: message.into(), hint: Some(hint.into()) })
}

struct Cursor {
    chars: Vec<char>,
    at: usize,
}

impl Cursor {
    fn peek(&self) -> Option<char> {
        self.chars.get(self.at).copied()
    }

    /// Of the next character, from 1.
    fn column(&self) -> usize {
        self.at + 1
    }

    fn take_while(&mut self, test: impl Fn(char) -> bool) -> String {
        let rest = self.chars[self.at..].iter().copied();
        let taken: String = rest.take_while(|&c| test(c)).collect();
        self.at += taken.chars().count();
        taken
    }

    fn take(&mut self, word: &str) -> bool {
        let found = word.chars().eq(self.chars[self.at..].iter().copied().take(word.len()));
        if found {
            self.at += word.len();
        }
        found
    }
}

/// One value as it was written: quotes taken off, stars told from quoted stars.
struct Written {
    column: usize,
    text: String,
    glob: Glob,
}

impl Written {
    /// Whether it is the bare word or star, which a quoted one is not.
    fn is_star(&self) -> bool {
        self.glob.pieces.len() == 2 && self.text == "*"
    }
}

fn tests(cursor: &mut Cursor) -> Result<Vec<Test>, Problem> {
    let mut tests = Vec::new();
    loop {
        cursor.take_while(char::is_whitespace);
        if cursor.peek().is_none() {
            break;
        }
        tests.push(test(cursor)?);
    }
    if tests.is_empty() {
        return problem(1, "it is empty", "write a test such as `op=recv` or `error=*`");
    }
    Ok(tests)
}

fn test(cursor: &mut Cursor) -> Result<Test, Problem> {
    let key_column = cursor.column();
    let word = cursor.take_while(|c| !c.is_whitespace() && !"=!<>,\"".contains(c));
    let relation_column = cursor.column();
    let relation = relation(cursor);
    let Some(key) = Key::parse(&word) else {
        return unknown_key(key_column, &word, relation.is_some());
    };
    let Some(relation) = relation else {
        let message = format!("`{word}` is followed by no test");
        return problem(relation_column, message, format!("write `{word}=VALUE`, without spaces"));
    };
    let ordered = !matches!(key.kind(), Kind::Text | Kind::Address | Kind::Word);
    if relation.orders() && !ordered {
        let message = format!("`{word}` has no order, so `{}` says nothing", relation.as_str());
        return problem(relation_column, message, format!("`{word}` takes = and !="));
    }
    let values = values(cursor, key, relation)?;
    Ok(Test { key, relation, values })
}

fn relation(cursor: &mut Cursor) -> Option<Relation> {
    // The longer ones first.
    let all = [
        Relation::IsNot,
        Relation::GreaterOrEqual,
        Relation::LessOrEqual,
        Relation::Greater,
        Relation::Less,
        Relation::Is,
    ];
    all.into_iter().find(|relation| cursor.take(relation.as_str()))
}

fn unknown_key<T>(column: usize, word: &str, has_relation: bool) -> Result<T, Problem> {
    if word.is_empty() {
        return problem(column, "a key is missing here", format!("keys: {}", all_keys()));
    }
    let hint = match near(word, Key::ALL.iter().map(|key| key.as_str()).chain(["peer"])) {
        Some(near) => format!("did you mean {near}?"),
        None if has_relation => format!("keys: {}", all_keys()),
        None => format!("write KEY=VALUE; a value with spaces needs quotes; keys: {}", all_keys()),
    };
    problem(column, format!("there is no key `{word}`"), hint)
}

fn all_keys() -> String {
    let names: Vec<&str> = Key::ALL.iter().map(|key| key.as_str()).collect();
    names.join(" ")
}

/// The words that may have been meant, the nearest first: `` `recv` or `send` ``.
pub(crate) fn near<'a>(word: &str, words: impl Iterator<Item = &'a str>) -> Option<String> {
    let word = word.to_lowercase();
    let score = |w: &str| {
        let lower = w.to_lowercase();
        let same_start = word.len() >= 3 && lower.starts_with(&word);
        strsim::jaro_winkler(&word, &lower) + if same_start { 1.0 } else { 0.0 }
    };
    let mut found: Vec<_> = words.map(|w| (score(w), w)).filter(|(s, _)| *s > 0.8).collect();
    found.sort_by(|a, b| b.0.total_cmp(&a.0));
    let quoted: Vec<_> = found.iter().take(3).map(|(_, w)| format!("`{w}`")).collect();
    (!quoted.is_empty()).then(|| quoted.join(" or "))
}

fn values(cursor: &mut Cursor, key: Key, relation: Relation) -> Result<Vec<Value>, Problem> {
    let mut values = Vec::new();
    loop {
        let written = written(cursor, key)?;
        if relation.orders() && !values.is_empty() {
            let message = format!("`{}` compares with one value", relation.as_str());
            return problem(written.column, message, "one-of (`,`) goes with = and !=");
        }
        let column = written.column;
        let mut meant = value(key, &written)?;
        if relation.orders() && matches!(meant[..], [Value::None | Value::Any]) {
            let message = format!("`{}` needs a number", relation.as_str());
            return problem(column, message, "`none` and `*` go with = and !=");
        }
        values.append(&mut meant);
        if !cursor.take(",") {
            return Ok(values);
        }
    }
}

/// Bare and quoted stretches up to a space or comma: `my*`, `"my app"`, `"my "*`.
fn written(cursor: &mut Cursor, key: Key) -> Result<Written, Problem> {
    let column = cursor.column();
    let mut text = String::new();
    let mut pieces = vec![String::new()];
    while let Some(c) = cursor.peek().filter(|&c| !c.is_whitespace() && c != ',') {
        if c == '"' {
            let quoted = quoted(cursor)?;
            text.push_str(&quoted);
            pieces.last_mut().expect("never empty").push_str(&quoted);
            continue;
        }
        cursor.at += 1;
        text.push(c);
        match c {
            // `**` says no more than `*`.
            '*' if pieces.len() > 1 && pieces.last().is_some_and(String::is_empty) => {}
            '*' => pieces.push(String::new()),
            c => pieces.last_mut().expect("never empty").push(c),
        }
    }
    if cursor.column() == column {
        let hint = match key.kind() {
            Kind::Text => "an empty name is written `\"\"`".to_owned(),
            _ => allowed(key),
        };
        return problem(column, format!("`{}` has no value here", key.as_str()), hint);
    }
    Ok(Written { column, text, glob: Glob { pieces } })
}

fn quoted(cursor: &mut Cursor) -> Result<String, Problem> {
    let column = cursor.column();
    cursor.at += 1;
    let mut text = String::new();
    while let Some(c) = cursor.peek() {
        cursor.at += 1;
        match c {
            '"' => return Ok(text),
            '\\' => match cursor.peek() {
                Some(c @ ('"' | '\\')) => {
                    cursor.at += 1;
                    text.push(c);
                }
                _ => {
                    let hint = "within quotes write `\\\\` for a backslash and `\\\"` for a quote";
                    return problem(
                        cursor.at,
                        "a backslash before neither quote nor backslash",
                        hint,
                    );
                }
            },
            c => text.push(c),
        }
    }
    problem(column, "this quote is never closed", "end the value with `\"`")
}

/// What may stand on the right of a key.
fn allowed(key: Key) -> String {
    let name = key.as_str();
    let what = match key.kind() {
        Kind::Text => format!("`{name}` takes a name, `*` for any characters"),
        Kind::Number => format!("`{name}` takes a whole number"),
        Kind::Nanoseconds => {
            format!("`{name}` takes nanoseconds since boot, or a number with ns, us, ms or s")
        }
        Kind::Duration => format!("`{name}` takes a number with ns, us, ms or s, such as 5ms"),
        Kind::TimeOfDay => format!("`{name}` takes a time of day in UTC, such as 12:00:01.2"),
        Kind::Address => format!(
            "`{name}` takes 127.0.0.1:80, :80 (a port), 10.0.0.1, 10.0.0.0/8, [::1]:80 or ::1 (names are not looked up)"
        ),
        Kind::Word if key == Key::Error => {
            "`error` takes errno names such as ECONNRESET".to_owned()
        }
        Kind::Word if key == Key::Signal => "`signal` takes names such as SIGKILL".to_owned(),
        Kind::Word => {
            let words: Vec<String> = words(key).into_iter().map(|(word, _)| word).collect();
            format!("`{name}` takes {}", words.join(" "))
        }
    };
    let absent = if key.may_be_absent() { ", `none`, or `*` for any" } else { "" };
    format!("{what}{absent}")
}

/// Mostly one value; a glob over words is all the words it matches.
fn value(key: Key, written: &Written) -> Result<Vec<Value>, Problem> {
    if key.may_be_absent() && written.text == "none" {
        return Ok(vec![Value::None]);
    }
    if key.may_be_absent() && written.is_star() {
        return Ok(vec![Value::Any]);
    }
    let value = match key.kind() {
        Kind::Text => return text(key, written),
        Kind::Word => return word(key, written),
        Kind::Number => number(&written.text).map(Value::Number),
        Kind::Nanoseconds => {
            number(&written.text).or_else(|| duration_ns(&written.text)).map(Value::Number)
        }
        Kind::Duration => duration_ns(&written.text).map(Value::Number),
        Kind::TimeOfDay => time_of_day(&written.text).map(Value::TimeOfDay),
        Kind::Address if written.text.starts_with("unix:") => {
            Some(Value::Text(written.glob.clone()))
        }
        Kind::Address => address(&written.text).map(Value::Address),
    };
    match value {
        Some(value) => Ok(vec![value]),
        None if key.kind() == Kind::Address && written.text.parse::<u16>().is_ok() => {
            let message = format!("`{}` is not an address", written.text);
            problem(written.column, message, format!("write `:{}` for a port", written.text))
        }
        None => problem(written.column, not_a(key, &written.text), allowed(key)),
    }
}

fn not_a(key: Key, text: &str) -> String {
    let what = match key.kind() {
        Kind::Text => "a name",
        Kind::Number | Kind::Nanoseconds if digits(text) => "a number of 64 bits",
        Kind::Number | Kind::Nanoseconds => "a whole number",
        Kind::Duration => "a duration",
        Kind::TimeOfDay => "a time of day",
        Kind::Address => "an address",
        Kind::Word if key == Key::Error => "an errno",
        Kind::Word => key.as_str(),
    };
    let article = if key.kind() == Kind::Word && key != Key::Error { "a known " } else { "" };
    format!("`{text}` is not {article}{what}")
}

fn text(key: Key, written: &Written) -> Result<Vec<Value>, Problem> {
    let length: usize = written.glob.pieces.iter().map(|piece| piece.chars().count()).sum();
    if key == Key::Comm && length > COMM_BYTES {
        let cut: String = written.text.chars().take(COMM_BYTES - 1).filter(|&c| c != '*').collect();
        let message = format!("`{}` can match no thread's name", written.text);
        let hint =
            format!("the kernel keeps {COMM_BYTES} bytes of a name; write `comm=\"{cut}\"*`");
        return problem(written.column, message, hint);
    }
    Ok(vec![Value::Text(written.glob.clone())])
}

fn word(key: Key, written: &Written) -> Result<Vec<Value>, Problem> {
    let words = words(key);
    let star = written.glob.pieces.len() > 1;
    let upper = written.text.to_uppercase();
    let exact = match key {
        Key::Error => {
            let alias = ERRNO_ALIASES.iter().find(|(alias, _)| *alias == upper);
            alias.map_or(upper, |(_, name)| (*name).to_owned())
        }
        Key::Signal if !upper.starts_with("SIG") => format!("SIG{upper}"),
        Key::Signal => upper,
        _ => written.text.clone(),
    };
    let matches = |word: &str| if star { written.glob.matches(word) } else { word == exact };
    let found: Vec<_> = words.iter().filter(|(w, _)| matches(w)).map(|(_, v)| v.clone()).collect();
    if !found.is_empty() {
        return Ok(found);
    }
    match (key, written.text.parse::<u16>()) {
        (Key::Error, Ok(error @ 1..=4095)) => return Ok(vec![Value::Error(error)]),
        (Key::Signal, Ok(signal @ 1..=64)) => return Ok(vec![Value::Signal(signal as u8)]),
        _ => {}
    }
    let names = words.iter().map(|(word, _)| word.as_str());
    let near = if digits(&written.text) { None } else { near(&exact, names) };
    let hint = near.map_or_else(|| allowed(key), |near| format!("did you mean {near}?"));
    problem(written.column, not_a(key, &written.text), hint)
}

/// All that a key of few words can be.
fn words(key: Key) -> Vec<(String, Value)> {
    let named = |name: &str, value| (name.to_owned(), value);
    match key {
        Key::Op => Op::ALL.map(|op| named(op.as_str(), Value::Op(op))).to_vec(),
        Key::Protocol => Protocol::ALL
            .map(|protocol| named(protocol.as_str(), Value::Protocol(protocol)))
            .to_vec(),
        Key::Error => (1..=4095).filter_map(|e| Some((errno_name(e)?, Value::Error(e)))).collect(),
        Key::Signal => {
            (1..=64).filter_map(|s| Some(named(signal_name(s)?, Value::Signal(s)))).collect()
        }
        Key::Ring => {
            vec![named("bulk", Value::Ring(Ring::Bulk)), named("rare", Value::Ring(Ring::Rare))]
        }
        Key::Lane => vec![
            named("thread", Value::Lane(Lane::Thread)),
            named("kernel", Value::Lane(Lane::Kernel)),
        ],
        Key::Flag => FlagName::ALL.map(|flag| named(flag.as_str(), Value::Flag(flag))).to_vec(),
        _ => Vec::new(),
    }
}
