//! The profile on disk: one JSON file, replaced as a whole, so that whoever is killed leaves the old one or the new one.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::profile::{Profile, VERSION};

/// Larger ones are none of ours.
const MOST_BYTES: u64 = 64 << 20;
/// It tells who talks to whom.
const OWNER_ALONE: u32 = 0o600;

/// Reads it; nothing where there is none.
///
/// # Errors
/// When it cannot be read or understood.
pub fn read(path: &Path) -> Result<Option<Profile>> {
    let read = || -> Result<Option<Profile>> {
        let bytes = match fs::metadata(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            metadata => metadata?.len(),
        };
        if bytes > MOST_BYTES {
            bail!("it has {bytes} bytes");
        }
        let profile: Profile = serde_json::from_slice(&fs::read(path)?)?;
        if profile.version != VERSION {
            bail!("it is of version {}, and this is {VERSION}", profile.version);
        }
        Ok(Some(profile))
    };
    read().with_context(|| format!("read the profile {}", path.display()))
}

/// Puts it in the place of the one before.
///
/// # Errors
/// When the disk refuses; the one before stays.
pub fn write(path: &Path, profile: &Profile) -> Result<()> {
    let new = path.with_extension("new");
    let write = || -> Result<()> {
        let mut options = File::options();
        let mut file =
            options.write(true).create(true).truncate(true).mode(OWNER_ALONE).open(&new)?;
        file.write_all(&serde_json::to_vec(profile)?)?;
        file.sync_all()?;
        Ok(fs::rename(&new, path)?)
    };
    let written = write().with_context(|| format!("write the profile {}", path.display()));
    if written.is_err() {
        // A part of it is of no use, and takes room.
        let _ = fs::remove_file(&new);
    }
    written
}

/// Puts one aside that cannot be read: what it says may still be of use to a person.
pub fn put_aside(path: &Path) -> Result<()> {
    let aside = path.with_extension("unreadable");
    fs::rename(path, &aside).with_context(|| format!("rename {}", path.display()))
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    #[test]
    fn it_is_read_as_it_was_written_and_never_in_part() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("profile.json");
        assert_eq!(read(&path).expect("none is no error"), None);
        let mut profile = Profile::new(Timestamp::UNIX_EPOCH);
        write(&path, &profile).expect("there is room");
        profile.samples = 7;
        fs::write(path.with_extension("new"), "half of it").expect("it is written");
        write(&path, &profile).expect("there is room");
        assert_eq!(read(&path).expect("it is right"), Some(profile));
        assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 1);
    }

    #[test]
    fn what_is_no_profile_is_told() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("profile.json");
        let why = |text: &str| {
            fs::write(&path, text).expect("it is written");
            format!("{:#}", read(&path).expect_err("it is wrong"))
        };
        assert!(why("{").contains("read the profile") && why("{").contains("line 1"));
        let mut other = serde_json::to_value(Profile::new(Timestamp::UNIX_EPOCH)).expect("JSON");
        other["version"] = 2.into();
        assert!(why(&other.to_string()).contains("it is of version 2"));
        put_aside(&path).expect("it is there");
        assert_eq!(read(&path).expect("none is no error"), None);
    }
}
