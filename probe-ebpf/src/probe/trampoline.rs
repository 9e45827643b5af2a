//! Sends, receives and accepts by trampolines: programs that the kernel calls at a function's entry and exit.
//!
//! The functions are those that the socket layer calls, one level above `tcp_sendmsg` and `tcp_recvmsg`, where the
//! socket tracepoints stand too: so kTLS, sockmap and a socket that could not be bound are seen once, as the
//! program saw them, and what TCP calls inside is not seen again. Their arguments have not changed since Linux 4.1.

use aya_ebpf::macros::{fentry, fexit};
use aya_ebpf::programs::{FEntryContext, FExitContext};
use probe_ebpf::config::fired;
use probe_ebpf::event::{kind, protocol};

use crate::kernel::{self, Pointer, argument, field};
use crate::remembered::Sock;
use crate::socket::{Begin, Call, Turn};
use crate::standby::{standing_by, takes_accept, takes_call};
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
    sent(&ctx, Turn::First, Some(fired::SEND))
}

#[fexit(function = "inet6_sendmsg")]
pub fn exit_inet6_sendmsg(ctx: FExitContext) -> Option<()> {
    sent(&ctx, Turn::First, Some(fired::SEND_V6))
}

#[fexit(function = "inet_recvmsg")]
pub fn exit_inet_recvmsg(ctx: FExitContext) -> Option<()> {
    received(&ctx, Turn::First, Some(fired::RECEIVE))
}

#[fexit(function = "inet6_recvmsg")]
pub fn exit_inet6_recvmsg(ctx: FExitContext) -> Option<()> {
    received(&ctx, Turn::First, Some(fired::RECEIVE_V6))
}

standing_by! {
    #[fexit(function = "inet_sendmsg")]
    [exit_inet_sendmsg_1 1, exit_inet_sendmsg_2 2, exit_inet_sendmsg_3 3]
    |ctx: FExitContext, turn| takes_call(kind::SEND, called_on(&ctx), turn) => sent(&ctx, Turn::Later, None)
}

standing_by! {
    #[fexit(function = "inet6_sendmsg")]
    [exit_inet6_sendmsg_1 1, exit_inet6_sendmsg_2 2, exit_inet6_sendmsg_3 3]
    |ctx: FExitContext, turn| takes_call(kind::SEND, called_on(&ctx), turn) => sent(&ctx, Turn::Later, None)
}

standing_by! {
    #[fexit(function = "inet_recvmsg")]
    [exit_inet_recvmsg_1 1, exit_inet_recvmsg_2 2, exit_inet_recvmsg_3 3]
    |ctx: FExitContext, turn| takes_call(kind::RECEIVE, called_on(&ctx), turn) => received(&ctx, Turn::Later, None)
}

standing_by! {
    #[fexit(function = "inet6_recvmsg")]
    [exit_inet6_recvmsg_1 1, exit_inet6_recvmsg_2 2, exit_inet6_recvmsg_3 3]
    |ctx: FExitContext, turn| takes_call(kind::RECEIVE, called_on(&ctx), turn) => received(&ctx, Turn::Later, None)
}

// Unix sockets' functions have the same arguments. Those of `SOCK_SEQPACKET` call those of datagrams, or have them inlined.

macro_rules! unix {
    ($($function:literal, $protocol:ident, $kind:ident, $record:ident: $enter:ident $exit:ident $first:ident $second:ident $third:ident;)*) => {$(
        #[fentry(function = $function)]
        pub fn $enter(ctx: FEntryContext) -> Option<()> {
            scope::enter(ctx.arg(0), 0)
        }

        #[fexit(function = $function)]
        pub fn $exit(ctx: FExitContext) -> Option<()> {
            speaks(&ctx, protocol::$protocol)?;
            $record(&ctx, Turn::First, None)
        }

        standing_by! {
            #[fexit(function = $function)]
            [$first 1, $second 2, $third 3]
            |ctx: FExitContext, turn| {
                speaks(&ctx, protocol::$protocol)?;
                takes_call(kind::$kind, called_on(&ctx), turn)
            } => $record(&ctx, Turn::Later, None)
        }
    )*};
}

#[inline(always)]
fn speaks(ctx: &FExitContext, protocol: u8) -> Option<()> {
    (kernel::protocol(called_on(ctx)) == protocol).then_some(())
}

