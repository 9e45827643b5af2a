//! Calls that are refused by a control group's programs: connect, bind, and sending a datagram to an address. Each is there
//! twice: some kernels let such programs look at what hangs on a thread, others do not (see [`caller`]).

use aya_ebpf::helpers::generated::bpf_get_socket_cookie;
use aya_ebpf::macros::cgroup_sock_addr;
use aya_ebpf::programs::SockAddrContext;
use probe_ebpf::event::{RareSlot, kind, protocol};
use probe_ebpf::fault::{action, hook};

use super::{Walk, caller, detail, leader, result, sifted, tell, victim, who};
use crate::{emit, scope};

#[cgroup_sock_addr(connect4)]
pub fn refuse_connect4(ctx: SockAddrContext) -> i32 {
    refuse::<SEEN>(&ctx, hook::CONNECT, v4(&ctx))
}

#[cgroup_sock_addr(connect4)]
pub fn refuse_noted_connect4(ctx: SockAddrContext) -> i32 {
    refuse::<NOTED>(&ctx, hook::CONNECT, v4(&ctx))
}

#[cgroup_sock_addr(connect6)]
pub fn refuse_connect6(ctx: SockAddrContext) -> i32 {
    refuse::<SEEN>(&ctx, hook::CONNECT, v6(&ctx))
}

#[cgroup_sock_addr(connect6)]
pub fn refuse_noted_connect6(ctx: SockAddrContext) -> i32 {
    refuse::<NOTED>(&ctx, hook::CONNECT, v6(&ctx))
}

#[cgroup_sock_addr(bind4)]
pub fn refuse_bind4(ctx: SockAddrContext) -> i32 {
    refuse::<SEEN>(&ctx, hook::BIND, v4(&ctx))
}

#[cgroup_sock_addr(bind4)]
pub fn refuse_noted_bind4(ctx: SockAddrContext) -> i32 {
    refuse::<NOTED>(&ctx, hook::BIND, v4(&ctx))
}

#[cgroup_sock_addr(bind6)]
pub fn refuse_bind6(ctx: SockAddrContext) -> i32 {
    refuse::<SEEN>(&ctx, hook::BIND, v6(&ctx))
}

#[cgroup_sock_addr(bind6)]
pub fn refuse_noted_bind6(ctx: SockAddrContext) -> i32 {
    refuse::<NOTED>(&ctx, hook::BIND, v6(&ctx))
}

#[cgroup_sock_addr(sendmsg4)]
pub fn refuse_sendmsg4(ctx: SockAddrContext) -> i32 {
    refuse::<SEEN>(&ctx, hook::SENDMSG, v4(&ctx))
}

#[cgroup_sock_addr(sendmsg4)]
pub fn refuse_noted_sendmsg4(ctx: SockAddrContext) -> i32 {
    refuse::<NOTED>(&ctx, hook::SENDMSG, v4(&ctx))
}

#[cgroup_sock_addr(sendmsg6)]
pub fn refuse_sendmsg6(ctx: SockAddrContext) -> i32 {
    refuse::<SEEN>(&ctx, hook::SENDMSG, v6(&ctx))
}

#[cgroup_sock_addr(sendmsg6)]
pub fn refuse_noted_sendmsg6(ctx: SockAddrContext) -> i32 {
    refuse::<NOTED>(&ctx, hook::SENDMSG, v6(&ctx))
}

/// Whether the caller is looked at here, or was noted where its call began.
const SEEN: bool = false;
const NOTED: bool = true;

const ALLOW: i32 = 1;
const REFUSE: i32 = 0;
const IPPROTO_TCP: u32 = 6;
const IPPROTO_UDP: u32 = 17;

/// The address that the call was given.
#[inline(always)]
fn v4(ctx: &SockAddrContext) -> [u64; 2] {
    // SAFETY: the kernel's context; the verifier checks the access.
    let address = unsafe { (&raw const (*ctx.sock_addr).user_ip4).read_volatile() };
    [0, 0xffff_0000 | (address as u64) << 32]
}

#[inline(always)]
fn v6(ctx: &SockAddrContext) -> [u64; 2] {
    // SAFETY: as above; four words, since the kernel rewrites each access.
    let word = |i: usize| unsafe {
        let words = (&raw const (*ctx.sock_addr).user_ip6).cast::<u32>();
        words.add(i).read_volatile() as u64
    };
    [word(0) | word(1) << 32, word(2) | word(3) << 32]
}

#[inline(always)]
fn refuse<const NOTED: bool>(ctx: &SockAddrContext, hook: u32, address: [u64; 2]) -> i32 {
    // What costs least is tested first, since every such call comes by.
    if sifted(hook).is_none() {
        return ALLOW;
    }
    let task = if NOTED { caller::task() } else { scope::current_task() };
    let Some(task) = task else { return ALLOW };
    let mut walk = Walk::new(hook, who(task));
    if !walk.concerns() {
        return ALLOW;
    }
    let thread = if NOTED { Some(scope::uncounted()) } else { scope::current() };
    let Some(thread) = thread else { return ALLOW };
    let subject = &mut walk.subject;
    // SAFETY: the kernel's context; the verifier checks the accesses.
    let (port, spoken) = unsafe {
        let port = (&raw const (*ctx.sock_addr).user_port).read_volatile();
        (u16::from_be(port as u16), (&raw const (*ctx.sock_addr).protocol).read_volatile())
    };
    subject.socket = 1;
    subject.protocol = match spoken {
        IPPROTO_TCP => protocol::TCP as u16,
        IPPROTO_UDP => protocol::UDP as u16,
        _ => 0,
    };
    if hook == hook::BIND {
        (subject.local, subject.local_port) = (address, port);
    } else {
        (subject.remote, subject.remote_port) = (address, port);
    }
    let firing = walk.meet_in(
        #[inline(always)]
        || if NOTED { caller::noted() } else { victim(leader(task), false) },
    );
    // SAFETY: a helper that takes the context.
    let cookie = || unsafe { bpf_get_socket_cookie(ctx.sock_addr.cast()) };
    tell::tell(&firing, hook, thread.time_ns, &walk.subject, cookie);
    // Newer verifiers want to see, in all 64 bits, that it is a negative errno.
    let result = firing.value as i64 | !4095;
    if firing.action != action::REFUSE || result < -4095 {
        return ALLOW;
    }
    let cookie = cookie();
    let detail = detail(&firing, hook, &walk.subject);
    let mut slot = thread.slot(kind::FAULT);
    slot.socket = cookie;
    slot.result = firing.value;
    slot.argument = firing.index;
    // A datagram that is refused passes the hook that records sends, as any other does.
    if hook != hook::SENDMSG {
        let victim = if NOTED { caller::noted() } else { victim(task, true) };
        result::await_call(victim, &firing, hook, cookie, &detail);
    }
    emit::rare(&RareSlot { slot, detail });
    // SAFETY: a helper that takes a number.
    unsafe { set_retval(result) };
    REFUSE
}

/// `bpf_set_retval` by a number whose upper half is its sign: as `i32` it would be passed with an empty one.
#[inline(always)]
unsafe fn set_retval(result: i64) {
    const SET_RETVAL: usize = 187;
    // SAFETY: the number of a helper, which the loader makes a call; it takes and gives a number.
    let helper: unsafe extern "C" fn(i64) -> i64 = unsafe { core::mem::transmute(SET_RETVAL) };
    // SAFETY: the caller's.
    unsafe { helper(result) };
}
