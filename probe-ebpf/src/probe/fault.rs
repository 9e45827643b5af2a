//! Faults: which of them an event meets, and whether they fire. What is then done to the event is in one file
//! per mechanism.
//!
//! Rules and matchers stand in maps, so that nothing is compiled anew for a fault. A thread that no fault is for leaves at
//! the first test, which is a few loads.

mod call;
mod caller;
mod cgroup;
mod cut;
mod packet;
mod pause;
mod restart;
mod result;
mod signal;
mod silence;
mod size;
pub mod tell;

use core::ffi::c_void;
use core::ptr;

use aya_ebpf::bindings::{
    BPF_F_NO_PREALLOC, BPF_LOCAL_STORAGE_GET_F_CREATE, bpf_map_type, task_struct,
};
use aya_ebpf::btf_maps::Array;
use aya_ebpf::helpers::generated::{
    bpf_get_current_ancestor_cgroup_id, bpf_get_current_task_btf, bpf_loop, bpf_task_storage_get,
};
use aya_ebpf::macros::btf_map;
use probe_ebpf::fault::{
    self, FaultDetail, MATCHERS_MAX, Matcher, Progress, RULES_MAX, Rule, SUBJECT_WORDS, Sieve,
    Subject, action, flag, hook, pick, role,
};

use crate::emit;
use crate::kernel::{Pointer, field};
use crate::storage::LocalStorage;

#[btf_map]
static RULES: Array<Rule, { RULES_MAX as usize }> = Array::new();
/// Without holes: the first that is for no hook is the end.
#[btf_map]
static MATCHERS: Array<Matcher, { MATCHERS_MAX as usize }> = Array::new();
/// A section of its own, which is a map of its own whose memory is reached without a lookup.
#[unsafe(no_mangle)]
#[unsafe(link_section = ".bss.sieves")]
static mut SIEVES: fault::Sieves = [Sieve { names: 0, pids: 0 }; fault::SIEVES];
#[btf_map]
static PROGRESS: Array<Progress, { RULES_MAX as usize }> = Array::new();

#[btf_map]
static VICTIMS: LocalStorage<
    Victim,
    { bpf_map_type::BPF_MAP_TYPE_TASK_STORAGE as usize },
    { BPF_F_NO_PREALLOC as usize },
> = LocalStorage::new();

/// What is remembered about a thread that has met a fault, or that may.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Victim {
    /// In a process's first thread: of which rules `after` and `before` have been met there, a bit each.
    after: u32,
    before: u32,
    /// A call whose result is awaited: rule + 1, hook, socket, detail of its fault.
    pending: u32,
    hook: u32,
    socket: u64,
    detail: [u64; 8],
}

/// A rule that fires; `action` 0: none does. No `Option`, whose empty form the compiler leaves unset and the
/// verifier then sees read.
#[derive(Clone, Copy)]
pub struct Firing {
    pub index: u32,
    pub action: u32,
    pub value: i32,
    /// Rules that fired, this one or others, and that user space is told of, a bit each.
    pub told: u32,
}

const NOTHING: Firing = Firing { index: 0, action: 0, value: 0, told: 0 };

/// What is carried from one matcher, and then from one rule, to the next. On the stack: `bpf_loop` checks its
/// body once, where the verifier would walk through every round of a plain loop.
struct Walk {
    subject: Subject,
    hook: u32,
    /// Rules that the event leads to, by role: a bit each.
    targets: u32,
    after: u32,
    before: u32,
    from: u32,
    until: u32,
    /// Of which rules `after` and `before` have been met in the process.
    seen_after: u32,
    seen_before: u32,
    /// What the call was asked to send; negative where that is not known.
    asked: i32,
    firing: Firing,
}

impl Walk {
    #[inline(always)]
    fn new(hook: u32, subject: Subject) -> Self {
        Self {
            subject,
            hook,
            targets: 0,
            after: 0,
            before: 0,
            from: 0,
            until: 0,
            seen_after: 0,
            seen_before: 0,
            asked: -1,
            firing: NOTHING,
        }
    }

