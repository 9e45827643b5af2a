//! Network namespaces: told apart by the kernel's own number, named for people.
//!
//! Every namespace has a 127.0.0.1, so that addresses say nothing without the namespace. The inode number,
//! by which people know it (`lsns`, `net:[4026532561]`), is given to another one soon after it is gone; the
//! kernel's cookie never is.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::event::{Event, History};

/// One network namespace of a host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Namespace {
    /// As in [`Event::netns`].
    pub number: u32,
    pub inode: u32,
    /// `host` for the machine's own, else what `ip netns` or the container in it is called. May be empty.
    pub name: String,
}

/// What the machine's own namespace is called.
pub const HOST: &str = "host";

impl Namespace {
    /// The name, or as the kernel writes it: `net:[4026532561]`.
    pub fn label(&self) -> Cow<'_, str> {
        match self.name.as_str() {
            "" => Cow::Owned(self.kernel_name()),
            name => Cow::Borrowed(name),
        }
    }

    pub fn kernel_name(&self) -> String {
        format!("net:[{}]", self.inode)
    }
}

impl History {
    /// The namespace of the event's socket; nothing without one, and in recordings that do not tell.
    pub fn namespace(&self, event: &Event) -> Option<&Namespace> {
        let host = self.hosts.get(usize::from(event.host))?;
        // Joined recordings may have it twice, and only one knew its name.
        let of = |n: &&Namespace| event.netns != 0 && n.number == event.netns;
        let named = |n: &&Namespace| of(n) && !n.name.is_empty();
        host.namespaces.iter().find(named).or_else(|| host.namespaces.iter().find(of))
    }

    /// Whether a host has sockets in more than one, so that addresses alone do not tell which are meant.
    pub fn has_several_namespaces(&self) -> bool {
        let first = |host: &crate::event::Host| host.namespaces.first().map(|n| n.number);
        self.hosts.iter().any(|h| h.namespaces.iter().any(|n| Some(n.number) != first(h)))
    }
}
