//! Triggers as the probes are told them: which events are watched for, and how many of them are too many.
//!
//! The tests of an event are those of faults ([`Matcher`]) and one more, of how it ended.

use bytemuck::{Pod, Zeroable};

use crate::fault::Matcher;

/// Most triggers that are watched in the kernel.
pub const WATCHES_MAX: u32 = 32;
/// Most tests of all of them together.
pub const TESTS_MAX: u32 = 64;

/// The hooks of what no fault is about; sends, receives and so on have those of faults. A process's end, ...
pub const EXITED: u32 = 31;
/// ... a reset that comes to a socket, and one that it sends.
pub const RESET_RECEIVED: u32 = 30;
pub const RESET_SENT: u32 = 29;
/// Added to the hook in what user space is told of triggers, to tell them from faults.
pub const TOLD: u32 = 64;

/// What an event that passes a test adds to.
pub mod counts {
    pub const EVENTS: u32 = 0;
    /// Those of which the events are a share.
    pub const OF: u32 = 1;
}

/// One way in which an event can be what a trigger watches for.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Test {
    /// Its `rule` is the index of the trigger, its `role` one of [`counts`]; `hooks` 0: unused.
    pub matcher: Matcher,
    /// How it ended, both included: bytes or −errno of a call, status or −signal of a process.
    pub least: i64,
    pub most: i64,
}

/// How often is too often.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Watch {
    /// 0: each event is told.
    pub window_ns: u64,
    /// More events than this in one window are told; with a share, so many of the others there must be.
    pub above: u64,
    /// Events in 10,000 of the others that are not too many yet; 0: they are no share.
    pub share: u64,
}

/// How often it was so far.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Tally {
    /// When this window began.
    pub began_ns: u64,
    /// In this window.
    pub events: u64,
    pub of: u64,
    /// When user space was told last.
    pub told_ns: u64,
}

const _: () = {
    assert!(size_of::<Test>() == size_of::<Matcher>() + 16);
    assert!(size_of::<Watch>() == 24);
    assert!(size_of::<Tally>() == 32);
};
