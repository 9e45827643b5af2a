//! Programs that do nothing: what a hook costs by itself, for measurements to be compared with.

use aya_ebpf::macros::{btf_tracepoint, cgroup_sock_addr, fentry, fexit, kprobe, kretprobe};
use aya_ebpf::programs::{
    BtfTracePointContext, FEntryContext, FExitContext, ProbeContext, RetProbeContext,
    SockAddrContext,
};

#[btf_tracepoint(function = "sock_recv_length")]
pub fn idle(_: BtfTracePointContext) -> i32 {
    0
}

#[fentry(function = "inet_recvmsg")]
pub fn idle_enter(_: FEntryContext) -> i32 {
    0
}

#[fexit(function = "inet_recvmsg")]
pub fn idle_exit(_: FExitContext) -> i32 {
    0
}

#[kprobe]
pub fn idle_call(_: ProbeContext) -> i32 {
    0
}

#[kretprobe]
pub fn idle_return(_: RetProbeContext) -> i32 {
    0
}

#[btf_tracepoint(function = "sys_exit")]
pub fn idle_call_ended(_: BtfTracePointContext) -> i32 {
    0
}

/// Lets every call go on.
#[cgroup_sock_addr(connect4)]
pub fn idle_connect4(_: SockAddrContext) -> i32 {
    1
}
