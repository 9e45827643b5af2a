//! `SOCK_DESTROY`: the kernel's own way (`ss --kill`) to break a TCP connection, over netlink
//! (include/uapi/linux/sock_diag.h, inet_diag.h). A connection is found by its cookie, since its addresses may be used anew.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use anyhow::{Context, Result, bail};
use bytemuck::{Pod, Zeroable};

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const SOCK_DESTROY: u16 = 21;
/// An answer takes at most this long.
const PATIENCE_S: libc::time_t = 2;

/// `struct nlmsghdr`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Header {
    length: u32,
    kind: u16,
    flags: u16,
    sequence: u32,
    port: u32,
}

/// `struct inet_diag_sockid`. Ports and addresses are in network byte order.
#[repr(C)]
#[derive(Clone, Copy, Default, Pod, Zeroable)]
struct SocketId {
    local_port: [u8; 2],
    remote_port: [u8; 2],
    local: [u8; 16],
    remote: [u8; 16],
    interface: u32,
    /// The low half first.
    cookie: [u32; 2],
}

/// `struct inet_diag_req_v2`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Request {
    header: Header,
    family: u8,
    protocol: u8,
    extensions: u8,
    reserved: u8,
    /// Bits of the states asked for.
    states: u32,
    id: SocketId,
}

/// The beginning of `struct inet_diag_msg`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Answer {
    family: u8,
    state: u8,
    timer: u8,
    retransmits: u8,
    id: SocketId,
}

const _: () = {
    assert!(size_of::<Header>() == 16);
    assert!(size_of::<SocketId>() == 48);
    assert!(size_of::<Request>() == 16 + 56);
};

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
    let socket = open().context("open a netlink socket")?;
    let id = SocketId {
        local_port: local_port.to_be_bytes(),
        remote_port: remote_port.to_be_bytes(),
        ..SocketId::default()
    };
    for family in [libc::AF_INET, libc::AF_INET6].map(|family| family as u8) {
        if let Some(id) = find(&socket, family, id, cookie).context("list the TCP sockets")? {
            return destroy_one(&socket, family, id);
        }
    }
    bail!("the connection was gone")
}

fn destroy_one(socket: &OwnedFd, family: u8, id: SocketId) -> Result<()> {
    send(socket, SOCK_DESTROY, libc::NLM_F_ACK, family, id)?;
    let mut refused = Ok(());
    receive(socket, |kind, body| {
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

fn find(socket: &OwnedFd, family: u8, id: SocketId, cookie: u64) -> io::Result<Option<SocketId>> {
    send(socket, SOCK_DIAG_BY_FAMILY, libc::NLM_F_DUMP, family, id)?;
    let (mut found, mut refused) = (None, Ok(()));
    receive(socket, |kind, body| {
        match i32::from(kind) {
            libc::NLMSG_DONE => return false,
            libc::NLMSG_ERROR => {
                refused = failure(body);
                return false;
            }
            _ => {}
        }
        if let Some(bytes) = body.get(..size_of::<Answer>()) {
            let id = bytemuck::pod_read_unaligned::<Answer>(bytes).id;
            let [low, high] = id.cookie.map(u64::from);
            if low | high << 32 == cookie {
                found = Some(id);
            }
        }
        true
    })?;
    refused.map(|()| found)
}

fn open() -> io::Result<OwnedFd> {
    let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC;
    // SAFETY: a system call on numbers; the descriptor it returns is ours.
    let socket = unsafe {
        match libc::socket(libc::AF_NETLINK, kind, libc::NETLINK_SOCK_DIAG) {
            -1 => return Err(io::Error::last_os_error()),
            fd => OwnedFd::from_raw_fd(fd),
        }
    };
    let patience = libc::timeval { tv_sec: PATIENCE_S, tv_usec: 0 };
    let (option, size) = (libc::SO_RCVTIMEO, size_of_val(&patience) as libc::socklen_t);
    let value = (&raw const patience).cast();
    // SAFETY: the value lives until the call returns, and has the size that is said.
    match unsafe { libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, option, value, size) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(socket),
    }
}

fn send(socket: &OwnedFd, kind: u16, flags: i32, family: u8, id: SocketId) -> io::Result<()> {
    let request = Request {
        header: Header {
            length: size_of::<Request>() as u32,
            kind,
            flags: (libc::NLM_F_REQUEST | flags) as u16,
            sequence: 0,
            port: 0,
        },
        family,
        protocol: libc::IPPROTO_TCP as u8,
        extensions: 0,
        reserved: 0,
        states: CONNECTED,
        id,
    };
    let bytes = bytemuck::bytes_of(&request);
    // SAFETY: the bytes live until the call returns.
    match unsafe { libc::send(socket.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), 0) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// Hands each message's kind and body to `take`, until that is false.
fn receive(socket: &OwnedFd, mut take: impl FnMut(u16, &[u8]) -> bool) -> io::Result<()> {
    let mut buffer = vec![0; 1 << 15];
    loop {
        let (fd, place) = (socket.as_raw_fd(), buffer.as_mut_ptr().cast());
        // SAFETY: the buffer is ours and as long as is said.
        let length = match unsafe { libc::recv(fd, place, buffer.len(), 0) } {
            -1 => return Err(io::Error::last_os_error()),
            length => length as usize,
        };
        let mut rest = &buffer[..length];
        while let Some(header) = rest.get(..size_of::<Header>()) {
            let header: Header = bytemuck::pod_read_unaligned(header);
            let end = header.length as usize;
            let Some(body) = rest.get(size_of::<Header>()..end) else { break };
            if !take(header.kind, body) {
                return Ok(());
            }
            rest = rest.get(end.next_multiple_of(4)..).unwrap_or_default();
        }
    }
}

/// What the body of an `NLMSG_ERROR` says: 0, or a negative errno.
fn failure(body: &[u8]) -> io::Result<()> {
    match body.get(..4).map(bytemuck::pod_read_unaligned::<i32>) {
        Some(0) => Ok(()),
        Some(error) => Err(io::Error::from_raw_os_error(-error)),
        None => Err(io::Error::from(io::ErrorKind::UnexpectedEof)),
    }
}
