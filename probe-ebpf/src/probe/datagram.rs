//! UDP: whom each datagram goes to or came from. A connected socket knows; for others the address that the
//! call gave, or was given, passes the hooks of control groups on its way, and is noted for the call's end.

use aya_ebpf::EbpfContext;
use aya_ebpf::btf_maps::Array;
use aya_ebpf::helpers::generated::{bpf_get_current_pid_tgid, bpf_get_socket_cookie};
use aya_ebpf::macros::{btf_map, cgroup_sock_addr};
use aya_ebpf::programs::SockAddrContext;
use probe_ebpf::config::{NAMED_PER_CPU, NOTES};
use probe_ebpf::event::{RareSlot, Slot, SocketName, kind};

use crate::emit;
use crate::kernel::{self, Structure, field};
use crate::scope::Thread;

/// An address on its way from the hook to the call's end. `check` tells an entry that another thread has
/// written meanwhile, wholly or in part: the peer is unknown then, never another's.
#[repr(C)]
struct Note {
    check: u64,
    address: [u64; 2],
    port: u64,
}

#[btf_map]
static NOTES_OF_THREADS: Array<Note, { NOTES as usize }> = Array::new();

/// Peers that a CPU has named, by their number, and the places of these names.
#[repr(C)]
struct NamedPeer {
    number: u64,
    place: u64,
}

#[btf_map]
static PEERS: Array<NamedPeer, 1> = Array::new();

#[cgroup_sock_addr(sendmsg4)]
pub fn sendmsg4(ctx: SockAddrContext) -> i32 {
    note_v4(&ctx)
}

#[cgroup_sock_addr(sendmsg6)]
pub fn sendmsg6(ctx: SockAddrContext) -> i32 {
    note_v6(&ctx)
}

#[cgroup_sock_addr(recvmsg4)]
pub fn recvmsg4(ctx: SockAddrContext) -> i32 {
    note_v4(&ctx)
}

#[cgroup_sock_addr(recvmsg6)]
pub fn recvmsg6(ctx: SockAddrContext) -> i32 {
    note_v6(&ctx)
}

/// Lets the call go on, always.
pub const GO_ON: i32 = 1;

#[inline(always)]
fn note_v4(ctx: &SockAddrContext) -> i32 {
    // SAFETY: the hook's context; the verifier checks the accesses.
    let (ip, port) = unsafe { ((*ctx.sock_addr).user_ip4, (*ctx.sock_addr).user_port) };
    note(ctx, kernel::mapped(ip), port)
}

#[inline(always)]
fn note_v6(ctx: &SockAddrContext) -> i32 {
    // SAFETY: as above.
    let (ip, port) = unsafe { ((*ctx.sock_addr).user_ip6, (*ctx.sock_addr).user_port) };
    let word = |low: u32, high: u32| low as u64 | (high as u64) << 32;
    note(ctx, [word(ip[0], ip[1]), word(ip[2], ip[3])], port)
}

#[inline(always)]
fn note(ctx: &SockAddrContext, address: [u64; 2], port: u32) -> i32 {
    // SAFETY: helpers on the hook's own context.
    let (tid, cookie) =
        unsafe { (bpf_get_current_pid_tgid() as u32, bpf_get_socket_cookie(ctx.as_ptr())) };
    let port = u16::from_be(port as u16) as u64;
    if let Some(note) = NOTES_OF_THREADS.get_ptr_mut(tid & (NOTES - 1)) {
        let check = mix([mix(address, port), cookie], tid as u64);
        // SAFETY: a live map value.
        unsafe { *note = Note { check, address, port } };
    }
    GO_ON
}

/// Fills in the number of the call's peer, and names it where that was not done lately.
#[inline(always)]
pub fn peer(sk: impl Structure, thread: &Thread, slot: &mut Slot) {
    let Some((address, port)) = noted(thread.tid, slot.socket).or_else(
        #[inline(always)]
        || connected(sk),
    ) else {
        return;
    };
    let number = mix(address, port) | 1;
    slot.count = number;
    let index = emit::processor() * NAMED_PER_CPU + (number as u32 & (NAMED_PER_CPU - 1));
    let Some(entry) = PEERS.get_ptr_mut(index) else { return };
    // SAFETY: a live map value.
    unsafe {
        if (*entry).number != number || emit::stale((*entry).place) {
            (*entry).number = number;
            (*entry).place = write_peer(number, &address, port, thread.time_ns);
        }
    }
}

/// What the hook has noted for the call that ends now; good for one call.
#[inline(always)]
fn noted(tid: u32, cookie: u64) -> Option<([u64; 2], u64)> {
    let note = NOTES_OF_THREADS.get_ptr_mut(tid & (NOTES - 1))?;
    // SAFETY: a live map value.
    unsafe {
        let (address, port) = ((*note).address, (*note).port);
        if (*note).check != mix([mix(address, port), cookie], tid as u64) {
            return None;
        }
        (*note).check = 0;
        Some((address, port))
    }
}

#[inline(always)]
fn connected(sk: impl Structure) -> Option<([u64; 2], u64)> {
    let port = u16::from_be(field!(sk, common_dport, u16));
    (port != 0).then(
        #[inline(always)]
        || (kernel::remote_address(sk), port as u64),
    )
}

#[inline(never)]
fn write_peer(number: u64, address: &[u64; 2], port: u64, time_ns: u64) -> u64 {
    let mut slot = emit::slot(kind::PEER, 0, 0, time_ns);
    slot.count = number;
    let name = SocketName { remote_port: port as u16, ..bytemuck::Zeroable::zeroed() };
    let mut detail: [u64; 8] = bytemuck::cast(name);
    [detail[2], detail[3]] = *address;
    emit::rare(&RareSlot { slot, detail })
}

/// One number of three, such that others hardly ever give the same (the finaliser of SplitMix64).
#[inline(always)]
fn mix(words: [u64; 2], third: u64) -> u64 {
    scramble(scramble(scramble(words[0]) ^ words[1]) ^ third)
}

#[inline(always)]
fn scramble(word: u64) -> u64 {
    let word = word.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let word = (word ^ word >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let word = (word ^ word >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    word ^ word >> 31
}
