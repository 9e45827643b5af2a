//! Processes that die and fall silent: nobody gets a FIN or a reset from their sockets, nor from the kernel, which answers
//! for those that are gone.
//!
//! At the event all sockets of the process are found by its descriptors, and where they are is noted. From then on what
//! leaves such a place is lost, also when nobody is there any more, and what comes to it.

use core::ffi::c_void;
use core::ptr;

use aya_ebpf::bindings::task_struct;
use aya_ebpf::btf_maps::HashMap;
use aya_ebpf::helpers::generated::bpf_loop;
use aya_ebpf::macros::{btf_map, cgroup_skb};
use aya_ebpf::programs::SkBuffContext;
use probe_ebpf::event::protocol;
use probe_ebpf::fault::{SILENT_MAX, Way, told};

use super::cut::{LOSE, PASS, Walk};
use super::packet::Route;
use crate::kernel::{self, Pointer, Structure, Untyped, field, offset};
use crate::{emit, file};

/// By what leaves it, each place that is silent; a port without another end has none in its key. The rule, a bit.
#[btf_map]
static SILENT: HashMap<Route, u32, { SILENT_MAX as usize }> = HashMap::new();

/// A process has no more descriptors than this, unless its limit was raised by root.
const DESCRIPTORS_MAX: u32 = 1 << 16;

/// Descriptors that are looked through.
#[repr(C)]
struct Search {
    files: Untyped,
    rule: u32,
}

/// Notes where all sockets of a task's process are, for a rule to silence.
#[inline(never)]
pub fn begin(task: *mut task_struct, rule: u32) {
    let table = Untyped(field!(task, task_files, Pointer)).follow(offset!(files_fdt));
    let count = table.load::<u32>(offset!(fdt_max_fds));
    let mut search = Search { files: table.follow(offset!(fdt_fd)), rule };
    if count > DESCRIPTORS_MAX {
        emit::dropped();
    }
    let rounds = count.min(DESCRIPTORS_MAX);
    // SAFETY: the body gets this very search, which outlives the call.
    unsafe { bpf_loop(rounds, silence as *mut c_void, ptr::from_mut(&mut search).cast(), 0) };
}

unsafe extern "C" fn silence(fd: u32, search: *mut Search) -> i64 {
    // SAFETY: the search of the caller.
    let (files, rule) = unsafe { ((*search).files, 1 << ((*search).rule & 31)) };
    let Some(sk) = file::in_table(files, fd).and_then(file::socket) else { return 0 };
    let spoken = kernel::protocol(sk);
    if !matches!(spoken, protocol::TCP | protocol::UDP) {
        return 0;
    }
    let net = sk.follow(offset!(common_net));
    let mut place = Route {
        way: Way {
            source: kernel::local_address(sk),
            target: kernel::remote_address(sk),
            source_port: field!(sk, common_num, u16),
            target_port: u16::from_be(field!(sk, common_dport, u16)),
            protocol: spoken as u32,
        },
        netns: field!(net, net_inum, u32) as u64,
    };
    if place.way.target_port == 0 {
        place.way.target = [0; 2];
    }
    // By loopback the namespace is a part of the key, by other ways not.
    note(&place, rule);
    place.netns = 0;
    note(&place, rule);
    0
}

#[inline(always)]
fn note(place: &Route, rule: u32) {
    if SILENT.insert(place, rule, 0).is_err() {
        emit::dropped();
    }
}

#[cgroup_skb(egress)]
pub fn silent_out(ctx: SkBuffContext) -> i32 {
    let mut walk = Walk::new(ctx.skb.skb, told::LOST_OUT);
    let Some(sk) = walk.packet_of() else { return PASS };
    let datagram = walk.packet.route.way.protocol == protocol::UDP as u32;
    walk.rules = silent_at(&walk.packet.route);
    // A datagram to where nobody is would be answered by ICMP.
    if walk.rules == 0 && datagram {
        walk.rules = silent_at(&walk.packet.route.turned());
    }
    if lose(&walk, sk) { walk.lost_out() } else { PASS }
}

#[cgroup_skb(ingress)]
pub fn silent_in(ctx: SkBuffContext) -> i32 {
    let mut walk = Walk::new(ctx.skb.skb, told::LOST_IN);
    let Some(sk) = walk.packet_of() else { return PASS };
    walk.rules = silent_at(&walk.packet.route);
    if walk.rules == 0 {
        walk.rules = silent_at(&walk.packet.route.turned());
    }
    if lose(&walk, sk) { LOSE } else { PASS }
}

#[inline(always)]
fn lose(walk: &Walk, sk: Pointer) -> bool {
    if walk.rules == 0 {
        return false;
    }
    walk.cookie();
    walk.lose(sk)
}

/// The rules that silence the place that a packet has left, or would have: a bit each.
#[inline(always)]
fn silent_at(route: &Route) -> u32 {
    let mut key = *route;
    let connected = rule_of(&key);
    // A socket that is not connected: to its address, or to any.
    (key.way.target, key.way.target_port) = ([0; 2], 0);
    let bound = rule_of(&key);
    let v4 = key.way.source[0] == 0 && key.way.source[1] as u32 == 0xffff_0000;
    key.way.source = [0; 2];
    let any = rule_of(&key);
    if v4 {
        key.way.source = kernel::mapped(0);
    }
    connected | bound | any | rule_of(&key)
}

#[inline(always)]
fn rule_of(key: &Route) -> u32 {
    // SAFETY: a live map value.
    SILENT.get_ptr(key).map_or(0, |rule| unsafe { rule.read_volatile() })
}
