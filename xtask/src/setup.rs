//! `setup`: sees to what building, testing and the demo need, and changes nothing that is there already.
//!
//! What is installed is used; else the distribution's packages are; else rustup.

use anyhow::{Result, bail};

use crate::process::say;

pub mod apt;
mod programs;
mod toolchain;

/// Installs what is missing.
pub fn run() -> Result<()> {
    toolchain()?;
    programs::install()?;
    say(format_args!("setup: everything is there"));
    Ok(())
}

/// Only what the build needs: the compiler and the linker of the probes.
pub fn toolchain() -> Result<()> {
    toolchain::install_compiler()?;
    toolchain::install_linker()
}

/// Says what is missing, and does nothing about it.
pub fn check() -> Result<()> {
    let missing: Vec<_> =
        toolchain::missing().into_iter().chain(programs::missing_lines()).collect();
    if missing.is_empty() {
        say(format_args!("setup: everything is there"));
        return Ok(());
    }
    for line in &missing {
        say(format_args!("missing  {line}"));
    }
    bail!("{} things are missing; `cargo xtask setup` installs them", missing.len())
}

pub use programs::python;
pub use toolchain::{BpfToolchain, bpf_toolchain};
