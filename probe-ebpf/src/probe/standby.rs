//! Programs that stand by where another records calls, for kernels that preempt programs. While one is off its CPU the
//! kernel skips it for all other threads there; then the next at the hook, which otherwise does nothing, records the
//! call. That may be preempted and skipped as well, so there are several, in turn.

use aya_ebpf::helpers::generated::bpf_get_current_pid_tgid;
use probe_ebpf::event::kind;
use probe_ebpf::storage::seen::{self, STANDBYS};

use crate::kernel::{self, Pointer};
use crate::{emit, scope};

/// Whether the program whose turn it is records a call, since all before it were skipped; `what` is a kind.
#[inline(always)]
pub fn takes_call(what: u8, sk: Pointer, turn: u32) -> Option<()> {
    // Nearly always the first program has just begun on this CPU, for this thread. Where it was skipped it has begun for
    // another, which it is at work for. The last program looks at the thread's own word all the same.
    if turn < STANDBYS
        && begun_for(what).is_some_and(
            #[inline(always)]
            |begun| {
                // SAFETY: a live map value.
                let begun = unsafe { *begun };
                begun == current()
            },
        )
    {
        return None;
    }
    if kernel::protocol(sk) == 0 {
        return None;
    }
    takes_over(seen::CALL, turn)
}

/// Notes on its CPU for whose call the first program has begun.
#[inline(always)]
pub fn begins(what: u8) {
    if let Some(begun) = begun_for(what) {
        // SAFETY: a live map value.
        unsafe { *begun = current() };
    }
}

#[inline(always)]
fn begun_for(what: u8) -> Option<*mut u64> {
    let heads = emit::heads()?;
    // SAFETY: a live map value.
    unsafe {
        Some(if what == kind::SEND {
            &raw mut (*heads).begun_for[0]
        } else {
            &raw mut (*heads).begun_for[1]
        })
    }
}

#[inline(always)]
fn current() -> u64 {
    // SAFETY: a helper without arguments.
    unsafe { bpf_get_current_pid_tgid() }
}

/// The same of a connection that is accepted.
#[inline(always)]
pub fn takes_accept(sk: Pointer, turn: u32) -> Option<()> {
    if !kernel::is_tcp(sk) {
        return None;
    }
    takes_over(seen::ACCEPT, turn)
}

/// The same where a thread begins, changes or ends.
#[inline(always)]
pub fn takes_task(turn: u32) -> Option<()> {
    takes_over(seen::TASK, turn)
}

/// The same by the word of what `of` says, which is then left for those after it. Only for hooks at which threads act
/// themselves, never in an interrupt: until all programs there have run, the thread does nothing else of that kind.
#[inline(always)]
fn takes_over(of: u32, turn: u32) -> Option<()> {
    let own = (of & of.wrapping_neg()) << (turn - 1);
    // Those before it need not have looked at their words: the last takes all away, so that none is read at a later call.
    let state = scope::passed_over(own, if turn == STANDBYS { of } else { own })?;
    // SAFETY: a live storage value, which only the thread itself uses.
    unsafe { (*state).seen |= of & (of << turn) };
    emit::taken_over();
    Some(())
}

/// Makes the programs that stand by at one hook, each with its turn.
macro_rules! standing_by {
    (
        #[$kind:ident(function = $function:literal)]
        [$($program:ident $number:literal),*]
        |$ctx:ident: $context:ty, $turn:ident| $takes_over:expr => $record:expr
    ) => {
        $(#[$kind(function = $function)]
        pub fn $program($ctx: $context) -> Option<()> {
            let $turn: u32 = $number;
            $takes_over?;
            $record
        })*
    };
}
pub(crate) use standing_by;
