//! What lies where in the package, and what is told about it.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::{Built, clear};
use crate::process::{root, run, stdout};

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Files of the repository, and where they go. Documents keep their places to each other, so that their links hold.
const FILES: [(&str, &str); 6] = [
    ("deploy/wherefore.service", "usr/lib/systemd/system/wherefore.service"),
    ("deploy/wherefore.toml", "etc/wherefore.toml"),
    ("deploy/alertmanager.yml", "usr/share/doc/wherefore/deploy/alertmanager.yml"),
    ("deploy/prometheus-rules.yml", "usr/share/doc/wherefore/deploy/prometheus-rules.yml"),
    ("LICENSE-MIT", "usr/share/doc/wherefore/LICENSE-MIT"),
    ("LICENSE-APACHE", "usr/share/doc/wherefore/LICENSE-APACHE"),
];

/// Where shells look for completions.
const COMPLETIONS: [(&str, &str); 3] = [
    ("wherefore.bash", "usr/share/bash-completion/completions/wherefore"),
    ("_wherefore", "usr/share/zsh/vendor-completions/_wherefore"),
    ("wherefore.fish", "usr/share/fish/vendor_completions.d/wherefore.fish"),
];

/// Scripts that run when the package comes and goes.
const SCRIPTS: [(&str, &str); 3] = [
    ("postinst", include_str!("package/postinst.sh")),
    ("prerm", include_str!("package/prerm.sh")),
    ("postrm", include_str!("package/postrm.sh")),
];

/// Makes the package in a folder; its path.
pub fn make(built: &Built, folder: &Path, epoch: u64) -> Result<PathBuf> {
    let architecture = stdout(Command::new("dpkg").arg("--print-architecture"))?.trim().to_owned();
    let tree = folder.join("tree");
    clear(&tree)?;
    put(&built.binary, &tree.join("usr/bin/wherefore"), 0o755)?;
    for (from, to) in FILES {
        put(&root().join(from), &tree.join(to), 0o644)?;
    }
    for (from, to) in COMPLETIONS {
        put(&built.pages.join(from), &tree.join(to), 0o644)?;
    }
    documents(&tree)?;
    pages(built, &tree)?;
    control(&tree, &architecture)?;
    settle(&tree, epoch)?;
    let package = folder.join(format!("wherefore_{VERSION}_{architecture}.deb"));
    let mut pack = Command::new("dpkg-deb");
    // Threads would not change the bytes, but their number the memory.
    pack.args(["--build", "--root-owner-group", "-Zxz", "--threads-max=1"]);
    run(pack.arg(&tree).arg(&package).env("SOURCE_DATE_EPOCH", epoch.to_string()))?;
    Ok(package)
}

fn put(from: &Path, to: &Path, mode: u32) -> Result<()> {
    make_parent(to)?;
    fs::copy(from, to).with_context(|| format!("put {} into the package", from.display()))?;
    fs::set_permissions(to, Permissions::from_mode(mode))?;
    Ok(())
}

fn write(path: &Path, text: &str, mode: u32) -> Result<()> {
    make_parent(path)?;
    fs::write(path, text).with_context(|| format!("write {}", path.display()))?;
    fs::set_permissions(path, Permissions::from_mode(mode))?;
    Ok(())
}

fn make_parent(path: &Path) -> Result<()> {
    let folder = path.parent().context("a file lies in a folder")?;
    fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))
}

fn documents(tree: &Path) -> Result<()> {
    let documentation = tree.join("usr/share/doc/wherefore");
    for entry in fs::read_dir(root().join("docs"))?.flatten().filter(|e| e.path().is_file()) {
        put(&entry.path(), &documentation.join("docs").join(entry.file_name()), 0o644)?;
    }
    for entry in fs::read_dir(root().join("docs/faults"))?.flatten() {
        put(&entry.path(), &documentation.join("docs/faults").join(entry.file_name()), 0o644)?;
    }
    put(&root().join("CHANGELOG.md"), &documentation.join("changelog"), 0o644)?;
    zip(&documentation.join("changelog"))?;
    write(&documentation.join("copyright"), include_str!("package/copyright"), 0o644)
}

/// `wherefore.1` and one for each command.
fn pages(built: &Built, tree: &Path) -> Result<()> {
    let to = tree.join("usr/share/man/man1");
    for entry in fs::read_dir(&built.pages)?.flatten() {
        if entry.path().extension().is_some_and(|extension| extension == "1") {
            let page = to.join(entry.file_name());
            put(&entry.path(), &page, 0o644)?;
            zip(&page)?;
        }
    }
    ensure!(to.join("wherefore.1.gz").exists(), "there is no manual page");
    Ok(())
}

fn zip(path: &Path) -> Result<()> {
    let zipped = Command::new("gzip").args(["--best", "--no-name"]).arg(path).status();
    ensure!(zipped.context("run gzip")?.success(), "cannot compress {}", path.display());
    Ok(())
}

fn control(tree: &Path, architecture: &str) -> Result<()> {
    let kib = stdout(Command::new("du").args(["--summarize", "--apparent-size", "-k"]).arg(tree))?;
    let kib = kib.split_whitespace().next().context("how large the package is")?;
    let control = include_str!("package/control")
        .replace("{version}", VERSION)
        .replace("{architecture}", architecture)
        .replace("{kib}", kib);
    let folder = tree.join("DEBIAN");
    write(&folder.join("control"), &control, 0o644)?;
    // What the administrator changes there is kept.
    write(&folder.join("conffiles"), "/etc/wherefore.toml\n", 0o644)?;
    // By which `dpkg --verify` finds what was changed or broken later.
    let sums = "find etc usr -type f | sort | xargs md5sum";
    let sums = stdout(Command::new("sh").args(["-ec", sums]).current_dir(tree))?;
    write(&folder.join("md5sums"), &sums, 0o644)?;
    SCRIPTS.iter().try_for_each(|(name, text)| write(&folder.join(name), text, 0o755))
}

/// Gives everything the same time, and folders the usual mode whatever the umask is.
fn settle(tree: &Path, epoch: u64) -> Result<()> {
    run(Command::new("find").arg(tree).args(["-type", "d", "-exec", "chmod", "755", "{}", "+"]))?;
    let time = format!("--date=@{epoch}");
    run(Command::new("find").arg(tree).args([
        "-exec",
        "touch",
        "--no-dereference",
        &time,
        "{}",
        "+",
    ]))
}
