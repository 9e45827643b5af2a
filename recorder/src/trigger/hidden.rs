//! What a trigger had to say, without the names that are not to be written down.

use serde_json::Value;

use super::Firing;
use crate::hide::{HIDDEN, Hide};

impl Firing {
    /// Takes the names out of all that is kept of it: each text of what was said that is such a name, wherever it
    /// occurs, in patterns as well. There they then match what was recorded under that word.
    pub fn hide(&mut self, hide: &Hide) {
        let mut names = Vec::new();
        find(&self.said, hide, &mut names);
        names.extend(Some(self.name.clone()).filter(|name| hide.hides(name)));
        // A longer one may hold a shorter one.
        names.sort_by_key(|name| std::cmp::Reverse(name.len()));
        if names.is_empty() {
            return;
        }
        let replaced = |text: &str| {
            names.iter().fold(text.to_owned(), |text, name| text.replace(name.as_str(), HIDDEN))
        };
        replace(&mut self.said, &replaced);
        let patterns = self.symptoms.iter_mut().chain(&mut self.missing).chain(&mut self.scope);
        let names = [&mut self.name].into_iter().chain(&mut self.incident);
        patterns.chain(names).for_each(|text| *text = replaced(text));
    }
}

fn find(value: &Value, hide: &Hide, names: &mut Vec<String>) {
    match value {
        Value::String(text) if hide.hides(text) => names.push(text.clone()),
        Value::Array(values) => values.iter().for_each(|value| find(value, hide, names)),
        Value::Object(values) => values.values().for_each(|value| find(value, hide, names)),
        _ => {}
    }
}

fn replace(value: &mut Value, replaced: &impl Fn(&str) -> String) {
    match value {
        Value::String(text) => *text = replaced(text),
        Value::Array(values) => values.iter_mut().for_each(|value| replace(value, replaced)),
        Value::Object(values) => values.values_mut().for_each(|value| replace(value, replaced)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn names_are_taken_out_of_what_was_said_and_of_patterns() {
        let hide =
            Hide::try_from(vec!["acme*".to_owned(), "*secret*".to_owned()]).expect("patterns");
        let mut firing = Firing::new("acme-down", "event");
        firing.symptoms = vec!["comm=acme-db op=recv".to_owned()];
        firing.missing = Some("comm=acme-db".to_owned());
        firing.scope = Some("comm=acme-db".to_owned());
        firing.said = json!({
            "matched": "comm=acme-db error=*", "labels": { "comm": "acme-db", "tid": "7" },
            "line": "a secret was told", "n": [1, "acme"],
        });
        firing.hide(&hide);
        assert_eq!(firing.name, "hidden");
        assert_eq!(firing.symptoms, ["comm=hidden op=recv"]);
        assert_eq!(firing.missing.as_deref(), Some("comm=hidden"));
        assert_eq!(firing.scope.as_deref(), Some("comm=hidden"));
        assert_eq!(
            firing.said,
            json!({
                "matched": "comm=hidden error=*", "labels": { "comm": "hidden", "tid": "7" },
                "line": "hidden", "n": [1, "hidden"],
            })
        );
    }
}
