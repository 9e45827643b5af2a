//! Sends and receives: what a call moved, whichever family of hooks saw it; and the family of the two
//! tracepoints that fire once per call, whatever system call it was.

use core::ptr;

use aya_ebpf::EbpfContext;
use aya_ebpf::helpers::generated::bpf_skc_to_tcp_sock;
use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;
use probe_ebpf::event::{flag, kind};

use crate::kernel::{self, Pointer, diagnose, field};
use crate::{emit, fire, scope};

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

const SOCK_DONE: u64 = 1 << 1;
const MSG_PEEK: u32 = 2;

/// Records a call.
#[inline(always)]
pub fn transfer(ctx: &impl EbpfContext, what: u8, call: Call) -> Option<()> {
    if !kernel::is_tcp(call.sk) {
        return None;
    }
    let Some(thread) = scope::current() else { return fire::here(call.hook?) };
    let named = scope::named_lately(call.sk).or_else(
        #[inline(always)]
        || scope::name_for(call.sk, &thread),
    );
    let Some(cookie) = named else {
        diagnose!(ctx, "no storage for a socket of thread {}", thread.tid);
        return None;
    };
    // SAFETY: the verifier checks the socket.
    let tcp: Pointer = unsafe { bpf_skc_to_tcp_sock(call.sk.cast()) }.cast();
    if tcp.is_null() {
        return None;
    }
    let mut slot = thread.slot(what);
    slot.socket = cookie;
    slot.result = call.result;
    slot.argument = call.flags;
    if !call.entered.is_null() {
        slot.set_begin(thread.leave(call.entered));
    }
    if what == kind::SEND {
        slot.sequence = field!(tcp, tcp_write_seq, u32);
        let unacked = slot.sequence.wrapping_sub(field!(tcp, tcp_snd_una, u32));
        slot.count = field!(tcp, tcp_bytes_acked, u64) + unacked as u64;
    } else {
        // In this order: a FIN that is seen here has been counted in `rcv_nxt`, which is read after it.
        if field!(call.sk, common_flags, u64) & SOCK_DONE != 0 {
            slot.flags |= flag::FIN_SEEN;
        }
        slot.sequence = field!(tcp, tcp_copied_seq, u32);
        let unread = field!(tcp, tcp_rcv_nxt, u32).wrapping_sub(slot.sequence);
        slot.count = field!(tcp, tcp_bytes_received, u64).wrapping_sub(unread as u64);
        if slot.argument & MSG_PEEK != 0 && field!(call.sk, sock_peek_off, i32) >= 0 {
            slot.aux[0] = 1;
        }
        match unread {
            0 => slot.flags |= flag::DRAINED,
            1 => slot.flags |= flag::ONE_LEFT,
            _ => {}
        }
    }
    emit::bulk(&slot);
    None
}
