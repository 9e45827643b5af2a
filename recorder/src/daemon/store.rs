//! Where dumps lie: made in a hidden folder and renamed when they are complete, so that whoever sees one sees
//! all of it. Limits keep a flapping alert from filling the disk.

use std::collections::{HashMap, VecDeque};
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use jiff::Timestamp;
use serde::Serialize;

use crate::daemon::config::Dumps;
use crate::trigger::Firing;

/// The folder of dumps, and what has been asked of it lately.
pub struct Store {
    limits: Dumps,
    /// When dumps were made in the last hour.
    made: VecDeque<Instant>,
    /// When a dump was last made for a key.
    keys: HashMap<String, Instant>,
    /// Occurrences that have their dump, oldest first.
    occurrences: VecDeque<String>,
    /// Names that were given last, some of which no folder has yet.
    given: VecDeque<String>,
}

/// Why no dump is made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    #[error("each of these alerts has its dump already")]
    Repeated,
    #[error("a dump was made for this {before_s} s ago, and the next one may come in {wait_s} s")]
    CoolingDown { before_s: u64, wait_s: u64 },
    #[error("{per_hour} dumps were made in the last hour, which is the limit")]
    TooMany { per_hour: usize },
    #[error("{waiting} dumps are waiting to be made, which is the limit")]
    Busy { waiting: usize },
}

/// A folder that is being filled.
#[derive(Debug)]
pub struct Draft {
    pub folder: PathBuf,
    target: PathBuf,
}

const HOUR: Duration = Duration::from_secs(3600);
const MOST_OCCURRENCES: usize = 4096;
/// More than can wait to be made.
const MOST_GIVEN: usize = 32;
/// Dumps tell who talks to whom.
const OWNER_ALONE: u32 = 0o700;
const DRAFT: &str = ".making-";

impl Store {
    /// Makes the folder if need be, and clears away what a daemon that was killed left half made.
    pub fn open(limits: &Dumps) -> Result<Self> {
        prepare(&limits.directory)?;
        let (made, keys, occurrences, given) = Default::default();
        Ok(Self { limits: limits.clone(), made, keys, occurrences, given })
    }

    /// Has other limits hold from now on, perhaps in another folder. What was made lately still counts.
    pub fn limit(&mut self, limits: &Dumps) -> Result<()> {
        prepare(&limits.directory)?;
        self.limits = limits.clone();
        Ok(())
    }

    /// Whether a dump may be made now.
    pub fn admit(&mut self, firing: &Firing, now: Instant) -> Result<(), Refusal> {
        self.made.retain(|made| now.duration_since(*made) < HOUR);
        self.keys.retain(|_, made| now.duration_since(*made) < self.limits.cooldown.0);
        let known = |occurrence| self.occurrences.contains(occurrence);
        if !firing.occurrences.is_empty() && firing.occurrences.iter().all(known) {
            return Err(Refusal::Repeated);
        }
        if let Some(made) = self.keys.get(&firing.key) {
            let before = now.duration_since(*made);
            let wait_s = self.limits.cooldown.0.saturating_sub(before).as_secs() + 1;
            return Err(Refusal::CoolingDown { before_s: before.as_secs(), wait_s });
        }
        if self.made.len() >= self.limits.per_hour {
            return Err(Refusal::TooMany { per_hour: self.limits.per_hour });
        }
        Ok(())
    }

    /// Counts a dump towards the limits: when it is begun, so that its own failure cannot be asked for endlessly.
    pub fn count(&mut self, firing: &Firing, now: Instant) {
        self.made.push_back(now);
        self.keys.insert(firing.key.clone(), now);
    }

    /// A name that no other dump has or will have.
    pub fn name(&mut self, firing: &Firing, now: Timestamp) -> String {
        let name = format!("{}-{}", now.strftime("%Y-%m-%dT%H-%M-%SZ"), plain(&firing.name));
        let numbered = (2..).map(|n| format!("{name}-{n}"));
        let mut names = std::iter::once(name.clone()).chain(numbered);
        let free = |name: &String| {
            !self.given.contains(name) && !self.limits.directory.join(name).exists()
        };
        let name = names.find(free).expect("numbers do not end");
        self.given.push_back(name.clone());
        let surplus = self.given.len().saturating_sub(MOST_GIVEN);
        self.given.drain(..surplus);
        name
    }

    /// A hidden folder to fill, for a dump of that name.
    pub fn draft(&self, name: &str) -> Result<Draft> {
        let target = self.limits.directory.join(name);
        let folder = self.limits.directory.join(format!("{DRAFT}{}-{name}", std::process::id()));
        DirBuilder::new()
            .mode(OWNER_ALONE)
            .create(&folder)
            .with_context(|| format!("make the folder {}", folder.display()))?;
        Ok(Draft { folder, target })
    }

