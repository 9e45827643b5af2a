//! Other hosts' daemons: when a dump is made here, they are asked at once to keep the same interval, and then for
//! what they kept. What they send is bounded in size and time, and nothing of it becomes a path here.

mod fetch;

use std::fs;
use std::net::{SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::api::DumpRequest;
use super::{Daemon, store, tls};
use crate::describe::printable;
use crate::quantity::{Size, Time};
use crate::trigger::Firing;

/// Who is asked, and how much they may take.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Peers {
    pub hosts: Vec<Peer>,
    /// A file whose first line is their token.
    pub token_file: Option<PathBuf>,
    /// What they speak; default: nothing but HTTP.
    pub tls: Option<tls::ClientTls>,
    /// How long one may take to keep its part and send it.
    #[serde(default = "wait")]
    pub wait: Time,
    /// What one may send.
    #[serde(default = "most")]
    pub most: Size,
}

impl Peers {
    /// Only with something that lets this host in.
    fn let_in(&self) -> bool {
        self.token_file.is_some() || self.tls.as_ref().is_some_and(|tls| tls.certificate.is_some())
    }

    pub(super) fn introduced<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Self>, D::Error> {
        let peers = Self::deserialize(from)?;
        if !peers.let_in() {
            return Err(D::Error::custom(
                "no peer lets in whom it does not know: `peers` needs `token_file`, or `tls` with `certificate` and `key`",
            ));
        }
        Ok(Some(peers))
    }
}

const fn wait() -> Time {
    Time(Duration::from_secs(30))
}

const fn most() -> Size {
    Size(1 << 30)
}

/// `host:port`; a name that stands for several addresses is asked at each of them.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Peer(String);

impl TryFrom<String> for Peer {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match text.rsplit_once(':') {
            Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => Ok(Self(text)),
            _ => Err(format!("`{text}` is no peer: write host:port")),
        }
    }
}

/// What one host contributed to a dump.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Part {
    /// Where it was asked.
    pub peer: String,
    /// Its recording, in the dump's folder.
    pub file: Option<String>,
    /// Why there is none.
    pub missing: Option<String>,
    /// Where it uploads its recording itself.
    #[serde(default)]
    pub uploads_to: Option<String>,
}

impl Part {
    fn missing(peer: &str, why: &str) -> Self {
        let why: String = printable(why).chars().take(300).collect();
        Self { peer: peer.to_owned(), file: None, missing: Some(why), uploads_to: None }
    }

    /// Leaves its file under a name by which no command takes it for a recording.
    ///
    /// # Errors
    /// When it cannot be renamed.
    pub fn put_aside(&mut self, folder: &Path, why: &str) -> Result<()> {
        if let Some(file) = self.file.take() {
            let aside = folder.join(format!("{file}.unreadable"));
            fs::rename(folder.join(&file), aside).with_context(|| format!("put {file} aside"))?;
        }
        *self = Self::missing(&self.peer, &format!("its recording cannot be read: {why}"));
        Ok(())
    }
}

/// What all of them are asked.
struct Wish {
    request: DumpRequest,
    token: Option<Arc<str>>,
    tls: Option<Arc<rustls::ClientConfig>>,
    /// Beyond the time that the request itself waits.
    patience: Duration,
    most_bytes: u64,
    /// Where this daemon listens: it does not ask itself.
    own: Option<SocketAddr>,
}

/// Hosts that were asked for their parts of one dump. Dropped, it asks no more.
pub struct Gathering {
    asked: JoinSet<Vec<Part>>,
    /// Where their recordings go, once that is known.
    folder: watch::Sender<Option<PathBuf>>,
}

/// Of one name more addresses are not asked.
const MOST_ADDRESSES: usize = 64;

impl Gathering {
    /// Asks all of them at once to keep their part.
    fn begin(peers: &[Peer], wish: Wish) -> Self {
        let (folder, known) = watch::channel(None);
        let wish = Arc::new(wish);
        let mut asked = JoinSet::new();
        for peer in peers {
            asked.spawn(ask(peer.0.clone(), Arc::clone(&wish), known.clone()));
        }
        Self { asked, folder }
    }

    /// Their parts, the recordings being in that folder; those that did not answer are named.
    pub async fn end(self, folder: PathBuf) -> Vec<Part> {
        self.folder.send_replace(Some(folder));
        let mut parts: Vec<Part> = self.asked.join_all().await.into_iter().flatten().collect();
        parts.sort_by(|a, b| a.peer.cmp(&b.peer));
        parts.dedup_by(|a, b| a.peer == b.peer);
        parts
    }
}

