//! What was measured, with the budget beside it.

use crate::process::say;

/// The bound that a measured value has to keep.
#[derive(Clone, Copy)]
pub enum Budget {
    AtMost(f64),
    AtLeast(f64),
    /// Nothing is promised: the value explains others.
    None,
}

struct Row {
    what: String,
    value: f64,
    unit: &'static str,
    budget: Budget,
    note: String,
}

/// Rows in the order of measuring.
#[derive(Default)]
pub struct Table(Vec<Row>);

impl Table {
    /// Adds a row, and shows it at once: the whole takes minutes.
    pub fn add(
        &mut self,
        what: impl Into<String>,
        value: f64,
        unit: &'static str,
        budget: Budget,
        note: impl Into<String>,
    ) {
        let row = Row { what: what.into(), value, unit, budget, note: note.into() };
        say(format_args!("{}", row.text()));
        self.0.push(row);
    }

    /// Prints Markdown, as docs/performance.md holds it.
    #[expect(clippy::print_stdout, reason = "the table is the task's result")]
    pub fn print(&self) {
        println!("| what | measured | budget | | of |\n| --- | --- | --- | --- | --- |");
        self.0.iter().for_each(|row| println!("{}", row.text()));
    }
}

impl Row {
    fn text(&self) -> String {
        let (bound, verdict) = match self.budget {
            Budget::AtMost(bound) => (format!("≤ {}", number(bound)), self.value <= bound),
            Budget::AtLeast(bound) => (format!("≥ {}", number(bound)), self.value >= bound),
            Budget::None => ("–".to_owned(), true),
        };
        let verdict = match (self.budget, verdict) {
            (Budget::None, _) => "",
            (_, true) => "kept",
            (_, false) => "**missed**",
        };
        let (what, value, unit, note) = (&self.what, number(self.value), self.unit, &self.note);
        format!("| {what} | {value} {unit} | {bound} | {verdict} | {note} |")
    }
}

/// Three digits that mean something, and no more.
fn number(value: f64) -> String {
    let digits = match value.abs() {
        v if v >= 100.0 || v == 0.0 => 0,
        v if v >= 10.0 => 1,
        v if v >= 1.0 => 3,
        _ => 4,
    };
    format!("{value:.digits$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_says_whether_its_budget_is_kept() {
        let row = |value, budget| {
            Row { what: "x".into(), value, unit: "ns", budget, note: String::new() }.text()
        };
        assert_eq!(row(79.96, Budget::AtMost(80.0)), "| x | 80.0 ns | ≤ 80.0 | kept |  |");
        assert_eq!(row(1.06, Budget::AtMost(1.05)), "| x | 1.060 ns | ≤ 1.050 | **missed** |  |");
        assert_eq!(row(0.9, Budget::AtLeast(0.97)), "| x | 0.9000 ns | ≥ 0.9700 | **missed** |  |");
        assert!(row(f64::NAN, Budget::AtMost(1.0)).contains("missed"));
    }
}
