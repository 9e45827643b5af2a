//! Packets that the kernel threw away, and why: detail `net`. Runs in interrupt context, so that nobody is told by
//! `current`; whose packet it was is told by its header.

use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;
use probe_ebpf::config::{ABSENT, DROPS_PER_TICK};
use probe_ebpf::event::{RareSlot, SocketName, kind, protocol};
use probe_ebpf::ring::Heads;

use crate::emit;
use crate::kernel::{self, Pointer, Structure, Untyped, argument, field, offset};

const ETH_P_IP: u16 = 0x0800;
const ETH_P_IPV6: u16 = 0x86dd;
const IPPROTO_TCP: u8 = 6;
const IPPROTO_UDP: u8 = 17;
const V6_HEADER: u32 = 40;

#[btf_tracepoint(function = "kfree_skb")]
pub fn kfree_skb(ctx: BtfTracePointContext) -> Option<()> {
    let skb: Pointer = ctx.arg(0);
    let reason: u32 = ctx.arg(2);
    // Up to this number nothing was lost: a buffer was used up, or freed by somebody who does not say why.
    if argument!(drop_reason_unspecified) == ABSENT || reason <= argument!(drop_reason_unspecified)
    {
        return None;
    }
    let mut name: SocketName = bytemuck::Zeroable::zeroed();
    let mut slot = emit::slot(kind::DROPPED, 0, 0, emit::now());
    slot.argument = reason;
    let header = network(skb, &mut name)?;
    let ports: [u16; 2] = header.load(0);
    name.local_port = u16::from_be(ports[0]);
    name.remote_port = u16::from_be(ports[1]);
    place(skb, &mut name);
    within_limit(slot.time_ns)?;
    emit::rare(&RareSlot { slot, detail: bytemuck::cast(name) });
    None
}

/// Reads the addresses; the header that follows.
#[inline(always)]
fn network(skb: Pointer, name: &mut SocketName) -> Option<Untyped> {
    let head = field!(skb, skb_head, Pointer);
    let at = field!(skb, skb_network_header, u16) as u32;
    let header = Untyped(head.wrapping_byte_add(at as usize));
    let (spoken, size) = match u16::from_be(field!(skb, skb_protocol, u16)) {
        ETH_P_IP => {
            let first: u8 = header.load(0);
            name.local = bytemuck::cast(kernel::mapped(header.load(12)));
            name.remote = bytemuck::cast(kernel::mapped(header.load(16)));
            let size = ((first & 15) as u32) * 4;
            (header.load::<u8>(9), size)
        }
        ETH_P_IPV6 => {
            name.local = bytemuck::cast(header.load::<[u64; 2]>(8));
            name.remote = bytemuck::cast(header.load::<[u64; 2]>(24));
            (header.load::<u8>(6), V6_HEADER)
        }
        _ => return None,
    };
    name.protocol = match spoken {
        IPPROTO_TCP => protocol::TCP,
        IPPROTO_UDP => protocol::UDP,
        _ => return None,
    };
    Some(Untyped(header.0.wrapping_byte_add(size as usize)))
}

/// The network namespace of the device that the packet was on, where there is one.
#[inline(always)]
fn place(skb: Pointer, name: &mut SocketName) {
    let device = Untyped(field!(skb, skb_dev, Pointer));
    if device.0.is_null() {
        return;
    }
    let net = device.follow(offset!(device_net));
    name.netns = field!(net, net_inum, u32);
    if offset!(net_cookie) != ABSENT {
        name.netns_cookie = field!(net, net_cookie, u32);
    }
}

/// Whether this CPU may tell of one more: a flood of drops must not push everything else out of the ring. What is
/// not told is counted.
#[inline(always)]
fn within_limit(time_ns: u64) -> Option<()> {
    let heads: *mut Heads = emit::heads()?;
    // About 16 ms.
    let tick = time_ns >> 24;
    // SAFETY: a live map value, of this CPU; two programs at once may tell one packet too many.
    unsafe {
        if (*heads).drop_tick != tick {
            (*heads).drop_tick = tick;
            (*heads).drops_in_tick = 0;
        }
        (*heads).drops_in_tick += 1;
        if (*heads).drops_in_tick <= DROPS_PER_TICK {
            return Some(());
        }
        (*heads).drops_untold += 1;
    }
    None
}
