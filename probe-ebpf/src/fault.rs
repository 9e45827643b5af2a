//! Faults as the probes are told them: rules, the matchers that lead to them, and what became of them.
//!
//! A matcher is a value and a mask over the words that describe an event's [`Subject`]: it holds where no
//! masked bit differs. So testing takes no branch per key, and a prefix, a block of addresses and one number are
//! all the same to it.

use bytemuck::{Pod, Zeroable};

/// Most faults that one recorder arms.
pub const RULES_MAX: u32 = 32;
/// Most matchers of all its faults together.
pub const MATCHERS_MAX: u32 = 64;
/// Most ways that are cut at once: each direction between two sides of a partition is one.
pub const CUTS_MAX: u32 = 64;
/// Connections across cuts that are remembered; those used longest ago are forgotten.
pub const FLOWS_MAX: u32 = 2048;
/// Places of silent sockets: two for each, so that a process may have half as many.
pub const SILENT_MAX: u32 = 4096;
/// Memory for what user space is told at once: some 600 firings that it has not yet read.
pub const CONTROL_BYTES: u32 = 1 << 16;
/// Memory for what programs were started with: those of some eight processes that it was not yet read of.
pub const PROGRAMS_BYTES: u32 = 1 << 18;
/// Longest name of a program's file, its end included.
pub const PROGRAM_NAME: usize = 256;
/// Most bytes of arguments and environment together.
pub const PROGRAM_BYTES: usize = 30 << 10;
/// Most pauses under way at once; what would be one more is not stopped.
pub const PAUSES_MAX: u32 = 256;

/// Where in the kernel an event is met. A matcher names those it is for by bits: `1 << hook`.
pub mod hook {
    /// `connect` was called.
    pub const CONNECT: u32 = 0;
    /// `bind` was called.
    pub const BIND: u32 = 1;
    /// A datagram is sent to an address.
    pub const SENDMSG: u32 = 2;
    /// A send has ended.
    pub const SENT: u32 = 3;
    /// A receive has ended.
    pub const RECEIVED: u32 = 4;
    /// The kernel begins to make a connection that was asked for.
    pub const CONNECTING: u32 = 5;
    /// A thread began to listen.
    pub const LISTENING: u32 = 6;
    /// A thread ended its direction of a connection.
    pub const CLOSING: u32 = 7;
    /// A packet leaves a socket or comes to one. No thread's event: [`Cut`](super::Cut)s lead to it.
    pub const PACKET: u32 = 24;
    /// No event is met there: the packets of silent sockets are lost.
    pub const SILENCE: u32 = 25;
    /// The first of the system calls whose result can be overridden; the others follow.
    pub const CALL: u32 = 32;
    /// How many of these there are at most.
    pub const CALLS_MAX: u32 = 32;
}

/// Calls under way that are noted for the programs of control groups.
pub const CALLERS_MAX: u32 = 4096;

/// System calls have smaller numbers than this.
pub const NUMBERS_MAX: u32 = 512;

/// Beside a call's hook: its first argument is a descriptor.
pub const DESCRIPTOR: u32 = 1 << 8;

/// Beside a call's hook: where it says how much it is asked to send.
pub mod size {
    /// Its third argument is the number of bytes.
    pub const BYTES: u32 = 1 << 9;
    /// Its second and third are an array of buffers and their number.
    pub const BUFFERS: u32 = 1 << 10;
    /// Its second is a message, which has these two.
    pub const MESSAGE: u32 = 1 << 11;
}

/// More buffers than the kernel takes.
pub const BUFFERS_MAX: u32 = 1024;

/// Most bytes that one call moves (`MAX_RW_COUNT`).
pub const SENT_MAX: u64 = 0x7fff_f000;

/// How the recorder finds out whether an override has an effect: where its own call has this first argument, which no
/// call takes, ...
pub const PROOF_ARGUMENT: u32 = 0x8f4c_07e2;
/// ... the call returns this, which no call does.
pub const PROOF_RESULT: i32 = -4017;

/// What matching an event does.
pub mod role {
    /// The rule's event: it may fire.
    pub const TARGET: u32 = 0;
    /// The process may be met from now on.
    pub const AFTER: u32 = 1;
    /// The process is not met any more.
    pub const BEFORE: u32 = 2;
    /// The rule is open for all.
    pub const FROM: u32 = 3;
    /// The rule is over for all.
    pub const UNTIL: u32 = 4;
}

