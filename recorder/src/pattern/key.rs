//! The columns a pattern can test, and what kind of value each holds.

/// A column of the recording.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Key {
    Host,
    Pid,
    Tid,
    Comm,
    Cgroup,
    Container,
    Pod,
    Op,
    Protocol,
    Local,
    Remote,
    Netns,
    Socket,
    Iss,
    Irs,
    StreamStart,
    StreamEnd,
    Result,
    Error,
    Signal,
    Target,
    Fault,
    Syscall,
    Fd,
    Cpu,
    Ring,
    Position,
    Time,
    BeginNs,
    TimeNs,
    Duration,
    Lane,
    Flag,
}

/// What a column holds, and so what may be compared with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A name, tested by `*` globs.
    Text,
    Number,
    /// Nanoseconds since boot: a plain number or one with a unit.
    Nanoseconds,
    /// A length of time: a number with a unit.
    Duration,
    /// The wall clock's time of day, UTC.
    TimeOfDay,
    Address,
    /// One of few words.
    Word,
}

impl Key {
    pub const ALL: [Self; 33] = [
        Self::Host,
        Self::Pid,
        Self::Tid,
        Self::Comm,
        Self::Cgroup,
        Self::Container,
        Self::Pod,
        Self::Op,
        Self::Protocol,
        Self::Local,
        Self::Remote,
        Self::Netns,
        Self::Socket,
        Self::Iss,
        Self::Irs,
        Self::StreamStart,
        Self::StreamEnd,
        Self::Result,
        Self::Error,
        Self::Signal,
        Self::Target,
        Self::Fault,
        Self::Syscall,
        Self::Fd,
        Self::Cpu,
        Self::Ring,
        Self::Position,
        Self::Time,
        Self::BeginNs,
        Self::TimeNs,
        Self::Duration,
        Self::Lane,
        Self::Flag,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Pid => "pid",
            Self::Tid => "tid",
            Self::Comm => "comm",
            Self::Cgroup => "cgroup",
            Self::Container => "container",
            Self::Pod => "pod",
            Self::Op => "op",
            Self::Protocol => "protocol",
            Self::Local => "local",
            Self::Remote => "remote",
            Self::Netns => "netns",
            Self::Socket => "socket",
            Self::Iss => "iss",
            Self::Irs => "irs",
            Self::StreamStart => "stream_start",
            Self::StreamEnd => "stream_end",
            Self::Result => "result",
            Self::Error => "error",
            Self::Signal => "signal",
            Self::Target => "target",
            Self::Fault => "fault",
            Self::Syscall => "syscall",
            Self::Fd => "fd",
            Self::Cpu => "cpu",
            Self::Ring => "ring",
            Self::Position => "position",
            Self::Time => "time",
            Self::BeginNs => "begin_ns",
            Self::TimeNs => "time_ns",
            Self::Duration => "duration",
            Self::Lane => "lane",
            Self::Flag => "flag",
        }
    }

    /// `peer` is another word for `remote`.
    pub fn parse(text: &str) -> Option<Self> {
        let text = if text == "peer" { "remote" } else { text };
        Self::ALL.into_iter().find(|key| key.as_str() == text)
    }

    pub const fn kind(self) -> Kind {
        match self {
            Self::Host
            | Self::Comm
            | Self::Cgroup
            | Self::Container
            | Self::Pod
            | Self::Netns
            | Self::Fault
            | Self::Syscall => Kind::Text,
            Self::Op
            | Self::Protocol
            | Self::Error
            | Self::Signal
            | Self::Ring
            | Self::Lane
            | Self::Flag => Kind::Word,
            Self::Local | Self::Remote => Kind::Address,
            Self::Time => Kind::TimeOfDay,
            Self::BeginNs | Self::TimeNs => Kind::Nanoseconds,
            Self::Duration => Kind::Duration,
            _ => Kind::Number,
        }
    }

    /// Whether an event may lack the column, so that `none` and `*` say something.
    pub const fn may_be_absent(self) -> bool {
        matches!(
            self,
            Self::Pid
                | Self::Tid
                | Self::Container
                | Self::Pod
                | Self::Protocol
                | Self::Local
                | Self::Remote
                | Self::Netns
                | Self::Socket
                | Self::Iss
                | Self::Irs
                | Self::StreamStart
                | Self::StreamEnd
                | Self::Result
                | Self::Error
                | Self::Signal
                | Self::Target
                | Self::Fault
                | Self::Syscall
                | Self::Fd
                | Self::Flag
        )
    }
}
