//! `kernel`: kernels to boot in virtual machines, made from the distribution's source or taken from its packages.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::process::{self, say};
use crate::setup::apt;
use crate::vm::image;

mod fetch;

/// What the build runs.
const TOOLS: [&str; 10] = [
    "gcc",
    "make",
    "flex",
    "bison",
    "bc",
    "libelf-dev",
    "libssl-dev",
    "dwarves",
    "lz4",
    "xz-utils",
];

const FRAGMENT: &str = include_str!("kernel/guest.config");

/// Options whose names differ between versions: that they were not taken is no reason to stop.
const DIFFERENT: [&str; 2] = ["CONFIG_PREEMPT_LAZY=", "CONFIG_PREEMPT_VOLUNTARY="];

/// What kernel, and how to come by it.
#[derive(clap::Args)]
pub struct Arguments {
    /// Version, like 6.12 [default: the newest whose source the distribution has].
    version: Option<String>,
    /// Take the distribution's own kernel of that version instead of building one.
    #[arg(long, requires = "version")]
    fetch: bool,
    /// How many compilers run at a time [default: one per CPU].
    #[arg(long, short)]
    jobs: Option<usize>,
}

pub fn run(arguments: &Arguments) -> Result<()> {
    ensure!(
        apt::is_here(),
        "only Debian's packages are known here; build any kernel with xtask/src/kernel/guest.config \
         and put it into target/kernels as bzImage-VERSION"
    );
    match &arguments.version {
        Some(version) if arguments.fetch => fetch::run(version),
        version => build(version.as_deref(), arguments.jobs),
    }
}

/// Unpacks the source, configures and compiles it: a quarter of an hour of one CPU, 4 GB of disk that are given back.
fn build(version: Option<&str>, jobs: Option<usize>) -> Result<()> {
    apt::install_missing(&TOOLS)?;
    let package = match version {
        Some(version) => format!("linux-source-{version}"),
        None => newest_source()?,
    };
    let work = Workshop::open("build")?;
    let unpacked = work.unpack(&download(&package, &work.folder)?, "deb")?;
    let sources = unpacked.join("usr/src");
    let archive = only(&sources, ".tar.xz")?;
    let tree = work.folder.join("tree");
    fs::create_dir(&tree)?;
    let mut tar = Command::new("tar");
    process::run(tar.arg("-C").arg(&tree).args(["--strip-components=1", "-xf"]).arg(&archive))?;
    fs::remove_dir_all(&unpacked)?;
    configure(&tree)?;
    let jobs = jobs.or_else(|| std::thread::available_parallelism().ok().map(usize::from));
    process::run(make(&tree).args([format!("-j{}", jobs.unwrap_or(1)), "bzImage".to_owned()]))?;
    let full = process::stdout(make(&tree).arg("kernelversion"))?;
    let name: String = full.trim().split('.').take(2).collect::<Vec<_>>().join(".");
    for (from, to) in [("arch/x86/boot/bzImage", "bzImage"), (".config", "config")] {
        let target = image::own_folder().join(format!("{to}-{name}"));
        fs::copy(tree.join(from), &target)
            .with_context(|| format!("write {}", target.display()))?;
        say(format_args!("kernel: {} is Linux {}", target.display(), full.trim()));
    }
    Ok(())
}

fn make(tree: &Path) -> Command {
    let mut make = Command::new("make");
    make.arg("--silent").arg("-C").arg(tree);
    make.envs([("KBUILD_BUILD_USER", "wherefore"), ("KBUILD_BUILD_HOST", "guest")]);
    make
}

/// Nothing but the fragment; all that it sets must have been taken.
fn configure(tree: &Path) -> Result<()> {
    let fragment = tree.join("guest.config");
    fs::write(&fragment, FRAGMENT)?;
    process::run(make(tree).env("KCONFIG_ALLCONFIG", &fragment).arg("allnoconfig"))?;
    let config = fs::read_to_string(tree.join(".config")).context("read the configuration")?;
    let taken: std::collections::HashSet<_> = config.lines().collect();
    let refused: Vec<_> = FRAGMENT
        .lines()
        .filter(|line| line.starts_with("CONFIG_") && !taken.contains(line))
        .filter(|line| DIFFERENT.iter().all(|name| !line.starts_with(name)))
        .collect();
    ensure!(refused.is_empty(), "this kernel does not take\n{}", refused.join("\n"));
    Ok(())
}

fn newest_source() -> Result<String> {
    let names = process::stdout(Command::new("apt-cache").args(["pkgnames", "linux-source-"]))?;
    let newest = names.lines().max_by_key(|name| image::version(&name["linux-source-".len()..]));
    Ok(newest.context("apt knows no package linux-source-…; `apt-get update`?")?.to_owned())
}

/// Lets apt fetch a package, which it checks against the archive's signed lists, and does not install it.
fn download(package: &str, folder: &Path) -> Result<PathBuf> {
    process::run(
        Command::new("apt-get").args(["--quiet=2", "download", package]).current_dir(folder),
    )
    .with_context(|| format!("fetch the package {package}"))?;
    only(folder, ".deb")
}

/// The one file in a folder whose name ends so.
fn only(folder: &Path, end: &str) -> Result<PathBuf> {
    let entries = fs::read_dir(folder).with_context(|| format!("read {}", folder.display()))?;
    let mut found = entries.flatten().map(|entry| entry.path());
    let found = found.find(|path| path.to_string_lossy().ends_with(end));
    found.with_context(|| format!("no {end} in {}", folder.display()))
}

/// A folder to work in, removed at the end.
struct Workshop {
    folder: PathBuf,
}

impl Workshop {
    fn open(name: &str) -> Result<Self> {
        let folder = image::own_folder().join(format!("{name}.work"));
        if folder.exists() {
            bail!("{} is there: is another one at work? Else remove it", folder.display());
        }
        fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
        // apt gives up its privileges before it writes there.
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o777))?;
        Ok(Self { folder })
    }

    /// Takes a package apart and away; where its files are.
    fn unpack(&self, package: &Path, name: &str) -> Result<PathBuf> {
        let target = self.folder.join(name);
        process::run(Command::new("dpkg-deb").arg("-x").arg(package).arg(&target))?;
        fs::remove_file(package)?;
        Ok(target)
    }
}

impl Drop for Workshop {
    fn drop(&mut self) {
        // What cannot be removed is named when the next one is opened.
        let _ = fs::remove_dir_all(&self.folder);
    }
}