    /// Whether a fault is for this thread, by what is known of it without a look at its call.
    #[inline(always)]
    fn concerns(&mut self) -> bool {
        each(MATCHERS_MAX, strikes, self);
        self.targets != 0
    }

    /// Takes note of an event, and tells the fault that it meets, if one fires. `leader` is the first thread of the process.
    #[inline(always)]
    fn meet(&mut self, leader: *mut task_struct) -> Firing {
        self.meet_in(
            #[inline(always)]
            || victim(leader, false),
        );
        if self.after | self.before != 0 {
            let victim = victim(leader, true);
            if !victim.is_null() {
                // SAFETY: a live storage value. Two threads may race for a word, and each then sets its bits.
                unsafe {
                    (*victim).after |= self.after;
                    (*victim).before |= self.before;
                }
            }
        }
        self.firing
    }

    /// Lets the rules fire that the event leads to. What is known of the process is asked for when there are any; NULL
    /// for nothing.
    #[inline(always)]
    fn meet_in(&mut self, process: impl FnOnce() -> *mut Victim) -> Firing {
        self.targets = 0;
        each(MATCHERS_MAX, matched, self);
        if self.targets != 0 {
            let process = process();
            if !process.is_null() {
                // SAFETY: a live value of a map.
                (self.seen_after, self.seen_before) =
                    unsafe { ((*process).after, (*process).before) };
            }
            each(RULES_MAX, fires, self);
        }
        if self.from | self.until != 0 {
            each(RULES_MAX, latched, self);
        }
        self.firing
    }
}

/// Whether a fault at this hook could be for the current thread: what every process comes by that makes such a call.
#[inline(always)]
fn sifted(hook: u32) -> Option<()> {
    // SAFETY: a hook's own place, which user space may be writing, and a helper without arguments.
    let (sieve, task) = unsafe {
        let sieve = (&raw const SIEVES).cast::<Sieve>().add(hook as usize);
        (sieve.read_volatile(), bpf_get_current_task_btf())
    };
    // (The kernel fills the name up with zeros.)
    let (comm, pid) = (field!(task, task_comm, [u64; 2]), field!(task, task_tgid, u32));
    (!sieve.holds_back(comm, pid)).then_some(())
}

/// What is known of a thread without a look at its call.
#[inline(always)]
fn who(task: *mut task_struct) -> Subject {
    Subject {
        comm: field!(task, task_comm, [u64; 2]),
        pid: field!(task, task_tgid, u32),
        tid: field!(task, task_pid, u32),
        ..bytemuck::Zeroable::zeroed()
    }
}

/// The body of a loop: 0 goes on, 1 ends it.
type Body = unsafe extern "C" fn(u32, *mut Walk) -> i64;

#[inline(always)]
fn each(rounds: u32, body: Body, walk: &mut Walk) {
    // SAFETY: the body gets this very walk, which outlives the call.
    unsafe { bpf_loop(rounds, body as *mut c_void, ptr::from_mut(walk).cast(), 0) };
}

/// Ends the walk at the first matcher of this hook whose process is this one, by the words that say who.
unsafe extern "C" fn strikes(index: u32, walk: *mut Walk) -> i64 {
    let Some(matcher) = MATCHERS.get_ptr_mut(index) else { return 1 };
    // SAFETY: a live map value, and the walk of the caller.
    unsafe {
        let hooks = (*matcher).hooks;
        if hooks == 0 {
            return 1;
        }
        if hooks >> ((*walk).hook & 63) & 1 == 0 {
            return 0;
        }
        let subject = &raw const (*walk).subject;
        let different = differs(matcher, subject, 0)
            | differs(matcher, subject, 1)
            | differs(matcher, subject, SUBJECT_WORDS - 1);
        if different != 0 || !in_cgroup(matcher) {
            return 0;
        }
        (*walk).targets = 1;
    }
    1
}

