//! Calls on the kernel's maps that keep no kprobe's program from being run.
//!
//! While the kernel carries out such a call it skips the programs of all kprobes on that CPU. Where it preempts the caller
//! meanwhile, whoever runs there next comes by unseen, and a fault that was meant for them does not fire
//! (kernel/bpf/syscall.c: `bpf_disable_instrumentation`; kernel/trace/bpf_trace.c: `trace_call_bpf`).

use std::mem::MaybeUninit;

/// While this lives nobody but the kernel itself takes the CPU from this thread, unless it waits.
pub struct Unpreempted {
    /// The thread's policy before, if it could be changed: that wants `CAP_SYS_NICE`.
    before: Option<(libc::c_int, libc::sched_param)>,
}

impl Unpreempted {
    pub fn begin() -> Self {
        // Above all that shares the CPU by turns; among those that do not, what has more to say may go first.
        let first = libc::sched_param { sched_priority: 1 };
        Self { before: policy().filter(|_| set(libc::SCHED_FIFO, &first)) }
    }
}

impl Drop for Unpreempted {
    fn drop(&mut self) {
        if let Some((policy, parameters)) = &self.before {
            set(*policy, parameters);
        }
    }
}

/// The calling thread's.
fn policy() -> Option<(libc::c_int, libc::sched_param)> {
    let mut parameters = MaybeUninit::uninit();
    // SAFETY: the kernel fills in the parameters where it returns no error.
    unsafe {
        let policy = libc::sched_getscheduler(0);
        let told = libc::sched_getparam(0, parameters.as_mut_ptr());
        (policy >= 0 && told == 0).then(|| (policy, parameters.assume_init()))
    }
}

fn set(policy: libc::c_int, parameters: &libc::sched_param) -> bool {
    // SAFETY: the kernel reads the parameters, which live.
    unsafe { libc::sched_setscheduler(0, policy, parameters) == 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> libc::c_int {
        policy().expect("it is told").0
    }

    #[test]
    fn the_policy_is_what_it_was_before() {
        let before = now();
        let held = Unpreempted::begin();
        let expected = if held.before.is_some() { libc::SCHED_FIFO } else { before };
        assert_eq!(now(), expected);
        // One within another.
        drop(Unpreempted::begin());
        assert_eq!(now(), expected);
        drop(held);
        assert_eq!(now(), before);
    }
}
