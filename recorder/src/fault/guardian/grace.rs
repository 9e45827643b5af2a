//! Waits until programs that are at work now have ended.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// An array of maps: when it is changed, the kernel waits for all programs that may hold what was in it before, a grace
/// period of RCU. (`membarrier` does the same, but nothing where there is one CPU, on which a program may be preempted.)
pub struct Grace {
    outer: OwnedFd,
    inner: OwnedFd,
}

impl Grace {
    /// # Errors
    /// When the kernel refuses one of the maps.
    pub fn new() -> io::Result<Self> {
        let inner = make(&Create { kind: ARRAY, ..Create::ONE_ENTRY })?;
        let number = inner.as_raw_fd() as u32;
        let outer = make(&Create { kind: ARRAY_OF_MAPS, inner: number, ..Create::ONE_ENTRY })?;
        Ok(Self { outer, inner })
    }

    /// # Errors
    /// When the kernel refuses the change.
    pub fn wait(&self) -> io::Result<()> {
        let (key, value) = (0u32, self.inner.as_raw_fd());
        let update = Update {
            map: self.outer.as_raw_fd() as u32,
            padding: 0,
            key: (&raw const key) as u64,
            value: (&raw const value) as u64,
            flags: 0,
        };
        call(MAP_UPDATE_ELEM, &update).map(drop)
    }
}

const MAP_CREATE: libc::c_int = 0;
const MAP_UPDATE_ELEM: libc::c_int = 2;
const ARRAY: u32 = 2;
const ARRAY_OF_MAPS: u32 = 12;

/// The beginning of the kernel's `union bpf_attr`, of which the rest counts as zeros.
#[repr(C)]
struct Create {
    kind: u32,
    key_size: u32,
    value_size: u32,
    entries: u32,
    flags: u32,
    inner: u32,
}

impl Create {
    const ONE_ENTRY: Self =
        Self { kind: 0, key_size: 4, value_size: 4, entries: 1, flags: 0, inner: 0 };
}

#[repr(C)]
struct Update {
    map: u32,
    padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

fn make(what: &Create) -> io::Result<OwnedFd> {
    let fd = call(MAP_CREATE, what)?;
    // SAFETY: the kernel has just made it for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn call<T>(command: libc::c_int, what: &T) -> io::Result<i32> {
    // SAFETY: the kernel reads so many bytes of a structure that is laid out as it wants; what that points to is live.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(what), size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as i32) }
}