/// Lets rules fire that something else than a matcher leads to, a bit each.
#[inline(always)]
fn strike(targets: u32) -> Firing {
    let mut walk = Walk::new(hook::PACKET, bytemuck::Zeroable::zeroed());
    walk.targets = targets;
    each(RULES_MAX, strikes_packet, &mut walk);
    walk.firing
}

/// A rule that has fired before goes on to lose packets, which are not counted; others fire.
unsafe extern "C" fn strikes_packet(index: u32, walk: *mut Walk) -> i64 {
    let Some(rule) = RULES.get_ptr_mut(index) else { return 1 };
    let Some(progress) = PROGRESS.get_ptr_mut(index) else { return 1 };
    // SAFETY: live map values, and the walk of the caller.
    unsafe {
        let action = (*rule).action;
        if !matches!(action, action::HOLE | action::CRASH) {
            return fires(index, walk);
        }
        let meant = (*walk).targets >> (index & 31) & 1 != 0 && (*walk).firing.action == 0;
        if meant && (*progress).over == 0 && emit::now() < (*rule).until_ns {
            (*walk).firing = Firing { index, action, ..NOTHING };
        }
    }
    0
}

/// Takes note of one matcher, if it holds.
unsafe extern "C" fn matched(index: u32, walk: *mut Walk) -> i64 {
    let Some(matcher) = MATCHERS.get_ptr_mut(index) else { return 1 };
    // SAFETY: a live map value, and the walk of the caller.
    unsafe {
        let (hooks, rule) = ((*matcher).hooks, (*matcher).rule);
        if hooks == 0 {
            return 1;
        }
        if hooks >> ((*walk).hook & 63) & 1 == 0
            || !holds(matcher, &raw const (*walk).subject)
            || !in_cgroup(matcher)
        {
            return 0;
        }
        let bit = 1 << (rule & (RULES_MAX - 1));
        match (*matcher).role {
            role::TARGET => (*walk).targets |= bit,
            role::AFTER => (*walk).after |= bit,
            role::BEFORE => (*walk).before |= bit,
            role::FROM => (*walk).from |= bit,
            _ => (*walk).until |= bit,
        }
    }
    0
}

/// Whether no masked bit of the subject differs.
#[inline(always)]
pub fn holds(matcher: *mut Matcher, subject: *const Subject) -> bool {
    let mut different = 0;
    let mut i = 0;
    while i < SUBJECT_WORDS {
        // SAFETY: the caller's.
        different |= unsafe { differs(matcher, subject, i) };
        i += 1;
    }
    different == 0
}

/// The masked bits of one word in which the subject is another. `word` is below [`SUBJECT_WORDS`].
#[inline(always)]
unsafe fn differs(matcher: *mut Matcher, subject: *const Subject, word: usize) -> u64 {
    // SAFETY: a live map value and a live subject; all have that many words.
    unsafe {
        let value = (&raw const (*matcher).value).cast::<u64>().add(word);
        let mask = (&raw const (*matcher).mask).cast::<u64>().add(word);
        let own = subject.cast::<u64>().add(word);
        (ptr::read_volatile(value) ^ ptr::read_volatile(own)) & ptr::read_volatile(mask)
    }
}

#[inline(always)]
pub fn in_cgroup(matcher: *mut Matcher) -> bool {
    // SAFETY: a live map value, and a helper that takes a number.
    unsafe {
        let level = (*matcher).cgroup_level;
        level == 0 || bpf_get_current_ancestor_cgroup_id(level as i32 - 1) == (*matcher).cgroup
    }
}

