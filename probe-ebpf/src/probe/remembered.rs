//! What is remembered about sockets, in their own storage: whoever uses one takes it into scope.

use core::ptr;

use aya_ebpf::bindings::{
    BPF_ANY, BPF_F_CLONE, BPF_F_NO_PREALLOC, BPF_LOCAL_STORAGE_GET_F_CREATE, BPF_NOEXIST,
    bpf_map_type,
};
use aya_ebpf::btf_maps::LruHashMap;
use aya_ebpf::helpers::generated::{
    bpf_get_socket_cookie, bpf_sk_storage_get, bpf_skc_to_tcp_sock,
};
use aya_ebpf::macros::btf_map;
use probe_ebpf::config::scope;
use probe_ebpf::event::{protocol, proven};

use crate::kernel::{self, Pointer, Structure, Untyped, config, field};
use crate::storage::LocalStorage;
use crate::{emit, local, mptcp};

#[btf_map]
static SOCKETS: LocalStorage<
    SocketState,
    { bpf_map_type::BPF_MAP_TYPE_SK_STORAGE as usize },
    { (BPF_F_NO_PREALLOC | BPF_F_CLONE) as usize },
> = LocalStorage::new();

/// What is remembered about a socket.
#[repr(C)]
pub struct SocketState {
    /// Address of the socket this was written for: a child accepted from a listener inherits the
    /// listener's value, and is told by this.
    pub sock: u64,
    pub cookie: u64,
    /// Place of its last name record.
    pub named: u64,
    pub iss: u32,
    pub irs: u32,
    pub owner: u32,
    /// One of [`proven`].
    pub proven: u32,
    /// Unix sockets: not 0 if what is counted may not be all there was.
    pub unsure: u32,
    /// The state that its last recorded change led to.
    pub told: u32,
    /// Unix sockets: bytes or messages that calls have moved since the socket is known.
    pub sent: u64,
    pub received: u64,
}

/// A socket, and the way to what is remembered about it.
pub trait Sock: Structure {
    /// The same as a TCP socket; nothing where it is not one.
    fn tcp(self) -> Option<Self>;
    /// The same where the verifier knows its type.
    fn typed(self) -> Option<Pointer>;
    /// Its cookie; 0 where it has none yet and cannot be given one.
    fn cookie(self) -> u64;
    /// What is remembered about it, NULL where nothing is.
    fn remembered(self, create: bool) -> *mut SocketState;
}

impl Sock for Pointer {
    #[inline(always)]
    fn tcp(self) -> Option<Self> {
        // SAFETY: the verifier checks the socket.
        let tcp: Pointer = unsafe { bpf_skc_to_tcp_sock(self.cast()) }.cast();
        (!tcp.is_null()).then_some(tcp)
    }

    #[inline(always)]
    fn typed(self) -> Option<Pointer> {
        Some(self)
    }

    #[inline(always)]
    fn cookie(self) -> u64 {
        // SAFETY: the verifier checks the socket.
        unsafe { bpf_get_socket_cookie(self) }
    }

    #[inline(always)]
    fn remembered(self, create: bool) -> *mut SocketState {
        let flags = if create { BPF_LOCAL_STORAGE_GET_F_CREATE as u64 } else { 0 };
        // SAFETY: the verifier checks map and socket.
        unsafe { bpf_sk_storage_get(SOCKETS.as_map(), self, ptr::null_mut(), flags) }.cast()
    }
}

/// What kprobes remember about sockets: their own storage is only for typed pointers. What is known of a
/// connection's beginning is copied here; what is forgotten, since it was not used for longest, is computed.
#[btf_map]
static BY_COOKIE: LruHashMap<u64, SocketState, 1> = LruHashMap::new();

impl Sock for Untyped {
    #[inline(always)]
    fn tcp(self) -> Option<Self> {
        Some(self)
    }

    #[inline(always)]
    fn typed(self) -> Option<Pointer> {
        None
    }

