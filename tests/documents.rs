//! What documents show of the command line: the commands in their ```console blocks, and what these print.

use std::fs;
use std::path::{Path, PathBuf};

/// A command as it stands in a document, and the lines that it is said to print.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// The words after `$ ` (and after `sudo`), up to a pipe or a redirection; quotes are taken off.
    pub words: Vec<String>,
    pub output: Vec<String>,
}

/// The top of the repository.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests lie in the repository")
}

/// The documents that show commands to those who use them.
pub fn documents() -> Vec<PathBuf> {
    let folder = fs::read_dir(root().join("docs")).expect("there is a folder docs");
    let mut found: Vec<_> = folder.map(|entry| entry.expect("a readable entry").path()).collect();
    found.retain(|path| path.extension().is_some_and(|extension| extension == "md"));
    found.push(root().join("README.md"));
    found.sort();
    found
}

/// The commands in a document's ```console blocks, in order.
pub fn shown(text: &str) -> Vec<Shown> {
    let mut found: Vec<Shown> = Vec::new();
    let mut inside = false;
    for line in text.lines() {
        if line.starts_with("```") {
            inside = line == "```console";
        } else if inside && let Some(command) = line.strip_prefix("$ ") {
            found.push(Shown { words: words(command), output: Vec::new() });
        } else if inside && let Some(last) = found.last_mut() {
            last.output.push(line.to_owned());
        }
    }
    found
}

/// Splits a command as a shell would, as far as documents need it: single quotes, and the end at `|` or `>`.
fn words(command: &str) -> Vec<String> {
    let command = command.strip_prefix("sudo ").unwrap_or(command);
    let mut words = Vec::new();
    for (i, part) in command.split('\'').enumerate() {
        if i % 2 == 1 {
            words.push(part.to_owned());
            continue;
        }
        let end = part.find(['|', '>']);
        words.extend(part[..end.unwrap_or(part.len())].split_whitespace().map(str::to_owned));
        if end.is_some() {
            break;
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_found_with_what_they_print() {
        let text =
            "```sh\n$ no\n```\n```console\n$ sudo a -x 'b c' > d\none\n\ntwo\n$ e\n```\n$ no\n";
        let command = |words: &[&str], output: &[&str]| Shown {
            words: words.iter().map(|&w| w.to_owned()).collect(),
            output: output.iter().map(|&l| l.to_owned()).collect(),
        };
        let expected = [command(&["a", "-x", "b c"], &["one", "", "two"]), command(&["e"], &[])];
        assert_eq!(shown(text), expected);
    }
}
