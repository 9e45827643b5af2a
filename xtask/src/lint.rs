//! `lint`: what can be said of the sources without running them.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use anyhow::{Context, Result, ensure};

use crate::process::{self, cargo, root, say, succeeds};
use crate::setup::{self, BpfToolchain};

mod links;

/// The crates of the probes that use unstable features, as `recorder/build.rs` has it.
const UNSTABLE: &str = "aya_ebpf,aya_ebpf_bindings,aya_ebpf_cty,probe";

pub fn run() -> Result<()> {
    setup::toolchain()?;
    process::run(&mut cargo(["fmt", "--all", "--check"]))?;
    let clippy = ["clippy", "--workspace", "--all-targets", "--", "--deny", "warnings"];
    process::run(&mut cargo(clippy))?;
    probes()?;
    let files = tracked()?;
    links::check(&files)?;
    scripts(&files)?;
    say(format_args!("lint: nothing to complain about"));
    Ok(())
}

/// The probes, for the kernel's instruction set: by clippy where the compiler for BPF has one, else by the
/// compiler alone.
fn probes() -> Result<()> {
    let toolchain = setup::bpf_toolchain().context("find the compiler for BPF")?;
    let name = toolchain.name();
    let has_clippy =
        succeeds(Command::new("rustup").args(["run", name, "cargo-clippy", "--version"]));
    let check = if has_clippy { "clippy" } else { "check" };
    if !has_clippy {
        say(format_args!("lint: toolchain {name} has no clippy, so the probes are only compiled"));
    }
    let mut command = Command::new("rustup");
    command.current_dir(root()).args(["run", name, "cargo", check, "--package", "probe-ebpf"]);
    command.args(["--lib", "--bin", "probe", "--target", "bpfel-unknown-none"]);
    command.arg("--target-dir").arg(root().join("target/lint-probes"));
    match toolchain {
        BpfToolchain::Linked => command.env("RUSTC_BOOTSTRAP", UNSTABLE),
        BpfToolchain::Nightly => command.args(["-Z", "build-std=core"]),
    };
    let target =
        format!("--deny=warnings --cfg=bpf_target_arch=\"{}\" -Ctarget-cpu=v3", env::consts::ARCH);
    process::run(command.env("RUSTFLAGS", target))
}

/// The files of the repository, ignored ones left out.
fn tracked() -> Result<Vec<PathBuf>> {
    let list = ["ls-files", "--cached", "--others", "--exclude-standard"];
    let listed = process::stdout(Command::new("git").args(list).current_dir(root()))?;
    Ok(listed.lines().map(|line| root().join(line)).filter(|path| path.is_file()).collect())
}

fn scripts(files: &[PathBuf]) -> Result<()> {
    let mut checked = 0;
    for path in files {
        let Some(mut parse) = parser(path) else { continue };
        let output =
            parse.arg(path).output().with_context(|| format!("parse {}", path.display()))?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr).trim_end());
        checked += 1;
    }
    say(format_args!("lint: {checked} scripts parse"));
    Ok(())
}

/// What parses the script without running it; `None` when it is none.
fn parser(path: &Path) -> Option<Command> {
    if path.extension().is_some_and(|extension| extension == "py") {
        let mut python = Command::new(setup::python());
        python.args(["-c", "import ast, sys; ast.parse(open(sys.argv[1]).read(), sys.argv[1])"]);
        return Some(python);
    }
    let text = fs::read(path).ok()?;
    let first = text.split(|&byte| byte == b'\n').next()?;
    let shell = if first.starts_with(b"#!") && first.ends_with(b"bash") {
        "bash"
    } else if first.starts_with(b"#!/bin/sh") {
        "sh"
    } else {
        return None;
    };
    let mut command = Command::new(shell);
    command.arg("-n");
    Some(command)
}
