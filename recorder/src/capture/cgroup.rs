//! From the kernel's number of a cgroup to its path.
//!
//! What the number stands for is read when it is first seen: a number is a file handle of the cgroup's folder,
//! with which it is opened at once, however many there are. A cgroup that has gone by then had its path
//! recorded when it was made.

use std::fs::{self, File};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use super::generations::Generations;
use super::procfs;

/// Cgroups that are remembered at least.
const GENERATION: usize = 65_536;

/// The longest path that the kernel tells.
const PATH_BYTES: usize = 1024;

/// Paths of cgroups, by number.
pub struct Cgroups {
    mount: Option<(PathBuf, File)>,
    paths: Generations<String>,
    /// The path whose pieces are being read, and its cgroup.
    piecemeal: (u64, Vec<u8>),
    /// There are hierarchies of version 1.
    legacy: bool,
}

impl Default for Cgroups {
    /// Knows nothing, and asks nobody.
    fn default() -> Self {
        let paths = Generations::new(GENERATION);
        Self { mount: None, paths, piecemeal: (0, Vec::new()), legacy: false }
    }
}

impl Cgroups {
    /// Those there are now, so that one that goes before it is asked for has a path all the same.
    pub fn read() -> Self {
        let mount =
            procfs::cgroup_mount().and_then(|path| Some((path.clone(), File::open(path).ok()?)));
        let mut cgroups = Self { mount, legacy: procfs::has_legacy_cgroups(), ..Self::default() };
        cgroups.walk();
        cgroups
    }

    fn walk(&mut self) {
        let Some((mount, _)) = &self.mount else { return };
        let mut open = vec![mount.clone()];
        let mut left = GENERATION;
        while let Some(directory) = open.pop() {
            let Ok(metadata) = fs::metadata(&directory) else { continue };
            let below = directory.strip_prefix(mount).unwrap_or(&directory);
            self.paths.put(metadata.ino(), format!("/{}", below.display()));
            left -= 1;
            if left == 0 {
                return;
            }
            let Ok(entries) = fs::read_dir(&directory) else { continue };
            let below = entries.flatten().filter(|e| e.file_type().is_ok_and(|t| t.is_dir()));
            open.extend(below.map(|e| e.path()));
        }
    }

    /// The path of a cgroup below the mount; nothing if it was gone before anything told of it.
    pub fn path(&mut self, number: u64) -> Option<&str> {
        if self.paths.get(number).is_none()
            && let Some(path) = self.open(number)
        {
            self.paths.put(number, path);
        }
        self.paths.get(number).map(|path| path.as_str())
    }

    /// The number of the cgroup of version 2 in which a process lives now whose path `/proc` told; 0 where only
    /// one version is there.
    pub fn number(&self, path: &str) -> u64 {
        let Some((mount, _)) = self.mount.as_ref().filter(|_| self.legacy) else { return 0 };
        // A path that version 2 does not have is one of version 1: it lives in version 2's root.
        let folders = [mount.join(path.trim_start_matches('/')), mount.clone()];
        folders.iter().find_map(|folder| fs::metadata(folder).ok()).map_or(0, |found| found.ino())
    }

    /// Whether a process with this cgroup of version 2 lives in those of version 1.
    pub fn lives_elsewhere(&self, path: &str) -> bool {
        self.legacy && matches!(path, "/" | "")
    }

    /// Takes in a piece of the path of a cgroup that was made. A path with a piece missing is not believed.
    pub fn learn(&mut self, number: u64, at: u32, piece: &[u8]) {
        let length = piece.iter().position(|&byte| byte == 0).unwrap_or(piece.len());
        let (of, path) = &mut self.piecemeal;
        if at == 0 {
            (*of, *path) = (number, Vec::new());
        }
        if *of != number || path.len() != at as usize || path.len() + length > PATH_BYTES {
            *of = 0;
            return;
        }
        path.extend_from_slice(&piece[..length]);
        if length + 1 < piece.len() {
            let path = String::from_utf8_lossy(path).into_owned();
            self.paths.put(number, path);
        }
    }

    /// What a handle opens has a path.
    fn open(&self, number: u64) -> Option<String> {
        let (mount, root) = self.mount.as_ref()?;
        let mut handle = Handle { bytes: 8, kind: FILEID_KERNFS, number };
        // SAFETY: the handle has the form the kernel expects, and lives until the call returns.
        let folder = unsafe {
            let handle = (&raw mut handle).cast();
            let flags = libc::O_PATH | libc::O_DIRECTORY | libc::O_CLOEXEC;
            match libc::open_by_handle_at(root.as_raw_fd(), handle, flags) {
                -1 => return None,
                folder => OwnedFd::from_raw_fd(folder),
            }
        };
        let path = fs::read_link(format!("/proc/self/fd/{}", folder.as_raw_fd())).ok()?;
        let below = path.strip_prefix(mount).ok()?.to_str()?;
        // It may have been removed between the two calls, which does not change what it was called.
        Some(format!("/{}", below.strip_suffix(" (deleted)").unwrap_or(below)))
    }
}

/// `struct file_handle` of a file on kernfs (include/linux/exportfs.h).
#[repr(C)]
struct Handle {
    bytes: u32,
    kind: i32,
    number: u64,
}

const FILEID_KERNFS: i32 = 0xfe;

#[cfg(test)]
mod tests {
    use super::*;

    /// As the probe cuts it: 63 bytes and a 0, or what is left.
    fn pieces(path: &str) -> Vec<(u32, [u8; 64])> {
        let mut pieces = Vec::new();
        let mut rest = path.as_bytes();
        loop {
            let (now, later) = rest.split_at(rest.len().min(63));
            let mut piece = [0; 64];
            piece[..now.len()].copy_from_slice(now);
            pieces.push(((path.len() - rest.len()) as u32, piece));
            rest = later;
            if now.len() < 63 {
                return pieces;
            }
        }
    }

    fn learnt(path: &str, pieces: &[(u32, [u8; 64])]) -> bool {
        let mut cgroups = Cgroups::default();
        pieces.iter().for_each(|(at, piece)| cgroups.learn(7, *at, piece));
        cgroups.path(7) == Some(path)
    }

    #[test]
    fn a_path_is_put_together_from_its_pieces() {
        for length in [1, 2, 62, 63, 64, 126, 127, 200, 1000] {
            let path = format!("/{}", "c".repeat(length - 1));
            let whole = pieces(&path);
            assert!(learnt(&path, &whole), "{length}");
            for without in 0..whole.len() {
                let mut broken = whole.clone();
                broken.remove(without);
                assert!(!learnt(&path, &broken), "{length} without {without}");
            }
        }
    }

    #[test]
    fn a_piece_of_another_cgroup_is_not_mixed_in() {
        let (path, other) = ("/a".repeat(50), "/b".repeat(50));
        let mut cgroups = Cgroups::default();
        let (one, two) = (pieces(&path), pieces(&other));
        for (number, (at, piece)) in [(7, one[0]), (8, two[0]), (7, one[1]), (8, two[1])] {
            cgroups.learn(number, at, &piece);
        }
        assert_eq!(cgroups.path(7), None);
    }
}
