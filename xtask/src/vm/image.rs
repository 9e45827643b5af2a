//! Kernels to boot: those that `cargo xtask kernel` has made or fetched, and those that lie ready elsewhere.

use std::path::{Path, PathBuf};
use std::{env, fs};

use crate::process::root;

/// A kernel, and what it needs to see this machine's files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// Its version.
    pub name: String,
    pub path: PathBuf,
    pub files: Files,
}

/// How the guest comes by the host's files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Files {
    /// Over 9p; all that is needed is built into the kernel.
    Plan9,
    /// Over 9p, by modules in an initial file system that lies beside the kernel, as do the other modules.
    Plan9ByModules { initrd: PathBuf, modules: PathBuf },
    /// Over virtiofs, which distributions' newer kernels have built in; the overlay is a module beside the kernel.
    Virtiofs { modules: Vec<PathBuf> },
}

/// Where `cargo xtask kernel` leaves images.
pub fn own_folder() -> PathBuf {
    root().join("target/kernels")
}

/// All images that are there, newest version first; of two of one name the first found.
pub fn all() -> Vec<Image> {
    let mut images: Vec<Image> = Vec::new();
    for image in folders().iter().flat_map(|folder| in_folder(folder)) {
        if images.iter().all(|known| known.name != image.name) {
            images.push(image);
        }
    }
    images.sort_by_key(|image| std::cmp::Reverse(version(&image.name)));
    images
}

/// `$WHEREFORE_KERNELS`, `target/kernels`, and `shared/vm/kernels` beside a folder above this one.
fn folders() -> Vec<PathBuf> {
    let named = env::var_os("WHEREFORE_KERNELS").map(PathBuf::from);
    let beside = root().ancestors().skip(1).map(|above| above.join("shared/vm/kernels"));
    named.into_iter().chain([own_folder()]).chain(beside).collect()
}

fn in_folder(folder: &Path) -> Vec<Image> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut images: Vec<_> = entries.flatten().filter_map(|e| recognise(&e.path())).collect();
    images.sort_by(|a, b| a.name.cmp(&b.name));
    images
}

/// `bzImage-VERSION` was made by `cargo xtask kernel`; `vmlinuz-VERSION` is a distribution's.
fn recognise(path: &Path) -> Option<Image> {
    let file = path.file_name()?.to_str()?;
    let image = |name: &str, files| Image { name: name.to_owned(), path: path.into(), files };
    if let Some(version) = file.strip_prefix("bzImage-") {
        return Some(image(version, Files::Plan9));
    }
    let version = file.strip_prefix("vmlinuz-")?;
    let initrd = path.with_file_name(format!("initrd-{version}"));
    if initrd.exists() {
        let modules = path.with_file_name(format!("modules-{version}"));
        return Some(image(version, Files::Plan9ByModules { initrd, modules }));
    }
    let overlay = path.with_file_name("overlay.ko.xz");
    let modules = overlay.exists().then_some(overlay).into_iter().collect();
    Some(image(version, Files::Virtiofs { modules }))
}

/// The numbers at the beginning of a version: `6.12.107+deb13` is 6, 12, 107.
pub fn version(name: &str) -> Vec<u32> {
    let numbers =
        name.split(|c: char| !(c.is_ascii_digit() || c == '.')).next().unwrap_or_default();
    numbers.split('.').map_while(|number| number.parse().ok()).collect()
}

impl Image {
    pub fn is_own(&self) -> bool {
        self.files == Files::Plan9
    }

    /// Whether only root can show it this machine's files.
    pub fn needs_root(&self) -> bool {
        matches!(self.files, Files::Virtiofs { .. })
    }

    /// Whether the kernel is at least of this version.
    pub fn since(&self, wanted: [u32; 2]) -> bool {
        version(&self.name).as_slice() >= wanted.as_slice()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_as_numbers() {
        assert_eq!(version("6.12.107+deb13-cloud-amd64"), [6, 12, 107]);
        let image = |name: &str| recognise(Path::new("/k").join(name).as_path()).expect("a kernel");
        assert!(image("bzImage-6.12").since([6, 3]));
        assert!(!image("vmlinuz-6.1.0-56-amd64").since([6, 3]));
        assert!(image("bzImage-7.2").is_own() && !image("vmlinuz-7.2").is_own());
        assert_eq!(recognise(Path::new("/k/config-7.2")), None);
    }
}
