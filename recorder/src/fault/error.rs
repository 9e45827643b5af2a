//! What is wrong with a fault file, and where.

use std::fmt;
use std::ops::Range;

/// An error that points at its place and says what to write instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct FaultError {
    /// The file's name, or what the text was given as.
    pub source_name: String,
    /// From 1.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
    /// The whole line.
    pub text: String,
    pub message: String,
    pub hint: Option<String>,
}

impl FaultError {
    /// `span` in bytes of `text`; only its beginning is shown.
    pub fn at(source_name: &str, text: &str, span: Range<usize>, message: String) -> Self {
        let mut at = span.start.min(text.len());
        while !text.is_char_boundary(at) {
            at -= 1;
        }
        let before = &text[..at];
        let begin = before.rfind('\n').map_or(0, |newline| newline + 1);
        let line = text[begin..].split('\n').next().unwrap_or_default();
        Self {
            source_name: source_name.to_owned(),
            line: before.matches('\n').count() + 1,
            column: text[begin..at].chars().count() + 1,
            text: line.trim_end_matches('\r').to_owned(),
            message,
            hint: None,
        }
    }

    #[must_use]
    pub fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }
}

impl fmt::Display for FaultError {
    /// Place and message, the line with a caret below the column, and the hint.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: {}", self.source_name, self.line, self.column, self.message)?;
        // One character stays one column, or the caret would point elsewhere.
        let shown: String =
            self.text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        if !shown.trim().is_empty() {
            write!(f, "\n    {shown}\n    {:>width$}", "^", width = self.column)?;
        }
        match &self.hint {
            Some(hint) => write!(f, "\nhint: {hint}"),
            None => Ok(()),
        }
    }
}
