//! What a fault is, once it has been checked: values that cannot be wrong by themselves.

use std::time::Duration;

use probe_ebpf::fault::hook;

use crate::event::Op;
use crate::pattern::Pattern;

/// What was asked for, in the order of the text.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Faults {
    /// Of all that is left to chance; without it, one is chosen and told.
    pub seed: Option<u64>,
    pub faults: Vec<Fault>,
}

/// What to do to which event.
#[derive(Clone, Debug, PartialEq)]
pub struct Fault {
    /// Names the fault in recordings and tables; unique.
    pub name: String,
    pub nature: Nature,
    pub from: Latch,
    pub until: Latch,
    pub limit: Limit,
    /// The mechanism that was asked for; without it, the cheapest one that can.
    pub via: Option<Mechanism>,
}

/// An event that is changed, or a network that is cut.
#[derive(Clone, Debug, PartialEq)]
pub enum Nature {
    Event(Target),
    Partition(Partition),
}

/// Which events, and what becomes of them.
#[derive(Clone, Debug, PartialEq)]
pub struct Target {
    pub pattern: Pattern,
    /// Which system calls; empty: those that the pattern's `op` stands for.
    pub syscalls: Vec<Syscall>,
    pub when: When,
    pub action: Action,
}

/// Which of the matching events.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct When {
    pub pick: Pick,
    /// Only in processes that have raised an event that matches this.
    pub after: Option<Pattern>,
    /// Only in processes that have not.
    pub before: Option<Pattern>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Pick {
    #[default]
    All,
    /// The n-th alone, from 1.
    Nth(u64),
    /// Each n-th.
    Every(u64),
    /// Each with this probability, above 0 and at most 1.
    Probability(f64),
}

/// What becomes of the event.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Action {
    /// The call fails with this errno.
    Error(u16),
    /// The call returns this without having been made.
    Return(i64),
    Drop(Drop),
    /// The call takes this much longer.
    Delay(Duration),
    /// The process stands still for this long.
    Pause(Duration),
    /// The process gets this signal.
    Kill(u8),
    /// The connection is destroyed: both ends see it break.
    Destroy,
    /// The process dies and falls silent: nobody gets a FIN or a reset from it.
    Crash,
    /// The process dies and is started anew.
    Restart,
}

/// What is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drop {
    /// One packet: TCP sends it again.
    Packet,
    /// What one call sends: it returns as if it had been sent.
    Message,
    /// All packets from now on.
    Blackhole,
}

impl Drop {
    pub const ALL: [Self; 3] = [Self::Packet, Self::Message, Self::Blackhole];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Packet => "packet",
            Self::Message => "message",
            Self::Blackhole => "blackhole",
        }
    }
}

/// A cut between two sets of endpoints.
#[derive(Clone, Debug, PartialEq)]
pub struct Partition {
    pub between: [Pattern; 2],
    /// Only what goes from the first to the second is lost.
    pub one_way: bool,
    /// What a send across the cut returns; without it the cut is silent.
    pub error: Option<u16>,
}

/// When a fault begins or ends to be possible, for all processes.
#[derive(Clone, Debug, PartialEq)]
pub enum Latch {
    /// From the beginning.
    Now,
    Never,
    /// This long after it was armed.
    After(Duration),
    /// At the first event that matches.
    At(Pattern),
}

/// What ends a fault. At least one of the two is there, or the fault's `until`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limit {
    /// How often it fires.
    pub count: Option<u64>,
    /// How long it is armed.
    pub duration: Option<Duration>,
}

/// A way to make things go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Mechanism {
    /// Programs of a control group: calls refused by `bpf_set_retval`, packets dropped.
    Cgroup,
    /// `SOCK_DESTROY` by sock_diag.
    Destroy,
    /// `bpf_send_signal` at the event.
    Signal,
    /// `bpf_override_return` on system calls.
    Override,
}

impl Mechanism {
    /// The cheapest first.
    pub const ALL: [Self; 4] = [Self::Cgroup, Self::Destroy, Self::Signal, Self::Override];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Cgroup => "cgroup",
            Self::Destroy => "destroy",
            Self::Signal => "signal",
            Self::Override => "override",
        }
    }
}

/// A system call that a fault can be about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Syscall {
    Connect,
    Accept,
    Accept4,
    Bind,
    Listen,
    Socket,
    Sendto,
    Sendmsg,
    Sendmmsg,
    Recvfrom,
    Recvmsg,
    Recvmmsg,
    Read,
    Readv,
    Write,
    Writev,
    Close,
    Shutdown,
    EpollWait,
    EpollPwait,
    Poll,
    Ppoll,
    Select,
    Pselect6,
    EpollPwait2,
}

impl Syscall {
    pub const ALL: [(Self, &'static str); 25] = [
        (Self::Connect, "connect"),
        (Self::Accept, "accept"),
        (Self::Accept4, "accept4"),
        (Self::Bind, "bind"),
        (Self::Listen, "listen"),
        (Self::Socket, "socket"),
        (Self::Sendto, "sendto"),
        (Self::Sendmsg, "sendmsg"),
        (Self::Sendmmsg, "sendmmsg"),
        (Self::Recvfrom, "recvfrom"),
        (Self::Recvmsg, "recvmsg"),
        (Self::Recvmmsg, "recvmmsg"),
        (Self::Read, "read"),
        (Self::Readv, "readv"),
        (Self::Write, "write"),
        (Self::Writev, "writev"),
        (Self::Close, "close"),
        (Self::Shutdown, "shutdown"),
        (Self::EpollWait, "epoll_wait"),
        (Self::EpollPwait, "epoll_pwait"),
        (Self::Poll, "poll"),
        (Self::Ppoll, "ppoll"),
        (Self::Select, "select"),
        (Self::Pselect6, "pselect6"),
        (Self::EpollPwait2, "epoll_pwait2"),
    ];

    pub const fn as_str(self) -> &'static str {
        Self::ALL[self as usize].1
    }

    /// Whether the call is made on one socket that may have a peer.
    pub const fn has_peer(self) -> bool {
        use Syscall as S;
        self.has_socket() && !matches!(self, S::Accept | S::Accept4 | S::Bind | S::Listen)
    }

    /// Whether the call's first argument is a descriptor, which may be a socket's.
    pub const fn has_socket(self) -> bool {
        !matches!(self.op(), Op::Socket | Op::Poll)
    }

    /// What event the call is.
    pub const fn op(self) -> Op {
        use Syscall as S;
        match self {
            S::Connect => Op::Connect,
            S::Accept | S::Accept4 => Op::Accept,
            S::Bind => Op::Bind,
            S::Listen => Op::Listen,
            S::Socket => Op::Socket,
            S::Sendto | S::Sendmsg | S::Sendmmsg | S::Write | S::Writev => Op::Send,
            S::Recvfrom | S::Recvmsg | S::Recvmmsg | S::Read | S::Readv => Op::Recv,
            S::Close | S::Shutdown => Op::Close,
            S::EpollWait
            | S::EpollPwait
            | S::Poll
            | S::Ppoll
            | S::Select
            | S::Pselect6
            | S::EpollPwait2 => Op::Poll,
        }
    }

    /// Where in the kernel half its entry is met.
    pub const fn hook(self) -> u32 {
        hook::CALL + self as u32
    }

    /// The call that is met there.
    pub fn of_hook(hook: u32) -> Option<Self> {
        Self::ALL.into_iter().map(|(call, _)| call).find(|call| call.hook() == hook)
    }
}

const _: () = assert!(Syscall::ALL.len() <= hook::CALLS_MAX as usize);
