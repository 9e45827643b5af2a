//! What the probes write: one [`Slot`] per event, and [`RareSlot`], a slot followed by a detail.

use bytemuck::{Pod, Zeroable};

/// One event, as it stands in a `bulk` ring. All times are `CLOCK_MONOTONIC` nanoseconds.
///
/// `position` is written last: it tells a reader that the rest of the slot is complete.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Slot {
    /// Position in the ring, plus one (0: never written).
    pub position: u64,
    pub time_ns: u64,
    /// Process (tgid) and thread (tid) that were current, also for events the kernel raised in
    /// interrupt context, where they mean nothing: `kind` and `aux` decide whose act it was.
    pub pid: u32,
    pub tid: u32,
    /// Socket cookie, 0 when the event has no socket.
    pub socket: u64,
    /// TCP: 64-bit count whose low 32 bits may be torn; picks the epoch of `sequence`. For sends
    /// `bytes_acked + (write_seq − snd_una)`, for receives `bytes_received − (rcv_nxt − copied_seq)`.
    /// Unix sockets: bytes (of messages: messages) counted so far, these included.
    /// Wakes: events that the woken thread had raised.
    /// UDP: number of the peer, see [`kind::PEER`]; 0 if it is not known. System calls: when it began.
    pub count: u64,
    /// `write_seq` after a send, `copied_seq` after a receive; a system call's descriptor, or [`NO_DESCRIPTOR`].
    pub sequence: u32,
    /// Bytes (≥ 0) or −errno of a call; numbers that are sent again; exit code of an exit; signal number of a signal.
    pub result: i32,
    /// How many events this thread has raised so far, this one included; 0 in kernel lanes.
    pub task_count: u32,
    /// Flags of the call (`MSG_*`) for sends and receives; the other thread (child, target) for task
    /// events; the kernel's reason for resets; number of the first byte that is sent again; a system call's number.
    pub argument: u32,
    /// One of [`kind`].
    pub kind: u8,
    /// Bits of [`flag`].
    pub flags: u8,
    /// Sends and receives: bits of [`call`], and one of [`protocol`]. State changes: old and new TCP state.
    /// Signals: `result` of `signal_generate` and whether the whole process was meant.
    pub aux: [u8; 2],
    /// `sk_err` for state changes and socket errors; `si_code` for signals; how long sends and receives
    /// took ([`Slot::begin_ns`]); for system calls the process whose end it told.
    pub code: i32,
}

/// Stands for the descriptor of a system call that has none.
pub const NO_DESCRIPTOR: u32 = u32::MAX;

/// Set in [`Slot::code`] where a call took so long that its duration is in units of [`LONG_UNIT_NS`].
const LONG: u64 = 1 << 31;
const LONG_UNIT_NS: u64 = 1 << 12;

impl Slot {
    /// Notes when a send or receive began, where a hook saw that: to the nanosecond for calls of up to two
    /// seconds, else up to 4 µs too early. The begin of a call of more than two hours is forgotten.
    #[inline(always)]
    pub fn set_begin(&mut self, begin_ns: u64) {
        let duration = self.time_ns.wrapping_sub(begin_ns);
        let units = duration.wrapping_add(LONG_UNIT_NS - 1) / LONG_UNIT_NS;
        self.code = match (begin_ns, duration) {
            (0, _) => 0,
            (_, 0) => 1,
            (_, ..LONG) => duration as u32 as i32,
            _ if units < LONG => (LONG | units) as u32 as i32,
            _ => 0,
        };
    }

    /// When a send or receive began; nothing where that was not seen.
    pub fn begin_ns(&self) -> Option<u64> {
        let duration = match u64::from(self.code as u32) {
            0 => return None,
            ns @ ..LONG => ns,
            long => (long - LONG) * LONG_UNIT_NS,
        };
        Some(self.time_ns.saturating_sub(duration))
    }
}

