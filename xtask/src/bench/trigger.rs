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

/// Rings, what fills them, and how long the dump of them may take.
pub struct Rings {
    what: &'static str,
    size: &'static str,
    /// As many as there are pairs, at most.
    rounds: usize,
    /// How often the runs' requests are made before each.
    fill: u32,
    budget_s: f64,
}

/// 131,072 slots for sends and receives, on two CPUs.
pub const SMALL: Rings = Rings {
    what: "trigger: from the event to the dump",
    size: "16MiB",
    rounds: usize::MAX,
    fill: 1,
    budget_s: 1.0,
};
/// 4,194,304 of them: a request takes four.
pub const LARGE: Rings = Rings {
    what: "trigger: the same of large rings",
    size: "512MiB",
    rounds: 5,
    fill: 12,
    budget_s: 15.0,
};

/// A process that nobody else starts fails.
const LIMITS: &str = "per_hour = 10000\ncooldown = '1ms'\nafter = '0s'\n\
                      [[trigger]]\nname = 'failed'\nexit = 'comm=sh result=77'\n";

/// The rings are filled, a process fails, and the folder of its dump has its name when all of it is written.
pub fn to_dump(
    table: &mut Table,
    server: &Server,
    directory: &Path,
    arguments: &Arguments,
    rings: &Rings,
) -> Result<()> {
    let size = rings.size;
    let _daemon = Daemon::start(directory, &format!("ring = '{size}'\n"), LIMITS)?;
    let dumps = directory.join("dumps");
    let before = complete(&dumps)?;
    let mut took = Vec::new();
    for round in 1..=arguments.pairs.min(rings.rounds) {
        server.run(arguments.requests * rings.fill)?;
        // The same trigger twice in a second is one.
        sleep(Duration::from_secs(1));
        let begin = Instant::now();
        Command::new("sh").args(["-c", "exit 77"]).status().context("run a process that fails")?;
        while complete(&dumps)? < before + round {
            ensure!(begin.elapsed() < Duration::from_secs(60), "no dump was made");
            sleep(Duration::from_millis(1));
        }
        took.push(begin.elapsed().as_secs_f64());
    }
    let worst = took.iter().copied().fold(0.0, f64::max);
    let note = format!("median of {}, at worst {worst:.2} s; rings of {size}", took.len());
    table.add(rings.what, median(took.into_iter()), "s", Budget::AtMost(rings.budget_s), note);
    Ok(())
}

/// Dumps that have their names.
fn complete(dumps: &Path) -> Result<usize> {
    let entries = fs::read_dir(dumps)?.flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    Ok(names.filter(|name| name.ends_with("-failed") && !name.starts_with('.')).count())
}
