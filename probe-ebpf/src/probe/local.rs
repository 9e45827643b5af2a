//! Unix sockets. The kernel keeps no count of their bytes, so it is kept here, in socket storage, for whoever
//! uses them: a sum that left somebody out would be worth nothing.
//!
//! A call is counted when it has returned. Calls of several threads that overlap may be counted in the other
//! order than their bytes lie in the queue; what follows from that is the graph's business.

use core::intrinsics::{AtomicOrdering, atomic_xadd};
use core::ptr;

use aya_ebpf::btf_maps::Array;
use aya_ebpf::helpers::generated::{bpf_get_socket_cookie, bpf_skc_to_unix_sock};
use aya_ebpf::macros::btf_map;
use probe_ebpf::config::ABSENT;
use probe_ebpf::event::{RareSlot, Slot, call, kind, protocol};

use crate::kernel::{self, Pointer, SOCK_DGRAM, SOCK_STREAM, field, offset};
use crate::{emit, remembered};

const MSG_OOB: u32 = 1;
const MSG_PEEK: u32 = 2;
const MSG_ERRQUEUE: u32 = 0x2000;
const RCV_SHUTDOWN: u8 = 1;

/// Set by user space once the sockets that were there before have been found: one that is seen first after
/// that was made after that.
#[btf_map]
static COUNTING: Array<u32, 1> = Array::new();

/// Whether a socket that is seen for the first time can have been in use before.
#[inline(always)]
pub fn may_be_older() -> bool {
    COUNTING.get(0).is_none_or(|&counting| counting == 0)
}

/// Counts what a call moved; where its direction stands after it, and bits of [`call`].
#[inline(always)]
pub fn count(sk: Pointer, spoken: u8, what: u8, result: i32, flags: u32) -> (u64, u8) {
    let Some(state) = remembered::any(sk) else {
        // Bytes that are in no sum: no socket that is first seen after this can be told to be new.
        if let Some(counting) = COUNTING.get_ptr_mut(0) {
            // SAFETY: a live map value.
            unsafe { *counting = 0 };
        }
        return (0, call::UNSURE);
    };
    let mut bits = 0;
    if what == kind::RECEIVE && result == 0 && ended(sk) {
        bits |= call::ENDED;
    }
    if flags & MSG_PEEK != 0 && field!(sk, sock_peek_off, i32) >= 0 {
        bits |= call::AHEAD;
    }
    let moves = result >= 0
        && bits & call::ENDED == 0
        && (what == kind::SEND || flags & (MSG_PEEK | MSG_ERRQUEUE) == 0);
    let by = match spoken {
        _ if !moves => 0,
        protocol::UNIX_STREAM => result as u64,
        _ => 1,
    };
    // SAFETY: a live storage value.
    let place = unsafe {
        if flags & MSG_OOB != 0 && spoken == protocol::UNIX_STREAM {
            (*state).unsure = 1;
        }
        if what == kind::SEND { &raw mut (*state).sent } else { &raw mut (*state).received }
    };
    // SAFETY: as above, and the intrinsic is the atomic add of the target.
    let before = unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::AcqRel }>(place, by) };
    if spoken != protocol::UNIX_DGRAM && what == kind::RECEIVE && overtaken(sk, before + by) {
        bits |= call::UNSURE;
    }
    // SAFETY: a live storage value.
    if unsafe { (*state).unsure } != 0 {
        bits |= call::UNSURE;
    }
    (before + by, bits)
}

/// Whether nothing more will come.
#[inline(always)]
fn ended(sk: Pointer) -> bool {
    field!(sk, sock_shutdown, u8) & RCV_SHUTDOWN != 0 && field!(sk, sock_queue_length, u32) == 0
}

/// Whether the queue is empty although the peer is known to have sent more than was counted here: somebody took it
/// unseen (splice), or another thread's call is not counted yet. What the peer's count held was in the queue
/// before the queue is looked at.
#[inline(always)]
fn overtaken(sk: Pointer, received: u64) -> bool {
    let peer = peer(sk);
    if peer.is_null() {
        return false;
    }
    let other = remembered::known(peer);
    if other.is_null() {
        return false;
    }
    // SAFETY: a live storage value.
    let (sent, unsure) = unsafe { (ptr::read_volatile(&raw const (*other).sent), (*other).unsure) };
    unsure != 0 || sent > received && field!(sk, sock_queue_length, u32) == 0
}

