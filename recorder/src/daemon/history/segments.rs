//! The history's folder: recordings that follow one another, of which the oldest go first.
//!
//! ```text
//!   history/ 2026-11-20T12-00-01Z-000007.parquet        complete
//!            2026-11-20T12-01-01Z-000008.parquet.part   being written; all but its last seconds are readable
//!            lock  control
//! ```

use std::collections::VecDeque;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};
use jiff::Timestamp;
use nix::fcntl::{Flock, FlockArg};

use crate::recording;
use crate::recording::splice::Piece;

/// The folder, as its one writer has it.
pub struct Segments {
    directory: PathBuf,
    age: Option<Duration>,
    /// Most bytes of all that is complete.
    size: u64,
    /// Complete, the oldest first.
    held: VecDeque<Held>,
    number: u64,
    _lock: Flock<File>,
}

struct Held {
    path: PathBuf,
    bytes: u64,
    ended: SystemTime,
    /// Which recorder's, and for which stretch it is complete, monotonic ns.
    attached_ns: u64,
    from_ns: u64,
    to_ns: u64,
}

/// Who talks to whom is nobody else's business.
const OWNER_ALONE: u32 = 0o700;
const COMPLETE: &str = "parquet";
const PART: &str = "part";

impl Segments {
    /// Makes the folder if need be, and mends what was cut off when its writer was killed.
    ///
    /// # Errors
    /// When the folder cannot be made, or somebody else writes to it.
    pub fn open(directory: &Path, age: Option<Duration>, size: u64) -> Result<Self> {
        DirBuilder::new()
            .recursive(true)
            .mode(OWNER_ALONE)
            .create(directory)
            .with_context(|| format!("make the folder {}", directory.display()))?;
        let lock = lock(&directory.join("lock"))?;
        let (directory, held) = (directory.to_owned(), VecDeque::new());
        let mut segments = Self { directory, age, size, held, number: 0, _lock: lock };
        for path in listed(&segments.directory, COMPLETE)? {
            segments.hold(path)?;
        }
        segments.mend()?;
        Ok(segments)
    }

    /// Completes what was cut off; what has no complete part is of no use.
    ///
    /// # Errors
    /// When the disk is full.
    pub fn mend(&mut self) -> Result<()> {
        for path in listed(&self.directory, PART)? {
            let length = fs::metadata(&path).map_or(0, |metadata| metadata.len());
            match recording::repair(&path) {
                Ok(events) if events != Some(0) => self.complete(&path)?,
                Err(recording::read::ReadError::Io { source, .. }) => {
                    // Half a footer is of no use, and takes room.
                    let _ = OpenOptions::new().write(true).open(&path).map(|f| f.set_len(length));
                    return Err(source).with_context(|| format!("mend {}", path.display()));
                }
                Ok(_) | Err(_) => fs::remove_file(&path)
                    .with_context(|| format!("remove {}, which holds nothing", path.display()))?,
            }
        }
        Ok(())
    }

    /// A path for the next segment, while it is being written.
    pub fn new_path(&mut self) -> PathBuf {
        self.number += 1;
        let time = Timestamp::now().strftime("%Y-%m-%dT%H-%M-%SZ");
        self.directory.join(format!("{time}-{:06}.parquet.{PART}", self.number))
    }

    /// Gives a segment that is finished its name.
    ///
    /// # Errors
    /// When the folder or the file is not there any more.
    pub fn complete(&mut self, path: &Path) -> Result<()> {
        let target = path.with_extension("");
        fs::rename(path, &target).with_context(|| format!("rename {}", path.display()))?;
        self.hold(target)
    }

