//! A pattern with places for what a trigger knows: `comm={job} op=recv`.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::pattern::Pattern;

/// A pattern with labels to be filled in.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Symptom(String);

impl TryFrom<String> for Symptom {
    type Error = String;

    /// Whether it is a pattern can be told before an alert comes: with an address for every label.
    fn try_from(text: String) -> Result<Self, String> {
        let symptom = Self(text);
        let tried = symptom.filled(|_| Some("127.0.0.1:1"));
        let tried = tried.ok_or_else(|| format!("`{}` has a `{{` without a `}}`", symptom.0))?;
        match tried.parse::<Pattern>() {
            Ok(_) => Ok(symptom),
            // A label may stand where only some of its values are allowed.
            Err(_) if symptom.0.contains('{') => Ok(symptom),
            Err(error) => Err(error.to_string()),
        }
    }
}

/// What a pattern says, of what lies in a scope alone.
pub fn within(scope: Option<&str>, pattern: String) -> String {
    match scope {
        Some(scope) => format!("{scope} {pattern}"),
        None => pattern,
    }
}

impl Symptom {
    /// With labels' values in their places; nothing where a label is missing or could say more than one
    /// value.
    pub fn of(&self, labels: &BTreeMap<String, String>) -> Option<String> {
        let plain = |value: &&str| {
            let allowed = |c: char| c.is_alphanumeric() || "._:/-[]@".contains(c);
            !value.is_empty() && value.chars().all(allowed)
        };
        let filled = self.filled(|name| labels.get(name).map(String::as_str).filter(plain))?;
        filled.parse::<Pattern>().is_ok().then_some(filled)
    }

    fn filled<'a>(&self, value: impl Fn(&str) -> Option<&'a str>) -> Option<String> {
        let mut text = String::new();
        let mut rest = self.0.as_str();
        while let Some((before, after)) = rest.split_once('{') {
            let (name, after) = after.split_once('}')?;
            text.push_str(before);
            text.push_str(value(name)?);
            rest = after;
        }
        Some(text + rest)
    }

    /// The names of its labels.
    pub fn labels(&self) -> Vec<&str> {
        let after = self.0.split('{').skip(1);
        after.filter_map(|rest| rest.split_once('}')).map(|(name, _)| name).collect()
    }
}
