//! Packages of Debian and its descendants.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::process::{as_root, find, run, say, succeeds};

pub fn is_here() -> bool {
    find("apt-get").is_some() && find("dpkg").is_some()
}

pub fn may_install() -> bool {
    as_root(Path::new("true")).is_ok()
}

/// Whether the archive has all of these packages. A fresh machine's lists may be empty: they are fetched then.
pub fn knows(packages: &[&str]) -> bool {
    let listed = |p: &&str| succeeds(Command::new("apt-cache").args(["show", "--quiet=2", p]));
    let all = || packages.iter().all(listed);
    all() || (fetch_lists().is_ok() && all())
}

fn fetch_lists() -> Result<()> {
    run(as_root(Path::new("apt-get"))?.args(["update", "--quiet=2"]))
}

/// Installs those of the packages that are not there.
pub fn install_missing(packages: &[&str]) -> Result<()> {
    let missing: Vec<_> =
        packages.iter().copied().filter(|package| !is_installed(package)).collect();
    if missing.is_empty() { Ok(()) } else { install(&missing) }
}

/// dpkg also knows packages that are not installed, if others have named them.
fn is_installed(package: &str) -> bool {
    let mut query = Command::new("dpkg-query");
    query.args(["--show", "--showformat=${db:Status-Status}", package]);
    query.output().is_ok_and(|output| output.stdout == b"installed")
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