    fn hold(&mut self, path: PathBuf) -> Result<()> {
        let metadata =
            fs::metadata(&path).with_context(|| format!("look at {}", path.display()))?;
        // What cannot be read goes when its time has come.
        let piece = Piece::open(&path).unwrap_or_else(|_| Piece::unreadable(&path));
        self.number = self.number.max(number(&path));
        self.held.push_back(Held {
            bytes: metadata.len(),
            ended: metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH),
            attached_ns: piece.host.attached_ns,
            from_ns: piece.complete_from_ns(),
            to_ns: piece.to_ns(),
            path,
        });
        Ok(())
    }

    /// Takes away the oldest until the others are young and small enough.
    ///
    /// # Errors
    /// When a file cannot be removed.
    pub fn make_room(&mut self) -> Result<()> {
        let oldest = self.age.and_then(|age| SystemTime::now().checked_sub(age));
        let mut bytes: u64 = self.held.iter().map(|held| held.bytes).sum();
        while let Some(held) = self.held.front() {
            if bytes <= self.size && oldest.is_none_or(|oldest| held.ended >= oldest) {
                break;
            }
            if let Err(error) = fs::remove_file(&held.path)
                && error.kind() != io::ErrorKind::NotFound
            {
                return Err(error).with_context(|| format!("remove {}", held.path.display()));
            }
            bytes -= held.bytes;
            self.held.pop_front();
        }
        Ok(())
    }

    /// Up to when what a recorder raised has been kept, monotonic ns.
    pub fn kept_to_ns(&self, attached_ns: u64) -> Option<u64> {
        let newest = self.held.back().filter(|held| held.attached_ns == attached_ns);
        newest.map(|held| held.to_ns)
    }

    /// Since when all of a recorder's is there up to a moment.
    pub fn complete_from_ns(&self, attached_ns: u64, moment_ns: u64) -> u64 {
        let own = self.held.iter().rev().take_while(|held| held.attached_ns == attached_ns);
        own.fold((moment_ns, true), |(from_ns, meets), held| match meets && held.to_ns >= from_ns {
            true => (held.from_ns.min(from_ns), true),
            false => (from_ns, false),
        })
        .0
    }
}

/// Number of segments that are complete, and the bytes of all.
///
/// # Errors
/// When the folder cannot be read.
pub fn held(directory: &Path) -> Result<(usize, u64)> {
    let complete = listed(directory, COMPLETE)?;
    let all = complete.iter().cloned().chain(listed(directory, PART)?);
    let bytes = all.filter_map(|path| fs::metadata(path).ok()).map(|metadata| metadata.len()).sum();
    Ok((complete.len(), bytes))
}

/// The segments of this boot that reach into the time since `since_ns`, and the one that is being written; in the
/// order of their beginnings.
///
/// # Errors
/// When the folder cannot be read.
pub fn since(directory: &Path, boot_id: &str, since_ns: u64) -> Result<Vec<Piece>> {
    let mut pieces: Vec<Piece> = Vec::new();
    // The one that is being written first: if it gets its name meanwhile it is not missed.
    for path in listed(directory, PART)?.into_iter().chain(listed(directory, COMPLETE)?) {
        // Its writer may have given it its name, or taken it away.
        let Ok(mut piece) = Piece::open(&path) else { continue };
        piece.finished =
            (path.extension() != Some(COMPLETE.as_ref())).then(|| path.with_extension(""));
        let known = pieces.iter().any(|known| number(&known.path) == number(&path));
        if piece.host.boot_id == boot_id && piece.to_ns() >= since_ns && !known {
            pieces.push(piece);
        }
    }
    pieces.sort_by_key(Piece::from_ns);
    Ok(pieces)
}

/// Files with an ending, by number: the oldest first.
fn listed(directory: &Path, extension: &str) -> Result<Vec<PathBuf>> {
    let read = || -> io::Result<Vec<PathBuf>> {
        fs::read_dir(directory)?.map(|entry| entry.map(|entry| entry.path())).collect()
    };
    let mut paths = read().with_context(|| format!("list {}", directory.display()))?;
    paths.retain(|path| path.extension().is_some_and(|e| e == extension) && number(path) > 0);
    paths.sort_by_key(|path| number(path));
    Ok(paths)
}

/// A segment's number; 0: it is none.
fn number(path: &Path) -> u64 {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let stem = name.split(".parquet").next().unwrap_or_default();
    stem.rsplit('-').next().and_then(|number| number.parse().ok()).unwrap_or(0)
}

/// How long a writer that was told to end is waited for.
const LOOKS: u32 = 30;
const BETWEEN_LOOKS: Duration = Duration::from_millis(100);

fn lock(path: &Path) -> Result<Flock<File>> {
    let open = || File::create(path).with_context(|| format!("make {}", path.display()));
    let mut file = open()?;
    for _ in 0..LOOKS {
        file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Ok(lock),
            Err((file, _)) => file,
        };
        std::thread::sleep(BETWEEN_LOOKS);
    }
    bail!("{} is taken: another daemon keeps its history there", path.display())
}

#[cfg(test)]
mod tests;
