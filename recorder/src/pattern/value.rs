//! What stands on a test's right: one value, already of the kind its key holds.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use nix::errno::Errno;
use nix::sys::signal::Signal;

use super::{Key, Kind};
use crate::event::{Flags, Op, Protocol, Ring};

/// One value of a test.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// `none`: the event has no such column.
    None,
    /// `*`: the event has one, whatever it is.
    Any,
    Text(Glob),
    /// In nanoseconds where the key is a time.
    Number(i128),
    TimeOfDay(TimeOfDay),
    Address(AddressTest),
    Op(Op),
    Protocol(Protocol),
    /// An errno's number.
    Error(u16),
    Signal(u8),
    Ring(Ring),
    Lane(Lane),
    Flag(FlagName),
}

/// A name in which `*` stands for any characters: the pieces between the stars.
///
/// One piece has no star and is the whole name; `a*` is `["a", ""]`. Only the first and the last piece
/// may be empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Glob {
    pub pieces: Vec<String>,
}

impl Glob {
    /// The whole name, where there is no star.
    pub fn literal(&self) -> Option<&str> {
        match &self.pieces[..] {
            [whole] => Some(whole),
            _ => None,
        }
    }

    /// Linear in the text for each piece: the leftmost place for a piece leaves the most for the next.
    pub fn matches(&self, text: &str) -> bool {
        let (Some(first), Some(last)) = (self.pieces.first(), self.pieces.last()) else {
            return false;
        };
        if self.pieces.len() == 1 {
            return text == first;
        }
        let Some(mut rest) =
            text.strip_prefix(first.as_str()).and_then(|t| t.strip_suffix(last.as_str()))
        else {
            return false;
        };
        for piece in &self.pieces[1..self.pieces.len() - 1] {
            let Some(at) = rest.find(piece.as_str()) else { return false };
            rest = &rest[at + piece.len()..];
        }
        true
    }
}

/// A time of day, UTC, as exact as it was written: `12:00:01` means that whole second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeOfDay {
    /// Since midnight.
    pub start_ns: u64,
    /// A minute, a second, or a power of ten below it.
    pub length_ns: u64,
}

/// An address, a block of addresses, a port, or an address or block with a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressTest {
    /// Address and number of leading bits that must agree; the other bits are 0.
    pub block: Option<(IpAddr, u8)>,
    pub port: Option<u16>,
}

impl AddressTest {
    pub fn matches(&self, address: SocketAddr) -> bool {
        // IPv4 spoken through an IPv6 socket is IPv4 to whoever writes a pattern.
        let ip = address.ip();
        self.port.is_none_or(|port| port == address.port())
            && self.block.is_none_or(|(block, bits)| {
                masked(ip, bits) == Some(block) || masked(ip.to_canonical(), bits) == Some(block)
            })
    }
}

/// `ip` with all but its first `bits` bits cleared; nothing if it has fewer bits.
pub fn masked(ip: IpAddr, bits: u8) -> Option<IpAddr> {
    let bits = u32::from(bits);
    match ip {
        IpAddr::V4(ip) => {
            let mask = u32::MAX.checked_shl(32u32.checked_sub(bits)?).unwrap_or(0);
            Some(IpAddr::from((ip.to_bits() & mask).to_be_bytes()))
        }
        IpAddr::V6(ip) => {
            let mask = u128::MAX.checked_shl(128u32.checked_sub(bits)?).unwrap_or(0);
            Some(IpAddr::from((ip.to_bits() & mask).to_be_bytes()))
        }
    }
}

/// Where an event lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    Thread,
    Kernel,
}

/// A qualification of an event that a pattern can ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlagName {
    Peek,
    Eof,
    Urgent,
    Process,
    Ignored,
    LastThread,
    AfterGap,
    Active,
    Unsure,
    Lost,
    Incoming,
    Healed,
}

impl FlagName {
    pub const ALL: [Self; 12] = [
        Self::Peek,
        Self::Eof,
        Self::Urgent,
        Self::Process,
        Self::Ignored,
        Self::LastThread,
        Self::AfterGap,
        Self::Active,
        Self::Unsure,
        Self::Lost,
        Self::Incoming,
        Self::Healed,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Peek => "peek",
            Self::Eof => "eof",
            Self::Urgent => "urgent",
            Self::Process => "process",
            Self::Ignored => "ignored",
            Self::LastThread => "last_thread",
            Self::AfterGap => "after_gap",
            Self::Active => "active",
            Self::Unsure => "unsure",
            Self::Lost => "lost",
            Self::Incoming => "incoming",
            Self::Healed => "healed",
        }
    }

    pub const fn bits(self) -> Flags {
        match self {
            Self::Peek => Flags::PEEK,
            Self::Eof => Flags::EOF,
            Self::Urgent => Flags::URGENT,
            Self::Process => Flags::PROCESS,
            Self::Ignored => Flags::IGNORED,
            Self::LastThread => Flags::LAST_THREAD,
            Self::AfterGap => Flags::AFTER_GAP,
            Self::Active => Flags::ACTIVE,
            Self::Unsure => Flags::UNSURE,
            Self::Lost => Flags::LOST,
            Self::Incoming => Flags::INCOMING,
            Self::Healed => Flags::HEALED,
        }
    }
}

