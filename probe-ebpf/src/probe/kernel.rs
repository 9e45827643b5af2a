//! Reading the kernel's structures: the offsets that the loader found in the running kernel's BTF, added
//! to typed pointers, so that the verifier checks every access and no helper is called.

use core::ffi::c_void;
use core::mem::MaybeUninit;
use core::ptr;

use aya_ebpf::helpers::generated::bpf_probe_read_kernel;
use probe_ebpf::config::{ABSENT, Arguments, Config, Offsets};
use probe_ebpf::event::protocol;

/// A pointer the verifier knows the type of, or a plain address.
pub type Pointer = *mut c_void;

#[unsafe(no_mangle)]
pub static CONFIG: Config = Config {
    scope: 0,
    recorder: 0,
    bulk_slots: 1,
    rare_slots: 1,
    cgroup: 0,
    cgroup_level: 0,
    log: 0,
    kprobes: 0,
    standbys: 0,
};

#[unsafe(no_mangle)]
pub static OFFSETS: Offsets = Offsets {
    task_pid: ABSENT,
    task_tgid: ABSENT,
    task_comm: ABSENT,
    task_group_leader: ABSENT,
    task_real_parent: ABSENT,
    task_start_time: ABSENT,
    task_exit_code: ABSENT,
    task_flags: ABSENT,
    task_nvcsw: ABSENT,
    task_signal: ABSENT,
    signal_live: ABSENT,
    task_cgroups: ABSENT,
    css_set_dfl_cgrp: ABSENT,
    cgroup_kn: ABSENT,
    cgroup_root: ABSENT,
    cgroup_root_hierarchy_id: ABSENT,
    kernfs_node_id: ABSENT,
    common_family: ABSENT,
    common_state: ABSENT,
    common_daddr: ABSENT,
    common_rcv_saddr: ABSENT,
    common_dport: ABSENT,
    common_num: ABSENT,
    common_v6_daddr: ABSENT,
    common_v6_rcv_saddr: ABSENT,
    common_cookie: ABSENT,
    common_flags: ABSENT,
    skb_cb: ABSENT,
    common_net: ABSENT,
    net_inum: ABSENT,
    net_cookie: ABSENT,
    sock_protocol: ABSENT,
    sock_err: ABSENT,
    sock_peek_off: ABSENT,
    sock_type: ABSENT,
    sock_shutdown: ABSENT,
    sock_queue_length: ABSENT,
    unix_peer: ABSENT,
    unix_addr: ABSENT,
    unix_queued: ABSENT,
    unix_address_len: ABSENT,
    unix_address_name: ABSENT,
    tcp_write_seq: ABSENT,
    tcp_snd_una: ABSENT,
    tcp_snd_nxt: ABSENT,
    tcp_bytes_acked: ABSENT,
    tcp_bytes_sent: ABSENT,
    tcp_bytes_retrans: ABSENT,
    tcp_copied_seq: ABSENT,
    tcp_rcv_nxt: ABSENT,
    tcp_bytes_received: ABSENT,
    tcp_is_mptcp: 0,
    mptcp_write_seq: 0,
    mptcp_snd_nxt: 0,
    mptcp_bytes_sent: 0,
    mptcp_ack_seq: 0,
    mptcp_bytes_received: 0,
    mptcp_bytes_consumed: 0,
    mptcp_remote_key: 0,
    mptcp_first: 0,
    tcp_repair: ABSENT,
    tcp_repair_mask: 0,
    siginfo_code: ABSENT,
    socket_sk: ABSENT,
    task_files: ABSENT,
    files_fdt: ABSENT,
    fdt_max_fds: ABSENT,
    fdt_fd: ABSENT,
    file_inode: ABSENT,
    file_private_data: ABSENT,
    inode_mode: ABSENT,
    regs_number: ABSENT,
    regs_first: ABSENT,
    regs_second: ABSENT,
    regs_third: ABSENT,
    skb_head: ABSENT,
    skb_network_header: ABSENT,
    skb_protocol: ABSENT,
    skb_dev: ABSENT,
    device_net: ABSENT,
    task_mm: ABSENT,
    mm_arg_start: ABSENT,
    mm_arg_end: ABSENT,
    mm_env_end: ABSENT,
    bprm_filename: ABSENT,
    bprm_interp: ABSENT,
    task_compat: ABSENT,
    task_thread_pid: ABSENT,
    pid_level: ABSENT,
    task_on_rq: ABSENT,
    task_sched_delayed: ABSENT,
    task_preempt_count: ABSENT,
    task_cfs_rq: ABSENT,
    cfs_rq_rq: ABSENT,
    preempt_count_from_rq: ABSENT,
};

