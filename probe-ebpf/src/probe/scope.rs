//! Whose events are recorded, and what is remembered about each thread and socket in task and socket
//! storage: both live and die with what they describe.

use core::ffi::c_void;
use core::ptr;

use aya_ebpf::bindings::{
    BPF_ANY, BPF_F_CLONE, BPF_F_NO_PREALLOC, BPF_LOCAL_STORAGE_GET_F_CREATE, BPF_NOEXIST,
    bpf_map_type, task_struct,
};
use aya_ebpf::btf_maps::{Array, LruHashMap};
use aya_ebpf::helpers::generated::{
    bpf_get_current_ancestor_cgroup_id, bpf_get_current_task_btf, bpf_get_socket_cookie,
    bpf_sk_storage_get, bpf_skc_to_tcp_sock, bpf_task_storage_get,
};
use aya_ebpf::macros::btf_map;
use probe_ebpf::config::{ABSENT, NAMED_PER_CPU, scope};
use probe_ebpf::event::{
    RareSlot, Slot, SocketName, TaskName, flag, kind, protocol, proven, state,
};
use probe_ebpf::storage::TaskState;

use crate::kernel::{self, Pointer, Structure, Untyped, config, field, offset};
use crate::{emit, local, mptcp};

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

#[btf_map]
static TASKS: LocalStorage<
    TaskState,
    { bpf_map_type::BPF_MAP_TYPE_TASK_STORAGE as usize },
    { BPF_F_NO_PREALLOC as usize },
> = LocalStorage::new();

#[btf_map]
static SOCKETS: LocalStorage<
    SocketState,
    { bpf_map_type::BPF_MAP_TYPE_SK_STORAGE as usize },
    { (BPF_F_NO_PREALLOC | BPF_F_CLONE) as usize },
> = LocalStorage::new();

/// What is remembered about a socket.
#[repr(C)]
pub struct SocketState {
    /// Address of the socket this was written for: a child accepted from a listener inherits the
    /// listener's value, and is told by this.
    pub sock: u64,
    pub cookie: u64,
    /// Place of its last name record.
    pub named: u64,
    pub iss: u32,
    pub irs: u32,
    pub owner: u32,
    /// One of [`proven`].
    pub proven: u32,
    /// Unix sockets: not 0 if what is counted may not be all there was.
    pub unsure: u32,
    /// The state that its last recorded change led to.
    pub told: u32,
    /// Unix sockets: bytes or messages that calls have moved since the socket is known.
    pub sent: u64,
    pub received: u64,
}

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
            (*state).named = name_task(task, time_ns);
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