unix! {
    "unix_stream_sendmsg", UNIX_STREAM, SEND, sent: enter_unix_stream_sendmsg exit_unix_stream_sendmsg
        exit_unix_stream_sendmsg_1 exit_unix_stream_sendmsg_2 exit_unix_stream_sendmsg_3;
    "unix_stream_recvmsg", UNIX_STREAM, RECEIVE, received: enter_unix_stream_recvmsg exit_unix_stream_recvmsg
        exit_unix_stream_recvmsg_1 exit_unix_stream_recvmsg_2 exit_unix_stream_recvmsg_3;
    "unix_stream_sendpage", UNIX_STREAM, SEND, lent: enter_unix_stream_sendpage exit_unix_stream_sendpage
        exit_unix_stream_sendpage_1 exit_unix_stream_sendpage_2 exit_unix_stream_sendpage_3;
    "unix_dgram_sendmsg", UNIX_DGRAM, SEND, sent: enter_unix_dgram_sendmsg exit_unix_dgram_sendmsg
        exit_unix_dgram_sendmsg_1 exit_unix_dgram_sendmsg_2 exit_unix_dgram_sendmsg_3;
    "unix_dgram_recvmsg", UNIX_DGRAM, RECEIVE, received: enter_unix_dgram_recvmsg exit_unix_dgram_recvmsg
        exit_unix_dgram_recvmsg_1 exit_unix_dgram_recvmsg_2 exit_unix_dgram_recvmsg_3;
    "unix_seqpacket_sendmsg", UNIX_SEQPACKET, SEND, sent: enter_unix_seqpacket_sendmsg exit_unix_seqpacket_sendmsg
        exit_unix_seqpacket_sendmsg_1 exit_unix_seqpacket_sendmsg_2 exit_unix_seqpacket_sendmsg_3;
    "unix_seqpacket_recvmsg", UNIX_SEQPACKET, RECEIVE, received: enter_unix_seqpacket_recvmsg exit_unix_seqpacket_recvmsg
        exit_unix_seqpacket_recvmsg_1 exit_unix_seqpacket_recvmsg_2 exit_unix_seqpacket_recvmsg_3;
}

// Before Linux 6.5 sendfile and splice lend pages, by functions of their own: socket, page, offset, size, flags. Those of
// protocols that take no pages call the function for messages.

#[fentry(function = "inet_sendpage")]
pub fn enter_inet_sendpage(ctx: FEntryContext) -> Option<()> {
    let entered: Pointer = ctx.arg(0);
    takes_pages(field!(entered, socket_sk, Pointer))?;
    scope::enter(entered, 0)
}

#[fexit(function = "inet_sendpage")]
pub fn exit_inet_sendpage(ctx: FExitContext) -> Option<()> {
    takes_pages(called_on(&ctx))?;
    lent(&ctx, Turn::First, None)
}

standing_by! {
    #[fexit(function = "inet_sendpage")]
    [exit_inet_sendpage_1 1, exit_inet_sendpage_2 2, exit_inet_sendpage_3 3]
    |ctx: FExitContext, turn| {
        takes_pages(called_on(&ctx))?;
        takes_call(kind::SEND, called_on(&ctx), turn)
    } => lent(&ctx, Turn::Later, None)
}

/// Whether the socket's protocol takes pages as they are.
#[inline(always)]
pub fn takes_pages(sk: impl Sock) -> Option<()> {
    matches!(kernel::protocol(sk), protocol::TCP | protocol::UDP).then_some(())
}

// A call's value lies after its arguments: socket, message and size, and a receive's flags; or those of a page.

#[inline(always)]
fn sent(ctx: &FExitContext, turn: Turn, hook: Option<u32>) -> Option<()> {
    exit(ctx, kind::SEND, ctx.arg(3), 0, turn, hook)
}

#[inline(always)]
fn lent(ctx: &FExitContext, turn: Turn, hook: Option<u32>) -> Option<()> {
    exit(ctx, kind::SEND, ctx.arg(5), 0, turn, hook)
}

#[inline(always)]
fn received(ctx: &FExitContext, turn: Turn, hook: Option<u32>) -> Option<()> {
    exit(ctx, kind::RECEIVE, ctx.arg(4), ctx.arg(3), turn, hook)
}

#[inline(always)]
fn exit(
    ctx: &FExitContext,
    what: u8,
    result: i32,
    flags: u32,
    turn: Turn,
    hook: Option<u32>,
) -> Option<()> {
    let sk = called_on(ctx);
    if sk.is_null() {
        return None;
    }
    let begin = Begin::Noted(ctx.arg(0));
    socket::transfer(ctx, what, Call { sk, result, flags, begin, hook, turn })
}

#[inline(always)]
fn called_on(ctx: &FExitContext) -> Pointer {
    let entered: Pointer = ctx.arg(0);
    field!(entered, socket_sk, Pointer)
}

#[fexit(function = "inet_csk_accept")]
pub fn exit_inet_csk_accept(ctx: FExitContext) -> Option<()> {
    let sk = given(&ctx)?;
    if sk.is_null() {
        return fire::here(fired::ACCEPT);
    }
    socket::accepted(sk, Turn::First)
}

standing_by! {
    #[fexit(function = "inet_csk_accept")]
    [exit_inet_csk_accept_1 1, exit_inet_csk_accept_2 2, exit_inet_csk_accept_3 3]
    |ctx: FExitContext, turn| takes_accept(given(&ctx)?, turn) => socket::accepted(given(&ctx)?, Turn::Later)
}

/// The accepted socket, or NULL.
#[inline(always)]
fn given(ctx: &FExitContext) -> Option<Pointer> {
    // (sk, arg) since 6.10, (sk, flags, err, kern) before.
    match argument!(accept_arguments) {
        2 => Some(third(ctx)),
        4 => Some(fifth(ctx)),
        _ => None,
    }
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
