//! Who may speak to the daemon, and for how long: a socket of the machine with an owner and a mode, and, where
//! it is configured, TCP with a token or TLS with certificates. Slow and countless clients are cut off; they do not hold up others.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use nix::unistd::{Group, User};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;

use super::Ask;
use super::api::{self, Asker};
use super::config::{Api, Config, Tcp};
use super::reload::Live;

/// Connections at a time, on each listener; more wait to be accepted.
const MOST_CONNECTIONS: usize = 64;
/// How long a client may take to say what it wants.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a client that is being answered may take to hear it when the daemon ends.
const FAREWELL: Duration = Duration::from_secs(1);

/// Listens already, and answers from [`Server::serve`] on.
pub struct Server {
    socket: UnixListener,
    /// Removed at the end.
    path: SocketPath,
    local: Router,
    tcp: Option<(TcpListener, Doors)>,
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
    pub fn open(
        config: &Config,
        ask: mpsc::Sender<Ask>,
        live: watch::Receiver<Live>,
    ) -> Result<Self> {
        let asker = Asker { ask, live: live.clone(), unknown: Arc::default() };
        let local = api::router(asker.clone());
        let (socket, path) = bind(&config.api)?;
        let tcp = match &config.api.tcp {
            None => None,
            Some(tcp) => {
                let doors = Doors { live, known: local.clone(), others: api::guarded(asker) };
                Some((listen(tcp)?, doors))
            }
        };
        Ok(Self { socket, path, local, tcp })
    }

    pub fn serve(self) -> Serving {
        let Self { socket, path, local, tcp } = self;
        let (open, closing) = watch::channel(());
        tokio::spawn(take_in(Listener::Unix(socket, local), closing.clone()));
        if let Some((listener, doors)) = tcp {
            tokio::spawn(take_in(Listener::Tcp(listener, doors), closing));
        }
        Serving { open, path }
    }
}

/// Answers for as long as it is there.
pub struct Serving {
    open: watch::Sender<()>,
    path: SocketPath,
}

impl Serving {
    /// Takes in nobody any more, lets those be answered who asked, and closes all connections, within a bound.
    pub async fn close(self) {
        let Self { open, path } = self;
        drop(path);
        open.send_replace(());
        // Whoever is not done by then is cut off with the runtime.
        let _ = timeout(FAREWELL, open.closed()).await;
    }
}

enum Listener {
    Unix(UnixListener, Router),
    Tcp(TcpListener, Doors),
}

/// What those get who come by TCP.
#[derive(Clone)]
struct Doors {
    live: watch::Receiver<Live>,
    /// Whoever has shown a certificate that is taken.
    known: Router,
    /// Whoever has not, and needs the token.
    others: Router,
}

impl Doors {
    fn open<P: Send + 'static>(&self, stream: TcpStream, place: P, closing: watch::Receiver<()>) {
        let Some(tls) = self.live.borrow().tls.clone() else {
            return talk(stream, self.others.clone(), place, self.until(None, closing));
        };
        let Self { known, others, .. } = self.clone();
        let until = self.until(Some(Arc::clone(&tls)), closing);
        tokio::spawn(async move {
            let greeted = timeout(PATIENCE, TlsAcceptor::from(tls).accept(stream)).await;
            // Who does not speak TLS, or has no certificate that is taken, has been told by it.
            let Ok(Ok(stream)) = greeted else { return };
            let is_known = stream.get_ref().1.peer_certificates().is_some();
            talk(stream, if is_known { known } else { others }, place, until);
        });
    }

    /// When a connection is to be ended: with the server, and when certificates are read again, by which it might not
    /// have been let in.
    fn until(
        &self,
        tls: Option<Arc<ServerConfig>>,
        mut closing: watch::Receiver<()>,
    ) -> impl Future<Output = ()> + Send + 'static {
        let mut live = self.live.clone();
        let same = move |live: &Live| match (&live.tls, &tls) {
            (Some(now), Some(then)) => Arc::ptr_eq(now, then),
            (now, then) => now.is_none() && then.is_none(),
        };
        async move {
            tokio::select! {
                _ = closing.changed() => {}
                _ = live.wait_for(|live| !same(live)) => {}
            }
        }
    }
}

/// Accepts connections until the server is closed.
async fn take_in(listener: Listener, mut closing: watch::Receiver<()>) {
    let places = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    let until = closing.clone();
    loop {
        let next = async {
            let place = Arc::clone(&places).acquire_owned().await.ok();
            let closing = until.clone();
            match &listener {
                Listener::Unix(listener, router) => {
                    let mut closing = closing;
                    let end = async move { drop(closing.changed().await) };
                    listener.accept().await.map(|(s, _)| talk(s, router.clone(), place, end))
                }
                Listener::Tcp(listener, doors) => {
                    listener.accept().await.map(|(s, _)| doors.open(s, place, closing))
                }
            }
        };
        tokio::select! {
            _ = closing.changed() => return,
            accepted = next => if let Err(error) = accepted {
                pause(&error).await;
            },
        }
    }
}

/// Out of descriptors, say: it would go on failing at once, without end.
async fn pause(error: &io::Error) {
    log::warn!("accept a connection: {error}");
    tokio::time::sleep(Duration::from_millis(200)).await;
}

/// Serves one connection until then; `place` is given back when it ends.
fn talk<S, P>(stream: S, router: Router, place: P, until: impl Future<Output = ()> + Send + 'static)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    P: Send + 'static,
{
    tokio::spawn(async move {
        let _place = place;
        let service = TowerToHyperService::new(router);
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new()).header_read_timeout(PATIENCE).max_buf_size(64 << 10);
        let mut connection = pin!(http.serve_connection(TokioIo::new(stream), service));
        // A client that breaks off has no one to be told.
        tokio::select! {
            _ = connection.as_mut() => return,
            () = until => connection.as_mut().graceful_shutdown(),
        }
        let _ = connection.await;
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

/// A token, which is a file's first line.
pub fn token(path: &Path) -> Result<Arc<str>> {
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
