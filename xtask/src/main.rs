//! `cargo xtask`: everything one does with this repository besides editing it.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod process;

mod setup;

mod build;

mod lint;
mod test;

mod arm64;
mod dist;
mod kernel;
mod vm;

mod bench;
mod demo;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Set up, build, check, test, show and measure wherefore")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Install what is missing: the probes' compiler and linker, and the programs that tests and demo run.
    ///
    /// Says what it does, and does nothing twice. Every other task that needs something calls it.
    Setup {
        /// Only say what is missing; exit 1 if anything is.
        #[arg(long)]
        check: bool,
    },
    /// Build the command `wherefore` with its probes, at target/debug/wherefore.
    Build,
    /// Check formatting, lints (host and kernel half), links in documents, and scripts.
    Lint,
    /// Record a real three-tier system in which a request fails, and explain why it failed.
    Demo,
    /// Measure what recording costs and what questions take, and print it beside the budgets.
    Bench(bench::Arguments),
    /// Build the command for aarch64, and run what of it needs no kernel in emulation.
    Arm64,
    /// Make a Debian package of the command, with manual pages, completions and the daemon's unit, at target/dist.
    Dist(dist::Arguments),
    /// Make a kernel for the tests in virtual machines, at target/kernels: from the distribution's source, or fetched.
    Kernel(kernel::Arguments),
    /// Run every test this machine can run; those that load probes need root or sudo.
    ///
    /// Where a kernel image is at hand, the tests of the kernel half run in virtual machines too.
    Test(test::Arguments),
}

fn main() -> ExitCode {
    let done = match Arguments::parse().task {
        Task::Setup { check: true } => setup::check(),
        Task::Setup { check: false } => setup::run(),
        Task::Build => build::run(),
        Task::Lint => lint::run(),
        Task::Arm64 => arm64::run_all(),
        Task::Dist(arguments) => dist::run(&arguments),
        Task::Kernel(arguments) => kernel::run(&arguments),
        Task::Test(arguments) => test::run(&arguments),
        Task::Demo => demo::run(),
        Task::Bench(arguments) => bench::run(&arguments),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            process::say(format_args!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}
