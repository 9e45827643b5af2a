//! Dumps that go to an object store: one after the other, each by a process of its own, and again and again while the
//! store is away. Nobody waits for it, and what waits is bounded and survives the daemon.

mod key;
mod note;
pub mod send;
pub mod target;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::config::Dumps;
use super::job;
use super::peers::Part;
use super::store::{self, Store};
use crate::describe::printable;
use key::Place;
use note::{Note, State};
use send::{Job, Uploaded};
use target::Target;

/// The word that makes of the command the uploader.
pub const UPLOADER: &str = "upload-worker";

/// Dumps that wait; the oldest makes room.
const MOST_WAITING: usize = 32;
/// After the first try that failed; twice as long after each further one.
const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(300);
/// A store that takes less than 256 KiB/s counts as one that is away.
const PATIENCE: Duration = Duration::from_secs(60);
const PATIENCE_PER_MIB: Duration = Duration::from_secs(4);
/// An uploader that takes so much longer than it was told to hangs.
const GRACE: Duration = Duration::from_secs(30);
/// Of why a try failed: a store may answer with a page.
const MOST_TOLD: usize = 500;
/// How long the upload that is under way may take when the daemon ends.
const FAREWELL: Duration = Duration::from_secs(5);

/// Uploads, as the daemon has them.
pub struct Uploads {
    target: Target,
    host: String,
    /// In the order in which they are tried.
    waiting: Vec<Waiting>,
    at_work: Option<(Waiting, JoinHandle<Result<Uploaded>>)>,
    due: Instant,
    pause: Duration,
    counts: Counts,
    failure: Option<String>,
}

/// A dump that is to be uploaded.
struct Waiting {
    folder: PathBuf,
    note: Note,
}

/// How uploads stand.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct UploadStatus {
    pub to: String,
    /// Dumps that wait, with the one that is being uploaded.
    pub waiting: usize,
    #[serde(flatten)]
    pub counts: Counts,
    /// Why the last try failed; nothing once one has gone well.
    pub failure: Option<String>,
}

/// What has happened since the daemon began, or was given another store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Counts {
    /// Dumps that are in the store, and their size.
    pub uploaded: u64,
    pub uploaded_bytes: u64,
    /// Tries that failed.
    pub failed: u64,
    /// Dumps that will not be uploaded: too many waited, or the quota took them first.
    pub given_up: u64,
}

/// What is to be done next.
pub enum Next {
    Send,
    Ended(Result<Uploaded>),
}

/// Waits for it; without end, where nothing is to be uploaded.
pub async fn next(uploads: &mut Option<Uploads>) -> Next {
    match uploads {
        Some(Uploads { at_work: Some((_, uploader)), .. }) => {
            Next::Ended(uploader.await.context("wait for the uploader").flatten())
        }
        Some(Uploads { waiting, due, .. }) if !waiting.is_empty() => {
            tokio::time::sleep_until(*due).await;
            Next::Send
        }
        _ => std::future::pending().await,
    }
}

impl Uploads {
    /// Nothing, where the configuration has no store; else with what a daemon before this one left waiting.
    ///
    /// # Errors
    /// When the folder of dumps cannot be listed.
    pub fn of(dumps: &Dumps, store: &Store) -> Result<Option<Self>> {
        let Some(target) = dumps.upload.clone() else { return Ok(None) };
        let mut uploads = Self {
            target,
            host: store::host(),
            waiting: Vec::new(),
            at_work: None,
            due: Instant::now(),
            pause: Duration::ZERO,
            counts: Counts::default(),
            failure: None,
        };
        for (folder, _) in store.dumps()? {
            if let Some(note @ Note { state: State::Waiting, .. }) = Note::read(&folder) {
                uploads.add(folder, note);
            }
        }
        Ok(Some(uploads))
    }

    /// Notes in the folder of a dump that it is to be uploaded.
    pub fn note(&self, folder: &Path, incident: &str, peers: &[Part]) -> Note {
        let prefix = self.place(incident).incident_url();
        // A folder of that name may be another one there.
        let shared = matches!(self.target, Target::S3 { .. });
        let elsewhere = |part: &&Part| {
            shared && part.uploads_to.as_ref().is_some_and(|to| to.starts_with(&prefix))
        };
        let elsewhere = peers.iter().filter(elsewhere).filter_map(|part| part.file.clone());
        let (incident, elsewhere) = (incident.to_owned(), elsewhere.collect());
        let note = Note { incident, elsewhere, state: State::Waiting };
        write(&note, folder);
        note
    }

