//! Packets that are lost, between the two sides of a partition, of one connection or one by one, by a control group's
//! programs for packets.
//!
//! A cut may ask for the sender's control group and scope, which are known where a packet leaves its socket, and for the
//! receiver's, which are known where it comes to one. What the first place knows is noted by the packet's addresses
//! for the second. A packet is lost where it comes in if that is on this machine, as on a wire; else where it
//! leaves: for TCP as if it had not been sent, and would be tried again; a datagram silently.

use core::ffi::c_void;
use core::ptr;

use aya_ebpf::bindings::{
    __sk_buff, BPF_ANY, BPF_F_NO_PREALLOC, BPF_LOCAL_STORAGE_GET_F_CREATE, bpf_map_type,
};
use aya_ebpf::btf_maps::{Array, LruHashMap};
use aya_ebpf::helpers::generated::{
    bpf_get_socket_cookie, bpf_loop, bpf_sk_fullsock, bpf_sk_storage_get,
    bpf_skb_ancestor_cgroup_id,
};
use aya_ebpf::macros::{btf_map, cgroup_skb, cgroup_sock, raw_tracepoint};
use aya_ebpf::programs::{RawTracePointContext, SkBuffContext, SockContext};
use probe_ebpf::event::{RareSlot, kind, protocol};
use probe_ebpf::fault::{
    CUTS_MAX, Cut, FLOWS_MAX, FaultDetail, RULES_MAX, WAY_WORDS, Way, action, cut, hook, told,
};

use super::packet::{Packet, Route};
use super::{Firing, PROGRESS, RULES, caller, strike};
use crate::kernel::{Pointer, Structure, Untyped, field, offset};
use crate::storage::LocalStorage;
use crate::{emit, name, remembered, scope, tcp};

/// Without holes: the first that is unused is the end.
#[btf_map]
static CUTS: Array<Cut, { CUTS_MAX as usize }> = Array::new();

/// What is known of packets that go a way.
#[btf_map]
static FLOWS: LruHashMap<Route, Flow, { FLOWS_MAX as usize }> = LruHashMap::new();

#[repr(C)]
#[derive(Clone, Copy)]
struct Flow {
    /// Cuts whose sender the last packet's was, a bit each.
    sender: u64,
    /// That sender's cookie.
    cookie: u64,
    /// 1: it is in scope; whose it is.
    scoped: u32,
    owner: u32,
    /// 1: its packets come to a socket of this machine.
    here: u64,
}

impl Flow {
    const UNKNOWN: Self = Self { sender: 0, cookie: 0, scoped: 0, owner: 0, here: 1 };
}

#[btf_map]
static ENDS: LocalStorage<
    End,
    { bpf_map_type::BPF_MAP_TYPE_SK_STORAGE as usize },
    { BPF_F_NO_PREALLOC as usize },
> = LocalStorage::new();

/// What is remembered about a socket that lost packets, or that will: for which rules that has been told, a bit each. Of packets
/// that left, of such that bore bytes, and the same of those that came in.
#[repr(C)]
struct End {
    told: [u32; 4],
    /// Rules that have fired at an event of the socket and lose all its packets since, a bit each.
    marks: u64,
}

/// Takes note that a rule loses all packets of a socket from now on; false: there was no room for that.
#[inline(always)]
pub fn mark(sk: Pointer, rule: u32) -> bool {
    let end = end(sk, true);
    if end.is_null() {
        emit::dropped();
        return false;
    }
    // SAFETY: a live storage value. Two threads that race for it both mark the socket for good.
    unsafe { (*end).marks |= 1 << (rule & (RULES_MAX - 1)) };
    true
}

#[inline(always)]
fn end(sk: Pointer, create: bool) -> *mut End {
    let flags = if create { BPF_LOCAL_STORAGE_GET_F_CREATE as u64 } else { 0 };
    // SAFETY: the verifier checks map and socket.
    unsafe { bpf_sk_storage_get(ENDS.as_map(), sk, ptr::null_mut(), flags) }.cast()
}

