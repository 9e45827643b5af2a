//! System calls that are not made and return what a fault says: one program at the entry of every function that
//! an armed fault is about.
//!
//! What costs least is tested first, since every process that makes such a call comes by: whether a fault could be for the
//! thread, whether it is in scope, and only then what its call is about.

use aya_ebpf::bindings::task_struct;
use aya_ebpf::btf_maps::Array;
use aya_ebpf::helpers::generated::bpf_override_return;
use aya_ebpf::macros::{btf_map, kprobe};
use aya_ebpf::programs::ProbeContext;
use probe_ebpf::event::{RareSlot, kind};
use probe_ebpf::fault::{
    DESCRIPTOR, NUMBERS_MAX, PROOF_ARGUMENT, PROOF_RESULT, Subject, action, hook,
};

use super::{Walk, detail, leader, result, sifted, size, victim, who};
use crate::kernel::{self, Structure, Untyped, field, offset};
use crate::remembered::Sock;
use crate::{emit, file, fire, scope};

/// By the number of a system call, the hook that it is, perhaps with [`DESCRIPTOR`]; 0: none.
#[btf_map]
static CALLS: Array<u32, { NUMBERS_MAX as usize }> = Array::new();

#[kprobe]
pub fn override_call(ctx: ProbeContext) -> Option<()> {
    sifted(hook::CALL)?;
    // The function's only argument is where the call's own registers lie.
    let registers = Untyped(ctx.arg(0)?);
    let Some(task) = scope::current_task() else { return prove(&ctx, registers) };
    let call = CALLS.get_ptr_mut(registers.load(offset!(regs_number)))?;
    // SAFETY: a live map value.
    let call = unsafe { call.read_volatile() };
    let hook = call & (DESCRIPTOR - 1);
    let mut walk = Walk::new(hook, who(task));
    if hook == 0 || !walk.concerns() {
        return None;
    }
    let cookie = match call & DESCRIPTOR {
        0 => 0,
        _ => describe(&mut walk.subject, task, registers.load(offset!(regs_first))),
    };
    walk.asked = size::asked(call, registers);
    let firing = walk.meet(leader(task));
    let value = match firing.action {
        action::OVERRIDE => firing.value,
        action::SWALLOW => walk.asked,
        _ => return None,
    };
    let thread = scope::current()?;
    let mut slot = thread.slot(kind::FAULT);
    slot.socket = cookie;
    slot.result = value;
    slot.argument = firing.index;
    let detail = detail(&firing, hook, &walk.subject);
    result::await_call(victim(task, true), &firing, hook, cookie, &detail);
    emit::rare(&RareSlot { slot, detail });
    // SAFETY: a helper that takes the program's context and a number.
    unsafe { bpf_override_return(ctx.regs.cast(), value as i64 as u64) };
    None
}

/// Shows the recorder, by a call of its own that means nothing, that this program has an effect.
#[inline(always)]
fn prove(ctx: &ProbeContext, registers: Untyped) -> Option<()> {
    if fire::own() && registers.load::<u32>(offset!(regs_first)) == PROOF_ARGUMENT {
        // SAFETY: a helper that takes the program's context and a number.
        unsafe { bpf_override_return(ctx.regs.cast(), PROOF_RESULT as i64 as u64) };
    }
    None
}

/// Fills in what a call on a descriptor is about; the socket's cookie, 0 where it has none or is no socket.
#[inline(always)]
fn describe(subject: &mut Subject, task: *mut task_struct, fd: u32) -> u64 {
    let Some(sk) = file::of(task, fd).and_then(file::socket) else { return 0 };
    let protocol = kernel::protocol(sk);
    if protocol == 0 {
        return 0;
    }
    (subject.protocol, subject.socket) = (protocol as u16, 1);
    if !kernel::is_local(protocol) {
        subject.local = kernel::local_address(sk);
        subject.remote = kernel::remote_address(sk);
        subject.local_port = field!(sk, common_num, u16);
        subject.remote_port = u16::from_be(field!(sk, common_dport, u16));
    }
    sk.cookie()
}
