//! `dist`: the Debian package, at target/dist. One static binary that carries the probes, its manual pages and
//! completions, the unit for systemd and a configuration. The same sources and compiler give the same bytes.

mod package;
mod prove;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use anyhow::{Context, Result, bail, ensure};

use crate::process::{self, cargo, find, root, say, stdout};
use crate::setup;

#[derive(clap::Args)]
pub struct Arguments {
    /// Then install the package into an empty folder and record with it from there; as root or through sudo.
    #[arg(long)]
    check: bool,
}

pub fn run(arguments: &Arguments) -> Result<()> {
    ensure!(
        find("dpkg-deb").is_some(),
        "packages are made by dpkg-deb, which is not here: on Debian and its descendants"
    );
    setup::toolchain()?;
    let built = build()?;
    let folder = root().join("target/dist");
    let package = package::make(&built, &folder, epoch()?)?;
    if arguments.check {
        let again = package::make(&built, &folder.join("again"), epoch()?)?;
        ensure!(fs::read(&package)? == fs::read(&again)?, "packed twice, the package differs");
        prove::all(&package, &folder)?;
    }
    say(format_args!("the package  {}", package.display()));
    Ok(())
}

/// What the compiler makes: the command, and the folder of its pages.
struct Built {
    binary: PathBuf,
    pages: PathBuf,
}

/// Builds the command with C's library inside, so that it runs on any distribution and in an empty container.
fn build() -> Result<Built> {
    let target = target()?;
    let mut command =
        cargo(["build", "--profile", "dist", "--package", "recorder", "--target", &target]);
    command.args(["--bin", "wherefore", "--example", "pages"]);
    let variable = target.replace('-', "_").to_uppercase();
    // Where the sources lie on this machine is nobody's business, and would make each machine's package another.
    let home =
        env::var("CARGO_HOME").or_else(|_| env::var("HOME").map(|home| format!("{home}/.cargo")));
    let home = home.context("find cargo's folder")?;
    let flags = format!(
        "-C target-feature=+crt-static --remap-path-prefix={}=/wherefore --remap-path-prefix={home}=/cargo",
        root().display()
    );
    process::run(command.env(format!("CARGO_TARGET_{variable}_RUSTFLAGS"), flags))?;
    let folder = root().join("target").join(target).join("dist");
    let (binary, pages) = (folder.join("wherefore"), root().join("target/dist/pages"));
    ensure_static(&binary)?;
    clear(&pages)?;
    process::run(Command::new(folder.join("examples/pages")).arg(&pages))?;
    Ok(Built { binary, pages })
}

/// The compiler's own target.
fn target() -> Result<String> {
    let told = stdout(Command::new("rustc").arg("-vV").current_dir(root()))?;
    let host = told.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("ask rustc what it compiles for")?.to_owned())
}

/// A program that names an interpreter would look for libraries where it runs.
fn ensure_static(binary: &Path) -> Result<()> {
    let headers = stdout(
        Command::new("readelf").args(["--wide", "--program-headers", "--dynamic"]).arg(binary),
    )?;
    for word in ["INTERP", "(NEEDED)"] {
        ensure!(!headers.contains(word), "{} is not static: it has {word}", binary.display());
    }
    Ok(())
}

/// The time that all files get: `$SOURCE_DATE_EPOCH`, else that of the last commit.
fn epoch() -> Result<u64> {
    let told = match env::var("SOURCE_DATE_EPOCH") {
        Ok(told) => told,
        Err(_) => {
            stdout(Command::new("git").args(["log", "-1", "--format=%ct"]).current_dir(root()))
                .context("find the time of the sources; SOURCE_DATE_EPOCH can say it")?
        }
    };
    match told.trim().parse() {
        Ok(seconds) => Ok(seconds),
        Err(_) => bail!("SOURCE_DATE_EPOCH is `{}`: seconds since 1970 are meant", told.trim()),
    }
}

/// An empty folder.
fn clear(folder: &Path) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| format!("remove {}", folder.display()))?;
    }
    fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))
}
