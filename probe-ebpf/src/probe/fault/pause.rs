//! Processes that are stopped for a while. Who is stopped stands in a map before it is, so that whoever has the map
//! can let everybody go on, whatever has become of the recorder meanwhile.

use aya_ebpf::btf_maps::{HashMap, RingBuf};
use aya_ebpf::macros::btf_map;
use probe_ebpf::fault::{PAUSES_MAX, Pause};

/// When each pause ends, monotonic ns.
#[btf_map]
static PAUSED: HashMap<Pause, u64, { PAUSES_MAX as usize }> = HashMap::new();
/// Wakes whoever looks after those who are stopped.
#[btf_map]
static PAUSES: RingBuf<Pause, 4096> = RingBuf::new();

const NANOSECONDS_PER_MS: u64 = 1_000_000;

/// Notes that a process is about to be stopped; false: there was no room, and it must not be.
#[inline(always)]
pub fn note(pid: u32, now_ns: u64, milliseconds: i32) -> bool {
    let pause = Pause { since_ns: now_ns, pid, reserved: 0 };
    let until_ns = now_ns + milliseconds as u32 as u64 * NANOSECONDS_PER_MS;
    if PAUSED.insert(pause, until_ns, 0).is_err() {
        return false;
    }
    // Where the buffer is full its reader will be awake: the map holds all of it.
    let _ = PAUSES.output(pause, 0);
    true
}
