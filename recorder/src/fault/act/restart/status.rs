//! `/proc/PID/status`: what the kernel says of a process, a field in a line.

use std::fs;

use anyhow::{Context, Result};

pub struct Status(String);

impl Status {
    pub fn of(process: &str) -> Result<Self> {
        let path = format!("/proc/{process}/status");
        fs::read_to_string(&path).map(Self).with_context(|| format!("read {path}"))
    }

    /// The words of a field.
    pub fn words(&self, field: &str) -> Result<Vec<&str>> {
        let line = self.0.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        let line = line.with_context(|| format!("the kernel does not tell {field}"))?;
        Ok(line.split_whitespace().collect())
    }

    /// Its numbers, to this base.
    pub fn numbers(&self, field: &str, base: u32) -> Result<Vec<u64>> {
        let words = self.words(field)?.into_iter();
        let numbers = words.map(|word| u64::from_str_radix(word, base));
        numbers.collect::<Result<_, _>>().with_context(|| format!("understand {field}"))
    }

    /// Its first number.
    pub fn number(&self, field: &str, base: u32) -> Result<u64> {
        let numbers = self.numbers(field, base)?;
        numbers.first().copied().with_context(|| format!("{field} is empty"))
    }
}
