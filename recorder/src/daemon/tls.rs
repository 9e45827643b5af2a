//! TLS on TCP: by which certificate this host is known, and whose it takes for enough, so that no token is needed.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use serde::Deserialize;

/// How this host is known to its clients. All files are PEM.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServerTls {
    /// Its own, and those between it and its authority.
    pub certificate: PathBuf,
    pub key: PathBuf,
    /// Authorities: who has a certificate of theirs needs no token.
    pub clients: Option<PathBuf>,
}

/// How this host knows others, and is known to them. All files are PEM.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClientTls {
    /// Authorities, by whose certificates others are known.
    pub servers: PathBuf,
    /// What this host shows of itself, with its key; by default nothing.
    pub certificate: Option<PathBuf>,
    pub key: Option<PathBuf>,
}

impl ServerTls {
    /// What is offered to whoever connects. Without a token nobody gets in who shows no certificate.
    ///
    /// # Errors
    /// When a file cannot be read, or holds nothing that fits.
    pub fn config(&self, or_by_token: bool) -> Result<Arc<ServerConfig>> {
        let builder = ServerConfig::builder_with_provider(provider());
        let builder = builder.with_safe_default_protocol_versions()?;
        let builder = match &self.clients {
            None => builder.with_no_client_auth(),
            Some(path) => {
                let roots = Arc::new(authorities(path)?);
                let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider());
                let verifier =
                    if or_by_token { verifier.allow_unauthenticated() } else { verifier };
                builder.with_client_cert_verifier(verifier.build()?)
            }
        };
        let config = builder.with_single_cert(chain(&self.certificate)?, key(&self.key)?);
        Ok(Arc::new(config.with_context(|| unfit(&self.certificate, &self.key))?))
    }
}

impl ClientTls {
    /// What is asked of whoever is connected to.
    ///
    /// # Errors
    /// When a file cannot be read, or holds nothing that fits.
    pub fn config(&self) -> Result<Arc<ClientConfig>> {
        let builder = ClientConfig::builder_with_provider(provider());
        let builder = builder.with_safe_default_protocol_versions()?;
        let builder = builder.with_root_certificates(authorities(&self.servers)?);
        let config = match (&self.certificate, &self.key) {
            (None, None) => builder.with_no_client_auth(),
            (Some(own), Some(path)) => builder
                .with_client_auth_cert(chain(own)?, key(path)?)
                .with_context(|| unfit(own, path))?,
            _ => bail!("a certificate is of use only with its key: give `certificate` and `key`"),
        };
        Ok(Arc::new(config))
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

fn unfit(certificate: &Path, key: &Path) -> String {
    format!("use the certificate {} with the key {}", certificate.display(), key.display())
}

fn chain(path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let read = || CertificateDer::pem_file_iter(path)?.collect::<Result<Vec<_>, _>>();
    let chain = read().with_context(|| format!("read the certificates in {}", path.display()))?;
    ensure!(!chain.is_empty(), "there is no certificate in {}: it needs to be PEM", path.display());
    Ok(chain)
}

fn key(path: &Path) -> Result<PrivateKeyDer<'static>> {
    PrivateKeyDer::from_pem_file(path)
        .with_context(|| format!("read the key in {}", path.display()))
}

fn authorities(path: &Path) -> Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    for certificate in chain(path)? {
        roots.add(certificate).with_context(|| format!("trust {}", path.display()))?;
    }
    Ok(roots)
}
