//! `SOCK_DESTROY`: the kernel's own way (`ss --kill`) to break a TCP connection, over netlink
//! (include/uapi/linux/sock_diag.h, inet_diag.h). A connection is found by its cookie, since its addresses may be used anew.

use std::io;

use anyhow::{Context, Result, bail};

use crate::capture::netlink::{Netlink, SocketId, TcpAnswer, TcpRequest, failure};

const SOCK_DESTROY: u16 = 21;

/// All states in which a socket has a connection.
const CONNECTED: u32 = !(1 << LISTEN | 1 << TIME_WAIT | 1 << NEW_SYN_RECV);
const LISTEN: u32 = 10;
const TIME_WAIT: u32 = 6;
const NEW_SYN_RECV: u32 = 12;

/// Destroys a TCP connection of the calling thread's network namespace. Its ports are 0 where they are not known, and make it
/// quicker to find.
///
/// # Errors
/// When there is no such connection any more, or the kernel does not destroy it.
pub fn destroy(cookie: u64, local_port: u16, remote_port: u16) -> Result<()> {
    let netlink = Netlink::open().context("open a netlink socket")?;
    let id = SocketId {
        local_port: local_port.to_be_bytes(),
        remote_port: remote_port.to_be_bytes(),
        ..SocketId::default()
    };
    for family in [libc::AF_INET, libc::AF_INET6].map(|family| family as u8) {
        match find(&netlink, family, id, cookie) {
            Ok(Some(id)) => return destroy_one(&netlink, family, id),
            Ok(None) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                bail!(
                    "this kernel lists no TCP sockets: it has no module tcp_diag (CONFIG_INET_DIAG)"
                )
            }
            Err(error) => return Err(error).context("list the TCP sockets"),
        }
    }
    bail!("the connection was gone")
}

fn destroy_one(netlink: &Netlink, family: u8, id: SocketId) -> Result<()> {
    let request = TcpRequest::new(family, CONNECTED, id);
    netlink.send(SOCK_DESTROY, libc::NLM_F_ACK, bytemuck::bytes_of(&request))?;
    let mut refused = Ok(());
    netlink.receive(|kind, body| {
        if kind == libc::NLMSG_ERROR as u16 {
            refused = failure(body);
        }
        kind != libc::NLMSG_ERROR as u16
    })?;
    let Err(error) = refused else { return Ok(()) };
    match error.raw_os_error() {
        Some(libc::EOPNOTSUPP) => {
            bail!("this kernel destroys no sockets: it has no CONFIG_INET_DIAG_DESTROY")
        }
        // Nobody there, or somebody else.
        Some(libc::ENOENT | libc::ESTALE) => bail!("the connection was gone"),
        _ => Err(error).context("destroy the connection (SOCK_DESTROY)"),
    }
}

fn find(netlink: &Netlink, family: u8, id: SocketId, cookie: u64) -> io::Result<Option<SocketId>> {
    let mut found = None;
    let request = TcpRequest::new(family, CONNECTED, id);
    netlink.list(bytemuck::bytes_of(&request), |body| {
        if let Some(bytes) = body.get(..size_of::<TcpAnswer>()) {
            let id = bytemuck::pod_read_unaligned::<TcpAnswer>(bytes).id;
            if id.cookie() == cookie {
                found = Some(id);
            }
        }
    })?;
    Ok(found)
}