/// Asks whoever a name stands for.
async fn ask(peer: String, wish: Arc<Wish>, folder: watch::Receiver<Option<PathBuf>>) -> Vec<Part> {
    let addresses = match addresses(&peer, &wish).await {
        Ok(addresses) => addresses,
        Err(error) => return vec![Part::missing(&peer, &format!("{error:#}"))],
    };
    let alone = addresses.len() == 1;
    let mut asked = JoinSet::new();
    for address in addresses {
        let name = if alone { peer.clone() } else { address.to_string() };
        let place = Place { host: host(&peer).to_owned(), address };
        asked.spawn(ask_one(name, place, Arc::clone(&wish), folder.clone()));
    }
    asked.join_all().await
}

async fn addresses(peer: &str, wish: &Wish) -> Result<Vec<SocketAddr>> {
    let found = timeout(wish.patience, tokio::net::lookup_host(peer)).await;
    let found = found.context("its name was not resolved in time")?.context("resolve its name")?;
    let mut addresses: Vec<SocketAddr> = found.take(MOST_ADDRESSES).collect();
    if addresses.is_empty() {
        bail!("its name stands for no address");
    }
    addresses.sort_unstable();
    addresses.dedup();
    addresses.retain(|address| !is_own(address, wish.own));
    Ok(addresses)
}

/// Whether a daemon that listens there would ask itself: what can be bound to is an address of this host.
fn is_own(address: &SocketAddr, own: Option<SocketAddr>) -> bool {
    own.is_some_and(|own| own.port() == address.port())
        && UdpSocket::bind((address.ip(), 0)).is_ok()
}

/// Where one is asked.
struct Place {
    /// As it is called in the configuration, and in its certificate.
    host: String,
    address: SocketAddr,
}

/// Without the port, and the brackets of an IPv6 address.
fn host(peer: &str) -> &str {
    let host = peer.rsplit_once(':').map_or(peer, |(host, _)| host);
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
}

async fn ask_one(
    peer: String,
    place: Place,
    wish: Arc<Wish>,
    folder: watch::Receiver<Option<PathBuf>>,
) -> Part {
    let patience = wish.patience + Duration::from_millis(wish.request.after_ms.unwrap_or(0));
    match timeout(patience, fetch::part(&peer, &place, &wish, folder)).await {
        Ok(Ok(fetch::Fetched { file, uploads_to })) => {
            Part { peer, file: Some(file), missing: None, uploads_to }
        }
        Ok(Err(error)) => Part::missing(&peer, &format!("{error:#}")),
        Err(_) => {
            let why = format!("it was not done after {:.1} s", patience.as_secs_f64());
            Part::missing(&peer, &why)
        }
    }
}

impl Daemon {
    /// Asks the other hosts for their parts of a dump; nobody, where one of them asks for it.
    pub(super) fn gather(&self, firing: &Firing, name: &str) -> Option<Gathering> {
        let peers = self.config.peers.as_ref().filter(|_| firing.source != PEER)?;
        let (token, tls) = {
            let live = self.live.borrow();
            (live.peers_token.clone(), live.peers_tls.clone())
        };
        let last_ms = firing.since.map(|since| {
            let ago = Timestamp::now().duration_since(since);
            u64::try_from(ago.as_millis()).unwrap_or(0)
        });
        let after = firing.after_ms.map_or(self.config.dumps.after.0, Duration::from_millis);
        let host = nix::unistd::gethostname().unwrap_or_default();
        let request = DumpRequest {
            name: Some(firing.name.clone()),
            last_ms,
            after_ms: Some(after.as_millis() as u64),
            symptom: firing.symptoms.first().cloned(),
            missing: firing.missing.clone(),
            asked_by: Some(host.to_string_lossy().into_owned()),
            incident: Some(store::incident(name)),
        };
        let own = self.config.api.tcp.as_ref().map(|tcp| tcp.listen);
        let (patience, most_bytes) = (peers.wait.0, peers.most.0);
        Some(Gathering::begin(
            &peers.hosts,
            Wish { request, token, tls, patience, most_bytes, own },
        ))
    }
}

/// The source of what another host's daemon asks for.
pub const PEER: &str = "peer";
