//! Whose events are recorded, and what is remembered about each thread, in its task's storage.

use core::ptr;

use aya_ebpf::bindings::{
    BPF_F_NO_PREALLOC, BPF_LOCAL_STORAGE_GET_F_CREATE, bpf_map_type, task_struct,
};
use aya_ebpf::helpers::generated::{
    bpf_get_current_ancestor_cgroup_id, bpf_get_current_task_btf, bpf_task_storage_get,
};
use aya_ebpf::macros::btf_map;
use probe_ebpf::config::scope;
use probe_ebpf::event::{Slot, flag};
use probe_ebpf::storage::TaskState;

use crate::kernel::{Pointer, config, field};
use crate::storage::LocalStorage;
use crate::{emit, name};

#[btf_map]
static TASKS: LocalStorage<
    TaskState,
    { bpf_map_type::BPF_MAP_TYPE_TASK_STORAGE as usize },
    { BPF_F_NO_PREALLOC as usize },
> = LocalStorage::new();

/// A thread, and who it is.
pub struct Thread {
    pub pid: u32,
    pub tid: u32,
    /// When its program began to run: the time of its event, and of the names that go before it.
    pub time_ns: u64,
    pub task: *mut task_struct,
    /// NULL for a thread that is not in scope.
    state: *mut TaskState,
}

impl Thread {
    /// When the call on a `struct socket` that ends now began; 0 where that was not seen.
    #[inline(always)]
    pub fn leave(&self, socket: Pointer) -> u64 {
        // SAFETY: a live storage value, which only the thread itself uses.
        unsafe {
            let begun =
                if (*self.state).entered == socket as u64 { (*self.state).entered_ns } else { 0 };
            (*self.state).entered = 0;
            begun
        }
    }

    /// Leaves word for those that stand by at this hook, where some do, of what was seen; one of
    /// [`seen`](probe_ebpf::storage::seen).
    #[inline(always)]
    pub fn leave_word(&self, of: u32) {
        // SAFETY: a live storage value, which only the thread itself uses.
        unsafe { (*self.state).seen |= of };
    }

    /// A slot for this thread's next event.
    #[inline(always)]
    pub fn slot(&self, kind: u8) -> Slot {
        let mut slot = emit::slot(kind, self.pid, self.tid, self.time_ns);
        if !self.state.is_null() {
            let switches = field!(self.task, task_nvcsw, u64);
            // SAFETY: a live storage value; only the thread itself counts its events.
            unsafe {
                (*self.state).count += 1;
                slot.task_count = (*self.state).count;
                if (*self.state).switches != switches {
                    (*self.state).switches = switches;
                    slot.flags = flag::SLEPT;
                }
            }
        }
        slot
    }

    /// A slot for what the thread does inside of a call: neither does it tell that call, nor that the thread slept in it.
    #[inline(always)]
    pub fn beside(&self, kind: u8) -> Slot {
        let mut slot = emit::slot(kind, self.pid, self.tid, self.time_ns);
        if !self.state.is_null() {
            // SAFETY: a live storage value; only the thread itself counts its events.
            unsafe {
                (*self.state).count += 1;
                (*self.state).call.count += 1;
                slot.task_count = (*self.state).count;
            }
        }
        slot
    }
}

/// How many events a thread has raised so far.
#[inline(always)]
pub fn events_of(task: *mut task_struct) -> u32 {
    let state = task_state(task, false);
    // SAFETY: NULL or a live storage value.
    if state.is_null() { 0 } else { unsafe { (*state).count } }
}

/// The current thread if it is in scope, named.
#[inline(always)]
pub fn current() -> Option<Thread> {
    let (task, state) = current_state()?;
    let time_ns = emit::now();
    // SAFETY: a live storage value.
    unsafe {
        if emit::stale((*state).named) {
            (*state).named = name::task(task, time_ns);
        }
    }
    let pid = field!(task, task_tgid, u32);
    let tid = field!(task, task_pid, u32);
    Some(Thread { pid, tid, time_ns, task, state })
}

/// The current thread's task, if it is in scope: the least that there is to know.
#[inline(always)]
pub fn current_task() -> Option<*mut task_struct> {
    Some(current_state()?.0)
}

/// The current thread and what is remembered about it, if it is in scope.
#[inline(always)]
pub fn current_state() -> Option<(*mut task_struct, *mut TaskState)> {
    // SAFETY: a helper without arguments.
    let task = unsafe { bpf_get_current_task_btf() };
    let pid = field!(task, task_tgid, u32);
    let tid = field!(task, task_pid, u32);
    if pid == config!(recorder) || tid == 0 {
        return None;
    }
    let state = match config!(scope) {
        scope::MARKED => match marked(task_state(task, false)) {
            Some(state) => state,
            None => io_worker(task)?,
        },
        scope::CGROUP => {
            if !in_cgroup() {
                return None;
            }
            let state = state_or_drop(task)?;
            // For those who do something to it and are current then.
            // SAFETY: a live storage value.
            unsafe { (*state).marked = 1 };
            state
        }
        _ => state_or_drop(task)?,
    };
    Some((task, state))
}

