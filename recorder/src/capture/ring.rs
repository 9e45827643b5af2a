//! The rings as user space sees them: mapped memory, and slots that were copied out of it.

pub mod follower;

use std::cmp::Reverse;
use std::fs::File;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, BorrowedFd};
use std::ptr::{self, NonNull};

use anyhow::{Context, Result};
use aya::Ebpf;
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
use probe_ebpf::event::{RareSlot, Slot};
use probe_ebpf::ring::{Heads, slot_index};
use serde::{Deserialize, Serialize};

use crate::capture::attach::{self, Settings};
use crate::event::Ring;

/// A slot out of a ring, and which one.
#[derive(Clone, Copy, Debug)]
pub struct Raw {
    pub slot: Slot,
    pub cpu: u16,
    pub ring: Ring,
    /// Index of the detail in [`Batch::details`]; only slots of `rare` rings have one.
    detail: u32,
}

impl Raw {
    /// Position in its ring.
    pub const fn position(&self) -> u64 {
        self.slot.position - 1
    }
}

/// What was read out of the rings and not yet decoded.
#[derive(Default)]
pub struct Batch {
    raws: Vec<Raw>,
    details: Vec<[u64; 8]>,
}

impl Batch {
    pub fn detail(&self, raw: &Raw) -> [u64; 8] {
        self.details.get(raw.detail as usize).copied().unwrap_or_default()
    }

    pub const fn len(&self) -> usize {
        self.raws.len()
    }

    pub const fn is_empty(&self) -> bool {
        self.raws.is_empty()
    }

    /// What happened up to a time, in order; of what happened on one CPU at the same time names come
    /// first. Sorts keys, not slots: they are few words, in runs that are sorted already.
    pub fn in_order(&self, until_ns: u64) -> Vec<&Raw> {
        let ready = self.raws.iter().filter(|raw| raw.slot.time_ns <= until_ns);
        let mut order: Vec<(u64, &Raw)> = ready.map(|raw| (raw.slot.time_ns, raw)).collect();
        let rank = |raw: &Raw| (raw.cpu, Reverse(raw.ring), raw.slot.position);
        order.sort_by(|(a_ns, a), (b_ns, b)| a_ns.cmp(b_ns).then_with(|| rank(a).cmp(&rank(b))));
        order.into_iter().map(|(_, raw)| raw).collect()
    }

    /// Keeps what happened after a time for the next turn.
    pub fn keep_after(&mut self, until_ns: u64) {
        let details = std::mem::take(&mut self.details);
        self.raws.retain_mut(|raw| {
            let later = raw.slot.time_ns > until_ns;
            if later && raw.ring == Ring::Rare {
                self.details.push(details[raw.detail as usize]);
                raw.detail = self.details.len() as u32 - 1;
            }
            later
        });
    }

    pub fn push(&mut self, slot: Slot, detail: Option<[u64; 8]>, cpu: u32, ring: Ring) {
        let index = self.details.len() as u32;
        self.details.extend(detail);
        self.raws.push(Raw { slot, cpu: cpu as u16, ring, detail: index });
    }
}

/// How many rings there are, and of how many slots each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shape {
    pub cpus: u32,
    pub bulk_slots: u32,
    pub rare_slots: u32,
}

/// The kernel's rings, mapped read-only.
pub struct Rings {
    heads: Mapping,
    bulk: Mapping,
    rare: Mapping,
    pub cpus: u32,
    pub bulk_slots: u32,
    pub rare_slots: u32,
}

impl Rings {
    pub fn map(ebpf: &Ebpf, settings: &Settings) -> Result<Self> {
        let cpus = attach::cpus()?;
        let (bulk_slots, rare_slots) = settings.slots(cpus);
        Self::of(Self::maps(ebpf)?, Shape { cpus, bulk_slots, rare_slots })
    }

    /// The three maps that make up the rings, in the order of [`Rings::of`].
    pub fn maps(ebpf: &Ebpf) -> Result<[BorrowedFd<'_>; 3]> {
        let fd = |name| attach::map_fd(ebpf, name);
        Ok([fd("HEADS")?, fd("BULK")?, fd("RARE")?])
    }

