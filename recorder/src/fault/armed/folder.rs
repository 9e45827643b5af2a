//! The folder in which recorders note what they have armed.
//!
//! ```text
//! /run/wherefore/faults/lock        held while a file is made, or those of the dead are removed
//!                       1234.json   what process 1234 has armed; locked for as long as it lives
//! ```
//!
//! The kernel takes a lock from whoever dies, however it dies. So a file whose lock is free tells of a recorder that is
//! gone, with its faults; whoever sees it passes it over, and removes it where that is allowed.

use std::fs::{self, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use super::Armed;

pub const FOLDER: &str = "/run/wherefore/faults";

/// Why faults are not armed.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    #[error(
        "the fault `{fault}` is armed already, by process {pid} (scope: {scope}): `{strikes}`\n\
         hint: wait for its end, or end it by `kill {pid}`; `inject --beside` arms the fault beside it"
    )]
    Already { fault: String, pid: u32, scope: String, strikes: String },
    #[error(
        "note in {folder} what is armed: {error}\n\
         hint: armed faults are told to everybody on the machine there: run as root, with a /run that can be written to"
    )]
    Unwritable { folder: String, error: io::Error },
}

/// This recorder's file, which is there for as long as this is.
pub struct Noted {
    armed: Armed,
    path: PathBuf,
    file: File,
}

impl Noted {
    /// Notes what is about to be armed. `beside` others it may be the same as theirs.
    ///
    /// # Errors
    /// When another recorder has armed the same, or the folder cannot be written to.
    pub fn note(folder: &Path, armed: Armed, beside: bool) -> Result<Self, Refused> {
        let unwritable =
            |error| Refused::Unwritable { folder: folder.display().to_string(), error };
        let turn = Turn::take(folder).map_err(unwritable)?;
        let others = turn.all().map_err(unwritable)?;
        let shared = others.iter().find_map(|other| Some((other, armed.shared_with(other)?)));
        if let Some((other, fault)) = shared.filter(|_| !beside) {
            return Err(Refused::Already {
                fault: fault.fault.clone(),
                pid: other.pid,
                scope: other.scope.clone(),
                strikes: fault.strikes.clone(),
            });
        }
        let path = folder.join(format!("{}.json", armed.pid));
        let file = make(&path, &armed).map_err(unwritable)?;
        Ok(Self { armed, path, file })
    }

    /// Tells how often each fault matched and fired. Where that cannot be written, what is armed is still told.
    pub fn tell(&mut self, counts: impl Iterator<Item = (u64, u64)>) {
        let before = self.armed.clone();
        for (fault, (matched, fired)) in self.armed.faults.iter_mut().zip(counts) {
            (fault.matched, fault.fired) = (matched, fired);
        }
        // A service manager may clear the folder of a daemon that ends.
        if self.file.metadata().is_ok_and(|file| file.nlink() == 0) {
            let folder = self.path.parent().unwrap_or(Path::new("/"));
            if let Ok(file) = Turn::take(folder).and_then(|_turn| make(&self.path, &self.armed)) {
                self.file = file;
            }
        } else if self.armed != before {
            let _ = write(&self.file, &self.armed);
        }
    }
}

impl Drop for Noted {
    fn drop(&mut self) {
        // Gone already is as good.
        let _ = fs::remove_file(&self.path);
    }
}

fn make(path: &Path, armed: &Armed) -> io::Result<File> {
    let file = OpenOptions::new().write(true).create_new(true).open(path)?;
    file.set_permissions(Permissions::from_mode(0o644))?;
    lock(&file)?;
    write(&file, armed)?;
    Ok(file)
}

/// Counts only grow, so that nothing is left of a longer text. A reader may see half of one, and looks again.
fn write(file: &File, armed: &Armed) -> io::Result<()> {
    file.write_all_at(&serde_json::to_vec_pretty(armed)?, 0)
}

/// What is armed now.
///
/// # Errors
/// When that may not be looked at.
pub fn all(folder: &Path) -> io::Result<Vec<Armed>> {
    let (armed, gone) = match look(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        found => found?,
    };
    if !gone.is_empty() {
        // Whoever may not tidy up has still seen what there is.
        let _ = Turn::take(folder).and_then(|turn| turn.all());
    }
    Ok(armed)
}

/// The right to make files and to remove others'.
struct Turn<'a> {
    folder: &'a Path,
    _lock: File,
}

impl<'a> Turn<'a> {
    fn take(folder: &'a Path) -> io::Result<Self> {
        for folder in [folder.parent(), Some(folder)].into_iter().flatten() {
            match fs::create_dir(folder) {
                // Whatever the umask: everybody may look.
                Ok(()) => fs::set_permissions(folder, Permissions::from_mode(0o755))?,
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
        let mut open = OpenOptions::new();
        // Nobody else may hold it, and keep us waiting.
        let file = open.write(true).create(true).truncate(false).mode(0o600);
        let file = file.open(folder.join("lock"))?;
        lock(&file)?;
        Ok(Self { folder, _lock: file })
    }

    /// What is armed now. Files of recorders that are gone are removed.
    fn all(&self) -> io::Result<Vec<Armed>> {
        let (armed, gone) = look(self.folder)?;
        for path in gone {
            fs::remove_file(path)?;
        }
        Ok(armed)
    }
}

/// What is armed, and the files of those who are gone.
fn look(folder: &Path) -> io::Result<(Vec<Armed>, Vec<PathBuf>)> {
    let (mut armed, mut gone) = (Vec::new(), Vec::new());
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        match read(&path) {
            Ok(Some(found)) => armed.push(found),
            Ok(None) => gone.push(path),
            // It ended just now.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    armed.sort_by_key(|armed| armed.pid);
    Ok((armed, gone))
}

/// Nothing where nobody holds the lock.
fn read(path: &Path) -> io::Result<Option<Armed>> {
    const TRIES: u32 = 20;
    let file = File::open(path)?;
    for tried in 1.. {
        if file.try_lock_shared().is_ok() {
            return Ok(None);
        }
        match serde_json::from_slice(&fs::read(path)?) {
            Ok(armed) => return Ok(Some(armed)),
            // It is being written.
            Err(_) if tried < TRIES => thread::sleep(Duration::from_millis(1)),
            Err(error) => {
                let told = format!("{}: {error}", path.display());
                return Err(io::Error::new(ErrorKind::InvalidData, told));
            }
        }
    }
    unreachable!("the last try returns")
}

/// Locks a file, which others hold for a moment only.
fn lock(file: &File) -> io::Result<()> {
    const PATIENCE: Duration = Duration::from_secs(5);
    let begun = Instant::now();
    loop {
        match file.try_lock() {
            Err(TryLockError::WouldBlock) if begun.elapsed() < PATIENCE => {
                thread::sleep(Duration::from_millis(2));
            }
            Err(TryLockError::WouldBlock) => {
                return Err(io::Error::new(ErrorKind::TimedOut, "another process holds its lock"));
            }
            tried => return tried.map_err(io::Error::from),
        }
    }
}
