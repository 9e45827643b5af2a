//! What a socket speaks.

/// What bytes go through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Protocol {
    Tcp,
    Udp,
    UnixStream,
    UnixDgram,
    UnixSeqpacket,
    /// A pipe or FIFO.
    Pipe,
    /// Multipath TCP: the stream, not the connections that carry it.
    Mptcp,
}

impl Protocol {
    pub const ALL: [Self; 7] = [
        Self::Tcp,
        Self::Udp,
        Self::UnixStream,
        Self::UnixDgram,
        Self::UnixSeqpacket,
        Self::Pipe,
        Self::Mptcp,
    ];

    /// The text form, as in the recording's `protocol` column.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::UnixStream => "unix_stream",
            Self::UnixDgram => "unix_dgram",
            Self::UnixSeqpacket => "unix_seqpacket",
            Self::Pipe => "pipe",
            Self::Mptcp => "mptcp",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|protocol| protocol.as_str() == text)
    }

    /// Whether nothing of it leaves the machine.
    pub const fn is_local(self) -> bool {
        matches!(self, Self::UnixStream | Self::UnixDgram | Self::UnixSeqpacket | Self::Pipe)
    }

    /// Whether ends that speak one and the other can be of one connection: one end of multipath TCP may fall back
    /// to TCP where the other does not notice.
    pub fn fits(self, other: Self) -> bool {
        let numbered = |protocol| matches!(protocol, Self::Tcp | Self::Mptcp);
        self == other || numbered(self) && numbered(other)
    }

    /// Whether offsets are sums of what calls moved, since the kernel tells none. They count from 0 at both
    /// ends.
    pub const fn is_counted(self) -> bool {
        matches!(self, Self::UnixStream | Self::UnixSeqpacket | Self::Pipe)
    }

    /// Whether messages have no place in a stream, but a length and a way.
    pub const fn is_datagram(self) -> bool {
        matches!(self, Self::Udp | Self::UnixDgram)
    }
}
