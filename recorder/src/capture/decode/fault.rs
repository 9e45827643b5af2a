//! Injected faults, and the calls that they changed. What the call was about comes with the event, since such a
//! socket may never have been named.

use probe_ebpf::fault::{FaultDetail, action, hook, told};

use super::{Decoder, errno, place, spoken};
use crate::capture::ring::Raw;
use crate::event::{Event, Flags, Name, Op, Proof, Protocol};
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
        let swallowed = about.action == action::SWALLOW;
        if event.op == Op::Fault && swallowed {
            event.flags = event.flags.with(Flags::LOST);
        }
        if event.op != Op::Fault || about.action == action::OVERRIDE || swallowed {
            event.result = i64::from(slot.result.max(0));
            return;
        }
        event.signal = slot.result.max(0) as u8;
        match about.action {
            action::HOLE | action::CRASH if !event.in_kernel_lane() => {
                event.flags = event.flags.with(Flags::LOST).with(Flags::INCOMING);
            }
            action::DESTROY => event.flags = event.flags.with(Flags::EOF),
            action::RESTART => event.target = slot.code as u32,
            _ => {}
        }
        match slot.aux[0] {
            told::LOST_OUT | told::LOST_IN => self.lost(raw, event),
            told::HEALED => event.flags = event.flags.with(Flags::HEALED),
            _ => {}
        }
    }

    /// Which connection a packet that was lost belongs to, and which bytes it bore: of this end's stream or, where
    /// it was on its way here, of the other's.
    fn lost(&mut self, raw: &Raw, event: &mut Event) {
        let slot = &raw.slot;
        let incoming = slot.aux[0] == told::LOST_IN;
        event.flags = event.flags.with(Flags::LOST);
        if incoming {
            event.flags = event.flags.with(Flags::INCOMING);
        }
        let Some(socket) = self.sockets.get(slot.socket) else { return };
        event.netns = socket.netns;
        (event.proof, event.iss, event.irs) = (socket.proof, socket.iss, socket.irs);
        let length = u64::try_from(slot.code).unwrap_or(0);
        if socket.proof == Proof::Unknown || event.protocol != Some(Protocol::Tcp) || length == 0 {
            return;
        }
        let initial = if incoming { socket.irs } else { socket.iss };
        let low = slot.sequence.wrapping_sub(initial.wrapping_add(1));
        let start = place::nearest(slot.count, low);
        // A probe for life goes below what was sent.
        if let Some(end) = start.checked_add(length) {
            (event.stream_start, event.stream_end) = (start, end);
            event.flags = event.flags.with(Flags::RANGE);
        }
    }
}