/// The other end of a connected socket, or NULL.
#[inline(always)]
pub fn peer(sk: Pointer) -> Pointer {
    // SAFETY: the verifier checks the socket.
    let unix: Pointer = unsafe { bpf_skc_to_unix_sock(sk.cast()) }.cast();
    if unix.is_null() {
        return unix;
    }
    field!(unix, unix_peer, Pointer)
}

/// The low half of the peer's cookie; 0 without a peer. Only a stream's peer stays the same, and so alive, as long
/// as the socket does: of others the cookie is read where it stands, and may not have been given yet.
#[inline(always)]
pub fn peer_cookie(sk: Pointer, spoken: u8) -> u32 {
    let peer = peer(sk);
    if peer.is_null() {
        return 0;
    }
    if spoken == protocol::UNIX_DGRAM {
        return field!(peer, common_cookie, u64) as u32;
    }
    // SAFETY: the verifier checks the socket.
    unsafe { bpf_get_socket_cookie(peer) as u32 }
}

/// Writes the names of a socket and of its peer into the `rare` ring, ahead of the record that they belong to.
#[inline(never)]
pub fn write_names(sk: Pointer, slot: &Slot) {
    write_name(sk, slot, 0);
    let peer = peer(sk);
    if !peer.is_null() {
        write_name(peer, slot, 1);
    }
}

#[inline(always)]
fn write_name(sk: Pointer, slot: &Slot, whose: u8) {
    // SAFETY: the verifier checks the socket.
    let unix: Pointer = unsafe { bpf_skc_to_unix_sock(sk.cast()) }.cast();
    if unix.is_null() {
        return;
    }
    let address = field!(unix, unix_addr, Pointer);
    if address.is_null() {
        return;
    }
    // `len` counts the family's two bytes as well.
    let len = field!(address, unix_address_len, u32);
    if len <= 2 || len > 110 {
        return;
    }
    let len = len - 2;
    let path = address.wrapping_byte_add(offset!(unix_address_name) as usize + 2);
    write_part(path, slot, whose, 0, len);
    if len > 64 {
        write_part(path.wrapping_byte_add(64), slot, whose, 1, len);
    }
}

#[inline(never)]
fn write_part(from: Pointer, slot: &Slot, whose: u8, part: u8, len: u32) {
    let mut named = RareSlot { slot: *slot, detail: [0; 8] };
    named.slot.kind = kind::UNIX_NAME;
    named.slot.aux = [whose, part];
    named.slot.argument = len;
    let rest = len - u32::from(part) * 64;
    kernel::read_bytes(&mut named.detail, from, if rest < 64 { rest } else { 64 });
    emit::rare(&named);
}

/// Takes a socket that was there before into storage, with what lies in its queue as the first that its peer has
/// sent. One that is not connected yet has moved nothing.
#[inline(always)]
pub fn older(sk: Pointer) {
    let Some(state) = remembered::any(sk) else { return };
    let peer = peer(sk);
    // SAFETY: a live storage value.
    unsafe { (*state).unsure = u32::from(!peer.is_null()) };
    let queued = queued(sk);
    if peer.is_null() || queued == 0 || field!(sk, sock_type, u16) == SOCK_DGRAM {
        return;
    }
    if let Some(other) = remembered::any(peer) {
        // SAFETY: a live storage value.
        unsafe {
            if (*other).sent == 0 {
                (*other).sent = queued as u64;
            }
        }
    }
}

/// Bytes or messages that wait in a socket's queue; 0 on kernels that keep no count of the bytes.
#[inline(always)]
fn queued(sk: Pointer) -> u32 {
    // SAFETY: the verifier checks the socket.
    let unix: Pointer = unsafe { bpf_skc_to_unix_sock(sk.cast()) }.cast();
    if unix.is_null() {
        return 0;
    }
    if field!(sk, sock_type, u16) != SOCK_STREAM {
        return field!(sk, sock_queue_length, u32);
    }
    if offset!(unix_queued) == ABSENT { 0 } else { field!(unix, unix_queued, u32) }
}
