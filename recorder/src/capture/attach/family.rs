//! The hooks, as values: where each program meets the kernel and what it gives; and the families of hooks, each of
//! which sees sends and receives in its own way.

use std::fmt;

use probe_ebpf::config::fired;

/// Where a program meets the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Site {
    /// A tracepoint, its arguments with types.
    Tracepoint,
    /// A function's entry, by trampoline.
    Fentry,
    /// A function's exit, by trampoline.
    Fexit,
    /// A function's entry, by breakpoint.
    Kprobe,
    /// A function's return, by its return address.
    Kretprobe,
    /// A walk over all open files.
    Files,
    /// A walk over all Unix sockets.
    UnixSockets,
    /// Several programs at the root of the control groups.
    Cgroups,
    /// The root of the control groups, where sockets are made.
    SocketMade,
}

impl Site {
    /// Whether its program looks once at what is there.
    pub const fn is_walk(self) -> bool {
        matches!(self, Self::Files | Self::UnixSockets)
    }
}

/// One program, where it is attached, and what is lost without it.
#[derive(Debug)]
pub struct Hook {
    pub site: Site,
    /// The tracepoint or function.
    pub target: &'static str,
    pub program: &'static str,
    pub gives: &'static str,
    pub need: Need,
    /// Where the program notes that it saw a call of the recorder's own: for hooks that can be attached without
    /// effect.
    pub fired: Option<u32>,
}

/// Whether anything can be recorded without a hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    Required,
    /// Required where the machine has IPv6.
    RequiredForV6,
    /// Required where the kernel has the function.
    RequiredIfThere,
    Wanted,
}

impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.site {
            Site::Tracepoint
            | Site::Files
            | Site::UnixSockets
            | Site::Cgroups
            | Site::SocketMade => "",
            Site::Fentry => "fentry/",
            Site::Fexit => "fexit/",
            Site::Kprobe => "kprobe/",
            Site::Kretprobe => "kretprobe/",
        };
        write!(f, "{kind}{}", self.target)
    }
}

/// A BTF tracepoint; the program has its name.
const fn tracepoint(target: &'static str, gives: &'static str, need: Need) -> Hook {
    Hook { site: Site::Tracepoint, target, program: target, gives, need, fired: None }
}

const fn required(target: &'static str, gives: &'static str) -> Hook {
    tracepoint(target, gives, Need::Required)
}

const fn wanted(target: &'static str, gives: &'static str) -> Hook {
    tracepoint(target, gives, Need::Wanted)
}

/// The tracepoint of a socket's states, which threads change and packets do.
pub const STATES: &str = "inet_sock_set_state";

/// The hooks of detail `flow` that every family needs or wants.
pub static COMMON: [Hook; 17] = [
    required("sched_process_fork", "new threads, and who is in scope"),
    required(STATES, "connect, established, listen, close"),
    wanted("sched_process_exec", "programs started"),
    wanted("sched_process_exit", "ends of threads"),
    wanted("task_rename", "names of threads"),
    wanted("cgroup_mkdir", "paths of cgroups made meanwhile"),
    wanted("cgroup_attach_task", "processes that go to another cgroup"),
    wanted("signal_generate", "who sent a signal"),
    wanted("signal_deliver", "who took a signal"),
    wanted("mark_victim", "kills for lack of memory"),
    wanted("tcp_send_reset", "resets sent"),
    wanted("tcp_receive_reset", "resets received"),
    wanted("tcp_retransmit_skb", "segments sent again"),
    wanted("inet_sk_error_report", "errors of connections"),
    Hook {
        site: Site::Cgroups,
        target: "datagram_peers",
        program: "sendmsg4",
        gives: "addresses of datagrams on sockets that are not connected",
        need: Need::Wanted,
        fired: None,
    },
    Hook {
        site: Site::Files,
        target: "open_sockets",
        program: "open_sockets",
        gives: "names of sockets older than the recorder",
        need: Need::Wanted,
        fired: None,
    },
    Hook {
        site: Site::UnixSockets,
        target: "unix_sockets",
        program: "unix_sockets",
        gives: "which Unix sockets are older than the recorder",
        need: Need::Wanted,
        fired: None,
    },
];

/// Besides, with kprobes.
pub static NUMBERED: Hook = Hook {
    site: Site::SocketMade,
    target: "sock_create",
    program: "socket_numbered",
    gives: "with kprobes, sockets that were not seen to be connected",
    need: Need::Wanted,
    fired: None,
};

/// Detail `syscall`, attached while that is asked for. The end first: of a call that is seen to begin the end is seen.
pub static SYSCALL: [Hook; 2] = [
    named("sys_exit", "syscall_ended", "system calls that wait, or are about sockets and pipes"),
    named("sys_enter", "syscall_begun", "when system calls began"),
];

const fn named(target: &'static str, program: &'static str, gives: &'static str) -> Hook {
    Hook { program, ..wanted(target, gives) }
}