/// Lets a packet go on.
pub const PASS: i32 = 1;
/// Loses it. One that leaves: its sender is told EPERM, which TCP takes for a packet that has yet to be sent.
pub const LOSE: i32 = 0;
/// Loses a packet that leaves, as a full queue would: senders of datagrams are not told.
const LOSE_AS_CONGESTED: i32 = 2;

#[cgroup_skb(egress)]
pub fn packet_out(ctx: SkBuffContext) -> i32 {
    let mut walk = Walk::new(ctx.skb.skb, told::LOST_OUT);
    let Some(sk) = walk.meet() else { return PASS };
    let known = FLOWS.get_ptr_mut(walk.packet.route);
    if walk.met == 0 {
        if let Some(flow) = known {
            // Another sender has these addresses now.
            // SAFETY: a live map value; the last packet counts.
            unsafe { (*flow).sender = 0 };
        }
        return PASS;
    }
    let scoped = walk.scoped;
    // SAFETY: a live map value.
    let here = known.is_some_and(
        #[inline(always)]
        |flow| unsafe { (*flow).here != 0 },
    );
    if here || walk.rules == 0 {
        let (cookie, owner) = (walk.cookie(), remembered::owner(sk));
        let flow = Flow { sender: walk.met, cookie, scoped, owner, here: here as u64 };
        note(&walk.packet.route, known, flow);
        return PASS;
    }
    if scoped != 0 && walk.lose(sk) { walk.lost_out() } else { PASS }
}

#[cgroup_skb(ingress)]
pub fn packet_in(ctx: SkBuffContext) -> i32 {
    let mut walk = Walk::new(ctx.skb.skb, told::LOST_IN);
    let Some(sk) = walk.meet() else { return PASS };
    if walk.met == 0 {
        return PASS;
    }
    match FLOWS.get_ptr_mut(walk.packet.route) {
        // SAFETY: a live map value.
        Some(flow) => unsafe {
            (*flow).here = 1;
            walk.known = *flow;
        },
        None => note(&walk.packet.route, None, Flow::UNKNOWN),
    }
    if walk.met & walk.known.sender != 0 {
        walk.each(known_sender);
    }
    let scoped = walk.scoped | walk.known.scoped;
    if walk.rules != 0 && scoped != 0 && walk.lose(sk) { LOSE } else { PASS }
}

/// Takes sockets that threads in scope make into scope: a datagram may come before any was sent or received.
#[cgroup_sock(sock_create)]
pub fn socket_made(ctx: SockContext) -> i32 {
    if scope::current().is_some() {
        remembered::made(ctx.sock.cast());
    }
    PASS
}

/// The same where these programs cannot look at what hangs on a thread.
#[cgroup_sock(sock_create)]
pub fn socket_noted_made(ctx: SockContext) -> i32 {
    if caller::task().is_some() {
        remembered::made(ctx.sock.cast());
    }
    PASS
}

/// Tells which cuts have begun and healed; the recorder runs it now and then. (A packet that is lost tells that
/// its cut has begun, if it is the first; one that is not, that it has healed.)
#[raw_tracepoint]
pub fn cuts_turned(_ctx: RawTracePointContext) -> i32 {
    turn();
    0
}

#[inline(always)]
fn turn() {
    // SAFETY: the body needs no context.
    unsafe { bpf_loop(RULES_MAX, turned as *mut c_void, ptr::null_mut(), 0) };
}

unsafe extern "C" fn turned(index: u32, _context: *mut c_void) -> i64 {
    let Some(rule) = RULES.get_ptr_mut(index) else { return 1 };
    let Some(progress) = PROGRESS.get_ptr_mut(index) else { return 1 };
    let now_ns = emit::now();
    // SAFETY: live map values; nobody writes the rule while it is armed.
    unsafe {
        let (action, from_ns, until_ns, limit) =
            ((*rule).action, (*rule).from_ns, (*rule).until_ns, (*rule).limit);
        let (open, over, fired) = ((*progress).open, (*progress).over, (*progress).fired);
        let cut = action == action::LOSE;
        let begins = cut || matches!(action, action::HOLE | action::CRASH) && fired != 0;
        if !begins || open == 0 || now_ns < from_ns {
            return 0;
        }
        if cut {
            begun(index);
        }
        if (over != 0 || now_ns >= until_ns || cut && fired >= limit)
            && emit::count(&raw mut (*progress).healed) == 0
        {
            tell(index, told::HEALED);
        }
    }
    0
}

