//! Names of Unix sockets, put together from the records that hold 64 bytes each.

use std::collections::HashMap;

use probe_ebpf::event::Slot;

use crate::event::SocketAddress;

/// Parts of names whose socket's record has not come yet; it follows at once, so few are more than one socket's.
const PENDING_MAX: usize = 1024;

const PART: usize = 64;

/// Names by socket's cookie and whose they are: its own (0) or its peer's (1).
#[derive(Default)]
pub(super) struct UnixNames {
    pending: HashMap<(u64, u8), Vec<u8>>,
}

impl UnixNames {
    /// Takes one record in.
    pub(super) fn take(&mut self, slot: &Slot, detail: &[u64; 8]) {
        if self.pending.len() >= PENDING_MAX {
            self.pending.clear();
        }
        let [whose, part] = slot.aux;
        let start = usize::from(part) * PART;
        let rest = (slot.argument as usize).saturating_sub(start).min(PART);
        let mut name = self.pending.remove(&(slot.socket, whose)).unwrap_or_default();
        name.truncate(start);
        // Without its first part a name says nothing.
        if name.len() == start {
            name.extend_from_slice(&bytemuck::cast_slice(detail)[..rest]);
            self.pending.insert((slot.socket, whose), name);
        }
    }

    /// A socket's own name and its peer's; each is told once.
    pub(super) fn of(&mut self, socket: u64) -> [Option<SocketAddress>; 2] {
        [0, 1].map(|whose| self.pending.remove(&(socket, whose)).map(|bytes| address(&bytes)))
    }
}

/// A path ends at its NUL; a name in the abstract namespace begins with one, and may hold more.
fn address(bytes: &[u8]) -> SocketAddress {
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    SocketAddress::Unix(match bytes.split_first() {
        Some((0, name)) => format!("@{}", text(name)),
        _ => text(bytes.split(|&b| b == 0).next().unwrap_or_default()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(parts: &[(u8, &[u8])], len: u32) -> Option<String> {
        let mut names = UnixNames::default();
        for (part, bytes) in parts {
            let mut detail = [0u8; 64];
            detail[..bytes.len()].copy_from_slice(bytes);
            let slot = Slot { socket: 7, argument: len, aux: [1, *part], ..Slot::default() };
            names.take(&slot, &bytemuck::cast(detail));
        }
        let [own, peer] = names.of(7);
        assert_eq!(own, None);
        assert_eq!(names.of(7), [None, None], "told once");
        peer.map(|name| name.to_string())
    }

    #[test]
    fn paths_and_abstract_names() {
        assert_eq!(told(&[(0, b"/run/a.sock\0")], 12).as_deref(), Some("unix:/run/a.sock"));
        assert_eq!(told(&[(0, b"\0bus")], 4).as_deref(), Some("unix:@bus"));
        assert_eq!(told(&[(0, b"rel\xff")], 4).as_deref(), Some("unix:rel\u{fffd}"));
    }

    #[test]
    fn long_names_come_in_two_parts() {
        let long = [b'x'; 100];
        let name = format!("unix:{}", "x".repeat(100));
        assert_eq!(told(&[(0, &long[..64]), (1, &long[64..])], 100), Some(name));
        assert_eq!(told(&[(1, &long[64..])], 100), None, "the first part was lost");
    }
}
