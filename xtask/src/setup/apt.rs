//! Packages of Debian and its descendants.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::process::{as_root, find, run, say, succeeds};

pub fn is_here() -> bool {
    find("apt-get").is_some() && find("dpkg").is_some()
}

/// Whether the archive, as far as this machine's lists go, has all of these packages.
pub fn knows(packages: &[&str]) -> bool {
    packages.iter().all(|p| succeeds(Command::new("apt-cache").args(["show", "--quiet=2", p])))
}

/// Installs the packages without starting, or leaving enabled, the services some of them bring.
pub fn install(packages: &[&str]) -> Result<()> {
    say(format_args!("setup: installing {}", packages.join(" ")));
    let mut shell = as_root(Path::new("sh")).with_context(|| {
        let packages = packages.join(" ");
        format!("install packages; as root: apt-get install --no-install-recommends {packages}")
    })?;
    run(shell.args(["-c", include_str!("apt.sh"), "apt.sh"]).args(packages))
}
