//! Whether what the documents link to is there.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::process::{root, say};

/// Checks the relative links of all Markdown files.
pub fn check(files: &[PathBuf]) -> Result<()> {
    let (mut seen, mut broken) = (0, Vec::new());
    for document in files.iter().filter(|f| f.extension().is_some_and(|e| e == "md")) {
        let text =
            fs::read_to_string(document).with_context(|| format!("read {}", document.display()))?;
        for link in links(&text) {
            seen += 1;
            if let Some(why) = fault(document, link) {
                let document = document.strip_prefix(root()).unwrap_or(document).display();
                broken.push(format!("{document}: {link}: {why}"));
            }
        }
    }
    ensure!(broken.is_empty(), "links that lead nowhere:\n  {}", broken.join("\n  "));
    say(format_args!("lint: {seen} links lead somewhere"));
    Ok(())
}

/// What is wrong with the link, if anything.
fn fault(document: &Path, link: &str) -> Option<&'static str> {
    let (file, heading) = link.split_once('#').map_or((link, None), |(f, h)| (f, Some(h)));
    let target = match file {
        "" => document.to_owned(),
        _ => document.parent()?.join(file),
    };
    if !target.exists() {
        return Some("no such file");
    }
    let heading = heading.filter(|_| target.extension().is_some_and(|e| e == "md"))?;
    let text = fs::read_to_string(&target).ok()?;
    (!headings(&text).any(|h| h == heading)).then_some("no such heading")
}

/// The relative links of a Markdown text: `[…](target)` outside of code.
fn links(text: &str) -> impl Iterator<Item = &str> {
    outside_fences(text)
        .flat_map(|line| {
            let prose = line.split('`').step_by(2);
            let targets = prose.flat_map(|part| part.split("](").skip(1));
            targets.filter_map(|rest| rest.split([')', ' ']).next())
        })
        .filter(|link| !link.contains("://") && !link.starts_with("mailto:"))
}

/// The names under which a Markdown text's headings are linked to.
fn headings(text: &str) -> impl Iterator<Item = String> {
    outside_fences(text).filter(|line| line.starts_with('#')).map(|line| {
        let title = line.trim_start_matches('#').trim().to_lowercase();
        let kept = title.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect()
    })
}

fn outside_fences(text: &str) -> impl Iterator<Item = &str> {
    let mut fenced = false;
    text.lines().filter(move |line| {
        let fence = line.trim_start().starts_with("```");
        fenced ^= fence;
        !fenced && !fence
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_found_in_prose_and_not_in_code() {
        let text = "see [a](docs/a.md#top) and [b](https://b), `x[1](no)`\n```\n[c](no)\n```\n[d](d.md \"title\")";
        assert_eq!(links(text).collect::<Vec<_>>(), ["docs/a.md#top", "d.md"]);
    }

    #[test]
    fn headings_are_named_as_forges_name_them() {
        let text = "# A title\n```sh\n# not one\n```\n## What `why` says, and why";
        assert_eq!(headings(text).collect::<Vec<_>>(), ["a-title", "what-why-says-and-why"]);
    }
}
