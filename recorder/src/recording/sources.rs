//! Which files make up one history: folders opened, files that are given twice left out, hosts told apart.

use std::collections::HashMap;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::checkpoint::Part;
use super::file::RecordingFile;
use super::read::{Note, ReadError};
use crate::event::Host;

/// One file, and what it says of itself. It is opened again when it is read: of hundreds of files, few are
/// open at a time.
pub(super) struct Source {
    pub(super) path: PathBuf,
    host: Host,
    parts: Vec<Part>,
}

/// The files of each host, in the order of their beginnings, and what was left out.
#[derive(Default)]
pub(super) struct Sources {
    pub(super) hosts: Vec<Vec<Source>>,
    pub(super) notes: Vec<Note>,
}

/// Finds out whose recordings these are. The order in which they are named does not matter.
pub(super) fn gather(paths: &[PathBuf]) -> Result<Sources, ReadError> {
    let mut gathered = Sources::default();
    let mut sources: Vec<Source> = Vec::new();
    let mut inodes: HashMap<(u64, u64), PathBuf> = HashMap::new();
    for path in files(paths)? {
        let file = RecordingFile::open(&path)?;
        let metadata = file.file.metadata().map_err(|source| ReadError::io(&path, source))?;
        if let Some(first) = inodes.insert((metadata.dev(), metadata.ino()), path.clone()) {
            gathered.notes.push(Note::Same { first, second: path });
            continue;
        }
        let parts = file.parts.into_iter().map(|(_, part)| part).collect();
        sources.push(Source { path, host: file.host, parts });
    }
    sources.sort_by(|a, b| a.order().cmp(&b.order()));
    for source in sources {
        match gathered.hosts.last_mut() {
            Some(host) if identity(&host[0].host) == identity(&source.host) => {
                match host.iter().find(|other| other.is_copy(&source)) {
                    Some(first) => gathered
                        .notes
                        .push(Note::Same { first: first.path.clone(), second: source.path }),
                    None => host.push(source),
                }
            }
            _ => gathered.hosts.push(vec![source]),
        }
    }
    gathered.hosts.sort_by(|a, b| a[0].host.name.cmp(&b[0].host.name));
    Ok(gathered)
}

impl Source {
    /// By host; within a host by time, so that its windows are joined in their order.
    fn order(&self) -> (&str, u64, &Path) {
        let from_ns = self.host.bulk_window.from_ns.min(self.host.rare_window.from_ns);
        (identity(&self.host), from_ns, &self.path)
    }

    /// How many events it says it has.
    pub(super) fn rows(&self) -> u64 {
        self.parts.iter().map(|part| part.rows).sum()
    }

    /// The parts have hashes: what agrees in all of them has the same events.
    fn is_copy(&self, other: &Self) -> bool {
        self.parts == other.parts && self.host == other.host
    }
}

/// One boot is one host: its clock and its cookies begin anew with the next.
fn identity(host: &Host) -> &str {
    if host.boot_id.is_empty() { &host.name } else { &host.boot_id }
}

fn files(paths: &[PathBuf]) -> Result<Vec<PathBuf>, ReadError> {
    let mut files = Vec::new();
    for path in paths {
        if !path.is_dir() {
            files.push(path.clone());
            continue;
        }
        let entries = path.read_dir().map_err(|source| ReadError::io(path, source))?;
        let mut inside = entries
            .map(|entry| entry.map(|entry| entry.path()))
            .collect::<io::Result<Vec<_>>>()
            .map_err(|source| ReadError::io(path, source))?;
        inside.retain(|file| file.extension().is_some_and(|extension| extension == "parquet"));
        if inside.is_empty() {
            return Err(ReadError::EmptyFolder { path: path.clone() });
        }
        inside.sort();
        files.append(&mut inside);
    }
    Ok(files)
}
