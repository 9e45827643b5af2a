//! Asking a daemon: on this machine, or through any other connection.

use std::path::Path;

use anyhow::{Context, Result};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Request, Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixStream;
use tokio::task::JoinSet;

/// An answer whose body can be read for as long as this is there.
pub struct Connected {
    pub answer: Response<Incoming>,
    _sender: SendRequest<Full<Bytes>>,
    _connection: JoinSet<hyper::Result<()>>,
}

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
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::HOST, "localhost")
        .body(Full::new(Bytes::from(body)))?;
    let mut connected = send(stream, request).await?;
    let status = connected.answer.status();
    let body = connected.answer.body_mut().collect().await.context("read the daemon's answer")?;
    Ok((status, body.to_bytes()))
}

/// Sends one request; its answer's body is still to be read.
pub async fn send<S>(stream: S, request: Request<Full<Bytes>>) -> Result<Connected>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let mut running = JoinSet::new();
    running.spawn(connection);
    let answer = sender.send_request(request).await.context("wait for the daemon's answer")?;
    Ok(Connected { answer, _sender: sender, _connection: running })
}
