//! Texts and addresses, each kept once, so that an event has only their numbers.

use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

/// Index of an interned text: comm, cgroup, system call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(pub u32);

impl Default for Name {
    fn default() -> Self {
        Self::NONE
    }
}

impl Name {
    pub const NONE: Self = Self(u32::MAX);
}

/// Index of an interned socket address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Address(pub u32);

impl Address {
    pub const NONE: Self = Self(u32::MAX);
}

/// What a socket is bound or connected to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum SocketAddress {
    Ip(SocketAddr),
    /// A path, or `@` and the name in the abstract namespace.
    Unix(String),
}

impl SocketAddress {
    /// The address and port; nothing for a Unix socket's name.
    pub const fn ip(&self) -> Option<SocketAddr> {
        match self {
            Self::Ip(address) => Some(*address),
            Self::Unix(_) => None,
        }
    }
}

/// `127.0.0.1:80`, `[::1]:80`, `unix:/run/app.sock`, `unix:@abstract`.
impl fmt::Display for SocketAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) => address.fmt(f),
            Self::Unix(name) => write!(f, "unix:{name}"),
        }
    }
}

impl FromStr for SocketAddress {
    type Err = std::net::AddrParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.strip_prefix("unix:") {
            Some(name) => Ok(Self::Unix(name.to_owned())),
            None => text.parse().map(Self::Ip),
        }
    }
}

/// Interned texts and addresses.
#[derive(Clone, Debug, Default)]
pub struct Names {
    texts: Vec<String>,
    text_index: HashMap<String, Name>,
    addresses: Vec<SocketAddress>,
    address_index: HashMap<SocketAddress, Address>,
}

impl Names {
    pub fn intern(&mut self, text: &str) -> Name {
        if let Some(&name) = self.text_index.get(text) {
            return name;
        }
        let name = Name(self.texts.len() as u32);
        self.texts.push(text.to_owned());
        self.text_index.insert(text.to_owned(), name);
        name
    }

    pub fn intern_address(&mut self, address: SocketAddr) -> Address {
        self.intern_socket_address(SocketAddress::Ip(address))
    }

    pub fn intern_socket_address(&mut self, address: SocketAddress) -> Address {
        if let Some(&index) = self.address_index.get(&address) {
            return index;
        }
        let index = Address(self.addresses.len() as u32);
        self.addresses.push(address.clone());
        self.address_index.insert(address, index);
        index
    }

    /// All texts: number `i` is that of `Name(i)`.
    pub fn texts(&self) -> &[String] {
        &self.texts
    }

    /// All addresses: number `i` is that of `Address(i)`.
    pub fn addresses(&self) -> &[SocketAddress] {
        &self.addresses
    }

    /// The text, `""` for [`Name::NONE`].
    pub fn text(&self, name: Name) -> &str {
        self.texts.get(name.0 as usize).map_or("", String::as_str)
    }

    /// Address and port; nothing where there are none, as of a Unix socket.
    pub fn address(&self, address: Address) -> Option<SocketAddr> {
        self.socket_address(address)?.ip()
    }

    pub fn socket_address(&self, address: Address) -> Option<&SocketAddress> {
        self.addresses.get(address.0 as usize)
    }
}
