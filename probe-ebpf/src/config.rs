//! Constants that the loader sets in the probes' read-only data before they are loaded, so that the
//! verifier sees them as known and drops what they switch off.

use bytemuck::{Pod, Zeroable};

/// Whose events are recorded.
pub mod scope {
    /// Everything on the machine but the recorder itself.
    pub const ALL: u32 = 0;
    /// Threads marked in task storage, and their descendants.
    pub const MARKED: u32 = 1;
    /// Threads in one cgroup and below.
    pub const CGROUP: u32 = 2;
}

/// How many sockets each CPU remembers to have named, a power of two.
pub const NAMED_PER_CPU: u32 = 1024;

/// Dropped packets that each CPU tells in 16 ms: 4,000 a second.
pub const DROPS_PER_TICK: u64 = 64;

/// How many threads' peers of datagrams are kept between a call's address and its end, a power of two.
pub const NOTES: u32 = 4096;

/// Programs that say of themselves whether they ran when the recorder itself made a call: a hook that is
/// attached may yet have no effect. Indexes of the map `FIRED`.
pub mod fired {
    pub const ENTER_SEND: u32 = 0;
    pub const ENTER_SEND_V6: u32 = 1;
    pub const ENTER_RECEIVE: u32 = 2;
    pub const ENTER_RECEIVE_V6: u32 = 3;
    pub const SEND: u32 = 4;
    pub const SEND_V6: u32 = 5;
    pub const RECEIVE: u32 = 6;
    pub const RECEIVE_V6: u32 = 7;
    pub const ACCEPT: u32 = 8;
    pub const COUNT: u32 = 9;
}

/// Who wakes threads of the recorder, as a program that tells wakes has it: indexes of the map `WOKEN`.
pub mod woken {
    pub const BY_THREAD: u32 = 0;
    pub const BY_INTERRUPT: u32 = 1;
    pub const COUNT: u32 = 2;
}

/// How many sockets are remembered by cookie for kprobes.
pub const SOCKETS_BY_COOKIE: u32 = 1 << 16;

/// What the probes do; the loader's choice.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Config {
    /// One of [`scope`].
    pub scope: u32,
    /// The recorder's own process, never recorded.
    pub recorder: u32,
    /// Slots per CPU in `bulk`, a power of two.
    pub bulk_slots: u32,
    /// Slots per CPU in `rare`, a power of two.
    pub rare_slots: u32,
    /// Identifier of the cgroup that bounds the scope.
    pub cgroup: u64,
    /// Depth of that cgroup below the root.
    pub cgroup_level: u32,
    /// 1: write diagnostics to aya-log's ring buffer.
    pub log: u32,
    /// 1: kprobes see sends and receives, and need what is remembered about sockets by cookie.
    pub kprobes: u32,
    /// 1: others stand by where calls are recorded.
    pub standbys: u32,
}

