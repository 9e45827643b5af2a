//! Sends and receives: the two tracepoints that fire once per call, whatever system call it was.

use core::ptr;

use aya_ebpf::EbpfContext;
use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;
use probe_ebpf::event::{kind, protocol};

use crate::kernel::{self, Pointer, diagnose};
use crate::{emit, fire, mptcp, scope, tcp};

#[btf_tracepoint(function = "sock_send_length")]
pub fn sock_send_length(ctx: BtfTracePointContext) -> Option<()> {
    transfer(&ctx, kind::SEND, Call::traced(&ctx))
}

#[btf_tracepoint(function = "sock_recv_length")]
pub fn sock_recv_length(ctx: BtfTracePointContext) -> Option<()> {
    transfer(&ctx, kind::RECEIVE, Call::traced(&ctx))
}

/// A call that has returned, as any hook that sees it can tell.
pub struct Call {
    pub sk: Pointer,
    /// Bytes, or −errno.
    pub result: i32,
    /// `MSG_*`, of receives.
    pub flags: u32,
    /// The `struct socket` with which its begin was noted ([`scope::enter`]); NULL where no hook sees it.
    pub entered: Pointer,
    /// One of [`fired`](probe_ebpf::config::fired).
    pub hook: Option<u32>,
}

impl Call {
    #[inline(always)]
    fn traced(ctx: &BtfTracePointContext) -> Self {
        Self {
            sk: ctx.arg(0),
            result: ctx.arg(1),
            flags: ctx.arg(2),
            entered: ptr::null_mut(),
            hook: None,
        }
    }
}

/// Records a call: what all protocols have in common, then what its own protocol knows of the place of its bytes.
#[inline(always)]
pub fn transfer(ctx: &impl EbpfContext, what: u8, call: Call) -> Option<()> {
    let protocol = kernel::protocol(call.sk);
    if protocol == 0 {
        return None;
    }
    let Some(thread) = scope::current() else { return fire::here(call.hook?) };
    // (Of MPTCP's sockets the cookie does not tell which it is.)
    let lately = if protocol == protocol::MPTCP { None } else { scope::named_lately(call.sk) };
    let named = lately.or_else(
        #[inline(always)]
        || scope::name_for(call.sk, &thread),
    );
    let Some(cookie) = named else {
        diagnose!(ctx, "no storage for a socket of thread {}", thread.tid);
        return None;
    };
    let mut slot = thread.slot(what);
    slot.socket = cookie;
    slot.result = call.result;
    slot.argument = call.flags;
    slot.aux[1] = protocol;
    if !call.entered.is_null() {
        slot.set_begin(thread.leave(call.entered));
    }
    match protocol {
        protocol::TCP => tcp::position(call.sk, &mut slot)?,
        protocol::MPTCP => mptcp::position(call.sk, &mut slot),
        _ => {}
    }
    emit::bulk(&slot);
    None
}
