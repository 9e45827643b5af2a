//! Builds the probes for the kernel's instruction set, so that the command carries them.
//!
//! `$WHEREFORE_BPF_TOOLCHAIN` names the rustup toolchain that builds them; without it, the one that
//! `cargo xtask setup` links where the distribution brings the compiler, else rustup's `nightly`.

use std::env;
use std::path::Path;
use std::process::Command;

/// What `cargo xtask setup` calls the distribution's compiler.
const LINKED: &str = "wherefore-bpf";

/// The crates that may use unstable features with a stable compiler. Not `1`: aya-build would then build
/// `core` from sources, which such a compiler brings ready made.
const UNSTABLE: &str = "aya_ebpf,aya_ebpf_bindings,aya_ebpf_cty,probe";

fn main() -> anyhow::Result<()> {
    println!("cargo:rerun-if-env-changed=WHEREFORE_BPF_TOOLCHAIN");
    let toolchain = env::var("WHEREFORE_BPF_TOOLCHAIN").unwrap_or_else(|_| default_toolchain());
    // Asked when it runs: a build script that is copied with its folder has to find that folder's probes.
    let probes = format!("{}/../probe-ebpf", env::var("CARGO_MANIFEST_DIR")?);
    let wrapper = Path::new(&probes).join("rustc-v3").canonicalize()?;
    // SAFETY: a build script has one thread here.
    unsafe {
        env::set_var("RUSTC_WRAPPER", wrapper);
        env::set_var("CARGO_TERM_QUIET", "true"); // aya-build turns every line into a warning
        if !toolchain.starts_with("nightly") {
            env::set_var("RUSTC_BOOTSTRAP", UNSTABLE);
        }
    }
    aya_build::build_ebpf(
        [aya_build::Package { name: "probe-ebpf", root_dir: &probes, ..Default::default() }],
        aya_build::Toolchain::Custom(&toolchain),
    )
}

fn default_toolchain() -> String {
    let listed = Command::new("rustup").args(["toolchain", "list"]).output();
    let linked = listed.is_ok_and(|o| {
        String::from_utf8_lossy(&o.stdout).lines().any(|l| l.split(' ').next() == Some(LINKED))
    });
    if linked { LINKED } else { "nightly" }.to_owned()
}
