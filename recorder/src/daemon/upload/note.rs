//! What is noted in a dump's folder of its upload, so that a daemon that is started again goes on with what still waits.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// The name of the file.
pub const NOTE: &str = "upload.json";

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    /// What all hosts that were part of it call it.
    pub incident: String,
    /// Files in the folder whose hosts upload them.
    pub elsewhere: Vec<String>,
    pub state: State,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    Waiting,
    Uploaded { to: String, at: Timestamp },
    GivenUp { why: String },
}

impl Note {
    /// What is noted in a folder, if anything that is understood.
    pub fn read(folder: &Path) -> Option<Self> {
        serde_json::from_slice(&fs::read(folder.join(NOTE)).ok()?).ok()
    }

    /// Replaces what is noted, as a whole.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, folder: &Path) -> Result<()> {
        let (path, made) = (folder.join(NOTE), folder.join(format!(".{NOTE}")));
        let write =
            || fs::write(&made, serde_json::to_vec_pretty(self)?).map_err(anyhow::Error::from);
        write().with_context(|| format!("write {}", made.display()))?;
        fs::rename(&made, &path).with_context(|| format!("rename {}", made.display()))
    }
}