/// What is remembered about a thread in scope of which nobody has left this program word: those before it were skipped. The
/// word is taken away; a bit of [`seen`](probe_ebpf::storage::seen).
#[inline(always)]
pub fn passed_over(own: u32) -> Option<*mut TaskState> {
    let (_, state) = current_state()?;
    // SAFETY: a live storage value, which only the thread itself uses.
    unsafe {
        if (*state).seen & own != 0 {
            (*state).seen &= !own;
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
    name_task(thread.task, thread.time_ns);
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

/// What is remembered about a socket that a thread in scope used, which takes it into scope.
#[inline(always)]
pub fn socket(sk: impl Sock, owner: u32) -> Option<*mut SocketState> {
    let state = sk.remembered(true);
    if state.is_null() {
        emit::dropped();
        return None;
    }
    inherit(sk, state);
    // SAFETY: a live storage value.
    unsafe { (*state).owner = owner };
    Some(state)
}

/// What is remembered about a socket that an event of a kernel lane belongs to; nothing when out of scope.
#[inline(always)]
pub fn lane(sk: Pointer) -> Option<*mut SocketState> {
    let state = sk.remembered(config!(scope) == scope::ALL);
    if state.is_null() {
        return None;
    }
    inherit(sk, state);
    Some(state)
}

/// A socket, and the way to what is remembered about it.
pub trait Sock: Structure {
    /// The same as a TCP socket; nothing where it is not one.
    fn tcp(self) -> Option<Self>;
    /// The same where the verifier knows its type.
    fn typed(self) -> Option<Pointer>;
    /// Its cookie; 0 where it has none yet and cannot be given one.
    fn cookie(self) -> u64;
    /// What is remembered about it, NULL where nothing is.
    fn remembered(self, create: bool) -> *mut SocketState;
}

impl Sock for Pointer {
    #[inline(always)]
    fn tcp(self) -> Option<Self> {
        // SAFETY: the verifier checks the socket.
        let tcp: Pointer = unsafe { bpf_skc_to_tcp_sock(self.cast()) }.cast();
        (!tcp.is_null()).then_some(tcp)
    }

    #[inline(always)]
    fn typed(self) -> Option<Pointer> {
        Some(self)
    }

    #[inline(always)]
    fn cookie(self) -> u64 {
        // SAFETY: the verifier checks the socket.
        unsafe { bpf_get_socket_cookie(self) }
    }

    #[inline(always)]
    fn remembered(self, create: bool) -> *mut SocketState {
        let flags = if create { BPF_LOCAL_STORAGE_GET_F_CREATE as u64 } else { 0 };
        // SAFETY: the verifier checks map and socket.
        unsafe { bpf_sk_storage_get(SOCKETS.as_map(), self, ptr::null_mut(), flags) }.cast()
    }
}

/// What kprobes remember about sockets: their own storage is only for typed pointers. What is known of a
/// connection's beginning is copied here; what is forgotten, since it was not used for longest, is computed.
#[btf_map]
static BY_COOKIE: LruHashMap<u64, SocketState, 1> = LruHashMap::new();

impl Sock for Untyped {
    #[inline(always)]
    fn tcp(self) -> Option<Self> {
        Some(self)
    }

    #[inline(always)]
    fn typed(self) -> Option<Pointer> {
        None
    }

    /// Every connection in scope was given one when it was seen to be made, or to be open.
    #[inline(always)]
    fn cookie(self) -> u64 {
        field!(self, common_cookie, u64)
    }

    #[inline(always)]
    fn remembered(self, create: bool) -> *mut SocketState {
        let cookie = self.cookie();
        if cookie == 0 {
            return ptr::null_mut();
        }
        if let Some(state) = BY_COOKIE.get_ptr_mut(cookie) {
            return state;
        }
        if create {
            // SAFETY: only numbers.
            let new: SocketState = unsafe { core::mem::zeroed() };
            let _ = BY_COOKIE.insert(cookie, new, BPF_NOEXIST.into());
        }
        BY_COOKIE.get_ptr_mut(cookie).unwrap_or(ptr::null_mut())
    }
}

/// What is remembered about a socket, in scope or not.
#[inline(always)]
pub fn any_socket(sk: Pointer) -> Option<*mut SocketState> {
    let state = sk.remembered(true);
    if state.is_null() {
        return None;
    }
    inherit(sk, state);
    Some(state)
}

/// The same, NULL for a socket that was never seen.
#[inline(always)]
pub fn known_socket(sk: Pointer) -> *mut SocketState {
    sk.remembered(false)
}

/// What is remembered about the full socket of a packet; NULL when that is out of scope.
#[inline(always)]
pub fn of_packet(sk: Pointer) -> *mut SocketState {
    let state = sk.remembered(config!(scope) == scope::ALL);
    if !state.is_null() {
        inherit(Untyped::address_of(sk), state);
    }
    state
}

/// Whether the full socket of a packet is in scope.
#[inline(always)]
pub fn covers(sk: Pointer) -> bool {
    config!(scope) == scope::ALL || !sk.remembered(false).is_null()
}

/// The process that last used the socket of a packet by its own act; 0 when none was seen.
#[inline(always)]
pub fn owner(sk: Pointer) -> u32 {
    let state = sk.remembered(false);
    // SAFETY: NULL or a live storage value.
    if state.is_null() { 0 } else { unsafe { (*state).owner } }
}

/// Takes a socket that is being made into scope.
#[inline(always)]
pub fn made(sk: Pointer) {
    if sk.remembered(true).is_null() {
        emit::dropped();
    }
}

/// Makes a value that a listener handed on to an accepted socket the socket's own.
#[inline(always)]
fn inherit(sk: impl Sock, state: *mut SocketState) {
    // SAFETY: a live storage value.
    unsafe {
        if (*state).sock != sk.address() {
            (*state).sock = sk.address();
            (*state).cookie = match kernel::protocol(sk) {
                protocol::MPTCP => mptcp::number(),
                _ => sk.cookie(),
            };
            (*state).named = 0;
            (*state).told = 0;
            (*state).proven = proven::NO as u32;
            (*state).unsure = u32::from(local::may_be_older());
            ((*state).sent, (*state).received) = (0, 0);
        }
    }
}

/// Sockets that a CPU remembers to have named.
#[btf_map]
static NAMED: Array<Named, 1> = Array::new();

/// A socket's cookie and the place of its name. Per CPU, so that the two words always belong together; by
/// cookie, which unlike an address is never used again.
#[repr(C)]
pub struct Named {
    cookie: u64,
    place: u64,
}

/// The cookie of a socket that was named lately: what the common case needs, without the way through
/// socket storage.
#[inline(always)]
pub fn named_lately(sk: impl Sock) -> Option<u64> {
    let cookie = field!(sk, common_cookie, u64);
    let entry = NAMED.get_ptr_mut(named_index(cookie))?;
    // SAFETY: a live map value.
    let (known, place) = unsafe { ((*entry).cookie, (*entry).place) };
    (cookie != 0 && known == cookie && !emit::stale(place)).then_some(cookie)
}

/// Takes a socket of a thread in scope into scope, names it, and remembers that; its cookie.
#[inline(always)]
pub fn name_for(sk: impl Sock, thread: &Thread) -> Option<u64> {
    let state = socket(sk, thread.pid)?;
    // Before it is established it is named every time: its port is chosen, its numbers are known later. It may not have
    // been seen to be established.
    // SAFETY: a live storage value.
    let unproven = kernel::is_tcp(sk) && unsafe { (*state).proven } == proven::NO as u32;
    if opening(sk) || unproven || mptcp::unnamed(sk, state) {
        name_socket(sk, state, thread.time_ns);
    } else {
        named(sk, state, thread.time_ns);
    }
    // SAFETY: live values.
    unsafe {
        let cookie = (*state).cookie;
        if opening(sk) {
            return Some(cookie);
        }
        if let Some(entry) = NAMED.get_ptr_mut(named_index(cookie)) {
            (*entry).cookie = cookie;
            (*entry).place = (*state).named;
        }
        Some(cookie)
    }
}

/// Whether a handshake is under way, during which TCP Fast Open may already move bytes.
#[inline(always)]
fn opening(sk: impl Sock) -> bool {
    let now = field!(sk, common_state, u8);
    now == state::SYN_SENT || now == state::SYN_RECV
}

#[inline(always)]
fn named_index(cookie: u64) -> u32 {
    emit::processor() * NAMED_PER_CPU + (cookie as u32 & (NAMED_PER_CPU - 1))
}

/// Names a socket where its last name is gone or soon will be. Before its event, so that whoever reads in
/// order of time knows the name first.
#[inline(always)]
pub fn named(sk: impl Sock, state: *mut SocketState, time_ns: u64) {
    // SAFETY: a live storage value.
    if emit::stale(unsafe { (*state).named }) {
        name_socket(sk, state, time_ns);
    }
}

/// The same in a kernel lane, where a socket that is not connected yet is named every time: its local port
/// is chosen after `connect` was seen.
#[inline(always)]
pub fn named_in_lane(sk: impl Sock, state: *mut SocketState) {
    let time_ns = emit::now();
    // SAFETY: a live storage value.
    if unsafe { (*state).proven } == proven::NO as u32 {
        name_socket(sk, state, time_ns);
    } else {
        named(sk, state, time_ns);
    }
}

/// Writes a task's name into the `rare` ring; its place there.
#[inline(never)]
fn name_task(task: *mut task_struct, time_ns: u64) -> u64 {
    let pid = field!(task, task_tgid, u32);
    let tid = field!(task, task_pid, u32);
    let slot = emit::slot(kind::TASK, pid, tid, time_ns);
    emit::rare(&RareSlot { slot, detail: task_name(task) })
}

/// The detail of a record that names a task.
#[inline(always)]
pub fn task_name(task: *mut task_struct) -> [u64; 8] {
    let parent = field!(task, task_real_parent, Pointer);
    let mut name: TaskName = bytemuck::Zeroable::zeroed();
    name.start_ns = field!(task, task_start_time, u64);
    name.cgroup = kernel::cgroup_of(task.cast());
    name.parent = field!(parent, task_tgid, u32);
    name.pid = field!(task, task_tgid, u32);
    name.tid = field!(task, task_pid, u32);
    let mut detail: [u64; 8] = bytemuck::cast(name);
    let comm = field!(task, task_comm, [u64; 2]);
    detail[0] = comm[0];
    detail[1] = comm[1];
    detail
}

/// Writes a socket's name into the `rare` ring and remembers its place. What Unix sockets need besides is written
/// first, and beside the name's own frame: one upon the other they are more stack than older kernels grant.
#[inline(always)]
fn name_socket(sk: impl Sock, state: *mut SocketState, time_ns: u64) {
    let spoken = kernel::protocol(sk);
    if let Some(sk) = sk.typed().filter(|_| kernel::is_local(spoken)) {
        name_local(sk, state, time_ns);
    }
    write_name(sk, state, time_ns);
}

/// The part of a Unix socket's name that has no room in its record; its peer.
#[inline(never)]
fn name_local(sk: Pointer, state: *mut SocketState, time_ns: u64) {
    // SAFETY: a live storage value.
    let (owner, cookie) = unsafe { ((*state).owner, (*state).cookie) };
    let mut slot = emit::slot(kind::SOCKET, owner, 0, time_ns);
    slot.socket = cookie;
    local::write_names(sk, &slot);
    let peer = local::peer_cookie(sk, kernel::protocol(sk));
    // SAFETY: a live storage value.
    unsafe {
        ((*state).iss, (*state).irs) = (cookie as u32, peer);
        (*state).proven = if peer == 0 { proven::NO } else { proven::AT_ESTABLISHED } as u32;
    }
}

#[inline(never)]
fn write_name(sk: impl Sock, state: *mut SocketState, time_ns: u64) {
    // SAFETY: a live storage value.
    let (known, owner, cookie) =
        unsafe { ((*state).proven as u8, (*state).owner, (*state).cookie) };
    let tcp_state = field!(sk, common_state, u8);
    if known < proven::AT_ESTABLISHED
        && matches!(tcp_state, state::ESTABLISHED | state::CLOSE_WAIT | state::SYN_RECV)
    {
        match kernel::protocol(sk) {
            protocol::TCP => compute(sk, state),
            protocol::MPTCP => mptcp::compute(sk, state),
            _ => {}
        }
    }
    // (It is still in this state when it is noted to be established.)
    if known == proven::NO && kernel::is_tcp(sk) && tcp_state == state::SYN_SENT {
        asked(sk, state);
    }
    let net = sk.follow(offset!(common_net));
    let mut name: SocketName = bytemuck::Zeroable::zeroed();
    name.local_port = field!(sk, common_num, u16);
    name.remote_port = u16::from_be(field!(sk, common_dport, u16));
    name.netns = field!(net, net_inum, u32);
    if offset!(net_cookie) != ABSENT {
        name.netns_cookie = field!(net, net_cookie, u32);
    }
    name.owner = owner;
    name.family = field!(sk, common_family, u16);
    name.state = tcp_state;
    name.protocol = kernel::protocol(sk);
    let mut slot = emit::slot(kind::SOCKET, owner, 0, time_ns);
    slot.socket = cookie;
    // SAFETY: a live storage value.
    unsafe {
        name.iss = (*state).iss;
        name.irs = (*state).irs;
        name.proven = (*state).proven as u8;
    }
    let mut detail: [u64; 8] = bytemuck::cast(name);
    if !kernel::is_local(name.protocol) {
        let (local, remote) = (kernel::local_address(sk), kernel::remote_address(sk));
        [detail[0], detail[1]] = local;
        [detail[2], detail[3]] = remote;
    }
    // SAFETY: a live storage value.
    unsafe { (*state).named = emit::rare(&RareSlot { slot, detail }) };
}

/// The initial sequence numbers of a connection whose beginning was not seen.
#[inline(always)]
fn compute(sk: impl Sock, state: *mut SocketState) {
    let Some(initial) = Initial::of(sk) else { return };
    // SAFETY: a live storage value.
    unsafe {
        (*state).iss = initial.iss.unwrap_or(initial.acked);
        (*state).irs = initial.irs;
        let agreed = initial.iss.is_some();
        (*state).proven = if agreed { proven::AGREED } else { proven::COMPUTED } as u32;
    }
}

/// Takes this end's initial number, which is known before the other end's: its first bytes may go with the SYN.
#[inline(always)]
fn asked(sk: impl Sock, state: *mut SocketState) {
    if let Some(tcp) = sk.tcp() {
        // SAFETY: a live storage value.
        unsafe { (*state).iss = field!(tcp, tcp_snd_una, u32) };
    }
}

/// Takes the initial sequence numbers at the moment the connection is established, and names it again.
#[inline(always)]
pub fn established(sk: impl Sock, state: *mut SocketState, active: bool) {
    let Some(initial) = Initial::of(sk) else { return };
    // SAFETY: a live storage value.
    unsafe {
        (*state).iss = match initial.iss {
            Some(iss) => iss,
            None if active => initial.acked,
            None => initial.acked.wrapping_sub(1),
        };
        (*state).irs = initial.irs;
        (*state).proven = proven::AT_ESTABLISHED as u32;
    }
    name_socket(sk, state, emit::now());
    if config!(kprobes) != 0 {
        // SAFETY: a live storage value.
        let known = unsafe { state.read() };
        let _ = BY_COOKIE.insert(known.cookie, known, BPF_ANY.into());
    }
}

/// What a socket's counters say about where its two streams began.
struct Initial {
    /// Where two independent counts agree.
    iss: Option<u32>,
    /// `snd_una − bytes_acked`: our initial number, or one more. The count includes our SYN where it was the
    /// first one sent, also where both ends sent one.
    acked: u32,
    irs: u32,
}

impl Initial {
    #[inline(always)]
    fn of(sk: impl Sock) -> Option<Self> {
        // The stream that goes over it has its own numbers, or these, and is what bytes belong to.
        if mptcp::is_part(sk) {
            return None;
        }
        let tcp = sk.tcp()?;
        let acked =
            field!(tcp, tcp_snd_una, u32).wrapping_sub(field!(tcp, tcp_bytes_acked, u64) as u32);
        let sent = (field!(tcp, tcp_bytes_sent, u64) as u32).wrapping_sub(field!(
            tcp,
            tcp_bytes_retrans,
            u64
        ) as u32);
        // Never counts the SYN.
        let first = field!(tcp, tcp_snd_nxt, u32).wrapping_sub(sent);
        let agreed = first == acked || first == acked.wrapping_add(1);
        let irs = field!(tcp, tcp_rcv_nxt, u32)
            .wrapping_sub(field!(tcp, tcp_bytes_received, u64) as u32)
            .wrapping_sub(1);
        Some(Self { iss: agreed.then_some(first.wrapping_sub(1)), acked, irs })
    }
}
