//! What works on which kernel, as a table: printed, and kept in docs/kernels.md.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write};
use std::fs;

use anyhow::{Context, Result};

use super::image::Image;
use super::verdict::{Report, Verdict};
use crate::process::root;

const DOCUMENT: &str = "docs/kernels.md";
const BEGIN: &str = "<!-- written by `cargo xtask test --vm --write-table` -->\n";
const END: &str = "<!-- end of what was written -->";

/// Rows by name; a cell for each column, and the notes that cells refer to.
pub struct Table {
    text: String,
}

impl Table {
    pub fn of(images: &[Image], reports: &[Report]) -> Self {
        // They came to their end in any order.
        let mut reports: Vec<_> = reports.iter().collect();
        reports.sort_by_key(|report| report.job.title());
        let mut notes = Notes::default();
        let mut text = String::new();
        let families: BTreeSet<_> = reports.iter().filter_map(|r| r.job.family).collect();
        let mut cases = Grid::default();
        let mut modules = Grid::default();
        for (place, image) in images.iter().enumerate() {
            let of_image = || reports.iter().copied().filter(|r| r.job.image == *image);
            for (rank, family) in families.iter().enumerate() {
                for report in of_image().filter(|r| r.job.family == Some(*family)) {
                    let column =
                        (place * families.len() + rank, format!("{} {family}", image.name));
                    cases.add_cases(report, &column, &mut notes);
                }
            }
            let by_module = of_image().filter(|r| r.job.family.is_none());
            modules.add_modules(by_module, &(place, image.name.clone()), &mut notes);
        }
        cases.write(&mut text, "truth suite");
        modules.write(&mut text, "kernel tests (passed of run)");
        notes.write(&mut text);
        Self { text }
    }

    pub fn text(&self) -> &str {
        &self.text
    }

    /// Puts the table into the document, in the place of the old one.
    pub fn write(&self) -> Result<()> {
        let path = root().join(DOCUMENT);
        let old = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        let (before, rest) =
            old.split_once(BEGIN).with_context(|| format!("no `{BEGIN}` in {DOCUMENT}"))?;
        let (_, after) =
            rest.split_once(END).with_context(|| format!("no `{END}` in {DOCUMENT}"))?;
        let new = format!("{before}{BEGIN}\n{}\n{END}{after}", self.text);
        fs::write(&path, new).with_context(|| format!("write {}", path.display()))
    }
}

/// Reasons, each told once.
#[derive(Default)]
struct Notes(Vec<String>);

impl Notes {
    fn number(&mut self, reason: &str) -> usize {
        let known = self.0.iter().position(|known| known == reason);
        known.unwrap_or_else(|| {
            self.0.push(reason.to_owned());
            self.0.len() - 1
        }) + 1
    }

    fn write(&self, text: &mut String) {
        for (number, reason) in self.0.iter().enumerate() {
            writeln!(text, "{}. {reason}", number + 1).expect("strings grow");
        }
    }
}

/// What became of a module's tests.
#[derive(Default)]
struct Module {
    passed: u32,
    run: u32,
    /// Numbers of the notes that say why others could not run.
    impossible: BTreeSet<usize>,
}

impl fmt::Display for Module {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.passed, self.run)?;
        self.impossible.iter().try_for_each(|note| write!(f, " ({note})"))
    }
}

/// A column's place among the others, and its heading.
type Column = (usize, String);

#[derive(Default)]
struct Grid {
    columns: BTreeSet<Column>,
    rows: BTreeMap<String, BTreeMap<Column, String>>,
}

impl Grid {
    fn add_cases(&mut self, report: &Report, column: &Column, notes: &mut Notes) {
        for (name, verdict) in &report.tests {
            let cell = match verdict {
                Verdict::Passed => "yes".to_owned(),
                Verdict::Impossible(why) => format!("no ({})", notes.number(why)),
                Verdict::Failed(_) => "FAILED".to_owned(),
            };
            let cpus = if report.job.cpus > 1 { ", 2 CPUs" } else { "" };
            self.put(format!("{name}{cpus}"), column, cell);
        }
    }

    /// Tests module by module: how many passed. One that several groups run has passed if it has in all.
    fn add_modules<'a>(
        &mut self,
        reports: impl Iterator<Item = &'a Report>,
        column: &Column,
        notes: &mut Notes,
    ) {
        let mut tests: BTreeMap<&str, &Verdict> = BTreeMap::new();
        for (name, verdict) in reports.flat_map(|report| &report.tests) {
            let known = tests.entry(name).or_insert(verdict);
            if !matches!(known, Verdict::Failed(_)) {
                *known = verdict;
            }
        }
        let mut modules: BTreeMap<&str, Module> = BTreeMap::new();
        for (name, verdict) in tests {
            let module = modules.entry(name.split("::").next().unwrap_or(name)).or_default();
            if let Verdict::Impossible(why) = verdict {
                module.impossible.insert(notes.number(why));
                continue;
            }
            module.passed += u32::from(*verdict == Verdict::Passed);
            module.run += 1;
        }
        for (name, module) in modules {
            self.put(format!("{name}::"), column, module.to_string());
        }
    }

    fn put(&mut self, row: String, column: &Column, cell: String) {
        self.columns.insert(column.clone());
        self.rows.entry(row).or_default().insert(column.clone(), cell);
    }

    fn write(&self, text: &mut String, title: &str) {
        if self.rows.is_empty() {
            return;
        }
        let first = self.rows.keys().map(String::len).chain([title.len()]).max().unwrap_or(0);
        write!(text, "| {title:first$} |").expect("strings grow");
        for (_, heading) in &self.columns {
            write!(text, " {heading} |").expect("strings grow");
        }
        writeln!(text, "\n| {:-<first$} |{}", "", " --- |".repeat(self.columns.len()))
            .expect("strings grow");
        for (row, cells) in &self.rows {
            write!(text, "| {row:first$} |").expect("strings grow");
            for column in &self.columns {
                let cell = cells.get(column).map_or("", String::as_str);
                write!(text, " {cell:width$} |", width = column.1.len()).expect("strings grow");
            }
            text.push('\n');
        }
        text.push('\n');
    }
}