/// What is carried from one cut to the next.
#[repr(C)]
pub struct Walk {
    pub packet: Packet,
    skb: *mut __sk_buff,
    /// Cuts that the packet meets as far as is known at this place, a bit each.
    met: u64,
    /// What the place where it was sent has noted.
    known: Flow,
    /// Rules of those of which nothing more has to be known.
    pub rules: u32,
    /// 1: the socket at this place is in scope.
    scoped: u32,
    /// Rules that lose all packets of this socket, a bit each.
    marks: u32,
    /// One of [`told`].
    place: u16,
    /// 1: it goes the way of some cut, whoever sends it.
    fits: u16,
}

impl Walk {
    #[inline(always)]
    pub fn new(skb: *mut __sk_buff, place: u8) -> Self {
        let place = place as u16;
        Self {
            packet: Packet::NONE,
            skb,
            met: 0,
            known: Flow::UNKNOWN,
            rules: 0,
            scoped: 0,
            marks: 0,
            place,
            fits: 0,
        }
    }

    /// The full socket of a packet, which is read.
    #[inline(always)]
    pub fn packet_of(&mut self) -> Option<Pointer> {
        // SAFETY: the kernel's context; the verifier checks the access.
        let sk = unsafe { (&raw const (*self.skb).__bindgen_anon_2.sk).read_volatile() };
        if sk.is_null() {
            return None;
        }
        // SAFETY: a helper that takes a socket.
        let sk: Pointer = unsafe { bpf_sk_fullsock(sk) }.cast();
        if sk.is_null() {
            return None;
        }
        self.packet.read(self.skb)?;
        self.packet.route.netns = self.loopback(sk);
        self.scoped = remembered::covers(sk) as u32;
        Some(sk)
    }

    /// The same of a packet that goes the way of some cut.
    #[inline(always)]
    fn meet(&mut self) -> Option<Pointer> {
        // SAFETY: a live map value.
        if unsafe { (*CUTS.get_ptr_mut(0)?).rule } == 0 {
            return None;
        }
        let sk = self.packet_of()?;
        let end = end(sk, false);
        if !end.is_null() {
            // SAFETY: a live storage value.
            self.marks = unsafe { (*end).marks } as u32;
        }
        self.each(met);
        if self.fits == 0 {
            return None;
        }
        self.cookie();
        Some(sk)
    }

    /// The cookie of the packet's socket, which has one from then on: with it begins what is remembered about it.
    #[inline(always)]
    pub fn cookie(&self) -> u64 {
        // SAFETY: a helper that takes the context.
        unsafe { bpf_get_socket_cookie(self.skb.cast()) }
    }

    /// How a packet that leaves is lost.
    #[inline(always)]
    pub fn lost_out(&self) -> i32 {
        let stream = self.packet.route.way.protocol == protocol::TCP as u32;
        if stream { LOSE } else { LOSE_AS_CONGESTED }
    }

    /// The network namespace of a packet on a loopback, since each has the same addresses there; else 0.
    #[inline(always)]
    fn loopback(&self, sk: Pointer) -> u64 {
        const LOOPBACK: u32 = 1;
        // SAFETY: the kernel's context; the verifier checks the access.
        if unsafe { (&raw const (*self.skb).ifindex).read_volatile() } != LOOPBACK {
            return 0;
        }
        let net = Untyped::address_of(sk).follow(offset!(common_net));
        field!(net, net_inum, u32) as u64
    }

    /// Whether the socket at this place is what a rule (plus one) is about.
    #[inline(always)]
    fn is_victim(&self, flags: u32, rule: u32) -> bool {
        let marked = self.marks >> ((rule - 1) & (RULES_MAX - 1)) & 1 != 0;
        self.scoped != 0 && (marked || flags & cut::MARKED == 0)
    }