/// What is remembered about a thread in scope of which nobody has left this program word: those before it were skipped. Where
/// they were not, `read` is taken away; bits of [`seen`](probe_ebpf::storage::seen).
#[inline(always)]
pub fn passed_over(own: u32, read: u32) -> Option<*mut TaskState> {
    let (_, state) = current_state()?;
    // SAFETY: a live storage value, which only the thread itself uses.
    unsafe {
        if (*state).seen & own != 0 {
            (*state).seen &= !read;
            return None;
        }
    }
    Some(state)
}

/// Remembers that the current thread, if it is in scope, begins a call on a `struct socket`.
#[inline(always)]
pub fn enter(socket: Pointer, flags: u32) -> Option<()> {
    let (_, state) = current_state()?;
    // SAFETY: a live storage value, which only the thread itself uses.
    unsafe {
        // A kretprobe needs one of a limited number of places for the time of the call: there was none.
        if config!(kprobes) != 0 && (*state).entered != 0 {
            (*state).count += 1;
            emit::dropped();
        }
        (*state).entered = socket as u64;
        (*state).entered_flags = flags;
        (*state).entered_ns = emit::now();
    }
    Some(())
}

/// A call as it was noted at its entry.
pub struct Entered {
    pub socket: Pointer,
    pub flags: u32,
    pub begin_ns: u64,
}

/// The call that the current thread, if it is in scope, was in until now.
#[inline(always)]
pub fn entered() -> Option<Entered> {
    let (_, state) = current_state()?;
    // SAFETY: a live storage value, which only the thread itself uses.
    let entered = unsafe {
        let socket = (*state).entered as Pointer;
        (*state).entered = 0;
        Entered { socket, flags: (*state).entered_flags, begin_ns: (*state).entered_ns }
    };
    (!entered.socket.is_null()).then_some(entered)
}

/// The current thread, for programs that cannot look at what is remembered about it: its event is not counted. Whoever
/// knows it to be in scope has named it.
#[inline(always)]
pub fn uncounted() -> Thread {
    // SAFETY: a helper without arguments.
    let task = unsafe { bpf_get_current_task_btf() };
    let (pid, tid) = (field!(task, task_tgid, u32), field!(task, task_pid, u32));
    Thread { pid, tid, time_ns: emit::now(), task, state: ptr::null_mut() }
}

/// The current thread, named whether it is in scope or not: for acts of strangers upon threads in scope.
#[inline(always)]
pub fn stranger() -> Thread {
    let thread = uncounted();
    name::task(thread.task, thread.time_ns);
    thread
}

/// Whether a task other than the current one is in scope. In a cgroup a mark tells as well: user space marks
/// who is there, and threads are marked by what they do.
#[inline(always)]
pub fn includes(task: *mut task_struct) -> bool {
    match config!(scope) {
        scope::ALL => true,
        _ => marked(task_state(task, false)).is_some(),
    }
}

/// Hands a parent's mark on to its child.
#[inline(always)]
pub fn adopt(parent: *mut task_struct, child: *mut task_struct) {
    if config!(scope) == scope::ALL || marked(task_state(parent, false)).is_none() {
        return;
    }
    if let Some(state) = state_or_drop(child) {
        // SAFETY: a live storage value.
        unsafe { (*state).marked = 1 };
    }
}

#[inline(always)]
fn marked(state: *mut TaskState) -> Option<*mut TaskState> {
    // SAFETY: NULL or a live storage value.
    if state.is_null() || unsafe { (*state).marked } == 0 { None } else { Some(state) }
}

/// io_uring's workers are made without a fork event; they are in scope when their process is.
#[inline(always)]
fn io_worker(task: *mut task_struct) -> Option<*mut TaskState> {
    const PF_IO_WORKER: u32 = 0x10;
    if field!(task, task_flags, u32) & PF_IO_WORKER == 0 {
        return None;
    }
    let leader = field!(task, task_group_leader, Pointer);
    marked(task_state(leader.cast(), false))?;
    let state = state_or_drop(task)?;
    // SAFETY: a live storage value.
    unsafe { (*state).marked = 1 };
    Some(state)
}

#[inline(always)]
fn state_or_drop(task: *mut task_struct) -> Option<*mut TaskState> {
    let state = task_state(task, true);
    if state.is_null() {
        emit::dropped();
        return None;
    }
    Some(state)
}

#[inline(always)]
fn in_cgroup() -> bool {
    // SAFETY: a helper that takes a number.
    let ancestor = unsafe { bpf_get_current_ancestor_cgroup_id(config!(cgroup_level) as i32) };
    ancestor == config!(cgroup)
}

#[inline(always)]
fn task_state(task: *mut task_struct, create: bool) -> *mut TaskState {
    let flags = if create { BPF_LOCAL_STORAGE_GET_F_CREATE as u64 } else { 0 };
    // SAFETY: the verifier checks map and task.
    unsafe { bpf_task_storage_get(TASKS.as_map(), task, ptr::null_mut(), flags) }.cast()
}
