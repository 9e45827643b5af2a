//! The dumps that were seen: they stay as they are until the quota takes the oldest.

use std::collections::BTreeMap;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;

use recorder::recording::read;

use crate::daemon::running::wherefore;

/// A folder's files: name, length, and what stands for the content.
type Print = Vec<(String, u64, u64)>;

pub struct Kept {
    folder: PathBuf,
    quota: u64,
    known: BTreeMap<String, Print>,
    /// How many there were in all.
    pub seen: usize,
}

impl Kept {
    pub const fn new(folder: PathBuf, quota: u64) -> Self {
        Self { folder, quota, known: BTreeMap::new(), seen: 0 }
    }

    /// Compares with the last time. Nothing may be under way.
    pub fn look(&mut self, told: &str) {
        let now = self.prints();
        let half = now.keys().find(|name| name.starts_with('.'));
        assert_eq!(half, None, "{told}: nothing half made is left");
        let bytes: u64 = now.values().map(|print| size(print)).sum();
        assert!(bytes <= self.quota, "{told}: {bytes} bytes of {}", self.quota);
        let oldest = now.keys().find(|name| self.known.contains_key(*name));
        for (name, before) in &self.known {
            match now.get(name) {
                Some(print) => assert_eq!(print, before, "{told}: {name} is as it was"),
                None => {
                    assert!(oldest.is_none_or(|oldest| name < oldest), "{told}: {name} is gone")
                }
            }
        }
        if let Some(oldest) = oldest {
            // With the last one that went there was too much.
            if let Some((name, print)) = self.known.range(..oldest.clone()).next_back() {
                assert!(
                    bytes + size(print) > self.quota,
                    "{told}: {name} is gone without need, {bytes} bytes are held"
                );
            }
        }
        for name in now.keys().filter(|name| !self.known.contains_key(*name)) {
            self.seen += 1;
            check(&self.folder.join(name));
        }
        self.known = now;
    }

    /// Those that are left, once more.
    pub fn check_all(&self) {
        assert!(!self.known.is_empty());
        self.known.keys().for_each(|name| check(&self.folder.join(name)));
    }

    fn prints(&self) -> BTreeMap<String, Print> {
        let name =
            |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let prints = paths(&self.folder).into_iter().map(|dump| {
            let files = paths(&dump).into_iter().map(|file| {
                let bytes = fs::read(&file).expect("it is readable");
                let mut hasher = DefaultHasher::new();
                bytes.hash(&mut hasher);
                (name(&file), bytes.len() as u64, hasher.finish())
            });
            (name(&dump), files.collect())
        });
        prints.collect()
    }
}

fn size(print: &[(String, u64, u64)]) -> u64 {
    print.iter().map(|(_, bytes, _)| bytes).sum()
}

fn paths(folder: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = fs::read_dir(folder)
        .expect("a folder")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    paths.sort();
    paths
}

/// The commands can read it, its graph is right, and it was explained.
fn check(dump: &Path) {
    let told = dump.display();
    let recording = dump.join("recording.parquet").display().to_string();
    let checked = wherefore(&["check", &recording]);
    assert!(checked.contains("every edge holds"), "{told}: {checked}");
    let why = Command::new(tests::command::wherefore()).args(["why", &recording]).output();
    let why = why.expect("it starts");
    // 1: nothing failed in it.
    assert!(matches!(why.status.code(), Some(0 | 1)), "{told}: {why:?}");
    let text = fs::read_to_string(dump.join("why.txt")).expect("it was explained");
    assert!(text.starts_with("incident "), "{told}: {text}");
}

/// All of it can be read, and nothing half written is left.
pub fn check_history(folder: &Path) {
    let segments =
        paths(folder).into_iter().filter(|path| path.to_string_lossy().contains(".parquet"));
    let segments: Vec<PathBuf> = segments.collect();
    assert!(!segments.is_empty());
    for segment in segments {
        let recording = read::open(&[segment]).expect("it is readable");
        assert_eq!(recording.notes, []);
    }
}