/// An event in a `rare` ring: the same slot, and what names or explains it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct RareSlot {
    pub slot: Slot,
    pub detail: [u64; 8],
}

/// Detail of [`kind::SOCKET`]: who a socket's two ends are. Addresses are in network byte order, IPv4 as
/// v4-mapped IPv6; ports are in host byte order.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct SocketName {
    pub local: [u8; 16],
    pub remote: [u8; 16],
    pub local_port: u16,
    pub remote_port: u16,
    /// Inode number of the network namespace.
    pub netns: u32,
    /// Initial sequence number of this end, so that its first byte is `iss + 1`. In state SYN_SENT it is known
    /// although `proven` says no. Unix sockets: the low half of this end's cookie, which does as well.
    pub iss: u32,
    /// The same of the other end.
    pub irs: u32,
    /// The process that last used the socket by its own act; 0 when none was seen.
    pub owner: u32,
    /// `AF_INET`, `AF_INET6` or `AF_UNIX`.
    pub family: u16,
    /// One of [`proven`].
    pub proven: u8,
    /// TCP state when the name was written.
    pub state: u8,
    /// One of [`protocol`].
    pub protocol: u8,
    pub reserved: [u8; 3],
    /// Low half of the kernel's cookie for the network namespace: unlike the inode number it is never used
    /// again. 0 where the kernel has none (before Linux 5.14).
    pub netns_cookie: u32,
}

/// Detail of [`kind::TASK`], [`kind::FORK`] (the child's) and [`kind::EXEC`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct TaskName {
    pub comm: [u8; 16],
    /// Start time of the thread, monotonic ns.
    pub start_ns: u64,
    /// Identifier (inode) of its cgroup in the cgroup2 hierarchy.
    pub cgroup: u64,
    /// Parent process (tgid).
    pub parent: u32,
    pub pid: u32,
    pub tid: u32,
    pub reserved: [u8; 20],
}

/// What a slot is about.
pub mod kind {
    pub const SEND: u8 = 1;
    pub const RECEIVE: u8 = 2;
    /// TCP state change; `aux` is `[old, new]`.
    pub const STATE: u8 = 3;
    pub const RESET_SENT: u8 = 4;
    pub const RESET_RECEIVED: u8 = 5;
    pub const RETRANSMIT: u8 = 6;
    pub const SOCKET_ERROR: u8 = 7;
    pub const FORK: u8 = 8;
    pub const EXEC: u8 = 9;
    pub const EXIT: u8 = 10;
    pub const SIGNAL: u8 = 11;
    pub const DELIVER: u8 = 12;
    pub const OOM_KILL: u8 = 13;
    /// Not an event: names a task; `argument` is 1 where what is said of its cgroup goes for its whole process.
    pub const TASK: u8 = 14;
    /// Not an event: names a socket.
    pub const SOCKET: u8 = 15;
    /// A thread took a connection from a listener.
    pub const ACCEPT: u8 = 16;
    /// A packet was thrown away: `argument` is the kernel's reason; the detail names both ends, `local` the one that
    /// sent it.
    pub const DROPPED: u8 = 17;
    /// A system call has returned that raised no other event.
    pub const SYSCALL: u8 = 18;
    /// A thread woke another, `argument`, that was asleep.
    pub const WAKE: u8 = 19;
    /// A fault fired: `result` is the negative errno or the signal, `argument` the rule. In the thread whose
    /// call it changes, or in a socket's lane.
    pub const FAULT: u8 = 32;
    /// A call that a fault changed has ended: `result` is what it returned, `argument` the rule.
    pub const CALL: u8 = 33;
    /// Not an event: a piece of the path of a cgroup that was made. `socket` is the cgroup's number,
    /// `sequence` where in the path the piece lies; the detail is up to 63 bytes and a 0, and goes on in
    /// the next piece if there are 63.
    pub const CGROUP: u8 = 20;
    /// Not an event: a part of the name of a Unix socket, or of its peer's, for the [`SOCKET`] record that
    /// follows. The detail holds up to 64 bytes of `sun_path`; `aux` is whose name (1: the peer's) and
    /// which 64 bytes, `argument` how many bytes the name has.
    pub const UNIX_NAME: u8 = 21;
    /// Not an event: the other end of datagrams, in the detail's `remote` and `remote_port`; `count` is the
    /// number by which events refer to it.
    pub const PEER: u8 = 22;
}