/// What a rule does.
pub mod action {
    /// Refuse the call; `value` is the negative errno.
    pub const REFUSE: u32 = 1;
    /// Send the signal `value` to the process.
    pub const SIGNAL: u32 = 2;
    /// Do not make the call, and return `value` from it.
    pub const OVERRIDE: u32 = 4;
    /// Do not make the call, and return from it what it was asked to send.
    pub const SWALLOW: u32 = 5;
    /// Nothing is done to the event: user space is told of it, which needs [`flag::TOLD`](super::flag::TOLD).
    /// Other rules fire beside it.
    pub const TELL: u32 = 8;
    /// Stop the process; user space lets it go on after `value` ms.
    pub const PAUSE: u32 = 9;
    /// User space destroys the connection, which needs [`flag::TOLD`](super::flag::TOLD); `value` is the negative
    /// errno that its users then get.
    pub const DESTROY: u32 = 10;
    /// Stop the process; user space starts it anew, or else lets it go on after `value` ms. Needs
    /// [`flag::TOLD`](super::flag::TOLD).
    pub const RESTART: u32 = 11;
    /// Lose every packet that goes across a cut network.
    pub const LOSE: u32 = 16;
    /// Lose this packet, on a network that is whole.
    pub const LOSE_ONE: u32 = 17;
    /// Lose every packet of the event's connection, both ways, for as long as the rule lasts.
    pub const HOLE: u32 = 18;
    /// Kill the process, and lose all packets from its sockets and to them for as long as the rule lasts.
    pub const CRASH: u32 = 19;
}

/// What else is to be known of a rule.
pub mod flag {
    /// User space is told at once of each firing.
    pub const TOLD: u32 = 1;
}

/// What an event of a fault says that belongs to no thread, in the first byte of its slot's `aux`.
pub mod told {
    /// The first packet from this socket that was lost.
    pub const LOST_OUT: u8 = 1;
    /// The first packet to this socket that was lost.
    pub const LOST_IN: u8 = 2;
    /// A cut begins.
    pub const BEGUN: u8 = 3;
    /// A cut has healed.
    pub const HEALED: u8 = 4;
}

/// Which of the matching events fire.
pub mod pick {
    pub const ALL: u32 = 0;
    pub const NTH: u32 = 1;
    pub const EVERY: u32 = 2;
    /// With a chance of `number` in 2³².
    pub const CHANCE: u32 = 3;
}

/// One fault.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Rule {
    /// One of [`action`].
    pub action: u32,
    pub value: i32,
    /// One of [`pick`].
    pub pick: u32,
    /// 1: only in processes where an event of the role [`role::AFTER`] was met.
    pub needs_after: u32,
    /// What `pick` counts to, or its chance.
    pub number: u64,
    /// Of the chance.
    pub seed: u64,
    /// How often it fires at most.
    pub limit: u64,
    /// When it is armed, monotonic ns.
    pub from_ns: u64,
    pub until_ns: u64,
    /// Bits of [`flag`].
    pub flags: u32,
    pub reserved: u32,
}

/// Which events lead to which rule.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Matcher {
    /// Bits `1 << hook`; 0: unused.
    pub hooks: u64,
    /// One of [`role`].
    pub role: u32,
    /// Index of the rule.
    pub rule: u32,
    /// Depth of the cgroup that bounds the victims, plus one; 0: any. Its identifier is `cgroup`.
    pub cgroup_level: u32,
    pub reserved: u32,
    pub cgroup: u64,
    pub value: Subject,
    pub mask: Subject,
}

/// What an event is matched by. Addresses are in network byte order, IPv4 as v4-mapped IPv6.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Subject {
    pub comm: [u64; 2],
    pub local: [u64; 2],
    pub remote: [u64; 2],
    pub local_port: u16,
    pub remote_port: u16,
    /// One of [`protocol`](crate::event::protocol).
    pub protocol: u16,
    /// 1: it is about a socket whose events are recorded.
    pub socket: u16,
    pub pid: u32,
    pub tid: u32,
}

/// Words of a [`Subject`].
pub const SUBJECT_WORDS: usize = size_of::<Subject>() / 8;

/// For whom the matchers of a hook could be: a bit for each name and each process number, by its hash. Most whom they are
/// not for are told by that alone, and nobody else is.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Sieve {
    pub names: u64,
    pub pids: u64,
}

/// One for each hook below [`hook::CALL`], and one for all calls.
pub type Sieves = [Sieve; SIEVES];
pub const SIEVES: usize = hook::CALL as usize + 1;

impl Sieve {
    /// Everybody.
    pub const ALL: Self = Self { names: u64::MAX, pids: u64::MAX };

    /// The bit of a name; the upper bits of a product are a hash of all of it (Fibonacci hashing).
    #[inline(always)]
    pub const fn of_name(comm: [u64; 2]) -> u64 {
        1 << ((comm[0] ^ comm[1]).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 58)
    }

    #[inline(always)]
    pub const fn of_pid(pid: u32) -> u64 {
        1 << (pid & 63)
    }

