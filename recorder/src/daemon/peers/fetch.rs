//! Asking one peer: first to keep its part, and when this host knows where to put it, for the recording.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::{Request, Response, StatusCode, header};
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_rustls::TlsConnector;

use super::{Place, Wish};
use crate::daemon::client::{self, Connected};
use crate::daemon::{Dumped, store};
use crate::describe::printable;

/// An answer that is not a recording.
const MOST_ANSWER: usize = 1 << 20;

/// What a peer has sent.
pub struct Fetched {
    /// The name of the file.
    pub file: String,
    pub uploads_to: Option<String>,
}

/// An address that is longer is none of ours. (All peers' go through a pipe to the worker.)
const MOST_ADDRESS: usize = 512;

/// Has a peer keep its part, and fetches it.
pub async fn part(
    peer: &str,
    place: &Place,
    wish: &Wish,
    mut folder: watch::Receiver<Option<PathBuf>>,
) -> Result<Fetched> {
    let (dump, uploads_to) = cut(place, wish).await?;
    let folder = folder.wait_for(Option::is_some).await.context("the dump was given up")?.clone();
    let file = format!("peer-{}.parquet", store::plain(peer));
    let path = folder.context("a folder")?.join(&file);
    let fetched = fetch(place, wish, &dump, &path).await;
    if fetched.is_err() {
        // What there is of it is not a recording.
        let _ = fs::remove_file(&path);
    }
    fetched.context("fetch its recording").map(|()| Fetched { file, uploads_to })
}

/// Has it make a dump; the dump's name, and where it uploads it.
async fn cut(place: &Place, wish: &Wish) -> Result<(String, Option<String>)> {
    let body = serde_json::to_vec(&wish.request)?;
    let connected = send(place, wish, "POST", "/v1/dump", body).await?;
    let answer = said(connected.answer).await?;
    let dumped: Dumped = serde_json::from_slice(&answer).context("understand it")?;
    let Dumped::Kept { folder, upload, .. } = dumped else { bail!("it failed to make its dump") };
    let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
    if !store::is_plain(&name) {
        bail!("it named no dump");
    }
    Ok((name, upload.map(|to| printable(&to).into_owned()).filter(|to| to.len() <= MOST_ADDRESS)))
}

async fn fetch(place: &Place, wish: &Wish, dump: &str, path: &Path) -> Result<()> {
    let from = format!("/v1/dumps/{dump}/recording.parquet");
    let mut connected = send(place, wish, "GET", &from, Vec::new()).await?;
    if connected.answer.status() != StatusCode::OK {
        said(connected.answer).await?;
        bail!("it sent no recording");
    }
    let mut file = File::create(path).with_context(|| format!("make {}", path.display()))?;
    let mut left = wish.most_bytes;
    while let Some(frame) = connected.answer.body_mut().frame().await {
        let Ok(data) = frame?.into_data() else { continue };
        left = left.checked_sub(data.len() as u64).with_context(|| {
            format!("it is larger than {} bytes, which is the limit", wish.most_bytes)
        })?;
        file.write_all(&data).with_context(|| format!("write {}", path.display()))?;
    }
    Ok(())
}

async fn send(
    place: &Place,
    wish: &Wish,
    method: &str,
    path: &str,
    body: Vec<u8>,
) -> Result<Connected> {
    let stream = TcpStream::connect(place.address).await.context("connect")?;
    let mut request =
        Request::builder().method(method).uri(path).header(header::HOST, place.address.to_string());
    if let Some(token) = &wish.token {
        request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
    }
    let request = request.body(Full::new(Bytes::from(body)))?;
    let Some(tls) = &wish.tls else { return client::send(stream, request).await };
    let name = ServerName::try_from(place.host.clone()).context("check its certificate")?;
    let connector = TlsConnector::from(Arc::clone(tls));
    let stream = connector.connect(name, stream).await.context("speak TLS")?;
    client::send(stream, request).await
}

/// The text of an answer; a refusal is an error.
async fn said(answer: Response<Incoming>) -> Result<Bytes> {
    let status = answer.status();
    let body = Limited::new(answer.into_body(), MOST_ANSWER).collect().await;
    let body = body.map_err(|error| anyhow::anyhow!("{error}")).context("read its answer")?;
    let body = body.to_bytes();
    if status.is_success() {
        return Ok(body);
    }
    let said: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
    bail!("it refused: {}", said["error"].as_str().unwrap_or(status.as_str()));
}
