//! Who may speak to the daemon, and for how long: a socket of the machine with an owner and a mode, and, where
//! it is configured, TCP with a token. Slow and countless clients are cut off; they do not hold up others.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use nix::unistd::{Group, User};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{Semaphore, mpsc};

use super::Ask;
use super::api::{self, Asker};
use super::config::{Api, Config, Tcp};

/// Connections at a time, on each listener; more wait to be accepted.
const MOST_CONNECTIONS: usize = 64;
/// How long a client may take to say what it wants.
const PATIENCE: Duration = Duration::from_secs(10);

/// Listens already, and answers from [`Server::serve`] on.
pub struct Server {
    socket: UnixListener,
    /// Removed at the end.
    path: SocketPath,
    local: Router,
    tcp: Option<(TcpListener, Router)>,
}

struct SocketPath(PathBuf);

impl Drop for SocketPath {
    fn drop(&mut self) {
        // Gone already is as good.
        let _ = fs::remove_file(&self.0);
    }
}

impl Server {
    /// Takes its places, so that whatever is wrong with them is told before anything else is done.
    pub fn open(config: &Config, ask: mpsc::Sender<Ask>) -> Result<Self> {
        let asker = Asker { ask, rules: Arc::from(config.alert.clone()) };
        let local = api::router(asker.clone());
        let (socket, path) = bind(&config.api)?;
        let tcp = match &config.api.tcp {
            None => None,
            Some(tcp) => Some((listen(tcp)?, api::guarded(asker, token(tcp)?))),
        };
        Ok(Self { socket, path, local, tcp })
    }

    pub fn serve(self) {
        let Self { socket, path, local, tcp } = self;
        tokio::spawn(async move {
            let _path = path;
            let places = Arc::new(Semaphore::new(MOST_CONNECTIONS));
            loop {
                let place = Arc::clone(&places).acquire_owned().await;
                match socket.accept().await {
                    Ok((stream, _)) => talk(stream, local.clone(), place.ok()),
                    Err(error) => pause(&error).await,
                }
            }
        });
        let Some((listener, router)) = tcp else { return };
        tokio::spawn(async move {
            let places = Arc::new(Semaphore::new(MOST_CONNECTIONS));
            loop {
                let place = Arc::clone(&places).acquire_owned().await;
                match listener.accept().await {
                    Ok((stream, _)) => talk(stream, router.clone(), place.ok()),
                    Err(error) => pause(&error).await,
                }
            }
        });
    }
}

/// Out of descriptors, say: it would go on failing at once, without end.
async fn pause(error: &std::io::Error) {
    log::warn!("accept a connection: {error}");
    tokio::time::sleep(Duration::from_millis(200)).await;
}

/// Serves one connection; `place` is given back when it ends.
fn talk<S, P>(stream: S, router: Router, place: P)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    P: Send + 'static,
{
    tokio::spawn(async move {
        let _place = place;
        let service = TowerToHyperService::new(router);
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new()).header_read_timeout(PATIENCE).max_buf_size(64 << 10);
        // A client that breaks off has no one to be told.
        let _ = http.serve_connection(TokioIo::new(stream), service).await;
    });
}

fn bind(api: &Api) -> Result<(UnixListener, SocketPath)> {
    let path = &api.socket;
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)
            .with_context(|| format!("make the folder {}", folder.display()))?;
    }
    if path.exists() {
        if std::os::unix::net::UnixStream::connect(path).is_ok() {
            bail!("{} is answered already: another daemon runs", path.display());
        }
        fs::remove_file(path).with_context(|| format!("remove the old {}", path.display()))?;
    }
    // Nobody else may connect before the owner and the mode are right.
    let before = nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o177));
    let socket = UnixListener::bind(path);
    nix::sys::stat::umask(before);
    let socket = socket.with_context(|| format!("listen on {}", path.display()))?;
    let guard = SocketPath(path.clone());
    if let Some(owner) = &api.owner {
        give(path, owner)?;
    }
    fs::set_permissions(path, Permissions::from_mode(api.mode.0))
        .with_context(|| format!("set the mode of {}", path.display()))?;
    Ok((socket, guard))
}

/// Gives a file to `user`, `user:group` or `:group`.
fn give(path: &Path, owner: &str) -> Result<()> {
    let (user, group) = owner.split_once(':').unwrap_or((owner, ""));
    let uid = match user {
        "" => None,
        name => {
            Some(User::from_name(name)?.with_context(|| format!("there is no user {name}"))?.uid)
        }
    };
    let gid = match group {
        "" => None,
        name => {
            Some(Group::from_name(name)?.with_context(|| format!("there is no group {name}"))?.gid)
        }
    };
    chown(path, uid.map(|u| u.as_raw()), gid.map(|g| g.as_raw()))
        .with_context(|| format!("give {} to {owner}", path.display()))
}

fn listen(tcp: &Tcp) -> Result<TcpListener> {
    let listen = || {
        let listener = std::net::TcpListener::bind(tcp.listen)?;
        listener.set_nonblocking(true)?;
        TcpListener::from_std(listener)
    };
    listen().with_context(|| format!("listen on {}", tcp.listen))
}

/// Shorter tokens can be guessed.
const SHORTEST_TOKEN: usize = 16;

fn token(tcp: &Tcp) -> Result<Arc<str>> {
    let path = &tcp.token_file;
    let text = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    let token = text.lines().next().unwrap_or_default().trim();
    if token.len() < SHORTEST_TOKEN {
        bail!(
            "the token in {} has {} characters; take at least {SHORTEST_TOKEN}, from `openssl rand -hex 24` for one",
            path.display(),
            token.len()
        );
    }
    Ok(Arc::from(token))
}
