//! `arm64`: builds the command for aarch64, probes included, and runs all of it there that asks nothing of the
//! kernel: QEMU emulates the processor, not a machine.
//!
//! The standard library is rustup's where that has it. Else it is taken out of the distribution's package for
//! that architecture, which is not installed: the machine stays one of a single architecture.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use anyhow::{Context, Result, ensure};

use crate::build;
use crate::process::{find, root, run, say, stdout};
use crate::setup::{self, apt};

const TARGET: &str = "aarch64-unknown-linux-gnu";

/// As `cargo` wants it in the names of variables.
const VARIABLE: &str = "AARCH64_UNKNOWN_LINUX_GNU";

/// The compiler for C and the linker, C's library, and the emulator.
const PACKAGES: [&str; 3] = ["gcc-aarch64-linux-gnu", "libc6-dev-arm64-cross", "qemu-user"];

/// Where these packages keep C's library.
const LIBRARIES: &str = "/usr/aarch64-linux-gnu";

/// The standard library that goes with the distribution's compiler.
const STANDARD_LIBRARY: &str = "libstd-rust-web-dev";

/// Rust's compiler, and where its standard library for the target lies if not beside it.
struct Compiler {
    toolchain: Option<&'static str>,
    sysroot: Option<PathBuf>,
}

pub fn run_all() -> Result<()> {
    // The same command for here, to compare answers with.
    build::run()?;
    let compiler = compiler()?;
    if find("aarch64-linux-gnu-gcc").is_none() || find("qemu-aarch64").is_none() {
        ensure!(apt::is_here(), "please install {}", PACKAGES.join(", "));
        apt::install_missing(&PACKAGES)?;
    }
    run(cargo(&compiler)?.args(["build", "--package", "recorder"]))?;
    // Whose tests of files, answers and text need no kernel.
    run(cargo(&compiler)?.args(["test", "--package", "recorder", "--lib"]))?;
    let binary = root().join("target/arm64").join(TARGET).join("debug/wherefore");
    for recording in recordings()? {
        for question in ["check", "why"] {
            emulated(&binary, &[Path::new(question), &recording])?;
        }
    }
    emulated(&binary, &[Path::new("--version")])
}

/// The recordings of all versions that are kept for tests.
fn recordings() -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(root().join("tests/data")).context("look into tests/data")?;
    let paths = entries.flatten().map(|entry| entry.path());
    Ok(paths.filter(|path| path.extension().is_some_and(|e| e == "parquet")).collect())
}

/// Answers must be those that the command gives here.
fn emulated(binary: &Path, arguments: &[&Path]) -> Result<()> {
    let answer = |command: &mut Command| -> Result<(Option<i32>, Vec<u8>)> {
        let output = command.args(arguments).output().context("run wherefore")?;
        Ok((output.status.code(), output.stdout))
    };
    let there = answer(Command::new("qemu-aarch64").args(["-L", LIBRARIES]).arg(binary))?;
    let here = answer(&mut Command::new(crate::process::wherefore()))?;
    let shown: Vec<_> = arguments.iter().map(|word| word.to_string_lossy()).collect();
    ensure!(there == here, "`wherefore {}` answers differently on aarch64", shown.join(" "));
    say(format_args!("arm64: `wherefore {}` answers as it does here", shown.join(" ")));
    Ok(())
}

/// `cargo` for the target, in a folder of its own: another compiler's artifacts are of no use to it.
fn cargo(compiler: &Compiler) -> Result<Command> {
    let mut command = Command::new("cargo");
    command.current_dir(root()).env("CARGO_TARGET_DIR", root().join("target/arm64"));
    command.env("CARGO_BUILD_TARGET", TARGET);
    command.env(format!("CARGO_TARGET_{VARIABLE}_LINKER"), "aarch64-linux-gnu-gcc");
    command.env(format!("CARGO_TARGET_{VARIABLE}_RUNNER"), format!("qemu-aarch64 -L {LIBRARIES}"));
    // What is built here is run a few times, slowly anyhow.
    command.envs([("CARGO_PROFILE_DEV_OPT_LEVEL", "0"), ("CARGO_PROFILE_DEV_DEBUG", "0")]);
    if let Some(toolchain) = compiler.toolchain {
        command.env("RUSTUP_TOOLCHAIN", toolchain).env_remove("RUSTC").env_remove("CARGO");
        // bpf-linker finds its LLVM there, and this toolchain has none of its own.
        command.env("LD_LIBRARY_PATH", pinned_sysroot()?.join("lib"));
    }
    if let Some(sysroot) = &compiler.sysroot {
        let flags = format!("--sysroot={}", sysroot.display());
        command.env(format!("CARGO_TARGET_{VARIABLE}_RUSTFLAGS"), flags);
    }
    Ok(command)
}