/// `ECONNRESET`; nothing for a number that is no errno.
pub fn errno_name(error: u16) -> Option<String> {
    let errno = Errno::from_raw(i32::from(error));
    (error != 0 && errno != Errno::UnknownErrno).then(|| format!("{errno:?}"))
}

/// `SIGKILL`; nothing for a number without a name, such as a real-time signal.
pub fn signal_name(signal: u8) -> Option<&'static str> {
    Signal::try_from(i32::from(signal)).ok().map(Signal::as_str)
}

impl Value {
    /// Writes the value so that parsing it for the same key gives it back.
    pub(super) fn print(&self, key: Key, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Any => f.write_str("*"),
            Self::Text(glob) => print_glob(glob, f),
            Self::Number(ns) if key.kind() == Kind::Duration => f.write_str(&duration_text(*ns)),
            Self::Number(number) => write!(f, "{number}"),
            Self::TimeOfDay(time) => print_time(*time, f),
            Self::Address(address) => print_address(address, f),
            Self::Op(op) => f.write_str(op.as_str()),
            Self::Protocol(protocol) => f.write_str(protocol.as_str()),
            Self::Error(_) | Self::Signal(_) => f.write_str(&value_text(self)),
            Self::Ring(Ring::Bulk) => f.write_str("bulk"),
            Self::Ring(Ring::Rare) => f.write_str("rare"),
            Self::Lane(Lane::Thread) => f.write_str("thread"),
            Self::Lane(Lane::Kernel) => f.write_str("kernel"),
            Self::Flag(flag) => f.write_str(flag.as_str()),
        }
    }
}

/// An errno or a signal by its name where it has one: `ECONNRESET`, `34`. Nothing for other values.
pub(crate) fn value_text(value: &Value) -> String {
    match value {
        Value::Error(error) => errno_name(*error).unwrap_or_else(|| error.to_string()),
        Value::Signal(signal) => {
            signal_name(*signal).map_or_else(|| signal.to_string(), str::to_owned)
        }
        _ => String::new(),
    }
}

fn print_glob(glob: &Glob, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    for (i, piece) in glob.pieces.iter().enumerate() {
        if i > 0 {
            f.write_str("*")?;
        }
        let special = |c: char| c.is_whitespace() || matches!(c, ',' | '"' | '*');
        if piece.contains(special) || (piece.is_empty() && glob.pieces.len() == 1) {
            write!(f, "\"{}\"", piece.replace('\\', "\\\\").replace('"', "\\\""))?;
        } else {
            f.write_str(piece)?;
        }
    }
    Ok(())
}

/// In the largest unit that leaves no fraction: `200ms`.
pub(crate) fn duration_text(ns: i128) -> String {
    let units = [("s", 1_000_000_000), ("ms", 1_000_000), ("us", 1000)];
    let (unit, size) = units.into_iter().find(|&(_, size)| ns % size == 0).unwrap_or(("ns", 1));
    format!("{}{unit}", ns / size)
}

fn print_time(time: TimeOfDay, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let seconds = time.start_ns / 1_000_000_000;
    write!(f, "{:02}:{:02}", seconds / 3600, seconds / 60 % 60)?;
    if time.length_ns > 1_000_000_000 {
        return Ok(());
    }
    write!(f, ":{:02}", seconds % 60)?;
    let digits = (1_000_000_000 / time.length_ns).ilog10() as usize;
    if digits == 0 {
        return Ok(());
    }
    write!(f, ".{:0digits$}", time.start_ns % 1_000_000_000 / time.length_ns)
}

fn print_address(address: &AddressTest, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    if let Some((ip, bits)) = address.block {
        let all = if ip.is_ipv4() { 32 } else { 128 };
        let bits = if bits == all { String::new() } else { format!("/{bits}") };
        match (ip, address.port) {
            (IpAddr::V6(ip), Some(_)) => write!(f, "[{ip}{bits}]")?,
            (ip, _) => write!(f, "{ip}{bits}")?,
        }
    }
    match address.port {
        Some(port) => write!(f, ":{port}"),
        None => Ok(()),
    }
}
