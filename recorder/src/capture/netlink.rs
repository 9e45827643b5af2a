//! Asking the kernel for its sockets, over netlink (include/uapi/linux/sock_diag.h, netlink.h).

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use bytemuck::{Pod, Zeroable};

pub const SOCK_DIAG_BY_FAMILY: u16 = 20;
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

const _: () = assert!(size_of::<Header>() == 16);

/// A socket that speaks with `sock_diag`.
pub struct Netlink(OwnedFd);

impl Netlink {
    /// # Errors
    /// When the kernel refuses it.
    pub fn open() -> io::Result<Self> {
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
        let fd = socket.as_raw_fd();
        // SAFETY: the value lives until the call returns, and has the size that is said.
        match unsafe { libc::setsockopt(fd, libc::SOL_SOCKET, option, value, size) } {
            -1 => Err(io::Error::last_os_error()),
            _ => Ok(Self(socket)),
        }
    }

    /// Asks; `flags` besides `NLM_F_REQUEST`.
    ///
    /// # Errors
    /// When the kernel does not take it.
    pub fn send(&self, kind: u16, flags: i32, body: &[u8]) -> io::Result<()> {
        let header = Header {
            length: (size_of::<Header>() + body.len()) as u32,
            kind,
            flags: (libc::NLM_F_REQUEST | flags) as u16,
            sequence: 0,
            port: 0,
        };
        let bytes = [bytemuck::bytes_of(&header), body].concat();
        // SAFETY: the bytes live until the call returns.
        match unsafe { libc::send(self.0.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), 0) } {
            -1 => Err(io::Error::last_os_error()),
            _ => Ok(()),
        }
    }

    /// Hands each message's kind and body to `take`, until that is false.
    ///
    /// # Errors
    /// When no answer comes.
    pub fn receive(&self, mut take: impl FnMut(u16, &[u8]) -> bool) -> io::Result<()> {
        let mut buffer = vec![0; 1 << 15];
        loop {
            let (fd, place) = (self.0.as_raw_fd(), buffer.as_mut_ptr().cast());
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

    /// Asks for a list, and hands each entry to `take`.
    ///
    /// # Errors
    /// When the kernel refuses, or the list does not end.
    pub fn list(&self, body: &[u8], mut take: impl FnMut(&[u8])) -> io::Result<()> {
        self.send(SOCK_DIAG_BY_FAMILY, libc::NLM_F_DUMP, body)?;
        let mut refused = Ok(());
        self.receive(|kind, body| {
            match i32::from(kind) {
                libc::NLMSG_DONE => return false,
                libc::NLMSG_ERROR => {
                    refused = failure(body);
                    return false;
                }
                _ => take(body),
            }
            true
        })?;
        refused
    }
}

/// What the body of an `NLMSG_ERROR` says: 0, or a negative errno.
pub fn failure(body: &[u8]) -> io::Result<()> {
    match body.get(..4).map(bytemuck::pod_read_unaligned::<i32>) {
        Some(0) => Ok(()),
        Some(error) => Err(io::Error::from_raw_os_error(-error)),
        None => Err(io::Error::from(io::ErrorKind::UnexpectedEof)),
    }
}

/// `struct inet_diag_sockid`. Ports and addresses are in network byte order.
#[repr(C)]
#[derive(Clone, Copy, Default, Pod, Zeroable)]
pub struct SocketId {
    pub local_port: [u8; 2],
    pub remote_port: [u8; 2],
    pub local: [u8; 16],
    pub remote: [u8; 16],
    pub interface: u32,
    /// The low half first.
    pub cookie: [u32; 2],
}

/// `struct inet_diag_req_v2`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub struct TcpRequest {
    pub family: u8,
    pub protocol: u8,
    pub extensions: u8,
    pub reserved: u8,
    /// Bits of the states asked for.
    pub states: u32,
    pub id: SocketId,
}

/// `struct inet_diag_msg`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub struct TcpAnswer {
    pub family: u8,
    pub state: u8,
    pub timer: u8,
    pub retransmits: u8,
    pub id: SocketId,
    pub expires_ms: u32,
    pub receive_queue: u32,
    pub send_queue: u32,
    pub user: u32,
    pub inode: u32,
}

const _: () = {
    assert!(size_of::<SocketId>() == 48);
    assert!(size_of::<TcpRequest>() == 56);
    assert!(size_of::<TcpAnswer>() == 72);
};

impl TcpRequest {
    pub const fn new(family: u8, states: u32, id: SocketId) -> Self {
        let protocol = libc::IPPROTO_TCP as u8;
        Self { family, protocol, extensions: 0, reserved: 0, states, id }
    }
}

impl SocketId {
    pub const fn cookie(&self) -> u64 {
        cookie(self.cookie)
    }
}

/// A socket's cookie, of its halves.
pub const fn cookie([low, high]: [u32; 2]) -> u64 {
    low as u64 | (high as u64) << 32
}
