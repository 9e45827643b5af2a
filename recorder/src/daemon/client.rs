//! Asking a daemon on this machine.

use std::path::Path;

use anyhow::{Context, Result};
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::{Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;

/// Sends one request and waits for all of the answer.
///
/// # Errors
/// When nobody answers at the socket.
pub async fn ask(
    socket: &Path,
    method: &str,
    path: &str,
    body: Vec<u8>,
) -> Result<(StatusCode, Bytes)> {
    let stream = UnixStream::connect(socket)
        .await
        .with_context(|| format!("ask the daemon at {}", socket.display()))?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::HOST, "localhost")
        .body(Full::new(Bytes::from(body)))?;
    let answer = sender.send_request(request).await.context("wait for the daemon's answer")?;
    let status = answer.status();
    let body = answer.into_body().collect().await.context("read the daemon's answer")?.to_bytes();
    drop(sender);
    connection.abort();
    Ok((status, body))
}
