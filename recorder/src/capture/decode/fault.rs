//! Injected faults, and the calls that they changed. What the call was about comes with the event, since such a
//! socket may never have been named.

use probe_ebpf::fault::{FaultDetail, action, hook};

use super::{Decoder, errno, spoken};
use crate::capture::ring::Raw;
use crate::event::{Event, Name, Op};
use crate::fault::spec::Syscall;

/// What a call is that a fault changed; nothing for a hook that waits for none.
pub(super) fn call(of: u8) -> Option<Op> {
    Some(match u32::from(of) {
        hook::CONNECT => Op::Connect,
        hook::BIND => Op::Bind,
        call => Syscall::of_hook(call)?.op(),
    })
}

impl Decoder {
    /// Takes note of the faults' names, in the order of their rules.
    pub fn name_faults<'a>(&mut self, names: impl Iterator<Item = &'a str>) {
        self.faults = names.map(|name| self.names.intern(name)).collect();
    }

    pub(super) fn injected(&mut self, raw: &Raw, detail: [u64; 8], event: &mut Event) {
        let slot = &raw.slot;
        let about: FaultDetail = bytemuck::cast(detail);
        event.fault = self.faults.get(slot.argument as usize).copied().unwrap_or(Name::NONE);
        event.local = self.address(about.local, about.local_port);
        event.remote = self.address(about.remote, about.remote_port);
        event.protocol = spoken(about.protocol as u8);
        event.error = errno(slot.result.min(0));
        if about.action == action::SIGNAL && event.op == Op::Fault {
            event.signal = slot.result as u8;
        } else {
            event.result = i64::from(slot.result.max(0));
        }
    }
}
