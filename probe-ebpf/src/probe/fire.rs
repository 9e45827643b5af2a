//! Whether hooks that can be attached without effect have one: the recorder makes a call of its own, and the
//! programs, which never record the recorder, note that they saw it.

use aya_ebpf::btf_maps::Array;
use aya_ebpf::helpers::generated::bpf_get_current_pid_tgid;
use aya_ebpf::macros::btf_map;
use probe_ebpf::config::fired;

use crate::kernel::config;

#[btf_map]
static FIRED: Array<u64, { fired::COUNT as usize }> = Array::new();

/// Whether the current thread is the recorder's.
#[inline(always)]
pub fn own() -> bool {
    // SAFETY: a helper without arguments.
    let process = unsafe { bpf_get_current_pid_tgid() } >> 32;
    process as u32 == config!(recorder)
}

/// Notes that a hook fired, where it was the recorder's own call. For threads that are not in scope only.
#[inline(always)]
pub fn here(hook: u32) -> Option<()> {
    if own() {
        let seen = FIRED.get_ptr_mut(hook)?;
        // SAFETY: a live map value.
        unsafe { seen.write_volatile(1) };
    }
    None
}
