//! The compiler and the linker of the probes.
//!
//! The compiler is one that has `core` for the kernel's instruction set: ready made, as some distributions
//! bring it, or as sources, as rustup's nightly does. rustup knows the first kind by the name
//! [`LINKED`], and `recorder/build.rs` takes that toolchain where it is linked, else `nightly`.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use anyhow::{Context, Result, bail, ensure};

use super::apt;
use crate::process::{cargo, find, run, say, stdout};

/// What the toolchain is called that brings `core` for BPF ready made.
const LINKED: &str = "wherefore-bpf";

/// Debian's compiler, kept fresh for building browsers, with `core` for BPF.
const PACKAGES: [&str; 3] = ["rustc-web", "cargo-web", "libstd-rust-web-dev-bpf"];

/// Its lints, for `lint`: welcome, not needed.
const CLIPPY_PACKAGE: &str = "rust-web-clippy";

/// The bpf-linker that goes with an LLVM 22, which is what both the pinned toolchain (whose library
/// it loads) and the distribution's compiler have. The linker's LLVM must not be older than the compiler's:
/// it could not read the bitcode.
const LINKER_VERSION: &str = "0.10.3";

/// A compiler for the probes that is there.
pub enum BpfToolchain {
    /// `core` is ready made, and rustup knows the toolchain as [`LINKED`].
    Linked,
    /// rustup's nightly, with the sources of `core`.
    Nightly,
}

impl BpfToolchain {
    pub fn name(&self) -> &'static str {
        match self {
            Self::Linked => LINKED,
            Self::Nightly => "nightly",
        }
    }
}

/// The compiler that the build will take.
pub fn bpf_toolchain() -> Option<BpfToolchain> {
    let toolchains = toolchains();
    if has_core_for_bpf(&toolchains.join(LINKED)) {
        return Some(BpfToolchain::Linked);
    }
    let is_linked = fs::symlink_metadata(toolchains.join(LINKED)).is_ok();
    let nightly = installed_nightly().filter(|nightly| has_sources(nightly));
    // A link to what is gone would still be taken by the build.
    nightly.filter(|_| !is_linked).map(|_| BpfToolchain::Nightly)
}

pub fn missing() -> Vec<String> {
    let compiler = "a Rust compiler for BPF (packages rustc-web, cargo-web and libstd-rust-web-dev-bpf, or \
                    rustup's nightly with rust-src; for building the probes)";
    let linker =
        format!("bpf-linker  (crate bpf-linker {LINKER_VERSION}; for building the probes)");
    let mut missing = Vec::new();
    missing.extend(bpf_toolchain().is_none().then(|| compiler.to_owned()));
    missing.extend(find("bpf-linker").is_none().then_some(linker));
    missing
}

pub fn install_compiler() -> Result<()> {
    ensure!(
        find("rustup").is_some(),
        "rustup is missing; it chooses the compilers (https://rustup.rs, or the distribution's package)"
    );
    if bpf_toolchain().is_some() {
        return Ok(());
    }
    if let Some(prefix) = prefixes().into_iter().find(|prefix| has_core_for_bpf(prefix)) {
        return link(&prefix);
    }
    // Without root there still is rustup, which installs for oneself.
    if apt::is_here() && apt::may_install() && apt::knows(&PACKAGES) {
        let clippy = apt::knows(&[CLIPPY_PACKAGE]).then_some(CLIPPY_PACKAGE);
        apt::install(&PACKAGES.into_iter().chain(clippy).collect::<Vec<_>>())?;
        return link(Path::new("/usr"));
    }
    install_nightly().context(
        "get a compiler for BPF. Any will do that has `core` for bpfel-unknown-none ready made \
         (then: rustup toolchain link wherefore-bpf PREFIX), or rustup's nightly with rust-src",
    )
}

/// rustup adds a component only to a nightly that is the newest it was told of, so an old one without
/// sources is brought up to date as a whole when adding them fails.
fn install_nightly() -> Result<()> {
    let dead_link = toolchains().join(LINKED);
    if fs::symlink_metadata(&dead_link).is_ok() {
        run(Command::new("rustup").args(["toolchain", "uninstall", LINKED]))?;
    }
    if installed_nightly().is_some() {
        let add = ["component", "add", "rust-src", "--toolchain", "nightly"];
        if run(Command::new("rustup").args(add)).is_ok() {
            return Ok(());
        }
    }
    let install =
        ["toolchain", "install", "nightly", "--profile", "minimal", "--component", "rust-src"];
    run(Command::new("rustup").args(install))
}

