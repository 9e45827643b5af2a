//! How much a system call is asked to send, by its arguments and what they point to in the program's memory.

use core::ffi::c_void;
use core::ptr;

use aya_ebpf::helpers::generated::{bpf_loop, bpf_probe_read_user};
use probe_ebpf::fault::{BUFFERS_MAX, SENT_MAX, size};

use crate::kernel::{Structure, Untyped, offset};

/// Buffers that are added up.
#[repr(C)]
struct Sum {
    at: u64,
    count: u64,
    bytes: u64,
    /// 1: one of them could not be read.
    failed: u64,
}

/// The bytes that a call was asked to send, or -1 where that cannot be told. `call` has a bit of [`size`].
#[inline(always)]
pub fn asked(call: u32, registers: Untyped) -> i32 {
    let second = registers.load::<u64>(offset!(regs_second));
    let third = registers.load::<u64>(offset!(regs_third));
    let bytes = match call {
        _ if call & size::BYTES != 0 => Some(third),
        _ if call & size::BUFFERS != 0 => sum(second, third),
        _ if call & size::MESSAGE != 0 => {
            // `struct msghdr`, as programs see it: name, its length, buffers, their number.
            let Some([_, _, at, count]) = read::<[u64; 4]>(second) else { return -1 };
            sum(at, count)
        }
        _ => None,
    };
    bytes.map_or(-1, |bytes| bytes.min(SENT_MAX) as i32)
}

#[inline(always)]
fn sum(at: u64, count: u64) -> Option<u64> {
    if count > BUFFERS_MAX as u64 {
        return None;
    }
    let mut sum = Sum { at, count, bytes: 0, failed: 0 };
    // SAFETY: the body gets this very sum, which outlives the call.
    unsafe { bpf_loop(BUFFERS_MAX, add as *mut c_void, ptr::from_mut(&mut sum).cast(), 0) };
    (sum.failed == 0).then_some(sum.bytes)
}

/// Adds one buffer; 1 ends the loop.
unsafe extern "C" fn add(index: u32, sum: *mut Sum) -> i64 {
    // SAFETY: the sum of the caller.
    unsafe {
        if index as u64 >= (*sum).count {
            return 1;
        }
        // `struct iovec`: where, and how many bytes.
        let Some([_, bytes]) = read::<[u64; 2]>((*sum).at + index as u64 * 16) else {
            (*sum).failed = 1;
            return 1;
        };
        (*sum).bytes = (*sum).bytes.saturating_add(bytes);
    }
    0
}

#[inline(always)]
fn read<T: bytemuck::Pod>(from: u64) -> Option<T> {
    let mut value = T::zeroed();
    // SAFETY: the helper copes with any address, and writes as many bytes as the value has.
    let error = unsafe {
        bpf_probe_read_user((&raw mut value).cast(), size_of::<T>() as u32, from as *const c_void)
    };
    (error == 0).then_some(value)
}
