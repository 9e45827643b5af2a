//! A distribution's kernel, as it is: what its users have. What it needs to see the host's files are modules, put
//! into an initial file system; the others are loaded from the host as they are wanted.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use super::{Workshop, download, only};
use crate::process::{self, say};
use crate::vm::image;

/// Parts of the tree of modules that tests may want.
const WANTED: [&str; 13] = [
    "net",
    "lib",
    "crypto",
    "fs/9p",
    "fs/netfs",
    "fs/fscache",
    "fs/overlayfs",
    "drivers/virtio",
    "drivers/char/virtio_console.ko",
    "drivers/char/hw_random",
    "drivers/net/veth.ko",
    "drivers/net/dummy.ko",
    "drivers/net/tun.ko",
];

/// Runs before the host's files are there: busybox and the modules that bring them.
const FIRST: &str = include_str!("first.sh");

pub fn run(version: &str) -> Result<()> {
    let package = newest(version)?;
    let work = Workshop::open("fetch")?;
    let kernel = work.unpack(&download(&package, &work.folder)?, "kernel")?;
    let busybox =
        work.unpack(&download("busybox-static", &work.folder)?, "busybox")?.join("bin/busybox");
    let release = package.trim_start_matches("linux-image-");
    let modules = choose(&kernel, release, &busybox)?;
    let initrd = work.folder.join("initrd");
    make_initrd(&work.folder, &modules, release, &busybox, &initrd)?;
    let target = |name: &str| image::own_folder().join(format!("{name}-{release}"));
    let old = target("modules");
    if old.exists() {
        fs::remove_dir_all(&old).with_context(|| format!("remove {}", old.display()))?;
    }
    fs::rename(&modules, &old)?;
    fs::rename(&initrd, target("initrd"))?;
    // Last: with it the image is complete.
    fs::rename(kernel.join(format!("boot/vmlinuz-{release}")), target("vmlinuz"))?;
    say(format_args!("kernel: {} is Debian's {package}", target("vmlinuz").display()));
    Ok(())
}

/// The newest package of that version, signed and for ordinary machines.
fn newest(version: &str) -> Result<String> {
    let start = format!("linux-image-{version}.");
    let names = process::stdout(Command::new("apt-cache").args(["pkgnames", &start]))?;
    let special = ["-cloud-", "-rt-", "-dbg", "-unsigned"];
    let ordinary =
        |name: &&str| name.ends_with("-amd64") && !special.iter().any(|word| name.contains(word));
    let number = |name: &str| -> Vec<u32> {
        name.split(|c: char| !c.is_ascii_digit()).filter_map(|n| n.parse().ok()).collect()
    };
    let newest = names.lines().filter(ordinary).max_by_key(|name| number(name));
    Ok(newest.with_context(|| format!("apt knows no kernel {start}…-amd64"))?.to_owned())
}

/// Keeps what tests may want of the modules; the folder in which their `lib/modules` lies.
fn choose(kernel: &Path, release: &str, busybox: &Path) -> Result<PathBuf> {
    let from = kernel.join("lib/modules").join(release);
    let to = kernel.join("chosen");
    let inside = to.join("lib/modules").join(release);
    for part in WANTED {
        let (part, target) = (from.join("kernel").join(part), inside.join("kernel").join(part));
        let Some(parent) = target.parent().filter(|_| part.exists()) else { continue };
        fs::create_dir_all(parent)?;
        fs::rename(&part, &target).with_context(|| format!("take {}", part.display()))?;
    }
    for list in ["modules.builtin", "modules.builtin.modinfo", "modules.order"] {
        fs::rename(from.join(list), inside.join(list))?;
    }
    process::run(Command::new(busybox).arg("depmod").arg("-b").arg(&to).arg(release))?;
    Ok(to)
}

fn make_initrd(
    work: &Path,
    modules: &Path,
    release: &str,
    busybox: &Path,
    initrd: &Path,
) -> Result<()> {
    let root = work.join("first");
    for folder in ["bin", "proc", "sys", "dev", "root"] {
        fs::create_dir_all(root.join(folder))?;
    }
    fs::copy(busybox, root.join("bin/busybox"))?;
    let init = root.join("init");
    fs::write(&init, FIRST)?;
    fs::set_permissions(&init, fs::Permissions::from_mode(0o755))?;
    let inside = Path::new("lib/modules").join(release);
    for part in [
        "net/9p",
        "fs/9p",
        "fs/netfs",
        "fs/fscache",
        "fs/overlayfs",
        "drivers/virtio",
        "drivers/char",
    ] {
        let part = inside.join("kernel").join(part);
        copy_tree(&modules.join(&part), &root.join(&part))?;
    }
    for list in ["modules.builtin", "modules.order"] {
        fs::copy(modules.join(&inside).join(list), root.join(&inside).join(list))?;
    }
    process::run(Command::new(busybox).arg("depmod").arg("-b").arg(&root).arg(release))?;
    let pack = r#"find . | "$0" cpio -o -H newc > "$1""#;
    let mut shell = Command::new("sh");
    shell.current_dir(&root).args(["-c", pack]).arg(busybox).arg(initrd).stderr(Stdio::null());
    ensure!(shell.status()?.success(), "pack {}", initrd.display());
    only(work, "initrd").map(drop)
}

fn copy_tree(from: &Path, to: &Path) -> Result<()> {
    if !from.exists() {
        return Ok(());
    }
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)?.flatten() {
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_tree(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), &target)?;
        }
    }
    Ok(())
}