/// Byte offsets of the kernel's fields, read from the running kernel's BTF. [`ABSENT`] where the
/// kernel has no such field.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Offsets {
    pub task_pid: u32,
    pub task_tgid: u32,
    pub task_comm: u32,
    pub task_group_leader: u32,
    pub task_real_parent: u32,
    pub task_start_time: u32,
    pub task_exit_code: u32,
    pub task_flags: u32,
    pub task_nvcsw: u32,
    pub task_signal: u32,
    pub signal_live: u32,
    pub task_cgroups: u32,
    pub css_set_dfl_cgrp: u32,
    pub cgroup_kn: u32,
    pub cgroup_root: u32,
    pub cgroup_root_hierarchy_id: u32,
    pub kernfs_node_id: u32,
    pub common_family: u32,
    pub common_state: u32,
    pub common_daddr: u32,
    pub common_rcv_saddr: u32,
    pub common_dport: u32,
    pub common_num: u32,
    pub common_v6_daddr: u32,
    pub common_v6_rcv_saddr: u32,
    pub common_cookie: u32,
    pub common_flags: u32,
    pub skb_cb: u32,
    pub common_net: u32,
    pub net_inum: u32,
    pub net_cookie: u32,
    pub sock_protocol: u32,
    pub sock_err: u32,
    pub sock_peek_off: u32,
    pub sock_type: u32,
    pub sock_shutdown: u32,
    pub sock_queue_length: u32,
    pub unix_peer: u32,
    pub unix_addr: u32,
    pub unix_queued: u32,
    pub unix_address_len: u32,
    pub unix_address_name: u32,
    pub tcp_write_seq: u32,
    pub tcp_snd_una: u32,
    pub tcp_snd_nxt: u32,
    pub tcp_bytes_acked: u32,
    pub tcp_bytes_sent: u32,
    pub tcp_bytes_retrans: u32,
    pub tcp_copied_seq: u32,
    pub tcp_rcv_nxt: u32,
    pub tcp_bytes_received: u32,
    /// This and those of `mptcp_sock`: 0 where there is none. The compiler adds an offset to a typed pointer before it
    /// tests whether it should, and the verifier refuses what is out of bounds.
    pub tcp_is_mptcp: u32,
    pub mptcp_write_seq: u32,
    pub mptcp_snd_nxt: u32,
    pub mptcp_bytes_sent: u32,
    pub mptcp_ack_seq: u32,
    pub mptcp_bytes_received: u32,
    pub mptcp_bytes_consumed: u32,
    pub mptcp_remote_key: u32,
    pub mptcp_first: u32,
    pub tcp_repair: u32,
    /// The bit of the byte at `tcp_repair`; 0 where there is none.
    pub tcp_repair_mask: u32,
    pub siginfo_code: u32,
    pub socket_sk: u32,
    pub task_files: u32,
    pub files_fdt: u32,
    pub fdt_max_fds: u32,
    pub fdt_fd: u32,
    pub file_inode: u32,
    pub file_private_data: u32,
    pub inode_mode: u32,
    /// Of a system call's registers: its number, and its first arguments.
    pub regs_number: u32,
    pub regs_first: u32,
    pub regs_second: u32,
    pub regs_third: u32,
    pub skb_head: u32,
    pub skb_network_header: u32,
    pub skb_protocol: u32,
    pub skb_dev: u32,
    pub device_net: u32,
    pub task_mm: u32,
    pub mm_arg_start: u32,
    pub mm_arg_end: u32,
    pub mm_env_end: u32,
    pub bprm_filename: u32,
    pub bprm_interp: u32,
    /// The word that tells the calls of 32-bit programs, see [`Arguments::compat_mask`].
    pub task_compat: u32,
    pub task_thread_pid: u32,
    pub pid_level: u32,
    pub task_on_rq: u32,
    /// Asleep, and on a run queue only for the sake of fairness (since Linux 6.12).
    pub task_sched_delayed: u32,
    /// Where the kernel counts whether it is in an interrupt: in the thread or, where it is not there, among the CPU's
    /// variables, as many bytes (with a sign) after the run queue that a scheduling entity leads to.
    pub task_preempt_count: u32,
    pub task_cfs_rq: u32,
    pub cfs_rq_rq: u32,
    pub preempt_count_from_rq: u32,
}

/// Offset of a field that the running kernel does not have.
pub const ABSENT: u32 = u32::MAX;

/// Which argument of a tracepoint holds what, since kernels differ. [`ABSENT`] where it is missing.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Arguments {
    pub send_reset_skb: u32,
    pub send_reset_reason: u32,
    pub exit_group_dead: u32,
    /// 1: `mark_victim` gives a task; 0: it gives a pid.
    pub mark_victim_task: u32,
    /// How many arguments `inet_csk_accept` has: what it returns comes after them.
    pub accept_arguments: u32,
    /// The number by which `kfree_skb` says that no reason is given.
    pub drop_reason_unspecified: u32,
    /// The bit that is set in [`Offsets::task_compat`] while a thread makes a call of a 32-bit program.
    pub compat_mask: u32,
}
