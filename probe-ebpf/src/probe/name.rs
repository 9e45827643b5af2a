//! Names: records in the `rare` ring that say once what a thread or a socket is, so that events need only its number. A name
//! is written again before its place in the ring is.

use aya_ebpf::bindings::task_struct;
use aya_ebpf::btf_maps::Array;
use aya_ebpf::macros::btf_map;
use probe_ebpf::config::{ABSENT, NAMED_PER_CPU};
use probe_ebpf::event::{RareSlot, SocketName, TaskName, kind, protocol, proven, state};

use crate::kernel::{self, Pointer, field, offset};
use crate::remembered::{self, Sock, SocketState};
use crate::scope::Thread;
use crate::{emit, initial, local, mptcp};

/// Sockets that a CPU remembers to have named.
#[btf_map]
static NAMED: Array<Named, 1> = Array::new();

/// A socket's cookie and the place of its name. Per CPU, so that the two words belong together, unless a program is
/// preempted between them: then the socket may be named late. By cookie, which unlike an address is never used again.
#[repr(C)]
pub struct Named {
    cookie: u64,
    place: u64,
}

/// The cookie of a socket that was named lately: what the common case needs, without the way through
/// socket storage.
#[inline(always)]
pub fn lately(sk: impl Sock) -> Option<u64> {
    let cookie = field!(sk, common_cookie, u64);
    let entry = NAMED.get_ptr_mut(named_index(cookie))?;
    // SAFETY: a live map value.
    let (known, place) = unsafe { ((*entry).cookie, (*entry).place) };
    (cookie != 0 && known == cookie && !emit::stale(place)).then_some(cookie)
}

/// Takes a socket of a thread in scope into scope, names it, and remembers that; its cookie.
#[inline(always)]
pub fn of_thread(sk: impl Sock, thread: &Thread) -> Option<u64> {
    let state = remembered::socket(sk, thread.pid)?;
    // Before it is established it is named every time: its port is chosen, its numbers are known later. It may not have
    // been seen to be established.
    // SAFETY: a live storage value.
    let unproven = kernel::is_tcp(sk) && unsafe { (*state).proven } == proven::NO as u32;
    if opening(sk) || unproven || mptcp::unnamed(sk, state) {
        socket(sk, state, thread.time_ns);
    } else {
        fresh(sk, state, thread.time_ns);
    }
    // SAFETY: live values.
    unsafe {
        let cookie = (*state).cookie;
        if opening(sk) {
            return Some(cookie);
        }
        if let Some(entry) = NAMED.get_ptr_mut(named_index(cookie)) {
            (*entry).cookie = cookie;
            (*entry).place = (*state).named;
        }
        Some(cookie)
    }
}

/// Whether a handshake is under way, during which TCP Fast Open may already move bytes.
#[inline(always)]
fn opening(sk: impl Sock) -> bool {
    let now = field!(sk, common_state, u8);
    now == state::SYN_SENT || now == state::SYN_RECV
}

#[inline(always)]
fn named_index(cookie: u64) -> u32 {
    emit::processor() * NAMED_PER_CPU + (cookie as u32 & (NAMED_PER_CPU - 1))
}

/// Names a socket where its last name is gone or soon will be. Before its event, so that whoever reads in
/// order of time knows the name first.
#[inline(always)]
pub fn fresh(sk: impl Sock, state: *mut SocketState, time_ns: u64) {
    // SAFETY: a live storage value.
    if emit::stale(unsafe { (*state).named }) {
        socket(sk, state, time_ns);
    }
}

/// The same in a kernel lane, where a socket that is not connected yet is named every time: its local port
/// is chosen after `connect` was seen.
#[inline(always)]
pub fn fresh_in_lane(sk: impl Sock, state: *mut SocketState) {
    let time_ns = emit::now();
    // SAFETY: a live storage value.
    if unsafe { (*state).proven } == proven::NO as u32 {
        socket(sk, state, time_ns);
    } else {
        fresh(sk, state, time_ns);
    }
}

/// Writes a task's name into the `rare` ring; its place there.
#[inline(never)]
pub fn task(task: *mut task_struct, time_ns: u64) -> u64 {
    let pid = field!(task, task_tgid, u32);
    let tid = field!(task, task_pid, u32);
    let slot = emit::slot(kind::TASK, pid, tid, time_ns);
    emit::rare(&RareSlot { slot, detail: task_detail(task) })
}

