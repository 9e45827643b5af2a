//! What works on which kernel, as a table: printed, and kept in docs/kernels.md.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
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
        let mut notes = Notes::default();
        let mut text = String::new();
        let families: BTreeSet<_> = reports.iter().filter_map(|r| r.job.family).collect();
        let mut cases = Grid::default();
        let mut modules = Grid::default();
        for (place, image) in images.iter().enumerate() {
            let of_image = || reports.iter().filter(|r| r.job.image == *image);
            for (rank, family) in families.iter().enumerate() {
                for report in of_image().filter(|r| r.job.family == Some(*family)) {
                    let column =
                        (place * families.len() + rank, format!("{} {family}", image.name));
                    cases.add_cases(report, &column, &mut notes);
                }
            }
            for report in of_image().filter(|r| r.job.family.is_none()) {
                modules.add_modules(report, &(place, image.name.clone()), &mut notes);
            }
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

    /// Tests module by module: how many passed.
    fn add_modules(&mut self, report: &Report, column: &Column, notes: &mut Notes) {
        let mut modules: BTreeMap<&str, (u32, u32)> = BTreeMap::new();
        let mut impossible: BTreeMap<&str, usize> = BTreeMap::new();
        for (name, verdict) in &report.tests {
            let module = name.split("::").next().unwrap_or(name);
            if let Verdict::Impossible(why) = verdict {
                impossible.insert(module, notes.number(why));
                continue;
            }
            let (passed, run) = modules.entry(module).or_default();
            *passed += u32::from(*verdict == Verdict::Passed);
            *run += 1;
        }
        for module in impossible.keys() {
            modules.entry(module).or_default();
        }
        for (module, (passed, run)) in modules {
            let note = impossible.get(module).map_or(String::new(), |note| format!(" ({note})"));
            self.put(format!("{module}::"), column, format!("{passed} of {run}{note}"));
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
