//! Names that are not to be written down: whose they are can still be told apart by numbers, and nobody learns what
//! they were.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::event::{Host, SocketAddress};
use crate::pattern::Glob;

/// What stands in place of a name. One word for all: of a number or a hash, a name could be guessed.
pub const HIDDEN: &str = "hidden";

/// Which names, by patterns: `*` stands for anything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<String>", into = "Vec<String>")]
pub struct Hide(Vec<Glob>);

impl TryFrom<Vec<String>> for Hide {
    type Error = String;

    fn try_from(patterns: Vec<String>) -> Result<Self, String> {
        if patterns.iter().any(String::is_empty) {
            return Err(
                "an empty pattern hides nothing: write a name, with `*` for any part of it"
                    .to_owned(),
            );
        }
        let pieces = |text: &String| text.split('*').map(str::to_owned).collect();
        Ok(Self(patterns.iter().map(|text| Glob { pieces: pieces(text) }).collect()))
    }
}

impl From<Hide> for Vec<String> {
    fn from(hide: Hide) -> Self {
        hide.0.into_iter().map(|glob| glob.pieces.join("*")).collect()
    }
}

impl Hide {
    /// Whether a name is one of them.
    pub fn hides(&self, name: &str) -> bool {
        self.0.iter().any(|glob| glob.matches(name))
    }

    /// A name as it may be written down.
    pub fn name<'a>(&self, name: &'a str) -> Cow<'a, str> {
        Cow::Borrowed(if self.hides(name) { HIDDEN } else { name })
    }

    /// An address as it may be written down: Unix sockets have names, others have numbers.
    pub fn address<'a>(&self, address: &'a SocketAddress) -> Cow<'a, SocketAddress> {
        match address {
            SocketAddress::Unix(name) if self.hides(name) => {
                Cow::Owned(SocketAddress::Unix(HIDDEN.to_owned()))
            }
            address => Cow::Borrowed(address),
        }
    }

    /// What is said of a host, as it may be written down.
    pub fn host<'a>(&self, host: &'a Host) -> Cow<'a, Host> {
        if self.0.is_empty() {
            return Cow::Borrowed(host);
        }
        let mut host = host.clone();
        let tasks = host.tasks.iter_mut();
        let tasks = tasks.flat_map(|task| [&mut task.comm, &mut task.executable, &mut task.cgroup]);
        let containers = host.containers.iter_mut().map(|called| &mut called.name);
        let namespaces = host.namespaces.iter_mut().map(|namespace| &mut namespace.name);
        for name in tasks.chain(containers).chain(namespaces).chain([&mut host.scope]) {
            if self.hides(name) {
                HIDDEN.clone_into(name);
            }
        }
        let sockets = host.state.iter_mut().flat_map(|state| &mut state.sockets);
        for address in sockets.flat_map(|socket| [&mut socket.local, &mut socket.remote]) {
            if let Ok(known) = address.parse() {
                *address = self.address(&known).to_string();
            }
        }
        Cow::Owned(host)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_hidden_as_a_whole_or_not_at_all() {
        let hide =
            Hide::try_from(vec!["payroll*".to_owned(), "*acme*".to_owned()]).expect("patterns");
        for name in ["payroll", "payroll-worker", "/srv/acme.sock", "acme"] {
            assert_eq!(hide.name(name), HIDDEN, "{name}");
        }
        for name in ["", "my-payroll", "nginx"] {
            assert_eq!(hide.name(name), name);
        }
        let unix = SocketAddress::Unix("/srv/acme.sock".to_owned());
        assert_eq!(hide.address(&unix).to_string(), "unix:hidden");
        let all = Hide::try_from(vec!["*".to_owned()]).expect("a pattern");
        let ip: SocketAddress = "10.0.0.1:80".parse().expect("an address");
        assert_eq!(*all.address(&ip), ip);
        assert_eq!(Hide::default().name("acme"), "acme");
        assert!(Hide::try_from(vec![String::new()]).is_err());
    }

    #[test]
    fn what_is_said_of_a_host_holds_no_name_of_them() {
        use crate::container::Called;
        use crate::event::Task;
        use crate::netns::Namespace;
        use crate::state::{Socket, State};
        let secret = || "acme-secret".to_owned();
        let task =
            Task { comm: secret(), executable: secret(), cgroup: secret(), ..Task::default() };
        let mut host = Host { scope: secret(), tasks: vec![task], ..Host::default() };
        host.containers = vec![Called { id: "1".to_owned(), name: secret() }];
        host.namespaces = vec![Namespace { name: secret(), ..Namespace::default() }];
        let unix = || "unix:acme-secret".to_owned();
        let socket = Socket { local: unix(), remote: unix(), ..Socket::default() };
        host.state = Some(State { sockets: vec![socket], ..State::default() });
        let hide = Hide::try_from(vec!["acme*".to_owned()]).expect("a pattern");
        let told = serde_json::to_string(&*hide.host(&host)).expect("JSON");
        assert!(!told.contains("acme") && told.matches(HIDDEN).count() == 8, "{told}");
    }
}