/// The detail of a record that names a task.
#[inline(always)]
pub fn task_detail(task: *mut task_struct) -> [u64; 8] {
    let parent = field!(task, task_real_parent, Pointer);
    let mut name: TaskName = bytemuck::Zeroable::zeroed();
    name.start_ns = field!(task, task_start_time, u64);
    name.cgroup = kernel::cgroup_of(task.cast());
    name.parent = field!(parent, task_tgid, u32);
    name.pid = field!(task, task_tgid, u32);
    name.tid = field!(task, task_pid, u32);
    let mut detail: [u64; 8] = bytemuck::cast(name);
    let comm = field!(task, task_comm, [u64; 2]);
    detail[0] = comm[0];
    detail[1] = comm[1];
    detail
}

/// Writes a socket's name into the `rare` ring and remembers its place. What Unix sockets need besides is written
/// first, and beside the name's own frame: one upon the other they are more stack than older kernels grant.
#[inline(always)]
pub fn socket(sk: impl Sock, state: *mut SocketState, time_ns: u64) {
    let spoken = kernel::protocol(sk);
    if let Some(sk) = sk.typed().filter(|_| kernel::is_local(spoken)) {
        name_local(sk, state, time_ns);
    }
    write_name(sk, state, time_ns);
}

/// The part of a Unix socket's name that has no room in its record; its peer.
#[inline(never)]
fn name_local(sk: Pointer, state: *mut SocketState, time_ns: u64) {
    // SAFETY: a live storage value.
    let (owner, cookie) = unsafe { ((*state).owner, (*state).cookie) };
    let mut slot = emit::slot(kind::SOCKET, owner, 0, time_ns);
    slot.socket = cookie;
    local::write_names(sk, &slot);
    let peer = local::peer_cookie(sk, kernel::protocol(sk));
    // SAFETY: a live storage value.
    unsafe {
        ((*state).iss, (*state).irs) = (cookie as u32, peer);
        (*state).proven = if peer == 0 { proven::NO } else { proven::AT_ESTABLISHED } as u32;
    }
}

#[inline(never)]
fn write_name(sk: impl Sock, state: *mut SocketState, time_ns: u64) {
    // SAFETY: a live storage value.
    let (known, owner, cookie) =
        unsafe { ((*state).proven as u8, (*state).owner, (*state).cookie) };
    let tcp_state = field!(sk, common_state, u8);
    if known < proven::AGREED
        && matches!(tcp_state, state::ESTABLISHED | state::CLOSE_WAIT | state::SYN_RECV)
    {
        match kernel::protocol(sk) {
            protocol::TCP => initial::compute(sk, state),
            protocol::MPTCP => mptcp::compute(sk, state),
            _ => {}
        }
    }
    // (It is still in this state when it is noted to be established.)
    if known == proven::NO && kernel::is_tcp(sk) && tcp_state == state::SYN_SENT {
        initial::asked(sk, state);
    }
    let net = sk.follow(offset!(common_net));
    let mut name: SocketName = bytemuck::Zeroable::zeroed();
    name.local_port = field!(sk, common_num, u16);
    name.remote_port = u16::from_be(field!(sk, common_dport, u16));
    name.netns = field!(net, net_inum, u32);
    if offset!(net_cookie) != ABSENT {
        name.netns_cookie = field!(net, net_cookie, u32);
    }
    name.owner = owner;
    name.family = field!(sk, common_family, u16);
    name.state = tcp_state;
    name.protocol = kernel::protocol(sk);
    let mut slot = emit::slot(kind::SOCKET, owner, 0, time_ns);
    slot.socket = cookie;
    // SAFETY: a live storage value.
    unsafe {
        name.iss = (*state).iss;
        name.irs = (*state).irs;
        name.proven = (*state).proven as u8;
    }
    let mut detail: [u64; 8] = bytemuck::cast(name);
    if !kernel::is_local(name.protocol) {
        let (local, remote) = (kernel::local_address(sk), kernel::remote_address(sk));
        [detail[0], detail[1]] = local;
        [detail[2], detail[3]] = remote;
    }
    // SAFETY: a live storage value.
    unsafe { (*state).named = emit::rare(&RareSlot { slot, detail }) };
}
