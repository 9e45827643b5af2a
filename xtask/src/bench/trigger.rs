//! How long it takes from an event that a trigger watches for in the kernel to the complete dump on disk.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::daemon::Daemon;
use super::redis::Server;
use super::table::{Budget, Table};
use super::{Arguments, median};

/// A process that nobody else starts fails. Rings of 131,072 slots for sends and receives.
const LIMITS: &str = "per_hour = 10000\ncooldown = '1ms'\nafter = '0s'\n\
                      [[trigger]]\nname = 'failed'\nexit = 'comm=sh result=77'\n";

/// The rings are filled, a process fails, and the folder of its dump has its name when all of it is written.
pub fn to_dump(
    table: &mut Table,
    server: &Server,
    directory: &Path,
    arguments: &Arguments,
) -> Result<()> {
    let _daemon = Daemon::start(directory, "ring = '16MiB'\n", LIMITS)?;
    let dumps = directory.join("dumps");
    let mut took = Vec::new();
    for round in 1..=arguments.pairs {
        server.run(arguments.requests)?;
        // The same trigger twice in a second is one.
        sleep(Duration::from_secs(1));
        let begin = Instant::now();
        Command::new("sh").args(["-c", "exit 77"]).status().context("run a process that fails")?;
        while complete(&dumps)? < round {
            ensure!(begin.elapsed() < Duration::from_secs(60), "no dump was made");
            sleep(Duration::from_millis(1));
        }
        took.push(begin.elapsed().as_secs_f64());
    }
    let worst = took.iter().copied().fold(0.0, f64::max);
    let note = format!("median of {}, at worst {worst:.2} s; rings of 16MiB", took.len());
    let what = "trigger: from the event to the dump";
    table.add(what, median(took.into_iter()), "s", Budget::AtMost(1.0), note);
    Ok(())
}

/// Dumps that have their names.
fn complete(dumps: &Path) -> Result<usize> {
    let entries = fs::read_dir(dumps)?.flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    Ok(names.filter(|name| name.ends_with("-failed") && !name.starts_with('.')).count())
}