    /// Maps rings of a known shape, which another process may have made.
    pub fn of([heads, bulk, rare]: [BorrowedFd<'_>; 3], shape: Shape) -> Result<Self> {
        let Shape { cpus, bulk_slots, rare_slots } = shape;
        let map = |fd, name: &str, bytes: usize| {
            Mapping::new(fd, bytes).with_context(|| format!("map {name} into memory"))
        };
        Ok(Self {
            heads: map(heads, "HEADS", cpus as usize * size_of::<Heads>())?,
            bulk: map(bulk, "BULK", (cpus * bulk_slots) as usize * size_of::<Slot>())?,
            rare: map(rare, "RARE", (cpus * rare_slots) as usize * size_of::<RareSlot>())?,
            cpus,
            bulk_slots,
            rare_slots,
        })
    }

    pub const fn shape(&self) -> Shape {
        let Self { cpus, bulk_slots, rare_slots, .. } = *self;
        Shape { cpus, bulk_slots, rare_slots }
    }

    /// Events that the probes could not record.
    pub fn dropped(&self) -> u64 {
        (0..self.cpus).map(|cpu| self.heads(cpu).dropped).sum()
    }

    /// What programs recorded that stood by, since those before them had been skipped.
    pub fn taken_over(&self) -> u64 {
        (0..self.cpus).map(|cpu| self.heads(cpu).taken_over).sum()
    }

    /// Dropped packets that were too many to be told.
    pub fn drops_untold(&self) -> u64 {
        (0..self.cpus).map(|cpu| self.heads(cpu).drops_untold).sum()
    }

    pub fn heads(&self, cpu: u32) -> Heads {
        self.heads.read(cpu as usize)
    }

    pub fn head(&self, cpu: u32, ring: Ring) -> u64 {
        match ring {
            Ring::Bulk => self.heads(cpu).bulk,
            Ring::Rare => self.heads(cpu).rare,
        }
    }

    pub fn slots(&self, ring: Ring) -> u32 {
        match ring {
            Ring::Bulk => self.bulk_slots,
            Ring::Rare => self.rare_slots,
        }
    }

    /// Copies a slot; whether the copy is good must be asked of the head afterwards.
    pub fn copy(&self, cpu: u32, ring: Ring, position: u64) -> (Slot, Option<[u64; 8]>) {
        let index = slot_index(cpu, position, self.slots(ring)) as usize;
        match ring {
            Ring::Bulk => (self.bulk.read(index), None),
            Ring::Rare => {
                let RareSlot { slot, detail } = self.rare.read(index);
                (slot, Some(detail))
            }
        }
    }
}

/// A map's memory.
struct Mapping {
    start: NonNull<libc::c_void>,
    bytes: usize,
}

// SAFETY: read-only memory that stays mapped as long as this value lives.
unsafe impl Send for Mapping {}

impl Mapping {
    fn new(map: BorrowedFd<'_>, bytes: usize) -> Result<Self> {
        let bytes = bytes.next_multiple_of(4096);
        let length = NonZeroUsize::new(bytes).context("a ring of no size")?;
        let file = File::from(map.try_clone_to_owned()?);
        // SAFETY: a new shared mapping, at an address of the kernel's choice.
        let start = unsafe {
            mmap(None, length, ProtFlags::PROT_READ, MapFlags::MAP_SHARED, file.as_fd(), 0)?
        };
        Ok(Self { start, bytes })
    }

    /// Copies element `index` of an array of `T`, which the kernel may be writing at this moment: the
    /// words are each read once, and the caller finds out whether they belong together.
    fn read<T: bytemuck::Pod>(&self, index: usize) -> T {
        assert!((index + 1) * size_of::<T>() <= self.bytes, "slot {index} lies outside the ring");
        let mut value = T::zeroed();
        let words: &mut [u64] = bytemuck::cast_slice_mut(std::slice::from_mut(&mut value));
        // SAFETY: within the mapping (asserted), which is aligned to pages.
        let source = unsafe { self.start.as_ptr().cast::<T>().add(index).cast::<u64>() };
        for (i, word) in words.iter_mut().enumerate() {
            // SAFETY: as above. Volatile: another writes.
            *word = unsafe { ptr::read_volatile(source.add(i)) };
        }
        value
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped in `new` and nowhere else unmapped.
        let result = unsafe { munmap(self.start, self.bytes) };
        debug_assert!(result.is_ok(), "unmap a ring");
    }
}
