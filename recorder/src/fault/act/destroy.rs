//! The connection of the event is destroyed, in the network namespace of the process that it struck.

use std::fs::File;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;

use anyhow::{Context, Result, bail};
use probe_ebpf::fault::Told;

use crate::capture::namespace::within;
use crate::fault::sock_diag;

pub(super) fn destroy(told: &Told) -> Result<()> {
    let subject = &told.subject;
    let namespace = File::open(format!("/proc/{}/ns/net", subject.pid))
        .with_context(|| format!("find the network namespace of process {}", subject.pid))?;
    within(&namespace, || sock_diag::destroy(told.socket, subject.local_port, subject.remote_port))
}

/// Two ends of a connection of our own.
pub struct Pair([TcpStream; 2]);

impl Pair {
    /// # Errors
    /// Where there is no loopback.
    pub fn connect() -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let asked = TcpStream::connect(listener.local_addr()?)?;
        Ok(Self([asked, listener.accept()?.0]))
    }

    /// Destroys it by one end, and looks whether that one broke.
    ///
    /// # Errors
    /// When it may not be destroyed, or was not.
    pub fn destroy(&self) -> Result<()> {
        let [own, other] = &self.0;
        let (local, remote) = (own.local_addr()?.port(), other.local_addr()?.port());
        sock_diag::destroy(cookie(own)?, local, remote)?;
        match own.take_error()?.and_then(|error| error.raw_os_error()) {
            Some(libc::ECONNABORTED) => Ok(()),
            _ => bail!("a connection that was destroyed went on"),
        }
    }
}

/// What the kernel calls a socket.
fn cookie(socket: &TcpStream) -> Result<u64> {
    let (mut cookie, mut size) = (0u64, size_of::<u64>() as libc::socklen_t);
    let place = (&raw mut cookie).cast();
    let (level, option) = (libc::SOL_SOCKET, libc::SO_COOKIE);
    // SAFETY: the place is as large as is said.
    match unsafe { libc::getsockopt(socket.as_raw_fd(), level, option, place, &raw mut size) } {
        -1 => Err(std::io::Error::last_os_error()).context("ask for a socket's cookie"),
        _ => Ok(cookie),
    }
}