fn link(prefix: &Path) -> Result<()> {
    ensure!(has_core_for_bpf(prefix), "{} has no `core` for BPF", prefix.display());
    say(format_args!(
        "setup: {} has `core` for BPF; rustup shall know it as {LINKED}",
        prefix.display()
    ));
    run(Command::new("rustup").args(["toolchain", "link", LINKED]).arg(prefix))
}

pub fn install_linker() -> Result<()> {
    if find("bpf-linker").is_some() {
        return Ok(());
    }
    let Some(toolchain) = bpf_toolchain() else {
        bail!("no compiler for BPF to choose a linker for")
    };
    let (compiler, pinned) = (llvm_of(toolchain.name())?, llvm_of_pinned()?);
    if compiler <= pinned {
        say(format_args!(
            "setup: installing bpf-linker {LINKER_VERSION} (LLVM {pinned}); about a minute"
        ));
        return run(&mut cargo(["install", "bpf-linker", "--version", LINKER_VERSION, "--locked"]));
    }
    // The newest linker follows the newest nightly, and may need it to be built.
    say(format_args!(
        "setup: installing the newest bpf-linker, since the compiler has LLVM {compiler}"
    ));
    let install = ["run", toolchain.name(), "cargo", "install", "bpf-linker", "--locked"];
    run(Command::new("rustup").args(install))
}

fn llvm_of(toolchain: &str) -> Result<u32> {
    llvm_version(&stdout(Command::new("rustup").args(["run", toolchain, "rustc", "-vV"]))?)
}

fn llvm_of_pinned() -> Result<u32> {
    llvm_version(&stdout(Command::new("rustc").arg("-vV").current_dir(crate::process::root()))?)
}

/// The major version in what `rustc -vV` says.
fn llvm_version(said: &str) -> Result<u32> {
    let version = said.lines().find_map(|line| line.strip_prefix("LLVM version: "));
    let major = version.and_then(|v| v.split('.').next()?.parse().ok());
    major.context("read the version of LLVM from `rustc -vV`")
}

fn has_core_for_bpf(prefix: &Path) -> bool {
    let libraries = fs::read_dir(prefix.join("lib/rustlib/bpfel-unknown-none/lib"));
    libraries.is_ok_and(|mut l| {
        l.any(|f| f.is_ok_and(|f| f.file_name().to_string_lossy().starts_with("libcore-")))
    })
}

fn has_sources(toolchain: &Path) -> bool {
    toolchain.join("lib/rustlib/src/rust/library/core").is_dir()
}

/// Where compilers may be installed: beside each `bin` of `$PATH`, and rustup's own.
fn prefixes() -> Vec<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let beside = env::split_paths(&path).filter(|bin| bin.join("rustc").exists());
    let mut prefixes: Vec<_> = beside.filter_map(|bin| Some(bin.parent()?.to_owned())).collect();
    prefixes.extend(installed_toolchains());
    prefixes
}

fn installed_nightly() -> Option<PathBuf> {
    let nightly = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        name.strip_prefix("nightly-")
            .is_some_and(|rest| !rest.starts_with(|c: char| c.is_ascii_digit()))
    };
    installed_toolchains().into_iter().find(nightly)
}

fn installed_toolchains() -> Vec<PathBuf> {
    let listed = fs::read_dir(toolchains());
    listed.into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

/// rustup's folder of toolchains.
fn toolchains() -> PathBuf {
    let home =
        || Path::new(&env::var_os("HOME").unwrap_or_else(|| OsString::from("/"))).join(".rustup");
    env::var_os("RUSTUP_HOME").map_or_else(home, PathBuf::from).join("toolchains")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn llvm_is_read_from_what_rustc_says() {
        let said = "rustc 1.96.0 (ac68faa20 2026-05-25)\nrelease: 1.96.0\nLLVM version: 22.1.8\n";
        assert_eq!(llvm_version(said).expect("it is there"), 22);
        assert!(llvm_version("rustc 1.96.0").is_err());
    }
}
