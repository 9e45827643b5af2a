//! Gives a recording that was cut off the footer it lacks, so that other tools can open it too.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::Path;

use super::file::RecordingFile;
use super::footer;
use super::read::ReadError;

/// Appends a footer for the complete parts, if there is none. Returns the events they hold, or `None` if
/// nothing was to do. What follows the last complete part stays where it is, and is skipped.
pub fn repair(path: &Path) -> Result<Option<u64>, ReadError> {
    let file = RecordingFile::open(path)?;
    if file.recovery.is_none() {
        return Ok(None);
    }
    let fail = |source| ReadError::Io { path: path.to_owned(), source };
    let bytes =
        footer::encode_footer(&file.host, &file.parts).map_err(io::Error::other).map_err(fail)?;
    let mut output = OpenOptions::new().append(true).open(path).map_err(fail)?;
    output.write_all(&bytes).map_err(fail)?;
    Ok(Some(file.parts.iter().map(|(_, part)| part.rows).sum()))
}