    #[inline(always)]
    pub const fn holds_back(&self, comm: [u64; 2], pid: u32) -> bool {
        self.names & Self::of_name(comm) | self.pids & Self::of_pid(pid) == 0
    }
}

/// Packets that a rule loses: from one side of a partition to the other, or those of its victims that bear bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Cut {
    /// Index of the rule, plus one; 0: unused.
    pub rule: u32,
    /// Depth of the cgroup that the sending socket has to be in, plus one; 0: any.
    pub source_level: u32,
    pub source_cgroup: u64,
    /// The same of the receiving socket.
    pub target_level: u32,
    /// Bits of [`cut`].
    pub flags: u32,
    pub target_cgroup: u64,
    pub value: Way,
    pub mask: Way,
}

/// What else is to be known of a [`Cut`].
pub mod cut {
    /// Only packets that bear bytes; of datagrams all do.
    pub const BEARING: u32 = 1;
    /// Only where the sending socket is in scope; without this and the next, where one of both is.
    pub const BY_SENDER: u32 = 2;
    /// Only where the receiving socket is.
    pub const BY_RECEIVER: u32 = 4;
    /// And only where the rule has fired at an event of that socket.
    pub const MARKED: u32 = 8;
}

/// From where to where a packet goes. Addresses are as in [`Subject`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Way {
    pub source: [u64; 2],
    pub target: [u64; 2],
    pub source_port: u16,
    pub target_port: u16,
    /// One of [`protocol`](crate::event::protocol); 0: none of these.
    pub protocol: u32,
}

impl Way {
    /// The way back.
    #[inline(always)]
    pub const fn turned(&self) -> Self {
        Self {
            source: self.target,
            target: self.source,
            source_port: self.target_port,
            target_port: self.source_port,
            protocol: self.protocol,
        }
    }
}

/// Words of a [`Way`].
pub const WAY_WORDS: usize = size_of::<Way>() / 8;

/// What became of a rule so far.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Progress {
    /// Events that matched while it was armed.
    pub matched: u64,
    /// Of these, those that were picked: above the limit none of them fires.
    pub picked: u64,
    pub fired: u64,
    /// 1: `from` has been met, or there is none.
    pub open: u32,
    /// 1: `until` has been met.
    pub over: u32,
    /// Of a cut, how often it was tried to tell that it began and that it healed: the first time it is told.
    pub begun: u64,
    pub healed: u64,
    /// Events that were picked, and to which it could not be done.
    pub unfit: u64,
}

/// Detail of [`kind::FAULT`](crate::event::kind::FAULT) and [`kind::CALL`](crate::event::kind::CALL): what the
/// call was about, since the socket may have no name yet.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct FaultDetail {
    pub local: [u8; 16],
    pub remote: [u8; 16],
    pub local_port: u16,
    pub remote_port: u16,
    /// Index of the rule.
    pub rule: u32,
    /// One of [`action`].
    pub action: u32,
    /// One of [`hook`].
    pub hook: u32,
    /// One of [`protocol`](crate::event::protocol).
    pub protocol: u32,
    pub reserved: [u8; 12],
}

/// What user space is told at once: rules fired at an event.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Told {
    pub time_ns: u64,
    /// The socket's cookie.
    pub socket: u64,
    /// Which rules fired that are to be told, a bit each.
    pub rules: u32,
    /// One of [`hook`].
    pub hook: u32,
    pub subject: Subject,
}

/// What a process was started with. `bytes` are its arguments, then its environment, each text with its end.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Program {
    pub pid: u32,
    /// Bytes of the arguments.
    pub arguments: u32,
    /// Bytes of all.
    pub length: u32,
    /// 1: the file is a script, so that the arguments begin with its interpreter.
    pub is_script: u32,
    /// The file as it was asked for.
    pub name: [u8; PROGRAM_NAME],
    pub bytes: [u8; PROGRAM_BYTES],
}

/// One pause of a process; a map holds when each is to end, from before the process is stopped until after it was
/// told to go on.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Pod, Zeroable)]
pub struct Pause {
    pub since_ns: u64,
    pub pid: u32,
    pub reserved: u32,
}

const _: () = {
    assert!(size_of::<Pause>() == 16);
    assert!(size_of::<Program>() == 16 + PROGRAM_NAME + PROGRAM_BYTES);
    assert!(size_of::<Rule>() == 64);
    assert!(size_of::<Told>() == 88);
    assert!(size_of::<Subject>() == 64);
    assert!(size_of::<Matcher>() == 32 + 2 * 64);
    assert!(size_of::<Progress>() == 56);
    assert!(size_of::<Sieve>() == 16);
    assert!(size_of::<Way>() == 40);
    assert!(size_of::<Cut>() == 32 + 2 * 40);
    assert!(size_of::<FaultDetail>() == 64);
};
