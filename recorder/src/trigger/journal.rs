//! A line in systemd's journal. `journalctl` follows it, as a child that ends with the daemon: the files' format
//! is its own affair, and it sleeps until something is written.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;
use tokio::io::AsyncReadExt;
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::sleep;

use super::lines::{Lines, seen};
use super::rule::Line;
use super::{Bell, Seen};

/// How long until it is started again.
const RETRY: Duration = Duration::from_secs(10);

/// Watches the journal of a unit, or of all, without end.
pub async fn watch(unit: &str, matches: &Line, mut bell: Bell) {
    loop {
        let ended = follow(unit, matches, &mut bell).await;
        bell.trouble(ended.err().map(|error| format!("{error:#}")));
        sleep(RETRY).await;
    }
}

/// Until journalctl ends, which it does not do where all is well.
async fn follow(unit: &str, matches: &Line, bell: &mut Bell) -> Result<()> {
    let mut child = start(unit)?;
    let mut output = child.stdout.take().context("a pipe from journalctl")?;
    read(&mut output, matches, bell).await?;
    let ended = child.wait_with_output().await.context("wait for journalctl")?;
    let said = String::from_utf8_lossy(&ended.stderr);
    let said = said.lines().last().unwrap_or("it says nothing");
    bail!("journalctl ended ({}): {said}; is there a journal here?", ended.status)
}

fn start(unit: &str) -> Result<Child> {
    let mut command = Command::new("journalctl");
    command.args(["--follow", "--lines=0", "--output=json", "--quiet"]);
    command.arg("--output-fields=MESSAGE,_PID,_COMM,_SYSTEMD_UNIT");
    if unit != "*" {
        command.arg(format!("--unit={unit}"));
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    // SAFETY: between fork and exec this only makes a system call.
    unsafe {
        command.pre_exec(|| {
            nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL)?;
            Ok(())
        })
    };
    command.spawn().context("start journalctl, which comes with systemd")
}

async fn read(output: &mut ChildStdout, matches: &Line, bell: &mut Bell) -> Result<()> {
    let mut lines = Lines::default();
    let mut piece = vec![0; 16 << 10];
    loop {
        let bytes = output.read(&mut piece).await.context("read from journalctl")?;
        if bytes == 0 {
            return Ok(());
        }
        bell.trouble(None);
        lines.push(&piece[..bytes], &mut |line| {
            if let Some(seen) = entry(line, matches) {
                bell.ring(seen);
            }
        });
    }
}

/// What an entry says, if its message matches.
fn entry(line: &[u8], matches: &Line) -> Option<Seen> {
    let entry: Value = serde_json::from_slice(line).ok()?;
    let message = match &entry["MESSAGE"] {
        Value::String(text) => text.as_bytes().to_vec(),
        // What is no UTF-8 is told byte by byte.
        Value::Array(bytes) => {
            bytes.iter().filter_map(|b| u8::try_from(b.as_u64()?).ok()).collect()
        }
        _ => return None,
    };
    let from = entry["_SYSTEMD_UNIT"].as_str().unwrap_or("journal");
    let mut seen = seen(&message, matches, from)?;
    for key in ["_PID", "_COMM", "__REALTIME_TIMESTAMP"] {
        seen.said[key] = entry[key].clone();
    }
    Some(seen)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_matches_by_its_message() {
        let matches = Line::try_from("out of (?<what>\\w+)".to_owned()).expect("an expression");
        let line = br#"{"MESSAGE":"out of memory","_SYSTEMD_UNIT":"web.service","_PID":"7"}"#;
        let seen = entry(line, &matches).expect("it matches");
        assert_eq!(
            (&seen.labels["what"], &seen.said["from"]),
            (&"memory".into(), &"web.service".into())
        );
        assert_eq!(seen.said["_PID"], "7");
        let bytes = br#"{"MESSAGE":[111,117,116,32,111,102,32,255]}"#;
        assert!(entry(bytes, &matches).is_none());
        let bytes = br#"{"MESSAGE":[255,111,117,116,32,111,102,32,105,110,107]}"#;
        assert!(entry(bytes, &matches).is_some());
        for other in [&b"{}"[..], b"{\"MESSAGE\":null}", b"-- no entries --", b""] {
            assert!(entry(other, &matches).is_none());
        }
    }
}