    /// Every connection in scope was given one when it was seen to be made, or to be open.
    #[inline(always)]
    fn cookie(self) -> u64 {
        field!(self, common_cookie, u64)
    }

    #[inline(always)]
    fn remembered(self, create: bool) -> *mut SocketState {
        let cookie = self.cookie();
        if cookie == 0 {
            return ptr::null_mut();
        }
        if let Some(state) = BY_COOKIE.get_ptr_mut(cookie) {
            return state;
        }
        if create {
            // SAFETY: only numbers.
            let new: SocketState = unsafe { core::mem::zeroed() };
            let _ = BY_COOKIE.insert(cookie, new, BPF_NOEXIST.into());
        }
        BY_COOKIE.get_ptr_mut(cookie).unwrap_or(ptr::null_mut())
    }
}

/// What is remembered about a socket that a thread in scope used, which takes it into scope.
#[inline(always)]
pub fn socket(sk: impl Sock, owner: u32) -> Option<*mut SocketState> {
    let state = sk.remembered(true);
    if state.is_null() {
        emit::dropped();
        return None;
    }
    inherit(sk, state);
    // SAFETY: a live storage value.
    unsafe { (*state).owner = owner };
    Some(state)
}

/// What is remembered about a socket that an event of a kernel lane belongs to; nothing when out of scope.
#[inline(always)]
pub fn lane(sk: Pointer) -> Option<*mut SocketState> {
    let state = sk.remembered(config!(scope) == scope::ALL);
    if state.is_null() {
        return None;
    }
    inherit(sk, state);
    Some(state)
}

/// What is remembered about a socket, in scope or not.
#[inline(always)]
pub fn any(sk: Pointer) -> Option<*mut SocketState> {
    let state = sk.remembered(true);
    if state.is_null() {
        return None;
    }
    inherit(sk, state);
    Some(state)
}

/// The same, NULL for a socket that was never seen.
#[inline(always)]
pub fn known(sk: Pointer) -> *mut SocketState {
    sk.remembered(false)
}

/// What is remembered about the full socket of a packet; NULL when that is out of scope.
#[inline(always)]
pub fn of_packet(sk: Pointer) -> *mut SocketState {
    let state = sk.remembered(config!(scope) == scope::ALL);
    if !state.is_null() {
        inherit(Untyped::address_of(sk), state);
    }
    state
}

/// Whether the full socket of a packet is in scope.
#[inline(always)]
pub fn covers(sk: Pointer) -> bool {
    config!(scope) == scope::ALL || !sk.remembered(false).is_null()
}

/// The process that last used the socket of a packet by its own act; 0 when none was seen.
#[inline(always)]
pub fn owner(sk: Pointer) -> u32 {
    let state = sk.remembered(false);
    // SAFETY: NULL or a live storage value.
    if state.is_null() { 0 } else { unsafe { (*state).owner } }
}

/// Takes a socket that is being made into scope.
#[inline(always)]
pub fn made(sk: Pointer) {
    if sk.remembered(true).is_null() {
        emit::dropped();
    }
}

/// Makes a value that a listener handed on to an accepted socket the socket's own.
#[inline(always)]
fn inherit(sk: impl Sock, state: *mut SocketState) {
    // SAFETY: a live storage value.
    unsafe {
        if (*state).sock != sk.address() {
            (*state).sock = sk.address();
            (*state).cookie = match kernel::protocol(sk) {
                protocol::MPTCP => mptcp::number(),
                _ => sk.cookie(),
            };
            (*state).named = 0;
            (*state).told = 0;
            (*state).proven = proven::NO as u32;
            (*state).unsure = u32::from(local::may_be_older());
            ((*state).sent, (*state).received) = (0, 0);
        }
    }
}

/// Copies what kprobes will look for, where these are used, from a connection's own storage.
#[inline(always)]
pub fn copy(state: *mut SocketState) {
    if config!(kprobes) != 0 {
        // SAFETY: a live storage value.
        let known = unsafe { state.read() };
        let _ = BY_COOKIE.insert(known.cookie, known, BPF_ANY.into());
    }
}
