//! What a guest's tests said: one verdict for each, read from the lines of Rust's test runner.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use super::group::Job;

/// As many of what a failed test said are repeated.
const BRIEF_LINES: usize = 12;

/// How one test ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Passed,
    /// It has shown that this kernel cannot do it, and why.
    Impossible(String),
    /// What it said.
    Failed(String),
}

/// All that is known of a boot.
pub struct Report {
    pub job: Job,
    pub tests: BTreeMap<String, Verdict>,
    /// Why there is no good end.
    problem: Option<String>,
    took: Took,
}

/// What a boot cost. On a busy machine only the second says how dear it is.
pub struct Took {
    pub elapsed: Duration,
    pub cpu: Duration,
}

impl Report {
    /// `end` is the exit status, or why the guest did not come to its end.
    pub fn of(job: Job, output: &str, end: Result<i32, String>, took: Took) -> Self {
        // What they printed may hide the end of a test, not the runner's own verdict.
        let tests = verdicts(output, end == Ok(0));
        let passed = tests.values().filter(|verdict| **verdict == Verdict::Passed).count();
        let evasion = tests.iter().find_map(|(name, verdict)| match verdict {
            Verdict::Impossible(why) if job.must_run && passed == 0 => Some((name, why)),
            _ => None,
        });
        let absent = job.only.iter().find(|name| tests.keys().all(|test| !test.contains(**name)));
        let problem = match (end, evasion) {
            (Err(problem), _) => Some(problem),
            (Ok(0), _) if tests.is_empty() => Some(format!("no test has run\n{output}")),
            (Ok(0), _) if Some(tests.len()) != announced(output) => {
                Some(format!("it told of {} tests only\n{output}", tests.len()))
            }
            (Ok(0), Some((name, why))) => Some(format!(
                "no test could run, {name} for one, although this kernel has the hooks: {why}"
            )),
            (Ok(0), None) => absent.map(|name| format!("no test is called {name}")),
            (Ok(status), _) => Some(format!("exit status {status}\n{output}")),
        };
        Self { job, tests, problem, took }
    }

    pub fn is_good(&self) -> bool {
        self.problem.is_none()
    }

    /// What went wrong, in so few lines that the end of a long output can repeat it.
    pub fn brief(&self) -> String {
        let problem = self.problem.as_deref().unwrap_or_default();
        let mut brief = format!("{}: {}", self.job.title(), first_lines(problem, 1));
        for (name, verdict) in &self.tests {
            if let Verdict::Failed(said) = verdict {
                brief += &format!("\n  {name}: {}", first_lines(said, BRIEF_LINES));
            }
        }
        brief
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let title = self.job.title();
        if let Some(problem) = &self.problem {
            writeln!(f, "--- vm {title}: {problem}")?;
        }
        let count =
            |wanted: fn(&Verdict) -> bool| self.tests.values().filter(|v| wanted(v)).count();
        write!(f, "vm {title}: {} passed", count(|v| *v == Verdict::Passed))?;
        match count(|v| matches!(v, Verdict::Impossible(_))) {
            0 => {}
            impossible => write!(f, ", {impossible} impossible there")?,
        }
        match count(|v| matches!(v, Verdict::Failed(_))) {
            0 => {}
            failed => write!(f, ", {failed} FAILED")?,
        }
        let Took { elapsed, cpu } = self.took;
        write!(f, ", {} s, {} s of CPU", elapsed.as_secs(), cpu.as_secs())
    }
}

/// `test NAME ... ok`; a test that was running when the guest ended has failed. `skipped: WHY` in what a test said is the
/// proof that it cannot run. `all_passed`: as the runner's status tells.
fn verdicts(output: &str, all_passed: bool) -> BTreeMap<String, Verdict> {
    let mut passed = BTreeMap::new();
    let mut said: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let mut running = None;
    let mut speaker = None;
    for line in output.lines() {
        let begun = line.strip_prefix("test ").and_then(|line| line.split_once(" ... "));
        running = begun.map(|(name, _)| name).or(running);
        if ["successes:", "failures:"].contains(&line) {
            (running, speaker) = (None, None);
        } else if let Some(name) = running {
            // What a test's own processes print stands between its name and its end.
            let ok = begun.map_or(line, |(_, end)| end) == "ok";
            passed.insert(name, ok);
            if ok || line.ends_with("FAILED") {
                running = None;
            }
        } else if let Some(header) = line.strip_prefix("---- ") {
            speaker = header.strip_suffix(" stdout ----");
        } else if let Some(name) = speaker {
            said.entry(name).or_default().push(line);
        }
    }
    let verdict = |(name, passed): (&str, bool)| {
        let said = said.get(name).map_or("said nothing".to_owned(), |lines| lines.join("\n"));
        let verdict = match said.split_once("  skipped: ") {
            _ if !passed && !all_passed => Verdict::Failed(said.trim().to_owned()),
            Some((_, why)) => Verdict::Impossible(first_lines(why.trim(), 1)),
            None => Verdict::Passed,
        };
        (name.to_owned(), verdict)
    };
    passed.into_iter().map(verdict).collect()
}

/// How many tests the runner wanted to run.
fn announced(output: &str) -> Option<usize> {
    let counts = output.lines().find_map(|line| line.strip_prefix("running "));
    counts?.split(' ').next()?.parse().ok()
}

fn first_lines(text: &str, most: usize) -> String {
    let lines: Vec<_> = text.lines().take(most).collect();
    lines.join("\n    ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_test_has_its_verdict() {
        let output = "
running 5 tests
test fan_in ... ok
test loud ... noted 1
noted 2
ok
test nat ... ok
test tls ... FAILED

successes:

---- fan_in stdout ----
fan_in   960

---- nat stdout ----
nat                     skipped: no nft: not found

failures:

---- tls stdout ----
two
lines


failures:
    tls

test hangs ... ";
        let told: Vec<_> = verdicts(output, false).into_iter().collect();
        assert_eq!(announced(output), Some(told.len()));
        let named = |name: &str, verdict| (name.to_owned(), verdict);
        assert_eq!(
            told,
            [
                named("fan_in", Verdict::Passed),
                named("hangs", Verdict::Failed("said nothing".to_owned())),
                named("loud", Verdict::Passed),
                named("nat", Verdict::Impossible("no nft: not found".to_owned())),
                named("tls", Verdict::Failed("two\nlines".to_owned())),
            ]
        );
        let of_good_end = verdicts(output, true);
        assert_eq!(of_good_end["tls"], Verdict::Passed);
        assert_eq!(of_good_end["nat"], Verdict::Impossible("no nft: not found".to_owned()));
    }
}
