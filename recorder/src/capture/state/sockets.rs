//! Sockets of TCP and Unix sockets: their queues. The kernel lists those of one network namespace at a time.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::{self, File};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::MetadataExt;

use anyhow::{Context, Result};
use bytemuck::{Pod, Zeroable};

use super::{MOST_NAMESPACES, MOST_SOCKETS, Unread};
use crate::capture::namespace::within;
use crate::capture::netlink::{Netlink, SocketId, TcpAnswer, TcpRequest, cookie};
use crate::state::{LISTEN, Socket};

pub(super) fn read(processes: &[u32], unread: &mut Unread) -> Vec<Socket> {
    let own = netns_of("self").unwrap_or(0);
    // Of each namespace some process that lives there.
    let mut namespaces: BTreeMap<u32, u32> = BTreeMap::new();
    for &pid in processes {
        if let Some(netns) = netns_of(&pid.to_string()) {
            namespaces.entry(netns).or_insert(pid);
        }
    }
    let mut found = listed(own);
    for (netns, pid) in
        namespaces.into_iter().filter(|&(netns, _)| netns != own).take(MOST_NAMESPACES)
    {
        let entered = File::open(format!("/proc/{pid}/ns/net")).map_err(anyhow::Error::from);
        let theirs = entered.and_then(|namespace| within(&namespace, || listed(netns)));
        match (&mut found, theirs) {
            (Ok(found), Ok(theirs)) => found.extend(theirs),
            (_, Err(error)) => {
                unread.note(format_args!("sockets of a network namespace: {error:#}"))
            }
            (Err(_), Ok(theirs)) => found = Ok(theirs),
        }
    }
    let mut found = found.unwrap_or_else(|error| {
        unread.note(format_args!("sockets: {error:#}"));
        Vec::new()
    });
    if found.len() > MOST_SOCKETS {
        unread.note(format_args!("sockets beyond the {MOST_SOCKETS}th"));
        found.truncate(MOST_SOCKETS);
    }
    name_owners(processes, &mut found);
    found
}

fn netns_of(process: &str) -> Option<u32> {
    let inode = fs::metadata(format!("/proc/{process}/ns/net")).ok()?.ino();
    u32::try_from(inode).ok()
}

/// Those of the calling thread's namespace.
fn listed(netns: u32) -> Result<Vec<Socket>> {
    let netlink = Netlink::open().context("open a netlink socket")?;
    let mut found = Vec::new();
    for family in [libc::AF_INET, libc::AF_INET6].map(|family| family as u8) {
        let request = TcpRequest::new(family, u32::MAX, SocketId::default());
        let listed = netlink.list(bytemuck::bytes_of(&request), |body| {
            if let Some(bytes) = body.get(..size_of::<TcpAnswer>())
                && found.len() <= MOST_SOCKETS
            {
                found.push(tcp(&bytemuck::pod_read_unaligned(bytes), netns));
            }
        });
        or_has_none(listed).context("list the TCP sockets")?;
    }
    let request = UnixRequest::new();
    let listed = netlink.list(bytemuck::bytes_of(&request), |body| {
        if found.len() <= MOST_SOCKETS {
            found.extend(unix(body, netns));
        }
    });
    or_has_none(listed).context("list the Unix sockets")?;
    Ok(found)
}

/// A kernel without IPv6, or without one of the modules that list sockets, has none to list.
fn or_has_none(listed: io::Result<()>) -> io::Result<()> {
    listed.or_else(|error| match error.kind() {
        io::ErrorKind::NotFound => Ok(()),
        _ => Err(error),
    })
}

fn tcp(answer: &TcpAnswer, netns: u32) -> Socket {
    let address = |ip: [u8; 16], port: [u8; 2]| {
        let [a, b, c, d, ..] = ip;
        let ip = match i32::from(answer.family) {
            libc::AF_INET => IpAddr::V4(Ipv4Addr::new(a, b, c, d)),
            _ => IpAddr::V6(Ipv6Addr::from(ip)).to_canonical(),
        };
        SocketAddr::new(ip, u16::from_be_bytes(port)).to_string()
    };
    let state = state(answer.state);
    let id = &answer.id;
    let remote = if state == LISTEN { String::new() } else { address(id.remote, id.remote_port) };
    // A SYN, and a FIN, take a place in the queues as bytes do.
    let came_to_end = ["close_wait", "last_ack", "closing"].contains(&state);
    let own_mark = ["syn_sent", "fin_wait_1", "last_ack", "closing"].contains(&state);
    Socket {
        cookie: id.cookie(),
        netns,
        state: state.to_owned(),
        local: address(id.local, id.local_port),
        remote,
        receive_queue: answer.receive_queue.saturating_sub(came_to_end.into()),
        send_queue: answer.send_queue.saturating_sub(own_mark.into()),
        retransmits: answer.retransmits,
        inode: answer.inode,
        processes: Vec::new(),
    }
}