/// Detail `sched`, attached while that is asked for.
pub static SCHED: [Hook; 1] = [wanted("sched_waking", "which thread woke which")];

/// Detail `net`, attached while that is asked for.
pub static NET: [Hook; 1] = [wanted("kfree_skb", "packets that the kernel drops")];

/// Which thread was given a connection: the first of these that is to be had, whatever the family.
pub static ACCEPT: [Hook; 2] = [
    function(
        Site::Fexit,
        "inet_csk_accept",
        "exit_inet_csk_accept",
        ACCEPTED,
        Need::Wanted,
        fired::ACCEPT,
    ),
    function(
        Site::Kretprobe,
        "inet_csk_accept",
        "return_inet_csk_accept",
        ACCEPTED,
        Need::Wanted,
        fired::ACCEPT,
    ),
];

static TRACEPOINTS: [Hook; 2] = [
    required("sock_send_length", "bytes sent"),
    required("sock_recv_length", "bytes received, end of stream"),
];

const fn function(
    site: Site,
    target: &'static str,
    program: &'static str,
    gives: &'static str,
    need: Need,
    fired: u32,
) -> Hook {
    Hook { site, target, program, gives, need, fired: Some(fired) }
}

const ACCEPTED: &str = "which thread accepted";
const SENT: &str = "bytes sent";
const RECEIVED: &str = "bytes received, end of stream";
const BEGIN: &str = "when a call began";

/// Exits first: a call that is seen to begin is seen to end.
static TRAMPOLINES: [Hook; 24] = {
    use Need::{Required, RequiredForV6};
    use Site::{Fentry, Fexit};
    const V6: Need = RequiredForV6;
    [
        function(Fexit, "inet_sendmsg", "exit_inet_sendmsg", SENT, Required, fired::SEND),
        function(Fexit, "inet_recvmsg", "exit_inet_recvmsg", RECEIVED, Required, fired::RECEIVE),
        function(Fexit, "inet6_sendmsg", "exit_inet6_sendmsg", SENT, V6, fired::SEND_V6),
        function(Fexit, "inet6_recvmsg", "exit_inet6_recvmsg", RECEIVED, V6, fired::RECEIVE_V6),
        unix(Fexit, "unix_stream_sendmsg", "exit_unix_stream_sendmsg", SENT),
        unix(Fexit, "unix_stream_recvmsg", "exit_unix_stream_recvmsg", RECEIVED),
        unix(Fexit, "unix_dgram_sendmsg", "exit_unix_dgram_sendmsg", SENT),
        unix(Fexit, "unix_dgram_recvmsg", "exit_unix_dgram_recvmsg", RECEIVED),
        unix(Fexit, "unix_seqpacket_sendmsg", "exit_unix_seqpacket_sendmsg", SENT),
        unix(Fexit, "unix_seqpacket_recvmsg", "exit_unix_seqpacket_recvmsg", RECEIVED),
        pages(Fexit, "inet_sendpage", "exit_inet_sendpage", SENT),
        pages(Fexit, "unix_stream_sendpage", "exit_unix_stream_sendpage", SENT),
        function(Fentry, "inet_sendmsg", "enter_inet_sendmsg", BEGIN, Required, fired::ENTER_SEND),
        function(
            Fentry,
            "inet_recvmsg",
            "enter_inet_recvmsg",
            BEGIN,
            Required,
            fired::ENTER_RECEIVE,
        ),
        function(Fentry, "inet6_sendmsg", "enter_inet6_sendmsg", BEGIN, V6, fired::ENTER_SEND_V6),
        function(
            Fentry,
            "inet6_recvmsg",
            "enter_inet6_recvmsg",
            BEGIN,
            V6,
            fired::ENTER_RECEIVE_V6,
        ),
        unix(Fentry, "unix_stream_sendmsg", "enter_unix_stream_sendmsg", BEGIN),
        unix(Fentry, "unix_stream_recvmsg", "enter_unix_stream_recvmsg", BEGIN),
        unix(Fentry, "unix_dgram_sendmsg", "enter_unix_dgram_sendmsg", BEGIN),
        unix(Fentry, "unix_dgram_recvmsg", "enter_unix_dgram_recvmsg", BEGIN),
        unix(Fentry, "unix_seqpacket_sendmsg", "enter_unix_seqpacket_sendmsg", BEGIN),
        unix(Fentry, "unix_seqpacket_recvmsg", "enter_unix_seqpacket_recvmsg", BEGIN),
        pages(Fentry, "inet_sendpage", "enter_inet_sendpage", BEGIN),
        pages(Fentry, "unix_stream_sendpage", "enter_unix_stream_sendpage", BEGIN),
    ]
};

/// A function of Unix sockets. What keeps one such hook from having an effect keeps all, so that these need no call of
/// their own.
const fn unix(
    site: Site,
    target: &'static str,
    program: &'static str,
    gives: &'static str,
) -> Hook {
    Hook { site, target, program, gives, need: Need::Required, fired: None }
}