/// What bytes go through. 0 is none of these.
pub mod protocol {
    pub const TCP: u8 = 1;
    pub const UDP: u8 = 2;
    pub const UNIX_STREAM: u8 = 3;
    pub const UNIX_DGRAM: u8 = 4;
    pub const UNIX_SEQPACKET: u8 = 5;
    pub const PIPE: u8 = 6;
    pub const MPTCP: u8 = 7;
}

/// Bits that qualify a send or receive, in the first byte of [`Slot::aux`].
pub mod call {
    /// The socket was in repair mode: what was sent went into a queue, what was peeked at came from one.
    pub const REPAIRED: u8 = 1;
    /// The other end has closed or shut down, and all it sent has been taken.
    pub const ENDED: u8 = 2;
    /// The stream was in use before it was counted, or somebody took bytes whom no probe sees.
    pub const UNSURE: u8 = 4;
    /// A Unix socket's: a peek at an offset that the program chose (`SO_PEEK_OFF`).
    pub const AHEAD: u8 = 8;
    /// The kernel does not tell where in the stream the bytes lie.
    pub const UNPLACED: u8 = 16;
}

/// States of a TCP socket, as in [`kind::STATE`]'s `aux` (`include/net/tcp_states.h`).
pub mod state {
    pub const ESTABLISHED: u8 = 1;
    pub const SYN_SENT: u8 = 2;
    pub const SYN_RECV: u8 = 3;
    pub const FIN_WAIT1: u8 = 4;
    pub const CLOSE: u8 = 7;
    pub const CLOSE_WAIT: u8 = 8;
    pub const LAST_ACK: u8 = 9;
    pub const LISTEN: u8 = 10;
    pub const CLOSING: u8 = 11;
}

/// Bits of [`Slot::flags`].
pub mod flag {
    /// The peer's FIN has arrived (`SOCK_DONE`).
    pub const FIN_SEEN: u8 = 1;
    /// Everything that has arrived has been read (`copied_seq == rcv_nxt`).
    pub const DRAINED: u8 = 2;
    /// One position is left: the FIN, if it has arrived.
    pub const ONE_LEFT: u8 = 4;
    /// The last thread of its process (exits).
    pub const LAST_THREAD: u8 = 8;
    /// `signal_generate` had no `siginfo` but the kernel's own (`SEND_SIG_PRIV`).
    pub const FROM_KERNEL: u8 = 16;
    /// `signal_generate` had no `siginfo`, the caller's own act (`SEND_SIG_NOINFO`).
    pub const NO_INFO: u8 = 32;
    /// A reset that answers a segment, as against one sent on the owner's behalf.
    pub const ANSWERS: u8 = 64;
    /// The thread slept since its last event: the call may have let go of the socket on its way.
    pub const SLEPT: u8 = 128;
}

/// How the initial sequence numbers of a [`SocketName`] are known.
pub mod proven {
    /// Not known.
    pub const NO: u8 = 0;
    /// Computed from counters of an established connection; `iss` may be one too high.
    pub const COMPUTED: u8 = 1;
    /// Computed twice, from independent counters that agree.
    pub const AGREED: u8 = 2;
    /// Taken when the connection was established.
    pub const AT_ESTABLISHED: u8 = 3;
}

const _: () = {
    assert!(size_of::<Slot>() == 64);
    assert!(size_of::<RareSlot>() == 128);
    assert!(size_of::<SocketName>() == 64);
    assert!(size_of::<TaskName>() == 64);
};