    /// Gives a folder its name, and makes room for it.
    pub fn keep(&mut self, draft: Draft, firing: &Firing) -> Result<PathBuf> {
        fs::rename(&draft.folder, &draft.target)
            .with_context(|| format!("rename {} to its name", draft.folder.display()))?;
        for occurrence in &firing.occurrences {
            self.occurrences.push_back(occurrence.clone());
        }
        let surplus = self.occurrences.len().saturating_sub(MOST_OCCURRENCES);
        self.occurrences.drain(..surplus);
        self.make_room(&draft.target)?;
        Ok(draft.target)
    }

    /// Takes away the oldest dumps until the others fit the quota; never the one just made.
    fn make_room(&self, newest: &Path) -> Result<()> {
        let mut dumps = self.dumps()?;
        let mut bytes: u64 = dumps.iter().map(|(_, bytes)| bytes).sum();
        dumps.retain(|(path, _)| path != newest);
        for (path, own) in dumps {
            if bytes <= self.limits.quota.0 {
                break;
            }
            log::info!("{} makes room for newer dumps", path.display());
            fs::remove_dir_all(&path)
                .with_context(|| format!("take away the old dump {}", path.display()))?;
            bytes -= own;
        }
        Ok(())
    }

    /// Dumps, oldest first, with their sizes. Only folders that bear a dump's name: others' files are theirs.
    pub fn dumps(&self) -> Result<Vec<(PathBuf, u64)>> {
        let mut dumps = entries(&self.limits.directory)?;
        dumps.retain(|path| is_dump(path));
        dumps.sort();
        let sized = dumps.into_iter().map(|path| {
            let bytes = size(&path);
            (path, bytes)
        });
        Ok(sized.collect())
    }
}

impl Draft {
    pub fn discard(self) {
        if let Err(error) = fs::remove_dir_all(&self.folder) {
            log::warn!("take away {}: {error}", self.folder.display());
        }
    }
}

fn prepare(directory: &Path) -> Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(OWNER_ALONE)
        .create(directory)
        .with_context(|| format!("make the folder {}", directory.display()))?;
    for entry in entries(directory)? {
        let name = entry.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let pid = name.strip_prefix(DRAFT).and_then(|rest| rest.split('-').next());
        if pid.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            fs::remove_dir_all(&entry)
                .with_context(|| format!("clear away {}", entry.display()))?;
        }
    }
    Ok(())
}

fn entries(directory: &Path) -> Result<Vec<PathBuf>> {
    let read = || fs::read_dir(directory)?.map(|entry| entry.map(|entry| entry.path())).collect();
    let entries: io::Result<Vec<PathBuf>> = read();
    entries.with_context(|| format!("list {}", directory.display()))
}

/// Whether a folder's name is a dump's.
fn is_dump(path: &Path) -> bool {
    is_name(&path.file_name().unwrap_or_default().to_string_lossy()) && path.is_dir()
}

/// Whether a name begins with a time as [`Store::name`] writes it.
pub fn is_name(name: &str) -> bool {
    let shape = "dddd-dd-ddTdd-dd-ddZ-";
    let fits = |(c, wanted): (char, char)| match wanted {
        'd' => c.is_ascii_digit(),
        other => c == other,
    };
    name.len() >= shape.len() && name.chars().zip(shape.chars()).all(fits)
}

/// What the files of a dump take.
pub fn size(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.metadata().ok()).map(|metadata| metadata.len()).sum()
}

/// A name that is a plain part of a path, whatever an alert is called.
pub fn plain(name: &str) -> String {
    let allowed = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '_' };
    let name: String = name.chars().take(64).map(allowed).collect();
    let name = name.trim_start_matches('.').to_owned();
    if name.is_empty() { "dump".to_owned() } else { name }
}

/// What a dump of this host is called where several hosts' dumps lie: two may be told of something in the same second.
pub fn incident(dump: &str) -> String {
    format!("{dump}-{}", host())
}

/// This host's name, as a plain part of a path.
pub fn host() -> String {
    plain(&nix::unistd::gethostname().unwrap_or_default().to_string_lossy())
}

/// Whether a name is a plain part of a path as it is.
pub fn is_plain(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    !name.is_empty() && !name.starts_with('.') && name.chars().all(allowed)
}

/// The recording of a dump of that name.
pub fn recording(directory: &Path, name: &str) -> Option<PathBuf> {
    let folder = directory.join(name);
    (is_plain(name) && is_dump(&folder)).then(|| folder.join("recording.parquet"))
}

#[cfg(test)]
mod tests;
