//! Calls in which a thread waits, or that are about sockets and pipes: detail `syscall`. Which calls these are stands
//! in a table by number; attached only while they are asked for, since these hooks cost every call of every process.
//!
//! What a call is about is noted where it begins, since its descriptor may be another's when it ends. A call that
//! raised an event of its own is not told a second time.

use aya_ebpf::bindings::task_struct;
use aya_ebpf::btf_maps::Array;
use aya_ebpf::helpers::generated::bpf_probe_read_user;
use aya_ebpf::macros::{btf_map, btf_tracepoint};
use aya_ebpf::programs::BtfTracePointContext;
use probe_ebpf::config::ABSENT;
use probe_ebpf::event::{NO_DESCRIPTOR, kind, protocol};
use probe_ebpf::fault::NUMBERS_MAX;
use probe_ebpf::storage::Call;
use probe_ebpf::syscall::{DESCRIPTOR, ENDED, SLEPT, STREAM, WAIT_ID, WAIT_STATUS};

use crate::file::{self, Kind};
use crate::kernel::{self, Pointer, argument, field, offset};
use crate::remembered::Sock;
use crate::{emit, scope};

/// By the number of a system call: bits of [`probe_ebpf::syscall`], and the number of this stretch of detail; 0: not
/// told.
#[btf_map]
static TOLD_CALLS: Array<u32, { NUMBERS_MAX as usize }> = Array::new();

#[btf_tracepoint(function = "sys_enter")]
pub fn syscall_begun(ctx: BtfTracePointContext) -> Option<()> {
    let number: u32 = ctx.arg(1);
    let how = told(number)?;
    let (task, state) = scope::current_state()?;
    if of_another_table(task) {
        return None;
    }
    let registers: Pointer = ctx.arg(0);
    let mut call = Call { how, number, fd: NO_DESCRIPTOR, ..bytemuck::Zeroable::zeroed() };
    if how & DESCRIPTOR != 0 {
        call.fd = field!(registers, regs_first, u32);
        let kind = describe(&mut call, task);
        if how & STREAM != 0 && kind == Kind::Other {
            return None;
        }
    }
    if how & WAIT_STATUS != 0 {
        call.report = field!(registers, regs_second, u64);
    } else if how & WAIT_ID != 0 {
        call.report = field!(registers, regs_third, u64);
    }
    call.switches = field!(task, task_nvcsw, u64);
    call.begun_ns = emit::now();
    // SAFETY: a live storage value, which only the thread itself uses.
    unsafe {
        call.count = (*state).count;
        (*state).call = call;
    }
    None
}

#[btf_tracepoint(function = "sys_exit")]
pub fn syscall_ended(ctx: BtfTracePointContext) -> Option<()> {
    let registers: Pointer = ctx.arg(0);
    let number = field!(registers, regs_number, u32);
    let how = told(number)?;
    let (task, state) = scope::current_state()?;
    // SAFETY: a live storage value, which only the thread itself uses.
    let (call, count) = unsafe {
        let call = (*state).call;
        (*state).call.begun_ns = 0;
        (call, (*state).count)
    };
    let seen = call.begun_ns != 0 && (call.number, call.how) == (number, how);
    if !seen || call.count != count {
        return None;
    }
    if how & SLEPT != 0 && call.switches == field!(task, task_nvcsw, u64) {
        return None;
    }
    let thread = scope::current()?;
    let result: i32 = ctx.arg(1);
    let mut slot = thread.slot(kind::SYSCALL);
    slot.count = call.begun_ns;
    slot.socket = call.socket;
    slot.sequence = call.fd;
    slot.result = result;
    slot.argument = number;
    slot.aux[1] = call.protocol as u8;
    slot.code = ended_child(task, &call, result) as i32;
    emit::bulk(&slot);
    None
}

/// How the calls of a number are told, if they are.
#[inline(always)]
fn told(number: u32) -> Option<u32> {
    let how = TOLD_CALLS.get_ptr_mut(number)?;
    // SAFETY: a live map value, which the loader may write.
    let how = unsafe { how.read_volatile() };
    (how != 0).then_some(how)
}

/// Whether a thread's calls have the numbers of another table: those of 32-bit programs.
#[inline(always)]
fn of_another_table(task: *mut task_struct) -> bool {
    offset!(task_compat) != ABSENT && field!(task, task_compat, u32) & argument!(compat_mask) != 0
}

/// Fills in what is behind a call's descriptor.
#[inline(always)]
fn describe(call: &mut Call, task: *mut task_struct) -> Kind {
    let Some(file) = file::of(task, call.fd) else { return Kind::Other };
    let kind = file::kind(file);
    if kind == Kind::Pipe {
        call.protocol = protocol::PIPE as u32;
    }
    if kind == Kind::Socket
        && let Some(sk) = file::socket_of(file)
    {
        call.protocol = kernel::protocol(sk) as u32;
        // (Of MPTCP's sockets the cookie does not tell which it is.)
        if !matches!(call.protocol as u8, 0 | protocol::MPTCP) {
            call.socket = sk.cookie();
        }
    }
    kind
}

/// The process whose end a call has told, as the call's own report has it; 0 if it told none. The caller's numbers
/// must be those of the machine: in a namespace of its own they name others.
#[inline(always)]
fn ended_child(task: *mut task_struct, call: &Call, result: i32) -> u32 {
    if call.how & (WAIT_STATUS | WAIT_ID) == 0 || call.report == 0 || result < 0 {
        return 0;
    }
    let own: Pointer = field!(task, task_thread_pid, Pointer);
    if field!(own, pid_level, u32) != 0 {
        return 0;
    }
    if call.how & WAIT_STATUS != 0 {
        // Its low byte is 0 of one that has exited, a signal's number of one that died, 0x7f or 0xff of others.
        let Some([status]) = report::<1>(call) else { return 0 };
        let ended = result > 0 && status & 0x7f != 0x7f;
        return if ended { result as u32 } else { 0 };
    }
    // si_signo, si_errno, si_code, and from the fifth word on si_pid.
    let Some([_, _, code, _, pid]) = report::<5>(call) else { return 0 };
    if ENDED.contains(&code) { pid } else { 0 }
}

/// What the kernel has written for the program about a child.
#[inline(always)]
fn report<const WORDS: usize>(call: &Call) -> Option<[u32; WORDS]> {
    let mut words = [0u32; WORDS];
    // SAFETY: the helper copes with any address; it writes as much as there is room for.
    let read = unsafe {
        let size = (WORDS * 4) as u32;
        bpf_probe_read_user(words.as_mut_ptr().cast(), size, call.report as *const _)
    };
    (read == 0).then_some(words)
}
