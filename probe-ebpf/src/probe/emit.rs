//! Writing into the rings: take a position, store the words, store the position last.

use core::intrinsics::{AtomicOrdering, atomic_xadd};
use core::ptr;

use aya_ebpf::bindings::BPF_F_MMAPABLE;
use aya_ebpf::btf_maps::Array;
use aya_ebpf::helpers::generated::{bpf_get_smp_processor_id, bpf_ktime_get_ns};
use aya_ebpf::macros::btf_map;
use probe_ebpf::event::{RareSlot, Slot};
use probe_ebpf::ring::{Heads, slot_index};

use crate::kernel::config;

const MMAPABLE: usize = BPF_F_MMAPABLE as usize;
const BULK_WORDS: usize = size_of::<Slot>() / 8;
const RARE_WORDS: usize = size_of::<RareSlot>() / 8;

// One entry here; the loader sets how many there are.
#[btf_map]
static HEADS: Array<Heads, 1, MMAPABLE> = Array::new();
#[btf_map]
static BULK: Array<[u64; BULK_WORDS], 1, MMAPABLE> = Array::new();
#[btf_map]
static RARE: Array<[u64; RARE_WORDS], 1, MMAPABLE> = Array::new();

/// The time, ns. The kernel waits for all loads before it reads the clock: the sooner in a program, the cheaper.
#[inline(always)]
pub fn now() -> u64 {
    // SAFETY: a helper without arguments.
    unsafe { bpf_ktime_get_ns() }
}

/// A slot with the time and, where given, the thread filled in.
#[inline(always)]
pub fn slot(kind: u8, pid: u32, tid: u32, time_ns: u64) -> Slot {
    Slot { time_ns, pid, tid, kind, ..bytemuck::Zeroable::zeroed() }
}

/// Adds one to a counter that other CPUs may use as well; the value before.
///
/// # Safety
/// The counter must be a live map value.
#[inline(always)]
pub unsafe fn count(counter: *mut u64) -> u64 {
    // SAFETY: the caller's; the intrinsic is the atomic add of the target.
    unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::AcqRel }>(counter, 1) }
}

/// Writes an event into this CPU's `bulk` ring.
#[inline(always)]
pub fn bulk(slot: &Slot) {
    let cpu = processor();
    let Some(heads) = HEADS.get_ptr_mut(cpu) else { return };
    // SAFETY: a live map value.
    let position = unsafe { count(&raw mut (*heads).bulk) };
    let index = slot_index(cpu, position, config!(bulk_slots));
    let Some(target) = BULK.get_ptr_mut(index) else { return };
    let words: &[u64; BULK_WORDS] = bytemuck::cast_ref(slot);
    store(target.cast(), words, position);
}

/// Writes an event or a name into this CPU's `rare` ring; tells where (see [`Place`]).
#[inline(always)]
pub fn rare(slot: &RareSlot) -> u64 {
    let cpu = processor();
    let Some(heads) = HEADS.get_ptr_mut(cpu) else { return 0 };
    // SAFETY: as in `bulk`.
    let position = unsafe { count(&raw mut (*heads).rare) };
    let index = slot_index(cpu, position, config!(rare_slots));
    let Some(target) = RARE.get_ptr_mut(index) else { return 0 };
    let words: &[u64; RARE_WORDS] = bytemuck::cast_ref(slot);
    store(target.cast(), words, position);
    place(cpu, position)
}

/// Counts an event that could not be recorded.
#[inline(always)]
pub fn dropped() {
    if let Some(heads) = heads() {
        // SAFETY: as in `bulk`.
        unsafe { count(&raw mut (*heads).dropped) };
    }
}

/// Counts a call that a program records in the place of one that was skipped.
#[inline(always)]
pub fn taken_over() {
    if let Some(heads) = heads() {
        // SAFETY: as in `bulk`.
        unsafe { count(&raw mut (*heads).taken_over) };
    }
}

/// This CPU's heads.
#[inline(always)]
pub fn heads() -> Option<*mut Heads> {
    HEADS.get_ptr_mut(processor())
}

#[inline(always)]
fn store<const N: usize>(target: *mut u64, words: &[u64; N], position: u64) {
    let mut i = 1;
    while i < N {
        // SAFETY: `target` is a map value of N words. Volatile: the position must come last, and a
        // fence aborts the linker of this target.
        unsafe { ptr::write_volatile(target.add(i), words[i]) };
        i += 1;
    }
    // SAFETY: as above.
    unsafe { ptr::write_volatile(target, position + 1) };
}

/// CPU and position of a name in the `rare` rings, in one word; 0 for none.
#[inline(always)]
fn place(cpu: u32, position: u64) -> u64 {
    (cpu as u64) << 48 | (position + 1)
}

/// Whether a name written at a place must be written again: never written, or half a ring old.
#[inline(always)]
pub fn stale(place: u64) -> bool {
    if place == 0 {
        return true;
    }
    let position = (place & ((1 << 48) - 1)) - 1;
    let Some(heads) = HEADS.get_ptr_mut((place >> 48) as u32) else { return true };
    // SAFETY: a live map value.
    let head = unsafe { ptr::read_volatile(&raw const (*heads).rare) };
    head - position > (config!(rare_slots) / 2) as u64
}

#[inline(always)]
pub fn processor() -> u32 {
    // SAFETY: a helper without arguments.
    unsafe { bpf_get_smp_processor_id() }
}
