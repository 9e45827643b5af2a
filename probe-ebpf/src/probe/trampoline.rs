//! Sends, receives and accepts by trampolines: programs that the kernel calls at a function's entry and exit.
//!
//! The functions are those that the socket layer calls, one level above `tcp_sendmsg` and `tcp_recvmsg`, where the
//! socket tracepoints stand too: so kTLS, sockmap and a socket that could not be bound are seen once, as the
//! program saw them, and what TCP calls inside is not seen again. Their arguments have not changed since Linux 4.1.

use aya_ebpf::macros::{fentry, fexit};
use aya_ebpf::programs::{FEntryContext, FExitContext};
use probe_ebpf::config::fired;
use probe_ebpf::event::kind;

use crate::kernel::{Pointer, argument, field};
use crate::socket::{Begin, Call, Turn};
use crate::{fire, scope, socket};

#[fentry(function = "inet_sendmsg")]
pub fn enter_inet_sendmsg(ctx: FEntryContext) -> Option<()> {
    enter(&ctx, fired::ENTER_SEND)
}

#[fentry(function = "inet6_sendmsg")]
pub fn enter_inet6_sendmsg(ctx: FEntryContext) -> Option<()> {
    enter(&ctx, fired::ENTER_SEND_V6)
}

#[fentry(function = "inet_recvmsg")]
pub fn enter_inet_recvmsg(ctx: FEntryContext) -> Option<()> {
    enter(&ctx, fired::ENTER_RECEIVE)
}

#[fentry(function = "inet6_recvmsg")]
pub fn enter_inet6_recvmsg(ctx: FEntryContext) -> Option<()> {
    enter(&ctx, fired::ENTER_RECEIVE_V6)
}

#[inline(always)]
fn enter(ctx: &FEntryContext, hook: u32) -> Option<()> {
    scope::enter(ctx.arg(0), 0).or_else(
        #[inline(always)]
        || fire::here(hook),
    )
}

#[fexit(function = "inet_sendmsg")]
pub fn exit_inet_sendmsg(ctx: FExitContext) -> Option<()> {
    exit(&ctx, kind::SEND, 0, Some(fired::SEND))
}

#[fexit(function = "inet6_sendmsg")]
pub fn exit_inet6_sendmsg(ctx: FExitContext) -> Option<()> {
    exit(&ctx, kind::SEND, 0, Some(fired::SEND_V6))
}

#[fexit(function = "inet_recvmsg")]
pub fn exit_inet_recvmsg(ctx: FExitContext) -> Option<()> {
    exit(&ctx, kind::RECEIVE, ctx.arg(3), Some(fired::RECEIVE))
}

#[fexit(function = "inet6_recvmsg")]
pub fn exit_inet6_recvmsg(ctx: FExitContext) -> Option<()> {
    exit(&ctx, kind::RECEIVE, ctx.arg(3), Some(fired::RECEIVE_V6))
}

#[fexit(function = "inet_sendmsg")]
pub fn exit_inet_sendmsg_again(ctx: FExitContext) -> Option<()> {
    socket::take_over()?;
    exit(&ctx, kind::SEND, 0, None)
}

#[fexit(function = "inet6_sendmsg")]
pub fn exit_inet6_sendmsg_again(ctx: FExitContext) -> Option<()> {
    socket::take_over()?;
    exit(&ctx, kind::SEND, 0, None)
}

#[fexit(function = "inet_recvmsg")]
pub fn exit_inet_recvmsg_again(ctx: FExitContext) -> Option<()> {
    socket::take_over()?;
    exit(&ctx, kind::RECEIVE, ctx.arg(3), None)
}

#[fexit(function = "inet6_recvmsg")]
pub fn exit_inet6_recvmsg_again(ctx: FExitContext) -> Option<()> {
    socket::take_over()?;
    exit(&ctx, kind::RECEIVE, ctx.arg(3), None)
}

/// `hook` is given to the first of the two programs at an exit.
#[inline(always)]
fn exit(ctx: &FExitContext, what: u8, flags: u32, hook: Option<u32>) -> Option<()> {
    let entered: Pointer = ctx.arg(0);
    let sk = field!(entered, socket_sk, Pointer);
    if sk.is_null() {
        return None;
    }
    // The value lies after the arguments: socket, message and size, and a receive's flags.
    let result = if what == kind::SEND { ctx.arg(3) } else { ctx.arg(4) };
    let begin = Begin::Noted(entered);
    let turn = if hook.is_some() { Turn::First } else { Turn::Second };
    socket::transfer(ctx, what, Call { sk, result, flags, begin, hook, turn })
}

#[fexit(function = "inet_csk_accept")]
pub fn exit_inet_csk_accept(ctx: FExitContext) -> Option<()> {
    // (sk, arg) since 6.10, (sk, flags, err, kern) before.
    let sk = match argument!(accept_arguments) {
        2 => third(&ctx),
        4 => fifth(&ctx),
        _ => return None,
    };
    if sk.is_null() {
        return fire::here(fired::ACCEPT);
    }
    socket::accepted(sk)
}

// Functions of their own: the compiler would choose an address, and load from that, which older verifiers refuse.

#[inline(never)]
fn third(ctx: &FExitContext) -> Pointer {
    ctx.arg(2)
}

#[inline(never)]
fn fifth(ctx: &FExitContext) -> Pointer {
    ctx.arg(4)
}