/// Counts the match of one rule, and lets it fire.
unsafe extern "C" fn fires(index: u32, walk: *mut Walk) -> i64 {
    let Some(rule) = RULES.get_ptr_mut(index) else { return 1 };
    let Some(progress) = PROGRESS.get_ptr_mut(index) else { return 1 };
    // SAFETY: live map values, and the walk of the caller; nobody writes the rule while it is armed.
    unsafe {
        if (*walk).targets >> (index & 31) & 1 == 0 || !armed(rule, progress, index, walk) {
            return 0;
        }
        let count = emit::count(&raw mut (*progress).matched) + 1;
        let number = (*rule).number;
        let picked = match (*rule).pick {
            pick::NTH => count == number,
            // Without a test for zero there would be a panic, and no program.
            pick::EVERY => number != 0 && count.is_multiple_of(number),
            pick::CHANCE => chance((*rule).seed, count) < number,
            _ => true,
        };
        // One event, one fault: what another would do to it is not done.
        let hindered = (*rule).action != action::TELL && (*walk).firing.action != 0;
        if picked && (*rule).action == action::SWALLOW && (*walk).asked < 0 {
            emit::count(&raw mut (*progress).unfit);
            return 0;
        }
        if !picked || hindered || emit::count(&raw mut (*progress).picked) >= (*rule).limit {
            return 0;
        }
        emit::count(&raw mut (*progress).fired);
        if (*rule).flags & flag::TOLD != 0 {
            (*walk).firing.told |= 1 << (index & 31);
        }
        if (*rule).action != action::TELL {
            let told = (*walk).firing.told;
            (*walk).firing = Firing { index, action: (*rule).action, value: (*rule).value, told };
        }
    }
    0
}

/// Whether a rule is open, not over, in its time, and at home in this process.
#[inline(always)]
unsafe fn armed(rule: *mut Rule, progress: *mut Progress, index: u32, walk: *mut Walk) -> bool {
    let now_ns = emit::now();
    // SAFETY: the caller's.
    unsafe {
        let closed = (*progress).open == 0 || (*progress).over != 0;
        let unseen = (*rule).needs_after != 0 && (*walk).seen_after >> (index & 31) & 1 == 0;
        let outside = now_ns < (*rule).from_ns || now_ns >= (*rule).until_ns;
        !(closed || unseen || outside) && (*walk).seen_before >> (index & 31) & 1 == 0
    }
}

/// A number of 32 bits that depends on seed and count alone (splitmix64).
#[inline(always)]
fn chance(seed: u64, count: u64) -> u64 {
    let mut z = seed.wrapping_add(count.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    (z ^ z >> 31) >> 32
}

/// Opens and ends one rule for all.
unsafe extern "C" fn latched(index: u32, walk: *mut Walk) -> i64 {
    let Some(progress) = PROGRESS.get_ptr_mut(index) else { return 1 };
    // SAFETY: a live map value, whose words are only ever set, and the walk of the caller.
    unsafe {
        if (*walk).from >> (index & 31) & 1 != 0 {
            (*progress).open = 1;
        }
        if (*walk).until >> (index & 31) & 1 != 0 && (*progress).open != 0 {
            (*progress).over = 1;
        }
    }
    0
}

/// What is remembered about a thread, and about a process by its first one; NULL for nothing.
#[inline(always)]
fn victim(task: *mut task_struct, create: bool) -> *mut Victim {
    let flags = if create { BPF_LOCAL_STORAGE_GET_F_CREATE as u64 } else { 0 };
    // SAFETY: the verifier checks map and task.
    unsafe { bpf_task_storage_get(VICTIMS.as_map(), task, ptr::null_mut(), flags) }.cast()
}

/// The first thread of a task's process.
#[inline(always)]
fn leader(task: *mut task_struct) -> *mut task_struct {
    field!(task, task_group_leader, Pointer).cast()
}

/// What the event of a fault says besides.
#[inline(always)]
fn detail(firing: &Firing, hook: u32, subject: &Subject) -> [u64; 8] {
    let named = FaultDetail {
        local_port: subject.local_port,
        remote_port: subject.remote_port,
        rule: firing.index,
        action: firing.action,
        hook,
        protocol: subject.protocol.into(),
        ..bytemuck::Zeroable::zeroed()
    };
    let mut detail: [u64; 8] = bytemuck::cast(named);
    detail[0] = subject.local[0];
    detail[1] = subject.local[1];
    detail[2] = subject.remote[0];
    detail[3] = subject.remote[1];
    detail
}
