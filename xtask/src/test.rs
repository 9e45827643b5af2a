//! `test`: every test this machine can run, plainly by `cargo test`, so that its own lines end the output.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, bail, ensure};

use crate::process::{self, as_root, cargo, is_root, root, say};
use crate::{build, setup, vm};

/// Tests that load probes: they need root, and one at a time, since each looks at the whole machine.
const KERNEL_TESTS: [&str; 2] = ["kernel", "truth"];

/// What is run.
#[derive(clap::Args)]
pub struct Arguments {
    /// Only the tests in virtual machines.
    #[arg(long)]
    vm: bool,
    #[command(flatten)]
    guests: vm::Choice,
}

pub fn run(arguments: &Arguments) -> Result<()> {
    setup::run()?;
    build::run()?;
    if arguments.vm {
        let obstacle = vm::obstacle();
        ensure!(obstacle.is_none(), "cannot boot: {}", obstacle.unwrap_or_default());
        return vm::run(&arguments.guests, &built);
    }
    let mut failed = Vec::new();
    let mut part = |name: &'static str, done: Result<()>| {
        if let Err(error) = done {
            say(format_args!("error: {error:#}"));
            failed.push(format!("{name}: {error:#}"));
        }
    };
    // Always the whole workspace: other selections would build the dependencies again with other features.
    let workspace =
        |kinds: &[&str]| process::run(cargo(["test", "--workspace", "--no-fail-fast"]).args(kinds));
    part("unit tests", workspace(&["--lib", "--bins"]));
    part("documented examples", workspace(&["--doc"]));
    part("offline tests", workspace(&["--test", "offline"]));
    // Before the others, whose own lines end the output.
    match vm::obstacle() {
        Some(obstacle) => say(format_args!("tests in virtual machines: not run, {obstacle}")),
        None => part("tests in virtual machines", vm::run(&arguments.guests, &built)),
    }
    let may_be_root = as_root(Path::new("true")).is_ok();
    for name in KERNEL_TESTS.into_iter().filter(|_| may_be_root) {
        part(name, kernel_test(name));
    }
    if !may_be_root {
        say(format_args!(
            "not run, since they need root and sudo is missing or asks for a password: {} tests; \
             `sudo -v && cargo xtask test` runs them",
            KERNEL_TESTS.join(" and ")
        ));
    }
    ensure!(failed.is_empty(), "{}", failed.join("\n"));
    Ok(())
}

/// Builds the test as the one we are, and runs it as root.
fn kernel_test(name: &'static str) -> Result<()> {
    if is_root() {
        let test = ["test", "--workspace", "--test", name, "--", "--test-threads=1"];
        return process::run(&mut cargo(test));
    }
    let binary = built(name)?;
    let mut command = as_root(Path::new("env"))?;
    let package = root().join("tests");
    command.arg(format!("CARGO_MANIFEST_DIR={}", package.display())).arg(binary);
    process::run(command.arg("--test-threads=1").current_dir(package))
}

/// Where cargo put the test's binary.
fn built(name: &str) -> Result<PathBuf> {
    let build = ["test", "--workspace", "--no-run", "--message-format=json-render-diagnostics"];
    let mut command: Command = cargo(build);
    let messages = process::stdout(command.args(["--test", name]))?;
    for line in messages.lines() {
        let message: serde_json::Value = serde_json::from_str(line)?;
        let is_it = message["target"]["name"] == name && message["target"]["kind"][0] == "test";
        if let Some(path) = message["executable"].as_str().filter(|_| is_it) {
            return Ok(path.into());
        }
    }
    bail!("cargo built no test {name}")
}