#[unsafe(no_mangle)]
pub static ARGUMENTS: Arguments = Arguments {
    send_reset_skb: ABSENT,
    send_reset_reason: ABSENT,
    exit_group_dead: ABSENT,
    mark_victim_task: 0,
    accept_arguments: ABSENT,
    drop_reason_unspecified: ABSENT,
    compat_mask: 0,
};

/// A constant that the loader set. Volatile, since the compiler must not believe the defaults.
#[inline(always)]
pub fn constant<T: Copy>(place: &'static T) -> T {
    // SAFETY: a reference is valid.
    unsafe { ptr::read_volatile(place) }
}

macro_rules! config {
    ($field:ident) => {
        crate::kernel::constant(&crate::kernel::CONFIG.$field)
    };
}
pub(crate) use config;

macro_rules! argument {
    ($field:ident) => {
        crate::kernel::constant(&crate::kernel::ARGUMENTS.$field)
    };
}
pub(crate) use argument;

macro_rules! offset {
    ($field:ident) => {
        crate::kernel::constant(&crate::kernel::OFFSETS.$field)
    };
}
pub(crate) use offset;

/// `field!(pointer, offset, type)`: the field of the structure that a typed pointer points to.
macro_rules! field {
    ($pointer:expr, $offset:ident, $type:ty) => {
        crate::kernel::load::<$type>($pointer, crate::kernel::offset!($offset))
    };
}
pub(crate) use field;

/// A line of diagnostics for `--probe-log`. Where that is off the verifier removes it, so that it costs nothing.
macro_rules! diagnose {
    ($context:expr, $($text:tt)*) => {
        if crate::kernel::config!(log) != 0 {
            aya_log_ebpf::warn!($context, $($text)*);
        }
    };
}
pub(crate) use diagnose;

/// A pointer to one of the kernel's structures.
pub trait Structure: Copy {
    /// The value at an offset.
    fn load<T: Copy>(self, offset: u32) -> T;
    /// The structure that a pointer at an offset points to.
    fn follow(self, offset: u32) -> Self;
    fn address(self) -> u64;
}

/// A pointer whose type the verifier knows. It refuses what lies outside.
impl<S> Structure for *mut S {
    #[inline(always)]
    fn load<T: Copy>(self, offset: u32) -> T {
        // SAFETY: checked by the verifier against the pointer's BTF type; a bad address reads as zero.
        unsafe { ptr::read_volatile(self.byte_add(offset as usize).cast::<T>()) }
    }

    #[inline(always)]
    fn follow(self, offset: u32) -> Self {
        Structure::load(self, offset)
    }

    #[inline(always)]
    fn address(self) -> u64 {
        self as u64
    }
}

/// An address, as kprobes are given it: read by the helper that copes with any.
#[derive(Clone, Copy)]
pub struct Untyped(pub Pointer);

impl Structure for Untyped {
    #[inline(always)]
    fn load<T: Copy>(self, offset: u32) -> T {
        let mut value = MaybeUninit::<T>::zeroed();
        // SAFETY: the helper copes with any address; it writes zeroes where it cannot read. Only numbers,
        // addresses and arrays of them are asked for.
        unsafe {
            let from = self.0.wrapping_byte_add(offset as usize);
            bpf_probe_read_kernel(value.as_mut_ptr().cast(), size_of::<T>() as u32, from);
            value.assume_init()
        }
    }

    #[inline(always)]
    fn follow(self, offset: u32) -> Self {
        Self(self.load(offset))
    }

    #[inline(always)]
    fn address(self) -> u64 {
        self.0 as u64
    }
}

impl Untyped {
    /// The address of a socket as packets' programs are given it, of which the verifier lets few fields be read.
    /// It would not add to such a pointer either; what a helper has copied is only a number to it.
    #[inline(always)]
    pub fn address_of(socket: Pointer) -> Self {
        let place = ptr::from_ref(&socket).cast_mut().cast::<c_void>();
        Self(Self(place).load(0))
    }
}

/// The value at an offset that the loader found.
#[inline(always)]
pub fn load<T: Copy>(base: impl Structure, offset: u32) -> T {
    base.load(offset)
}