    /// Whether it bears bytes, where only such packets are meant.
    #[inline(always)]
    fn suits(&self, flags: u32) -> bool {
        flags & cut::BEARING == 0 || self.packet.bears()
    }

    #[inline(always)]
    fn each(&mut self, body: Body) {
        // SAFETY: the body gets this very walk, which outlives the call.
        unsafe { bpf_loop(CUTS_MAX, body as *mut c_void, ptr::from_mut(self).cast(), 0) };
    }

    /// Whether one of the rules loses the packet; tells it, of a cut where it is the socket's first.
    #[inline(always)]
    pub fn lose(&self, sk: Pointer) -> bool {
        let firing = strike(self.rules);
        let told = match firing.action {
            action::LOSE | action::HOLE | action::CRASH => {
                if firing.action == action::LOSE {
                    begun(firing.index);
                }
                first(sk, firing.index, self.place, self.packet.length != 0)
            }
            action::LOSE_ONE => true,
            _ => {
                // A cut may have healed: that is told before the packet arrives.
                turn();
                return false;
            }
        };
        // (A reset for a socket that is gone is nobody's.)
        if told && self.scoped | self.known.scoped != 0 {
            let state = remembered::of_packet(sk);
            if !state.is_null() {
                name::fresh_in_lane(Untyped::address_of(sk), state);
            }
            tell_lost(self, sk, &firing);
        }
        true
    }
}

type Body = unsafe extern "C" fn(u32, *mut Walk) -> i64;

/// Whether a rule has lost no packet of this socket yet, there, of those that bear bytes or of those that do not.
#[inline(always)]
fn first(sk: Pointer, rule: u32, place: u16, bears: bool) -> bool {
    let end = end(sk, true);
    if end.is_null() {
        emit::dropped();
        return false;
    }
    let bit = 1 << (rule & (RULES_MAX - 1));
    let incoming = place == told::LOST_IN as u16;
    let index = (incoming as usize) << 1 | bears as usize;
    // SAFETY: a live storage value of four words. Two packets may race for it: then both are told.
    unsafe {
        let word = (&raw mut (*end).told).cast::<u32>().add(index);
        let told = word.read_volatile();
        word.write_volatile(told | bit);
        told & bit == 0
    }
}

/// Takes note of one cut, if the packet meets it as far as is known at its place.
unsafe extern "C" fn met(index: u32, walk: *mut Walk) -> i64 {
    let Some(cut) = CUTS.get_ptr_mut(index) else { return 1 };
    // SAFETY: a live map value, and the walk of the caller.
    unsafe {
        let rule = (*cut).rule;
        if rule == 0 {
            return 1;
        }
        if !goes(cut, &raw const (*walk).packet.route.way) {
            return 0;
        }
        (*walk).fits = 1;
        let source = ((*cut).source_level, (*cut).source_cgroup);
        let target = ((*cut).target_level, (*cut).target_cgroup);
        let (here, there, ours, theirs) = match (*walk).place == told::LOST_OUT as u16 {
            true => (source, target, cut::BY_SENDER, cut::BY_RECEIVER),
            false => (target, source, cut::BY_RECEIVER, cut::BY_SENDER),
        };
        let flags = (*cut).flags;
        if here.0 != 0 && bpf_skb_ancestor_cgroup_id((*walk).skb, here.0 as i32 - 1) != here.1
            || flags & ours != 0 && !(*walk).is_victim(flags, rule)
        {
            return 0;
        }
        (*walk).met |= 1 << (index & (CUTS_MAX - 1));
        if there.0 == 0 && flags & theirs == 0 && (*walk).suits(flags) {
            (*walk).rules |= 1 << ((rule - 1) & (RULES_MAX - 1));
        }
    }
    0
}

