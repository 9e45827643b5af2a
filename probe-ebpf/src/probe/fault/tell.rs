//! What user space must hear at once: rules that fired, through a buffer that wakes its reader. Only what rules
//! ask for goes this way; all else waits in the rings.

use aya_ebpf::btf_maps::{Array, RingBuf};
use aya_ebpf::macros::btf_map;
use probe_ebpf::fault::{CONTROL_BYTES, Subject, Told};

use super::Firing;
use crate::emit;

#[btf_map]
static CONTROL: RingBuf<Told, { CONTROL_BYTES as usize }> = RingBuf::new();
/// What did not fit, since nobody read.
#[btf_map]
static UNTOLD: Array<u64, 1> = Array::new();

/// Tells user space which of the rules that ask for it fired at an event; nothing if none did.
#[inline(always)]
pub fn tell(
    firing: &Firing,
    hook: u32,
    time_ns: u64,
    subject: &Subject,
    socket: impl FnOnce() -> u64,
) {
    rules(firing.told, hook, time_ns, subject, socket);
}

/// Tells user space of these rules, a bit each; nothing if there are none.
#[inline(always)]
pub fn rules(rules: u32, hook: u32, time_ns: u64, subject: &Subject, socket: impl FnOnce() -> u64) {
    if rules == 0 {
        return;
    }
    let socket = socket();
    let Some(mut place) = CONTROL.reserve(0) else {
        untold();
        return;
    };
    place.write(Told { time_ns, socket, rules, hook, subject: *subject });
    place.submit(0);
}

#[inline(always)]
fn untold() {
    if let Some(count) = UNTOLD.get_ptr_mut(0) {
        // SAFETY: a live map value.
        unsafe { emit::count(count) };
    }
}