/// Reads through a pointer whose type the verifier may not be told, since older kernels trusted it where
/// it can be NULL or a small number. 0 where it cannot be read.
#[inline(always)]
pub fn read_u32(base: Pointer, offset: u32) -> u32 {
    Untyped(base).load(offset)
}

/// Reads up to 64 bytes through such a pointer; what cannot be read stays as it is.
#[inline(always)]
pub fn read_bytes(into: &mut [u64; 8], from: Pointer, size: u32) {
    if size <= 64 {
        // SAFETY: the helper copes with any address, and `into` has room for 64 bytes.
        unsafe { bpf_probe_read_kernel(into.as_mut_ptr().cast(), size, from) };
    }
}

/// The number of a task's cgroup in the version 2 hierarchy; 0 where the kernel has no cgroups. Of any task, not
/// only of the current one: a child may be born into another cgroup than its parent's.
#[inline(always)]
pub fn cgroup_of(task: Pointer) -> u64 {
    if offset!(task_cgroups) == ABSENT || offset!(css_set_dfl_cgrp) == ABSENT {
        return 0;
    }
    let set = field!(task, task_cgroups, Pointer);
    cgroup_id(field!(set, css_set_dfl_cgrp, Pointer))
}

/// What user space sees as the inode number of a cgroup's folder.
#[inline(always)]
pub fn cgroup_id(cgroup: Pointer) -> u64 {
    let node = field!(cgroup, cgroup_kn, Pointer);
    field!(node, kernfs_node_id, u64)
}

const IPPROTO_TCP: u16 = 6;
const IPPROTO_UDP: u16 = 17;
const IPPROTO_MPTCP: u16 = 262;
pub const SOCK_STREAM: u16 = 1;
pub const SOCK_DGRAM: u16 = 2;
const SOCK_SEQPACKET: u16 = 5;
const AF_UNIX: u16 = 1;
const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;

/// What a full socket speaks, one of [`protocol`]; 0 for what is not recorded.
#[inline(always)]
pub fn protocol(sk: impl Structure) -> u8 {
    match field!(sk, common_family, u16) {
        // (Raw sockets may be of these protocols, too.)
        AF_INET | AF_INET6 => match (field!(sk, sock_protocol, u16), field!(sk, sock_type, u16)) {
            (IPPROTO_TCP, SOCK_STREAM) => protocol::TCP,
            (IPPROTO_UDP, SOCK_DGRAM) => protocol::UDP,
            (IPPROTO_MPTCP, SOCK_STREAM) => protocol::MPTCP,
            _ => 0,
        },
        AF_UNIX => match field!(sk, sock_type, u16) {
            SOCK_STREAM => protocol::UNIX_STREAM,
            SOCK_DGRAM => protocol::UNIX_DGRAM,
            SOCK_SEQPACKET => protocol::UNIX_SEQPACKET,
            _ => 0,
        },
        _ => 0,
    }
}

/// Whether bytes cannot leave the machine, and no counter of the kernel's tells them apart.
#[inline(always)]
pub fn is_local(protocol: u8) -> bool {
    matches!(protocol, protocol::UNIX_STREAM | protocol::UNIX_DGRAM | protocol::UNIX_SEQPACKET)
}

#[inline(always)]
pub fn is_tcp(sk: impl Structure) -> bool {
    protocol(sk) == protocol::TCP
}

/// The local address as two words in memory order, IPv4 as v4-mapped IPv6.
#[inline(always)]
pub fn local_address(sk: impl Structure) -> [u64; 2] {
    if field!(sk, common_family, u16) == AF_INET {
        mapped(field!(sk, common_rcv_saddr, u32))
    } else {
        v6(sk, offset!(common_v6_rcv_saddr))
    }
}

#[inline(always)]
pub fn remote_address(sk: impl Structure) -> [u64; 2] {
    if field!(sk, common_family, u16) == AF_INET {
        mapped(field!(sk, common_daddr, u32))
    } else {
        v6(sk, offset!(common_v6_daddr))
    }
}

#[inline(always)]
fn v6(sk: impl Structure, offset: u32) -> [u64; 2] {
    [load(sk, offset), load(sk, offset + 8)]
}

#[inline(always)]
pub fn mapped(v4: u32) -> [u64; 2] {
    [0, 0xffff_0000 | (v4 as u64) << 32]
}
