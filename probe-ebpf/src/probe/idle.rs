//! A program that does nothing: what a hook costs by itself, for measurements to be compared with.

use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;

#[btf_tracepoint(function = "sock_recv_length")]
pub fn idle(_: BtfTracePointContext) -> i32 {
    0
}
