//! Whether the package does what it is for: it is installed into an empty folder, and the command records from there.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::clear;
use crate::process::{as_root, run, say, stdout};

/// What has to be there when it is installed.
const EXPECTED: [&str; 9] = [
    "usr/bin/wherefore",
    "usr/lib/systemd/system/wherefore.service",
    "etc/wherefore.toml",
    "usr/share/man/man1/wherefore.1.gz",
    "usr/share/man/man1/wherefore-record.1.gz",
    "usr/share/bash-completion/completions/wherefore",
    "usr/share/zsh/vendor-completions/_wherefore",
    "usr/share/fish/vendor_completions.d/wherefore.fish",
    "usr/share/doc/wherefore/copyright",
];

/// The command in a system that holds nothing else: it records itself as it tells its version.
const RECORD: &str = "
mount --bind \"$0\" \"$0\"
mkdir -p \"$0/proc\" \"$0/sys\" \"$0/tmp\"
mount --rbind /proc \"$0/proc\"
mount --rbind /sys \"$0/sys\"
exec chroot \"$0\" /usr/bin/wherefore record -o /tmp/run.parquet -- /usr/bin/wherefore --version
";

pub fn all(package: &Path, folder: &Path) -> Result<()> {
    let system = folder.join("system");
    if system.exists() {
        run(root("rm")?.arg("-rf").arg(&system))?;
    }
    clear(&system)?;
    for below in ["info", "updates", "triggers"] {
        fs::create_dir_all(system.join("var/lib/dpkg").join(below))?;
    }
    for file in ["status", "available"] {
        fs::write(system.join("var/lib/dpkg").join(file), "")?;
    }
    run(dpkg(&system)?.arg("--install").arg(package))?;
    for path in EXPECTED {
        ensure!(system.join(path).is_file(), "the package has no {path}");
    }
    let told = stdout(dpkg(&system)?.args(["--status", "wherefore"]))?;
    ensure!(told.contains("\nConffiles:\n /etc/wherefore.toml "), "no conffile: {told}");
    verify(&system)?;
    records(&system)?;
    run(dpkg(&system)?.args(["--purge", "wherefore"]))?;
    for path in EXPECTED {
        ensure!(!system.join(path).exists(), "{path} stays when the package goes");
    }
    say(format_args!("dist: it is installed, records, and goes without a trace"));
    run(root("rm")?.arg("-rf").arg(&system))
}

/// What is installed is what was packed, and dpkg would know if it were not.
fn verify(system: &Path) -> Result<()> {
    let differ = || stdout(dpkg(system)?.args(["--verify", "wherefore"]));
    ensure!(differ()?.is_empty(), "what is installed is not what was packed: {}", differ()?);
    let page = system.join("usr/share/man/man1/wherefore.1.gz");
    run(root("truncate")?.args(["--size", "0"]).arg(&page))?;
    ensure!(differ()?.contains("wherefore.1.gz"), "dpkg does not notice what was broken");
    Ok(())
}

fn records(system: &Path) -> Result<()> {
    let version = format!("wherefore {}\n", env!("CARGO_PKG_VERSION"));
    let told = stdout(root("unshare")?.args(["--mount", "sh", "-ec", RECORD]).arg(system))?;
    ensure!(told == version, "its version is {told:?}, not {version:?}");
    let recording = system.join("tmp/run.parquet");
    let mut check = Command::new(system.join("usr/bin/wherefore"));
    let told = stdout(check.arg("check").arg(&recording))?;
    ensure!(told.contains("every edge holds"), "{told}");
    let mut why = Command::new(system.join("usr/bin/wherefore"));
    let told = stdout(why.arg("why").arg(&recording).arg("comm=wherefore op=exit"))?;
    ensure!(told.contains("exit 0"), "it did not see the program that it ran: {told}");
    Ok(())
}

fn root(program: &str) -> Result<Command> {
    as_root(Path::new(program)).context("install the package into a folder")
}

/// `dpkg` for that system; scripts are run from here, since it has no shell.
fn dpkg(system: &Path) -> Result<Command> {
    let mut command = root("dpkg")?;
    command.arg("--root").arg(system).arg("--force-script-chrootless");
    command.args(["--log", "/dev/null"]);
    Ok(command)
}
