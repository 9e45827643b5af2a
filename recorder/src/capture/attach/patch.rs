//! Calls that are put into the probes before they are loaded: of functions that only some kernels have, and that
//! the loader of the probes does not know how to link.

use probe_ebpf::config::patch::{PREEMPT_DISABLE, PREEMPT_ENABLE};

use super::family::Family;
use crate::capture::procfs;

/// The numbers that the kernel's types give its functions `bpf_preempt_disable` and `bpf_preempt_enable` (Linux 6.10).
pub type Preemption = [u32; 2];

/// A `call`, and that of a function of the kernel's.
const CALL: u8 = 0x85;
const CALL_KERNEL: u8 = 0x20;
/// A jump to the next instruction.
const NOTHING: [u8; 8] = [0x05, 0, 0, 0, 0, 0, 0, 0];

/// The probes with each mark replaced: by a call where this kernel needs it and has the function, else by nothing.
pub fn linked(object: &[u8], functions: Option<Preemption>, family: Family) -> Vec<u8> {
    let functions = functions.filter(|_| preemptible(family) && compiled());
    let mut object = object.to_vec();
    for (index, mark) in [PREEMPT_DISABLE, PREEMPT_ENABLE].into_iter().enumerate() {
        let call = functions.map_or(NOTHING, |ids| call(CALL_KERNEL, ids[index]));
        replace(&mut object, call_of(mark), call);
    }
    object
}

/// Whether a program can be preempted: those of trampolines can, those of tracepoints since Linux 7.0.
fn preemptible(family: Family) -> bool {
    match family {
        Family::Tracepoint => major() >= 7,
        Family::Trampoline => true,
        Family::Kprobe => false,
    }
}

/// The first number of the kernel's version.
fn major() -> u32 {
    let release = procfs::kernel_release();
    release.split('.').next().and_then(|number| number.parse().ok()).unwrap_or(0)
}

/// Whether programs are compiled: others cannot call the kernel's functions.
fn compiled() -> bool {
    let switch = std::fs::read_to_string("/proc/sys/net/core/bpf_jit_enable");
    !switch.is_ok_and(|text| text.trim() == "0")
}

const fn call_of(mark: usize) -> [u8; 8] {
    call(0, mark as u32)
}

/// A call by number; `kind` tells whose.
const fn call(kind: u8, number: u32) -> [u8; 8] {
    let [a, b, c, d] = number.to_le_bytes();
    [CALL, kind, 0, 0, a, b, c, d]
}

fn replace(object: &mut [u8], old: [u8; 8], new: [u8; 8]) {
    let (instructions, _) = object.as_chunks_mut::<8>();
    for instruction in instructions.iter_mut().filter(|instruction| **instruction == old) {
        *instruction = new;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_replaced_and_nothing_else() {
        let other = call(0, 5);
        let code = |disable, enable| [other, disable, other, enable, other].concat();
        let object = code(call_of(PREEMPT_DISABLE), call_of(PREEMPT_ENABLE));
        assert_eq!(linked(&object, Some([7, 8]), Family::Kprobe), code(NOTHING, NOTHING));
        assert_eq!(linked(&object, None, Family::Trampoline), code(NOTHING, NOTHING));
        if compiled() {
            let called = code(call(CALL_KERNEL, 7), call(CALL_KERNEL, 8));
            assert_eq!(linked(&object, Some([7, 8]), Family::Trampoline), called);
        }
    }

    #[test]
    fn the_probes_have_marks_where_instructions_lie() {
        let object = super::super::PROBE;
        assert_ne!(linked(object, None, Family::Kprobe), object);
        let (instructions, _) = object.as_chunks::<8>();
        let count = |mark| instructions.iter().filter(|i| **i == call_of(mark)).count();
        assert!(count(PREEMPT_DISABLE) > 0 && count(PREEMPT_ENABLE) >= count(PREEMPT_DISABLE));
    }
}
