//! Maps whose values hang on tasks or sockets, and die with them.

use core::ffi::c_void;
use core::ptr;

/// The definition of a map that hangs values on tasks or sockets, as the loader reads it from BTF.
#[repr(C)]
pub struct LocalStorage<T, const TYPE: usize, const FLAGS: usize> {
    r#type: *const [i32; TYPE],
    key: *const i32,
    value: *const T,
    max_entries: *const [i32; 0],
    map_flags: *const [i32; FLAGS],
}

// SAFETY: only a definition; nothing ever reads the pointers.
unsafe impl<T, const TYPE: usize, const FLAGS: usize> Sync for LocalStorage<T, TYPE, FLAGS> {}

impl<T, const TYPE: usize, const FLAGS: usize> LocalStorage<T, TYPE, FLAGS> {
    pub const fn new() -> Self {
        Self {
            r#type: ptr::null(),
            key: ptr::null(),
            value: ptr::null(),
            max_entries: ptr::null(),
            map_flags: ptr::null(),
        }
    }

    pub fn as_map(&self) -> *mut c_void {
        ptr::from_ref(self).cast_mut().cast()
    }
}
