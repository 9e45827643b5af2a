//! Tests in virtual machines: kernels that this machine does not run, under QEMU, with this machine's files.
//!
//! One boot per kernel and group of tests. The guest sees the host's root, read-only under an overlay of memory, so
//! that it runs what was built here and leaves nothing behind.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::thread;

use anyhow::{Result, ensure};

use crate::process::{find, is_root, say};

mod group;
mod guest;
pub mod image;
mod table;
mod verdict;

use group::Job;
use verdict::Report;

/// More guests than this at a time want more memory than a small machine has.
const GUESTS: usize = 4;

/// Where more fail, it is not by chance.
const MOST_AGAIN: usize = 3;

/// Which part of the matrix is run.
#[derive(clap::Args, Default)]
pub struct Choice {
    /// Only kernels whose name begins so; repeatable.
    #[arg(long, value_name = "VERSION")]
    kernel: Vec<String>,
    /// Only groups whose name begins so; repeatable.
    #[arg(long, value_name = "NAME")]
    group: Vec<String>,
    /// The groups that take too long for every day as well.
    #[arg(long, conflicts_with = "group")]
    all: bool,
    /// Write the results into docs/kernels.md, in the place of all that is there. Wants every kernel.
    #[arg(long, conflicts_with_all = ["kernel", "group"])]
    write_table: bool,
}

/// Why guests cannot be booted here, if so.
pub fn obstacle() -> Option<String> {
    if image::all().is_empty() {
        let hint = "`cargo xtask kernel` builds one, or set WHEREFORE_KERNELS";
        return Some(format!("no kernel image; {hint}"));
    }
    find(guest::QEMU)
        .is_none()
        .then(|| format!("no {}; `cargo xtask setup` installs it", guest::QEMU))
}

/// Boots every chosen kernel with every chosen group of tests. The tests must have been built.
pub fn run(choice: &Choice, tests: &dyn Fn(&str) -> Result<PathBuf>) -> Result<()> {
    let chosen = |wanted: &[String], name: &str| {
        wanted.is_empty() || wanted.iter().any(|wanted| name.starts_with(wanted.as_str()))
    };
    let images = image::all().into_iter().filter(|i| chosen(&choice.kernel, &i.name));
    let (images, without): (Vec<_>, Vec<_>) = images.partition(|i| is_root() || !i.needs_root());
    ensure!(
        !choice.write_table || without.is_empty(),
        "the table wants every kernel: run it as root"
    );
    for image in without {
        say(format_args!(
            "vm {}: not run, since only root can show it this machine's files",
            image.name
        ));
    }
    let mut jobs = group::jobs(&images, choice.write_table, tests)?;
    let wanted = |job: &Job| job.daily || choice.all || !choice.group.is_empty();
    jobs.retain(|job| wanted(job) && chosen(&choice.group, &job.name()));
    let asked = !choice.kernel.is_empty() || !choice.group.is_empty();
    ensure!(
        !asked || !jobs.is_empty(),
        "no group of tests that is called so is for a kernel that is"
    );
    let (many, single): (Vec<Job>, Vec<Job>) = jobs.into_iter().partition(|job| job.cpus > 1);
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let mut reports = side_by_side(single, cores.min(GUESTS));
    // Virtual CPUs that wait for each other need as many real ones.
    reports.extend(side_by_side(many, (cores / 2).clamp(1, GUESTS)));
    let reports = once_more(reports);
    let table = table::Table::of(&images, &reports);
    say(format_args!("\n{}", table.text()));
    if choice.write_table {
        table.write()?;
    }
    let wrong: Vec<_> = reports.iter().filter(|r| !r.is_good()).map(Report::brief).collect();
    ensure!(wrong.is_empty(), "failed in a virtual machine:\n{}", wrong.join("\n"));
    Ok(())
}

/// Boots what has failed a second time, alone, where it is not much: without KVM a guest beside another stands still at
/// moments for which no test can allow. Both outcomes are printed; the second counts.
fn once_more(reports: Vec<Report>) -> Vec<Report> {
    let failed = reports.iter().filter(|report| !report.is_good()).count();
    let again = |report: Report| {
        // (Several processors are emulated by as many: here that guest was alone, or as good as.)
        if report.is_good() || failed > MOST_AGAIN || report.job.cpus > 1 || guest::has_kvm() {
            return report;
        }
        say(format_args!("vm {}: FAILED beside another, once more alone", report.job.title()));
        guest::keep_first(&report.job);
        guest::run(report.job)
    };
    reports.into_iter().map(again).collect()
}

/// Runs the jobs, so many at a time, in their order.
fn side_by_side(jobs: Vec<Job>, count: usize) -> Vec<Report> {
    let queue = Mutex::new(VecDeque::from(jobs));
    let reports = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..count {
            scope.spawn(|| {
                loop {
                    let next = queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
                    let Some(job) = next else { break };
                    let report = guest::run(job);
                    reports.lock().unwrap_or_else(PoisonError::into_inner).push(report);
                }
            });
        }
    });
    reports.into_inner().unwrap_or_else(PoisonError::into_inner)
}
