//! `bench`: what recording costs and what questions take, beside the budgets.
//!
//! Everything near 1 is the median over pairs of runs with and without the recorder, one right after the
//! other and in changing order, so that a machine that gets slower or faster does not count. Leave the machine alone
//! meanwhile: the whole of it is recorded.

use std::env;
use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::process::{self, as_root, cargo, is_root, root};
use crate::{build, setup};
use table::Table;

mod capture;
mod daemon;
mod faults;
mod history;
mod questions;
mod recorder;
mod redis;
mod syscall;
mod table;
mod trigger;

#[derive(clap::Args)]
pub struct Arguments {
    /// Pairs of runs with and without the recorder
    #[arg(long, value_name = "N", default_value_t = 30)]
    pairs: usize,
    /// Requests in each run
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    requests: u32,
    /// Leave out what needs a recording of ten million events: some minutes, and 2 GiB of memory for rings
    #[arg(long)]
    small: bool,
    /// What is built is taken as it is
    #[arg(long, hide = true)]
    built: bool,
}

pub fn run(arguments: &Arguments) -> Result<()> {
    if !arguments.built {
        setup::run()?;
        build::run()?;
        process::run(&mut cargo(["build", "--workspace", "--bins", "--example", "graph_rate"]))?;
    }
    if !is_root() {
        return again_as_root();
    }
    let directory = Directory::make()?;
    let server = redis::Server::start(&directory.0)?;
    let mut table = Table::default();
    capture::per_event(&mut table, &server, &directory.0, arguments)?;
    syscall::unrecorded(&mut table, &directory.0, arguments.pairs)?;
    faults::spared(&mut table, arguments.pairs)?;
    capture::rings_only(&mut table, &server, &directory.0, arguments)?;
    capture::followed(&mut table, &server, &directory.0, arguments)?;
    history::followed(&mut table, &server, &directory.0, arguments)?;
    trigger::to_dump(&mut table, &server, &directory.0, arguments, &trigger::SMALL)?;
    questions::snapshot(&mut table, &server, &directory.0, &questions::SMALL)?;
    if !arguments.small {
        trigger::to_dump(&mut table, &server, &directory.0, arguments, &trigger::LARGE)?;
        let recording = questions::snapshot(&mut table, &server, &directory.0, &questions::LARGE)?;
        questions::graph(&mut table, &recording)?;
        questions::why(&mut table, &recording)?;
    }
    table.print();
    Ok(())
}

/// Runs this very program again as root: cargo itself stays with the user.
fn again_as_root() -> Result<()> {
    let mut command = as_root(&env::current_exe()?).context("measure")?;
    let words = env::args_os().skip_while(|word| word != "bench");
    process::run(command.args(words).arg("--built"))
}

/// Where servers and recordings live while it lasts; on the disk of the build, since they may be large.
struct Directory(PathBuf);

impl Directory {
    fn make() -> Result<Self> {
        let path = root().join(format!("target/bench-{}", std::process::id()));
        std::fs::create_dir_all(&path).with_context(|| format!("make {}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        // What cannot be removed lies in target/, which may go at any time.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The middle of the values; NaN when there are none.
fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
