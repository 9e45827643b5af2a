//! System calls that raised no other event. What a call's socket is called is known if another event has named it; a call
//! itself names nothing, and has no part in the socket's stream.

use syscalls::Sysno;

use super::{Decoder, errno, spoken};
use crate::capture::ring::Raw;
use crate::event::{Descriptor, Event};

impl Decoder {
    pub(super) fn called(&mut self, raw: &Raw, event: &mut Event) {
        let slot = &raw.slot;
        let number = slot.argument;
        event.syscall = match Sysno::new(number as usize) {
            Some(call) => self.names.intern(call.name()),
            None => self.names.intern(&format!("{number}")),
        };
        event.fd = Descriptor(slot.sequence);
        event.result = i64::from(slot.result.max(0));
        event.error = errno(slot.result.min(0));
        event.target = slot.code as u32;
        event.protocol = spoken(slot.aux[1]);
        let Some(socket) = self.sockets.get(slot.socket) else { return };
        (event.local, event.remote) = (socket.local, socket.remote);
        event.netns = socket.netns;
    }
}
