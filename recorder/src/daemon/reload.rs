//! A changed configuration, taken while the rings fill on. What needs other rings or other listeners is named,
//! and stays as it is until the daemon is started again; a file that is wrong changes nothing.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use schemars::JsonSchema;
use sd_notify::NotifyState;
use serde::{Deserialize, Serialize};

use super::Daemon;
use super::config::{Api, Config};
use super::upload::Uploads;
use super::{server, tls};
use crate::trigger::alertmanager::AlertRule;

/// What of the configuration those look at who answer requests.
#[derive(Clone)]
pub struct Live {
    pub rules: Arc<[AlertRule]>,
    /// What whoever comes by TCP has to know.
    pub token: Option<Arc<str>>,
    /// What is spoken on TCP, if it is not plain.
    pub tls: Option<Arc<rustls::ServerConfig>>,
    /// What other hosts want to hear.
    pub peers_token: Option<Arc<str>>,
    /// What they speak, if it is not plain.
    pub peers_tls: Option<Arc<rustls::ClientConfig>>,
    /// Where dumps lie.
    pub directory: Arc<Path>,
}

/// What came of a reload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Reloaded {
    /// Keys that were changed, and take effect when the daemon is started again.
    pub needs_restart: Vec<String>,
}

impl Live {
    /// # Errors
    /// When a token, certificate or key cannot be read.
    pub fn of(config: &Config) -> Result<Self> {
        let read = |path: Option<&PathBuf>| path.map(|path| server::token(path)).transpose();
        let (tcp, peers) = (config.api.tcp.as_ref(), config.peers.as_ref());
        let token = read(tcp.and_then(|tcp| tcp.token_file.as_ref()))?;
        let tls = tcp.and_then(|tcp| tcp.tls.as_ref()).map(|tls| tls.config(token.is_some()));
        let peers_tls = peers.and_then(|peers| peers.tls.as_ref()).map(tls::ClientTls::config);
        Ok(Self {
            rules: Arc::from(config.alert.clone()),
            token,
            tls: tls.transpose()?,
            peers_token: read(peers.and_then(|peers| peers.token_file.as_ref()))?,
            peers_tls: peers_tls.transpose()?,
            directory: Arc::from(config.dumps.directory.as_path()),
        })
    }
}

impl Daemon {
    /// Reads the configuration again; systemd and the log are told.
    pub(super) fn reload(&mut self) -> Result<Reloaded> {
        let mut state = vec![NotifyState::Reloading];
        state.extend(NotifyState::monotonic_usec_now());
        let _ = sd_notify::notify(&state);
        let reloaded = self.read_again();
        match &reloaded {
            Ok(Reloaded { needs_restart }) if needs_restart.is_empty() => {
                log::info!("the configuration was read again");
            }
            Ok(Reloaded { needs_restart }) => {
                let keys = needs_restart.join(", ");
                log::warn!("the configuration was read again; {keys}: changes need a restart");
            }
            Err(error) => log::error!("the configuration stays as it was: {error:#}"),
        }
        let _ = sd_notify::notify(&[NotifyState::Ready]);
        reloaded
    }

    fn read_again(&mut self) -> Result<Reloaded> {
        let file = self.file.as_deref();
        let file = file.context("the daemon was started without a configuration file")?;
        let config = Config::read(file)?;
        self.apply(config)
    }

    /// Takes from a configuration what can be taken at once, all of it or, on an error, nothing.
    fn apply(&mut self, new: Config) -> Result<Reloaded> {
        let needs_restart = needs_restart(&self.config, &new);
        // Every key is named here: whether it can be changed at once is decided for each.
        let Config {
            ring: _,
            cgroup: _,
            history: _,
            hide: _,
            profile: _,
            api,
            dumps,
            peers,
            alert,
            trigger,
        } = new;
        let mut config = Config { dumps, peers, alert, trigger, ..self.config.clone() };
        if let (Some(running), Some(tcp)) = (&mut config.api.tcp, api.tcp) {
            (running.token_file, running.tls) = (tcp.token_file, tcp.tls);
        }
        let live = Live::of(&config)?;
        self.store.limit(&config.dumps)?;
        let stores =
            |config: &Config| (config.dumps.upload.clone(), config.dumps.directory.clone());
        if stores(&config) != stores(&self.config) {
            // What waits is noted where the dumps lie.
            self.uploads = Uploads::of(&config.dumps, &self.store)?;
        }
        self.triggers.watch(&config.trigger);
        self.triggers.arm(&mut self.capture);
        super::give_back_memory();
        if live.tls.is_none() && self.live.borrow().tls.is_some() {
            log::warn!("api.tcp: no TLS is spoken from now on");
        }
        self.live.send_replace(live);
        self.config = config;
        Ok(Reloaded { needs_restart })
    }
}

/// Keys that differ and are not changed while the daemon runs.
fn needs_restart(old: &Config, new: &Config) -> Vec<String> {
    let listen = |api: &Api| api.tcp.as_ref().map(|tcp| tcp.listen);
    let keys = [
        ("ring", old.ring != new.ring),
        ("cgroup", old.cgroup != new.cgroup),
        ("history", old.history != new.history),
        ("hide", old.hide != new.hide),
        ("profile", old.profile != new.profile),
        ("api.socket", old.api.socket != new.api.socket),
        ("api.owner", old.api.owner != new.api.owner),
        ("api.mode", old.api.mode != new.api.mode),
        ("api.tcp.listen", listen(&old.api) != listen(&new.api)),
    ];
    keys.iter().filter(|(_, differs)| *differs).map(|(key, _)| (*key).to_owned()).collect()
}