/// include/net/tcp_states.h
const STATES: [&str; 14] = [
    "unknown",
    "established",
    "syn_sent",
    "syn_recv",
    "fin_wait_1",
    "fin_wait_2",
    "time_wait",
    "close",
    "close_wait",
    "last_ack",
    LISTEN,
    "closing",
    "syn_recv",
    "bound",
];

fn state(number: u8) -> &'static str {
    STATES.get(usize::from(number)).copied().unwrap_or(STATES[0])
}

/// `struct unix_diag_req`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct UnixRequest {
    family: u8,
    protocol: u8,
    padding: u16,
    states: u32,
    inode: u32,
    show: u32,
    cookie: [u32; 2],
}

/// `struct unix_diag_msg`; attributes follow.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct UnixAnswer {
    family: u8,
    kind: u8,
    state: u8,
    padding: u8,
    inode: u32,
    cookie: [u32; 2],
}

const _: () = {
    assert!(size_of::<UnixRequest>() == 24);
    assert!(size_of::<UnixAnswer>() == 16);
};

const UDIAG_SHOW_NAME: u32 = 1;
const UDIAG_SHOW_RQLEN: u32 = 0x10;
const UNIX_DIAG_NAME: u16 = 0;
const UNIX_DIAG_RQLEN: u16 = 4;

impl UnixRequest {
    const fn new() -> Self {
        Self {
            family: libc::AF_UNIX as u8,
            protocol: 0,
            padding: 0,
            states: u32::MAX,
            inode: 0,
            show: UDIAG_SHOW_NAME | UDIAG_SHOW_RQLEN,
            cookie: [u32::MAX; 2],
        }
    }
}

fn unix(body: &[u8], netns: u32) -> Option<Socket> {
    let (answer, mut rest) = body.split_at_checked(size_of::<UnixAnswer>())?;
    let answer: UnixAnswer = bytemuck::pod_read_unaligned(answer);
    let mut socket = Socket {
        cookie: cookie(answer.cookie),
        netns,
        state: state(answer.state).to_owned(),
        inode: answer.inode,
        ..Socket::default()
    };
    while let Some(head) = rest.get(..4) {
        let [length, kind] = bytemuck::pod_read_unaligned::<[u16; 2]>(head);
        let Some(value) = rest.get(4..usize::from(length)) else { break };
        match kind {
            UNIX_DIAG_NAME => socket.local = name(value),
            UNIX_DIAG_RQLEN if value.len() == 8 => {
                [socket.receive_queue, socket.send_queue] = bytemuck::pod_read_unaligned(value);
            }
            _ => {}
        }
        rest = rest.get(usize::from(length).next_multiple_of(4)..).unwrap_or_default();
    }
    Some(socket)
}

/// As in a recording: `unix:/run/app.sock`, `unix:@abstract`.
fn name(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    match text.strip_prefix('\0') {
        Some(abstracted) => format!("unix:@{abstracted}"),
        None => format!("unix:{}", text.trim_end_matches('\0')),
    }
}

/// Says of sockets in which something waits to be taken whose they are. There are few, so that mostly nobody is looked through.
fn name_owners(processes: &[u32], found: &mut [Socket]) {
    let waits = |socket: &&mut Socket| socket.receive_queue > 0 && socket.inode != 0;
    let mut wanted: HashMap<u32, &mut Socket> = HashMap::new();
    for socket in found.iter_mut().filter(waits) {
        wanted.insert(socket.inode, socket);
    }
    if wanted.is_empty() {
        return;
    }
    for &pid in processes {
        let mut seen = HashSet::new();
        let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        for link in descriptors.filter_map(|entry| fs::read_link(entry.path()).ok()) {
            let inode = link.to_str().and_then(|text| {
                text.strip_prefix("socket:[")?.strip_suffix(']')?.parse::<u32>().ok()
            });
            let Some(inode) = inode else { continue };
            if let Some(socket) = wanted.get_mut(&inode)
                && seen.insert(inode)
            {
                socket.processes.push(pid);
            }
        }
    }
}
