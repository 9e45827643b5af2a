//! What an event is.

use std::fmt;

use super::Ring;

/// What an event is. The text form is the recording's `op` column; the numbers stand in its index, so that new ones go to
/// the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Op {
    /// A thread gave bytes to a socket, or tried to.
    Send,
    /// A thread took bytes (or the EOF) from a socket, or tried to.
    Recv,
    /// A thread began to connect. The end of the attempt is `established` or `error`.
    Connect,
    /// Kernel lane: the connection is established at this end.
    Established,
    /// A thread was given a connection by a listener.
    Accept,
    /// A thread began to listen.
    Listen,
    /// A thread stopped listening.
    Unlisten,
    /// A thread ended its direction in good order: close or shutdown, which queued a FIN.
    Close,
    /// A thread threw the connection away (close with unread data, or `SO_LINGER` 0): a reset goes out.
    Abort,
    /// Kernel lane: this end is gone for good.
    Closed,
    /// Kernel lane: a reset went out.
    ResetSent,
    /// Kernel lane: a reset came in.
    ResetReceived,
    /// Kernel lane: a segment was sent again.
    Retransmit,
    /// Kernel lane: an error was reported to the socket.
    Error,
    /// A thread made a thread (`target`).
    Fork,
    /// A process began another program.
    Exec,
    /// A thread ended.
    Exit,
    /// A signal was sent to `target`; a kernel lane's when no thread's act.
    Signal,
    /// A thread took a signal: its handler runs, or it dies of it.
    Deliver,
    /// Kernel lane: `target` was chosen to die for memory.
    OomKill,
    /// A thread asked for a local address; recorded only where a fault changed the call.
    Bind,
    /// A fault fired: it changes what its thread does next, or is doing.
    Fault,
    /// Kernel lane: a packet that the socket sent was thrown away by the kernel of its host; `result` is the number of
    /// the reason ([`Host::drop_reasons`]).
    Dropped,
    /// A thread asked for a socket; recorded only where a fault changed the call.
    Socket,
    /// A thread waited until one of several descriptors is ready; recorded only where a fault changed the call.
    Poll,
    /// A thread made a system call that raised no other event: it waited, or did something about a socket or pipe.
    Call,
    /// A thread woke another, `target`, that was asleep; `result` is how many events that one had raised before. Lies inside
    /// of what its thread ends next.
    Wake,
}

impl Op {
    /// Where the probes write such events.
    pub const fn ring(self) -> Ring {
        match self {
            Self::Send | Self::Recv | Self::Call | Self::Wake => Ring::Bulk,
            _ => Ring::Rare,
        }
    }

    /// Whether it is what more detail than `flow` adds to what a thread does.
    pub const fn is_detail(self) -> bool {
        matches!(self, Self::Call | Self::Wake)
    }

    pub const ALL: [Self; 27] = [
        Self::Send,
        Self::Recv,
        Self::Connect,
        Self::Established,
        Self::Accept,
        Self::Listen,
        Self::Unlisten,
        Self::Close,
        Self::Abort,
        Self::Closed,
        Self::ResetSent,
        Self::ResetReceived,
        Self::Retransmit,
        Self::Error,
        Self::Fork,
        Self::Exec,
        Self::Exit,
        Self::Signal,
        Self::Deliver,
        Self::OomKill,
        Self::Bind,
        Self::Fault,
        Self::Dropped,
        Self::Socket,
        Self::Poll,
        Self::Call,
        Self::Wake,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Send => "send",
            Self::Recv => "recv",
            Self::Connect => "connect",
            Self::Established => "established",
            Self::Accept => "accept",
            Self::Listen => "listen",
            Self::Unlisten => "unlisten",
            Self::Close => "close",
            Self::Abort => "abort",
            Self::Closed => "closed",
            Self::ResetSent => "reset_sent",
            Self::ResetReceived => "reset_received",
            Self::Retransmit => "retransmit",
            Self::Dropped => "dropped",
            Self::Error => "error",
            Self::Fork => "fork",
            Self::Exec => "exec",
            Self::Exit => "exit",
            Self::Signal => "signal",
            Self::Deliver => "deliver",
            Self::OomKill => "oom_kill",
            Self::Bind => "bind",
            Self::Socket => "socket",
            Self::Poll => "poll",
            Self::Call => "call",
            Self::Wake => "wake",
            Self::Fault => "fault",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|op| op.as_str() == text)
    }

    /// Whether the event is about a socket rather than a task.
    pub const fn of_socket(self) -> bool {
        !matches!(
            self,
            Self::Fork
                | Self::Exec
                | Self::Exit
                | Self::Signal
                | Self::Deliver
                | Self::OomKill
                | Self::Socket
                | Self::Poll
                | Self::Call
                | Self::Wake
                | Self::Fault
        )
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
