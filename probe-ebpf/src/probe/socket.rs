//! Sends and receives: the two tracepoints that fire once per call, whatever system call it was.

use aya_ebpf::EbpfContext;
use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;
use probe_ebpf::event::{RareSlot, kind, protocol};
use probe_ebpf::storage::seen;

use crate::kernel::{self, Pointer, config, diagnose};
use crate::remembered::{self, Sock};
use crate::standby::{standing_by, takes_call};
use crate::{datagram, emit, fire, local, mptcp, name, scope, standby, tcp};

#[btf_tracepoint(function = "sock_send_length")]
pub fn sock_send_length(ctx: BtfTracePointContext) -> Option<()> {
    transfer(&ctx, kind::SEND, Call::traced(&ctx, Turn::First))
}

#[btf_tracepoint(function = "sock_recv_length")]
pub fn sock_recv_length(ctx: BtfTracePointContext) -> Option<()> {
    transfer(&ctx, kind::RECEIVE, Call::traced(&ctx, Turn::First))
}

standing_by! {
    #[btf_tracepoint(function = "sock_send_length")]
    [sock_send_length_1 1, sock_send_length_2 2, sock_send_length_3 3]
    |ctx: BtfTracePointContext, turn| takes_call(kind::SEND, ctx.arg(0), turn) => transfer(&ctx, kind::SEND, Call::traced(&ctx, Turn::Later))
}

standing_by! {
    #[btf_tracepoint(function = "sock_recv_length")]
    [sock_recv_length_1 1, sock_recv_length_2 2, sock_recv_length_3 3]
    |ctx: BtfTracePointContext, turn| takes_call(kind::RECEIVE, ctx.arg(0), turn) => transfer(&ctx, kind::RECEIVE, Call::traced(&ctx, Turn::Later))
}

/// A call that has returned, as any hook that sees it can tell.
pub struct Call<S> {
    pub sk: S,
    /// Bytes, or −errno.
    pub result: i32,
    /// `MSG_*`, of receives.
    pub flags: u32,
    pub begin: Begin,
    /// One of [`fired`](probe_ebpf::config::fired).
    pub hook: Option<u32>,
    pub turn: Turn,
}

/// Which program at a hook this is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    First,
    /// One that stands by, and has left word itself ([`standby`](crate::standby)).
    Later,
}

/// When a call began.
pub enum Begin {
    Unseen,
    /// Noted with this `struct socket` ([`scope::enter`]).
    Noted(Pointer),
    At(u64),
}

impl Call<Pointer> {
    #[inline(always)]
    fn traced(ctx: &BtfTracePointContext, turn: Turn) -> Self {
        Self {
            sk: ctx.arg(0),
            result: ctx.arg(1),
            flags: ctx.arg(2),
            begin: Begin::Unseen,
            hook: None,
            turn,
        }
    }
}

/// Records a call: what all protocols have in common, then what its own protocol knows of the place of its bytes.
#[inline(always)]
pub fn transfer(ctx: &impl EbpfContext, what: u8, call: Call<impl Sock>) -> Option<()> {
    if call.turn == Turn::First && config!(standbys) != 0 {
        standby::begins(what);
    }
    let protocol = kernel::protocol(call.sk);
    // (Of MPTCP's sockets the cookie does not tell which it is, by which kprobes know sockets.)
    if protocol == 0 || protocol == protocol::MPTCP && call.sk.typed().is_none() {
        return None;
    }
    let counted = if kernel::is_local(protocol) {
        local::count(call.sk.typed()?, protocol, what, call.result, call.flags)
    } else {
        (0, 0)
    };
    let Some(thread) = scope::current() else { return fire::here(call.hook?) };
    if call.turn == Turn::First && config!(standbys) != 0 {
        thread.leave_word(seen::CALL);
    }
    // (Nor is one that was named lately told by it.)
    let lately = if protocol == protocol::MPTCP { None } else { name::lately(call.sk) };
    let named = lately.or_else(
        #[inline(always)]
        || name::of_thread(call.sk, &thread),
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
    slot.set_begin(match call.begin {
        Begin::Unseen => 0,
        Begin::Noted(socket) => thread.leave(socket),
        Begin::At(begin_ns) => begin_ns,
    });
    match protocol {
        protocol::TCP => tcp::position(call.sk, &mut slot)?,
        protocol::UDP => datagram::peer(call.sk, &thread, &mut slot),
        protocol::MPTCP => mptcp::position(call.sk, &mut slot),
        _ => (slot.count, slot.aux[0]) = counted,
    }
    emit::bulk(&slot);
    None
}

/// Records that the current thread was given a connection.
#[inline(always)]
pub fn accepted(sk: impl Sock, turn: Turn) -> Option<()> {
    if !kernel::is_tcp(sk) {
        return None;
    }
    let thread = scope::current()?;
    if turn == Turn::First {
        thread.leave_word(seen::ACCEPT);
    }
    let state = remembered::socket(sk, thread.pid)?;
    name::fresh(sk, state, thread.time_ns);
    let mut slot = thread.slot(kind::ACCEPT);
    // SAFETY: a live storage value.
    slot.socket = unsafe { (*state).cookie };
    emit::rare(&RareSlot { slot, detail: [0; 8] });
    None
}
