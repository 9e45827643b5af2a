//! The programs that tests, demo and benchmarks run.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use anyhow::{Result, bail};

use super::apt;
use crate::process::{find, is_executable, say, succeeds};
use crate::vm;

struct Program {
    name: &'static str,
    /// The package of Debian and its descendants; elsewhere a hint.
    package: &'static str,
    why: &'static str,
}

const fn program(name: &'static str, package: &'static str, why: &'static str) -> Program {
    Program { name, package, why }
}

const PROGRAMS: [Program; 16] = [
    program("nginx", "nginx", "demo, tests of a proxy"),
    program("redis-server", "redis-server", "demo, tests and benchmarks under load"),
    program("redis-cli", "redis-tools", "tests"),
    program("redis-benchmark", "redis-tools", "tests and benchmarks under load"),
    program("python3", "python3", "demo, tests of threads, asyncio and TLS"),
    program("curl", "curl", "demo, tests"),
    program("wrk", "wrk", "tests under load"),
    program("initdb", "postgresql", "tests under load"),
    program("postgres", "postgresql", "tests under load"),
    program("pgbench", "postgresql", "tests under load"),
    program("psql", "postgresql-client", "tests of fault files"),
    program("ip", "iproute2", "tests across network namespaces"),
    program("nft", "nftables", "tests with address translation and loss"),
    program("openssl", "openssl", "tests of TLS"),
    program("prometheus", "prometheus", "tests of alerts"),
    program("prometheus-alertmanager", "prometheus-alertmanager", "tests of alerts"),
];

/// Documents promise one-liners for pandas and DuckDB, and a test runs them in an environment of its own.
const VENV: Program = program("python3 -m venv", "python3-venv", "tests of what documents promise");

/// A fault file tries its retry logic.
const REDIS: Program = program("python3's module redis", "python3-redis", "tests of fault files");

/// Where a kernel to boot is at hand.
const GUESTS: [Program; 2] = [
    program("qemu-system-x86_64", "qemu-system-x86", "tests in virtual machines"),
    program("insmod", "kmod", "tests in virtual machines with distributions' kernels"),
];

fn missing() -> Vec<&'static Program> {
    let guests = GUESTS.iter().filter(|_| !vm::image::all().is_empty());
    let wanted = PROGRAMS.iter().chain(guests);
    let mut missing: Vec<_> = wanted.filter(|p| locate(p.name).is_none()).collect();
    for (import, needed) in [("import ensurepip, venv", &VENV), ("import redis", &REDIS)] {
        if !succeeds(Command::new(python()).args(["-c", import])) {
            missing.push(needed);
        }
    }
    missing
}

pub fn missing_lines() -> impl Iterator<Item = String> {
    missing().into_iter().map(|p| format!("{}  (package {}; for {})", p.name, p.package, p.why))
}

/// Installs what is missing; where the distribution is not known, says what to install.
pub fn install() -> Result<()> {
    let missing = missing();
    if missing.is_empty() {
        return Ok(());
    }
    if !apt::is_here() {
        say(format_args!("setup: this distribution is not known here. Please install:"));
        missing_lines().for_each(|line| say(format_args!("  {line}")));
        bail!("{} programs are missing", missing.len());
    }
    let mut packages: Vec<_> = missing.iter().map(|p| p.package).collect();
    packages.dedup();
    apt::install(&packages)?;
    let still: Vec<_> = missing_lines().collect();
    if !still.is_empty() {
        bail!("installed, and still not found: {}", still.join(", "));
    }
    Ok(())
}

/// Debian keeps the server's programs of PostgreSQL out of `$PATH`.
fn locate(name: &str) -> Option<PathBuf> {
    find(name).or_else(|| {
        let versions = fs::read_dir("/usr/lib/postgresql").ok()?;
        let programs = versions.flatten().map(|version| version.path().join("bin").join(name));
        programs.filter(|p| is_executable(p)).max()
    })
}

/// The Python to run: `$PYTHON`, else the distribution's, since what stands first in `$PATH` may be a
/// wrapper that runs three shells before it.
pub fn python() -> PathBuf {
    if let Some(python) = env::var_os("PYTHON") {
        return python.into();
    }
    let distribution = Path::new("/usr/bin/python3");
    if is_executable(distribution) { distribution.into() } else { "python3".into() }
}