    /// Has a dump uploaded, some time; where to.
    pub fn add(&mut self, folder: PathBuf, note: Note) -> String {
        let url = self.place(&note.incident).url();
        self.waiting.push(Waiting { folder, note });
        self.forget_gone();
        while self.waiting.len() > MOST_WAITING {
            // Folders are named after their time.
            let folders = self.waiting.iter().enumerate().map(|(n, waiting)| (&waiting.folder, n));
            let Some((_, oldest)) = folders.min() else { break };
            let oldest = self.waiting.remove(oldest);
            self.give_up(oldest, &format!("{MOST_WAITING} newer dumps wait to be uploaded"));
        }
        url
    }

    fn place<'a>(&'a self, incident: &'a str) -> Place<'a> {
        Place { target: &self.target, incident, host: &self.host }
    }

    pub fn go_on(&mut self, next: Next) {
        match next {
            Next::Send => {
                self.forget_gone();
                if self.waiting.is_empty() {
                    return;
                }
                let waiting = self.waiting.remove(0);
                match self.start(&waiting) {
                    Ok(uploader) => self.at_work = Some((waiting, uploader)),
                    Err(error) => self.fail(waiting, &error),
                }
            }
            Next::Ended(ended) => {
                let Some((waiting, _)) = self.at_work.take() else { return };
                match ended {
                    Ok(uploaded) => self.keep(waiting, uploaded),
                    Err(error) => self.fail(waiting, &error),
                }
            }
        }
    }

    fn start(&self, waiting: &Waiting) -> Result<JoinHandle<Result<Uploaded>>> {
        let Waiting { folder, note } = waiting;
        let mib = u32::try_from(store::size(folder) >> 20).unwrap_or(u32::MAX);
        let job = Job {
            target: self.target.clone(),
            incident: note.incident.clone(),
            host: self.host.clone(),
            folder: folder.clone(),
            elsewhere: note.elsewhere.clone(),
            patience: PATIENCE + PATIENCE_PER_MIB.saturating_mul(mib),
        };
        let child = job::spawn(UPLOADER, &job)?;
        Ok(tokio::spawn(job::answer(child, job.patience + GRACE)))
    }

    fn keep(&mut self, mut waiting: Waiting, uploaded: Uploaded) {
        let to = self.place(&waiting.note.incident).url();
        log::info!("{} was uploaded: {to}", waiting.folder.display());
        waiting.note.state = State::Uploaded { to, at: Timestamp::now() };
        write(&waiting.note, &waiting.folder);
        self.counts.uploaded += 1;
        self.counts.uploaded_bytes += uploaded.bytes;
        (self.failure, self.pause, self.due) = (None, Duration::ZERO, Instant::now());
    }

    /// Puts it behind the others: what hinders one need not hinder them.
    fn fail(&mut self, waiting: Waiting, error: &anyhow::Error) {
        let why: String = printable(&format!("{error:#}")).chars().take(MOST_TOLD).collect();
        if self.failure.is_none() {
            log::error!("upload {}: {why}; it is tried again", waiting.folder.display());
        }
        self.counts.failed += 1;
        self.failure = Some(why);
        self.pause = (self.pause * 2).clamp(SHORTEST, LONGEST);
        self.due = Instant::now() + self.pause;
        self.waiting.push(waiting);
    }

    /// Dumps that the quota has taken, or somebody.
    fn forget_gone(&mut self) {
        let gone: Vec<Waiting> =
            self.waiting.extract_if(.., |waiting| !waiting.folder.exists()).collect();
        gone.into_iter().for_each(|waiting| self.give_up(waiting, "it is gone"));
    }

    fn give_up(&mut self, mut waiting: Waiting, why: &str) {
        log::warn!("{} is not uploaded: {why}", waiting.folder.display());
        self.counts.given_up += 1;
        waiting.note.state = State::GivenUp { why: why.to_owned() };
        write(&waiting.note, &waiting.folder);
    }

    pub fn status(&self) -> UploadStatus {
        UploadStatus {
            to: self.target.to_string(),
            waiting: self.waiting.len() + usize::from(self.at_work.is_some()),
            counts: self.counts,
            failure: self.failure.clone(),
        }
    }

    /// Gives the upload that is under way a moment to be done. What waits is in its folder when the daemon comes back.
    pub async fn stop(mut self) {
        let Some((_, uploader)) = &mut self.at_work else { return };
        if let Ok(ended) = tokio::time::timeout(FAREWELL, uploader).await {
            self.go_on(Next::Ended(ended.context("wait for the uploader").flatten()));
        }
    }
}

/// A folder that is gone, or a full disk, loses the note and nothing else.
fn write(note: &Note, folder: &Path) {
    if let Err(error) = note.write(folder)
        && fs::exists(folder).unwrap_or(true)
    {
        log::warn!("note how the upload stands: {error:#}");
    }
}

/// The uploader ends with whoever waits for it.
impl Drop for Uploads {
    fn drop(&mut self) {
        if let Some((_, uploader)) = &self.at_work {
            uploader.abort();
        }
    }
}

#[cfg(test)]
mod tests;
