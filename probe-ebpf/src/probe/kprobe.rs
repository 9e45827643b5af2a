//! Sends, receives and accepts by kprobes and kretprobes, of the same functions as the trampolines.
//!
//! What a kprobe is given are addresses, so that every field is read by a helper, and what is remembered about a
//! socket is found by its cookie. At a function's return its arguments are gone: they were noted at its entry.

use aya_ebpf::helpers::generated::bpf_get_socket_cookie;
use aya_ebpf::macros::{cgroup_sock, kprobe, kretprobe};
use aya_ebpf::programs::{ProbeContext, RetProbeContext, SockContext};
use probe_ebpf::config::fired;
use probe_ebpf::event::kind;

use crate::datagram::GO_ON;
use crate::kernel::{Pointer, Structure, Untyped, offset};
use crate::socket::{Begin, Call, Turn};
use crate::trampoline::takes_pages;
use crate::{fire, scope, socket};

#[kprobe]
pub fn call_inet_sendmsg(ctx: ProbeContext) -> Option<()> {
    call(&ctx, 0, fired::ENTER_SEND)
}

#[kprobe]
pub fn call_inet6_sendmsg(ctx: ProbeContext) -> Option<()> {
    call(&ctx, 0, fired::ENTER_SEND_V6)
}

#[kprobe]
pub fn call_inet_recvmsg(ctx: ProbeContext) -> Option<()> {
    call(&ctx, ctx.arg(3)?, fired::ENTER_RECEIVE)
}

#[kprobe]
pub fn call_inet6_recvmsg(ctx: ProbeContext) -> Option<()> {
    call(&ctx, ctx.arg(3)?, fired::ENTER_RECEIVE_V6)
}

#[kprobe]
pub fn call_inet_sendpage(ctx: ProbeContext) -> Option<()> {
    let entered: Pointer = ctx.arg(0)?;
    takes_pages(Untyped(entered).follow(offset!(socket_sk)))?;
    scope::enter(entered, 0)
}

#[inline(always)]
fn call(ctx: &ProbeContext, flags: u32, hook: u32) -> Option<()> {
    scope::enter(ctx.arg(0)?, flags).or_else(
        #[inline(always)]
        || fire::here(hook),
    )
}

#[kretprobe]
pub fn return_inet_sendmsg(ctx: RetProbeContext) -> Option<()> {
    returned(&ctx, kind::SEND, Some(fired::SEND))
}

#[kretprobe]
pub fn return_inet6_sendmsg(ctx: RetProbeContext) -> Option<()> {
    returned(&ctx, kind::SEND, Some(fired::SEND_V6))
}

#[kretprobe]
pub fn return_inet_recvmsg(ctx: RetProbeContext) -> Option<()> {
    returned(&ctx, kind::RECEIVE, Some(fired::RECEIVE))
}

#[kretprobe]
pub fn return_inet6_recvmsg(ctx: RetProbeContext) -> Option<()> {
    returned(&ctx, kind::RECEIVE, Some(fired::RECEIVE_V6))
}

#[kretprobe]
pub fn return_inet_sendpage(ctx: RetProbeContext) -> Option<()> {
    returned(&ctx, kind::SEND, None)
}

#[inline(always)]
fn returned(ctx: &RetProbeContext, what: u8, hook: Option<u32>) -> Option<()> {
    // A call that began before it could be seen is not known; it lies before the recording.
    let Some(entered) = scope::entered() else { return fire::here(hook?) };
    let sk = Untyped(entered.socket).follow(offset!(socket_sk));
    let (flags, begin) = (entered.flags, Begin::At(entered.begin_ns));
    let (result, turn) = (ctx.ret(), Turn::First);
    socket::transfer(ctx, what, Call { sk, result, flags, begin, hook: None, turn })
}

#[kretprobe]
pub fn return_inet_csk_accept(ctx: RetProbeContext) -> Option<()> {
    let sk: Pointer = ctx.ret();
    if sk.is_null() {
        return fire::here(fired::ACCEPT);
    }
    socket::accepted(Untyped(sk), Turn::First)
}

/// Gives a socket that is being made its cookie, by which the others know it, and which they cannot give.
#[cgroup_sock(sock_create)]
pub fn socket_numbered(ctx: SockContext) -> i32 {
    // SAFETY: a helper on the hook's own context.
    unsafe { bpf_get_socket_cookie(ctx.sock.cast()) };
    GO_ON
}
