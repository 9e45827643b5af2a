//! The overwriting ring: how positions, slots and heads relate. One per CPU and kind.
//!
//! ```text
//!   head (next position) ────────────────┐
//!                                        ▼
//!   positions   …  8   9  10  11 │ 12 (being written)
//!   slots (8)      0   1   2   3    4   5   6   7
//!                                       5   6   7   ◀ oldest that survive: head − slots
//! ```
//!
//! A writer takes a position with one atomic add on its CPU's head, stores the slot, and its position
//! last. A reader copies the slot and believes the copy if the position is the one it asked for *and*
//! the head, read again after the copy, has not come within one lap of it.

use bytemuck::{Pod, Zeroable};

/// The write positions of one CPU's two rings, and what could not be written. Two cache lines: `bulk` moves
/// with every event of its CPU, while `rare` is looked at by other CPUs, to tell how old a name is.
#[repr(C, align(128))]
#[derive(Clone, Copy, Debug, Zeroable)]
pub struct Heads {
    pub bulk: u64,
    /// Events that had to be dropped because a map operation failed (storage busy, no memory).
    pub dropped: u64,
    /// Calls that a program recorded that stood by, since those before it had been skipped.
    pub taken_over: u64,
    /// Where others stand by: the threads for whose send, and for whose receive, the first program has begun last; the
    /// process's number above the thread's.
    pub begun_for: [u64; 2],
    pub reserved: [u64; 3],
    pub rare: u64,
    /// Detail `net`: in which 16 ms dropped packets were counted last, how many there were, and how many of all
    /// were not told.
    pub drop_tick: u64,
    pub drops_in_tick: u64,
    pub drops_untold: u64,
    pub reserved_rare: [u64; 4],
}

// SAFETY: `repr(C)`, only `u64` fields, and they fill the 128 bytes exactly (asserted below).
unsafe impl Pod for Heads {}

const _: () = assert!(size_of::<Heads>() == 128);

/// Index of `position` in the slots of `cpu`, for rings of `slots` (a power of two).
#[inline(always)]
pub const fn slot_index(cpu: u32, position: u64, slots: u32) -> u32 {
    cpu * slots + (position as u32 & (slots - 1))
}

/// Whether a slot copied for `position` may be believed: `stamp` is the position word that was copied
/// (position + 1), `head` the head read *after* the copy.
#[inline(always)]
pub const fn intact(position: u64, stamp: u64, head: u64, slots: u32) -> bool {
    stamp == position + 1 && head <= position + slots as u64
}