fn compiler() -> Result<Compiler> {
    if has_standard_library(&pinned_sysroot()?) {
        return Ok(Compiler { toolchain: None, sysroot: None });
    }
    let linked = setup::bpf_toolchain().filter(|t| matches!(t, setup::BpfToolchain::Linked));
    let hint = "get a standard library for aarch64: rustup target add aarch64-unknown-linux-gnu";
    let toolchain = linked.context(hint)?.name();
    let sysroot = root().join("target/arm64/sysroot");
    if !has_standard_library(&sysroot) {
        ensure!(apt::is_here(), hint);
        unpack_standard_library(&sysroot).context(hint)?;
    }
    Ok(Compiler { toolchain: Some(toolchain), sysroot: Some(sysroot) })
}

fn pinned_sysroot() -> Result<PathBuf> {
    let mut rustc = Command::new("rustc");
    rustc.args(["--print", "sysroot"]).current_dir(root()).env_remove("RUSTUP_TOOLCHAIN");
    Ok(stdout(&mut rustc)?.trim().into())
}

fn has_standard_library(sysroot: &Path) -> bool {
    let libraries = fs::read_dir(sysroot.join("lib/rustlib").join(TARGET).join("lib"));
    libraries.is_ok_and(|mut files| {
        files.any(|f| f.is_ok_and(|f| f.file_name().to_string_lossy().starts_with("libstd-")))
    })
}

/// Takes it out of the package, with lists and settings of its own: those of the machine stay as they are.
fn unpack_standard_library(sysroot: &Path) -> Result<()> {
    let folder = root().join("target/arm64/package");
    for below in ["lists/partial", "archives/partial"] {
        fs::create_dir_all(folder.join(below))?;
    }
    let version = ["-W", "-f", "${Version}", "rustc-web"];
    let version = stdout(Command::new("dpkg-query").args(version))?;
    let architecture = env::consts::ARCH.replace("x86_64", "amd64");
    let apt = |words: &[&str]| {
        let mut command = Command::new("apt-get");
        for option in [
            format!("Dir::State::lists={}", folder.join("lists").display()),
            format!("Dir::Cache={}", folder.display()),
            format!("APT::Architectures::={architecture}"),
            "APT::Architectures::=arm64".to_owned(),
            "APT::Sandbox::User=root".to_owned(),
        ] {
            command.args(["-o", &option]);
        }
        run(command.args(["--quiet=2"]).args(words).current_dir(&folder))
    };
    say(format_args!(
        "arm64: taking the standard library out of {STANDARD_LIBRARY}:arm64 {version}"
    ));
    apt(&["update"])?;
    apt(&["download", &format!("{STANDARD_LIBRARY}:arm64={version}")])?;
    let files = fs::read_dir(&folder)?.flatten().map(|file| file.path());
    let package = files.filter(|path| path.extension().is_some_and(|e| e == "deb")).max();
    let package = package.context("find the package that was downloaded")?;
    let unpacked = folder.join("root");
    run(Command::new("dpkg-deb").arg("--extract").arg(package).arg(&unpacked))?;
    let (from, to) = (unpacked.join("usr/lib/rustlib"), sysroot.join("lib/rustlib"));
    fs::create_dir_all(&to)?;
    fs::rename(from.join(TARGET), to.join(TARGET)).context("move the standard library")?;
    fs::remove_dir_all(&folder).context("remove what is left of the package")
}
