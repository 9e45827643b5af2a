//! Sending a dump's files to their store, in a process of its own: each as it lies there, in pieces that are small
//! beside the file.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use object_store::aws::AmazonS3Builder;
use object_store::local::LocalFileSystem;
use object_store::path::Path as Key;
use object_store::{MultipartUpload, ObjectStore, ObjectStoreExt, RetryConfig};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, timeout, timeout_at};

use super::key::Place;
use super::target::Target;

/// What the process is to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Job {
    pub target: Target,
    pub incident: String,
    pub host: String,
    pub folder: PathBuf,
    /// Files that other hosts upload.
    pub elsewhere: Vec<String>,
    /// How long all of it may take.
    pub patience: Duration,
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Uploaded {
    pub files: u64,
    pub bytes: u64,
}

/// What is held of a file at a time. The smallest that S3 takes is 5 MiB, and it takes 10,000 of them.
const PIECE: usize = 8 << 20;
/// The daemon tries again by itself, and has others wait less for it than the library would.
const RETRIES: RetryConfig = RetryConfig {
    backoff: object_store::BackoffConfig {
        init_backoff: Duration::from_millis(100),
        max_backoff: Duration::from_secs(1),
        base: 2.0,
    },
    max_retries: 2,
    retry_timeout: Duration::from_secs(60),
};
/// To have the store forget the pieces of a file that was broken off.
const FAREWELL: Duration = Duration::from_secs(5);

/// Sends all files of a dump.
///
/// # Errors
/// When the store does not take one of them, or not in time.
pub async fn all(job: &Job) -> Result<Uploaded> {
    let Job { target, incident, host, folder, elsewhere, patience } = job;
    let until = Instant::now() + *patience;
    let store = open(target).with_context(|| format!("use {target}"))?;
    let mut uploaded = Uploaded { files: 0, bytes: 0 };
    for (path, key) in (Place { target, incident, host }).files(folder, elsewhere)? {
        let sent = file(&*store, &path, &key, until).await;
        uploaded.bytes += sent.with_context(|| format!("upload {key}"))?;
        uploaded.files += 1;
    }
    Ok(uploaded)
}

fn open(target: &Target) -> Result<Arc<dyn ObjectStore>> {
    Ok(match target {
        Target::Folder(path) => Arc::new(LocalFileSystem::new_with_prefix(path).map_err(told)?),
        Target::S3 { bucket, .. } => {
            // Fails only where there is one already.
            let _ = rustls::crypto::ring::default_provider().install_default();
            let store = AmazonS3Builder::from_env().with_bucket_name(bucket).with_retry(RETRIES);
            Arc::new(store.build().map_err(told)?)
        }
    })
}

async fn file(store: &dyn ObjectStore, path: &Path, key: &Key, until: Instant) -> Result<u64> {
    let mut file = File::open(path).with_context(|| format!("open {}", path.display()))?;
    let first = piece(&mut file)?;
    let late = "it was not done in time";
    if first.len() < PIECE {
        let bytes = first.len() as u64;
        timeout_at(until, store.put(key, first.into())).await.context(late)?.map_err(told)?;
        return Ok(bytes);
    }
    let upload = timeout_at(until, store.put_multipart(key)).await.context(late)?;
    let mut upload = upload.map_err(told)?;
    let sent = timeout_at(until, in_pieces(&mut *upload, &mut file, first)).await;
    let sent = sent.context(late).flatten();
    if sent.is_err() {
        // Where the store is away it cannot be told, either.
        let _ = timeout(FAREWELL, upload.abort()).await;
    }
    sent
}

async fn in_pieces(
    upload: &mut dyn MultipartUpload,
    file: &mut File,
    first: Vec<u8>,
) -> Result<u64> {
    let (mut next, mut bytes) = (first, 0);
    while !next.is_empty() {
        bytes += next.len() as u64;
        upload.put_part(next.into()).await.map_err(told)?;
        next = piece(file)?;
    }
    upload.complete().await.map_err(told)?;
    Ok(bytes)
}

/// Each of the library's errors repeats the one below it, but for the last, which is the reason.
fn told(error: object_store::Error) -> anyhow::Error {
    let first = error.to_string();
    let mut last: &dyn std::error::Error = &error;
    while let Some(cause) = last.source() {
        last = cause;
    }
    let last = last.to_string();
    let told = if first.contains(&last) { first } else { format!("{first}: {last}") };
    anyhow!(without_body(&told))
}

/// Of a store's own words, which may name the key that was used, only which error it was and what it says of it.
fn without_body(told: &str) -> String {
    let Some((before, body)) = told.split_once('<') else { return told.to_owned() };
    let part = |name: &str| {
        let (_, rest) = body.split_once(&format!("<{name}>"))?;
        rest.split_once("</").map(|(text, _)| text)
    };
    let parts: Vec<&str> = ["Code", "Message"].into_iter().filter_map(part).collect();
    format!("{}: {}", before.trim_end_matches([' ', ':']), parts.join(": "))
}

fn piece(file: &mut File) -> Result<Vec<u8>> {
    let mut piece = Vec::new();
    file.take(PIECE as u64).read_to_end(&mut piece)?;
    Ok(piece)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_what_a_store_says_its_keys_are_left_out() {
        let body = "<?xml version=\"1.0\"?><Error><Code>ExpiredToken</Code><Message>The provided token has expired.</Message>\
                    <Token-0>FwoGZXIvYXdz</Token-0></Error>";
        let told =
            without_body(&format!("Server returned non-2xx status code: 400 Bad Request: {body}"));
        let wanted = "Server returned non-2xx status code: 400 Bad Request: ExpiredToken: The provided token has expired.";
        assert_eq!(told, wanted);
        assert_eq!(without_body("connection refused"), "connection refused");
    }
}
