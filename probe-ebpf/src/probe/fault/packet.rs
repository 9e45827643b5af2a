//! What a packet's headers say: from where to where it goes, and which bytes of its stream it carries.

use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::helpers::generated::bpf_skb_load_bytes;
use probe_ebpf::event::protocol;
use probe_ebpf::fault::Way;

use crate::kernel;

/// From where to where a packet goes, and in which network namespace if that is by its loopback.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Route {
    pub way: Way,
    pub netns: u64,
}

impl Route {
    /// The way back.
    #[inline(always)]
    pub fn turned(&self) -> Self {
        Self { way: self.way.turned(), netns: self.netns }
    }
}

/// A packet as it passes a control group's programs, which see it from its IP header on.
#[repr(C)]
pub struct Packet {
    pub route: Route,
    /// TCP: the number of its first byte, and how many bytes it carries.
    pub sequence: u32,
    pub length: u32,
}

/// Whether it carries bytes of a program's; an empty datagram is a message, too.
impl Packet {
    #[inline(always)]
    pub fn bears(&self) -> bool {
        self.length != 0 || self.route.way.protocol == protocol::UDP as u32
    }
}

const IPPROTO_TCP: u8 = 6;
const IPPROTO_UDP: u8 = 17;
const IPV6_HEADER: u32 = 40;

impl Packet {
    pub const NONE: Self = Self {
        route: Route {
            way: Way {
                source: [0; 2],
                target: [0; 2],
                source_port: 0,
                target_port: 0,
                protocol: 0,
            },
            netns: 0,
        },
        sequence: 0,
        length: 0,
    };

    /// Fills in all but the namespace; nothing for what is no IP packet. In place, since stack is dear.
    #[inline(always)]
    pub fn read(&mut self, skb: *mut __sk_buff) -> Option<()> {
        let first = load::<u32>(skb, 0)?.to_ne_bytes();
        let (spoken, at) = match first[0] >> 4 {
            4 => (v4(skb, &mut self.route.way)?, ((first[0] & 15) as u32) << 2),
            6 => v6(skb, &mut self.route.way)?,
            _ => return None,
        };
        match spoken {
            IPPROTO_TCP => {
                self.ports(skb, at, protocol::TCP)?;
                self.bytes(skb, at)
            }
            IPPROTO_UDP => self.ports(skb, at, protocol::UDP),
            _ => Some(()),
        }
    }

    #[inline(always)]
    fn ports(&mut self, skb: *mut __sk_buff, at: u32, protocol: u8) -> Option<()> {
        let [source, target] = load::<[u16; 2]>(skb, at)?;
        self.route.way.source_port = u16::from_be(source);
        self.route.way.target_port = u16::from_be(target);
        self.route.way.protocol = protocol as u32;
        Some(())
    }

    #[inline(always)]
    fn bytes(&mut self, skb: *mut __sk_buff, at: u32) -> Option<()> {
        const SYN: u8 = 2;
        let words = load::<[u32; 3]>(skb, at + 4)?;
        let [offset, flags, ..] = words[2].to_ne_bytes();
        let header = at + (((offset >> 4) as u32) << 2);
        // SAFETY: the kernel's context; the verifier checks the access.
        let whole = unsafe { (&raw const (*skb).len).read_volatile() };
        self.sequence = u32::from_be(words[0]);
        // (The SYN has a number of its own.)
        if flags & SYN != 0 {
            self.sequence = self.sequence.wrapping_add(1);
        }
        self.length = whole.saturating_sub(header);
        Some(())
    }
}

#[inline(always)]
fn v4(skb: *mut __sk_buff, way: &mut Way) -> Option<u8> {
    let [lifetime, source, target] = load::<[u32; 3]>(skb, 8)?;
    (way.source, way.target) = (kernel::mapped(source), kernel::mapped(target));
    Some(lifetime.to_ne_bytes()[1])
}

/// What the packet carries, and where that begins.
#[inline(always)]
fn v6(skb: *mut __sk_buff, way: &mut Way) -> Option<(u8, u32)> {
    const FRAGMENT: u8 = 44;
    const EXTENSIONS_MAX: u32 = 4;
    let addresses = load::<[u64; 4]>(skb, 8)?;
    way.source = [addresses[0], addresses[1]];
    way.target = [addresses[2], addresses[3]];
    let mut next = load::<u32>(skb, 4)?.to_ne_bytes()[2];
    let (mut at, mut round) = (IPV6_HEADER, 0);
    // Hop by hop, routing, fragment, options for the destination.
    while round < EXTENSIONS_MAX && matches!(next, 0 | 43 | FRAGMENT | 60) {
        let [following, length] = load::<[u8; 2]>(skb, at)?;
        at += if next == FRAGMENT { 8 } else { (length as u32 + 1) << 3 };
        next = following;
        round += 1;
    }
    Some((next, at))
}

#[inline(always)]
fn load<T: bytemuck::Pod>(skb: *mut __sk_buff, at: u32) -> Option<T> {
    let mut value = T::zeroed();
    // SAFETY: the helper writes as many bytes as the value has, or none.
    let error = unsafe {
        bpf_skb_load_bytes(skb.cast(), at, (&raw mut value).cast(), size_of::<T>() as u32)
    };
    (error == 0).then_some(value)
}