/// Pages that sendfile and splice send, before Linux 6.5.
const fn pages(
    site: Site,
    target: &'static str,
    program: &'static str,
    gives: &'static str,
) -> Hook {
    Hook { site, target, program, gives, need: Need::RequiredIfThere, fired: None }
}

/// Returns first, for the same reason.
static KPROBES: [Hook; 10] = {
    use Need::{Required, RequiredForV6};
    use Site::{Kprobe, Kretprobe};
    [
        function(Kretprobe, "inet_sendmsg", "return_inet_sendmsg", SENT, Required, fired::SEND),
        function(
            Kretprobe,
            "inet_recvmsg",
            "return_inet_recvmsg",
            RECEIVED,
            Required,
            fired::RECEIVE,
        ),
        function(
            Kretprobe,
            "inet6_sendmsg",
            "return_inet6_sendmsg",
            SENT,
            RequiredForV6,
            fired::SEND_V6,
        ),
        function(
            Kretprobe,
            "inet6_recvmsg",
            "return_inet6_recvmsg",
            RECEIVED,
            RequiredForV6,
            fired::RECEIVE_V6,
        ),
        pages(Kretprobe, "inet_sendpage", "return_inet_sendpage", SENT),
        function(Kprobe, "inet_sendmsg", "call_inet_sendmsg", BEGIN, Required, fired::ENTER_SEND),
        function(
            Kprobe,
            "inet_recvmsg",
            "call_inet_recvmsg",
            BEGIN,
            Required,
            fired::ENTER_RECEIVE,
        ),
        function(
            Kprobe,
            "inet6_sendmsg",
            "call_inet6_sendmsg",
            BEGIN,
            RequiredForV6,
            fired::ENTER_SEND_V6,
        ),
        function(
            Kprobe,
            "inet6_recvmsg",
            "call_inet6_recvmsg",
            BEGIN,
            RequiredForV6,
            fired::ENTER_RECEIVE_V6,
        ),
        pages(Kprobe, "inet_sendpage", "call_inet_sendpage", BEGIN),
    ]
};

const fn idle(site: Site, target: &'static str, program: &'static str) -> Hook {
    Hook {
        site,
        target,
        program,
        gives: "what a hook costs by itself",
        need: Need::Wanted,
        fired: None,
    }
}

static IDLE_TRACEPOINT: [Hook; 1] = [idle(Site::Tracepoint, "sock_recv_length", "idle")];
static IDLE_TRAMPOLINE: [Hook; 2] = [
    idle(Site::Fentry, "inet_recvmsg", "idle_enter"),
    idle(Site::Fexit, "inet_recvmsg", "idle_exit"),
];
static IDLE_KPROBE: [Hook; 2] = [
    idle(Site::Kprobe, "inet_recvmsg", "idle_call"),
    idle(Site::Kretprobe, "inet_recvmsg", "idle_return"),
];

/// A way of seeing sends and receives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    Tracepoint,
    Trampoline,
    Kprobe,
}

impl Family {
    /// In the order in which they are tried: what costs least first.
    pub const ALL: [Self; 3] = [Self::Tracepoint, Self::Trampoline, Self::Kprobe];

    /// As in `--hooks` and in the recording.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tracepoint => "tracepoint",
            Self::Trampoline => "trampoline",
            Self::Kprobe => "kprobe",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|family| family.as_str() == text)
    }

    pub fn hooks(self) -> &'static [Hook] {
        match self {
            Self::Tracepoint => &TRACEPOINTS,
            Self::Trampoline => &TRAMPOLINES,
            Self::Kprobe => &KPROBES,
        }
    }

    /// Programs that do nothing, where this family sees receives.
    pub fn idle(self) -> &'static [Hook] {
        match self {
            Self::Tracepoint => &IDLE_TRACEPOINT,
            Self::Trampoline => &IDLE_TRAMPOLINE,
            Self::Kprobe => &IDLE_KPROBE,
        }
    }

    /// What it gives and asks for, in a line.
    pub const fn gives(self) -> &'static str {
        match self {
            Self::Tracepoint => "sends and receives by socket tracepoints (Linux 6.3)",
            Self::Trampoline => "sends and receives by fentry and fexit, and when they began",
            Self::Kprobe => "sends and receives by kprobe and kretprobe, and when they began",
        }
    }

    /// What this family does not see that another does.
    pub const fn cannot(self) -> &'static str {
        match self {
            Self::Tracepoint => "does not see when calls begin, only bounds it",
            Self::Trampoline => {
                "does not see calls that began before the recorder; costs each call a second program"
            }
            Self::Kprobe => {
                "does not see Unix sockets and Multipath TCP, nor calls that began before the recorder, nor on accepted sockets \
                 before their handshake is over; more calls than the kernel has places for at a time are \
                 counted as lost"
            }
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
