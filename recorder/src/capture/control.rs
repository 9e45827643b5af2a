//! The few messages of the kernel half that user space must hear at once: which rules fired, and where.
//!
//! The descriptor is readable when there is something to read, for `poll` as for tokio's `AsyncFd`.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use anyhow::{Context, Result};
use aya::Ebpf;
use aya::maps::{Array, MapData, RingBuf};
use probe_ebpf::fault::Told;

/// The reader's end; there is one for each kernel half.
pub struct Control {
    ring: RingBuf<MapData>,
    untold: Array<MapData, u64>,
}

impl Control {
    /// Takes the reader's end out of the kernel half.
    ///
    /// # Errors
    /// When it has been taken before, or cannot be mapped into memory.
    pub fn take(ebpf: &mut Ebpf) -> Result<Self> {
        let mut map = |name| ebpf.take_map(name).with_context(|| format!("take the map {name}"));
        Ok(Self {
            untold: map("UNTOLD")?.try_into()?,
            ring: map("CONTROL")?.try_into().context("map the control ring into memory")?,
        })
    }

    /// How many messages found no room, since nobody read.
    ///
    /// # Errors
    /// Where the map cannot be read.
    pub fn lost(&self) -> Result<u64> {
        self.untold.get(&0, 0).context("read the count of messages that found no room")
    }
}

/// What there is to read now; later there may be more.
impl Iterator for Control {
    type Item = Told;

    fn next(&mut self) -> Option<Told> {
        let item = self.ring.next()?;
        Some(bytemuck::pod_read_unaligned(&item))
    }
}

impl AsFd for Control {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ring.as_fd()
    }
}

impl AsRawFd for Control {
    fn as_raw_fd(&self) -> RawFd {
        self.ring.as_raw_fd()
    }
}