/// Adds the rule of a cut that asks for its sender, where that is known to be it.
unsafe extern "C" fn known_sender(index: u32, walk: *mut Walk) -> i64 {
    let Some(cut) = CUTS.get_ptr_mut(index) else { return 1 };
    // SAFETY: a live map value, and the walk of the caller.
    unsafe {
        let rule = (*cut).rule;
        if rule == 0 {
            return 1;
        }
        let both = (*walk).met & (*walk).known.sender;
        if both >> (index & (CUTS_MAX - 1)) & 1 != 0 && (*walk).suits((*cut).flags) {
            (*walk).rules |= 1 << ((rule - 1) & (RULES_MAX - 1));
        }
    }
    0
}

/// Whether no masked bit of the way differs.
#[inline(always)]
fn goes(cut: *mut Cut, way: *const Way) -> bool {
    let mut different = 0;
    let mut i = 0;
    while i < WAY_WORDS {
        // SAFETY: a live map value and a live way; all have that many words.
        unsafe {
            let value = (&raw const (*cut).value).cast::<u64>().add(i);
            let mask = (&raw const (*cut).mask).cast::<u64>().add(i);
            let word = way.cast::<u64>().add(i);
            different |=
                (ptr::read_volatile(value) ^ ptr::read_volatile(word)) & ptr::read_volatile(mask);
        }
        i += 1;
    }
    different == 0
}

#[inline(always)]
fn note(route: &Route, known: Option<*mut Flow>, flow: Flow) {
    match known {
        // SAFETY: a live map value; the last packet counts.
        Some(old) => unsafe {
            (*old).sender = flow.sender;
            (*old).cookie = flow.cookie;
            (*old).scoped = flow.scoped;
            (*old).owner = flow.owner;
        },
        None => {
            if FLOWS.insert(route, flow, BPF_ANY.into()).is_err() {
                emit::dropped();
            }
        }
    }
}

/// The event of a packet that was lost, in the lane of its socket at this place. If that is out of scope it came in here,
/// and is its sender's.
#[inline(never)]
fn tell_lost(walk: &Walk, sk: Pointer, firing: &Firing) {
    let (way, out) = (&walk.packet.route.way, walk.place == told::LOST_OUT as u16);
    let (owner, cookie) = match walk.scoped {
        0 => (walk.known.owner, walk.known.cookie),
        _ => (remembered::owner(sk), walk.cookie()),
    };
    let sent = out || walk.scoped == 0;
    let mut slot = emit::slot(kind::FAULT, owner, 0, emit::now());
    slot.socket = cookie;
    slot.argument = firing.index;
    slot.aux[0] = if sent { told::LOST_OUT } else { told::LOST_IN };
    if way.protocol == protocol::TCP as u32 {
        tcp::of_packet(Untyped::address_of(sk), out, &mut slot);
        (slot.sequence, slot.code) = (walk.packet.sequence, walk.packet.length as i32);
    }
    let ports = |local: u16, remote: u16| FaultDetail {
        local_port: local,
        remote_port: remote,
        rule: firing.index,
        action: firing.action,
        hook: hook::PACKET,
        protocol: way.protocol,
        ..bytemuck::Zeroable::zeroed()
    };
    let (local, remote, named) = match sent {
        true => (&way.source, &way.target, ports(way.source_port, way.target_port)),
        false => (&way.target, &way.source, ports(way.target_port, way.source_port)),
    };
    let mut detail: [u64; 8] = bytemuck::cast(named);
    [detail[0], detail[1]] = *local;
    [detail[2], detail[3]] = *remote;
    emit::rare(&RareSlot { slot, detail });
}

/// Tells that a cut has begun, once.
#[inline(always)]
fn begun(index: u32) {
    let Some(progress) = PROGRESS.get_ptr_mut(index) else { return };
    // SAFETY: a live map value.
    unsafe {
        if (*progress).begun == 0 && emit::count(&raw mut (*progress).begun) == 0 {
            tell(index, told::BEGUN);
        }
    }
}

#[inline(never)]
fn tell(index: u32, what: u8) {
    let mut slot = emit::slot(kind::FAULT, 0, 0, emit::now());
    slot.argument = index;
    slot.aux[0] = what;
    emit::rare(&RareSlot { slot, detail: [0; 8] });
}
