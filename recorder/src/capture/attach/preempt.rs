//! Where the kernel may take a program off its CPU for another thread. While it is off, the kernel skips the same
//! program for all others there: so others stand by, each of which records what those before it could not.

use std::fs;
use std::sync::LazyLock;

use probe_ebpf::storage::seen::STANDBYS;

use super::family::{Hook, STATES, Site};
use super::{Attached, Role};
use crate::capture::procfs;

/// The first kernel that leaves preemption on at tracepoints.
const AT_TRACEPOINTS: u32 = 7;

/// Whether this kernel may preempt a hook's programs. Where that cannot be told, it may.
pub fn possible(site: Site) -> bool {
    // Every hook asks.
    static PREEMPTS: LazyLock<bool> = LazyLock::new(|| {
        let chosen = fs::read_to_string("/sys/kernel/debug/sched/preempt").ok();
        preempts(&procfs::kernel_version(), chosen.as_deref())
    });
    let kernel = match site {
        Site::Fentry | Site::Fexit => true,
        Site::Tracepoint => major(&procfs::kernel_release()) >= AT_TRACEPOINTS,
        _ => false,
    };
    kernel && *PREEMPTS
}

/// How many programs stand by at a hook, if it has so many.
///
/// Interrupts come where preemption does not, and what they leave to do is done at their end: packets change the states of
/// other sockets while a thread's program records a change of its own. What is in the way of it is not interrupted again.
pub fn standbys(hook: &Hook) -> u32 {
    if possible(hook.site) { STANDBYS } else { u32::from(hook.target == STATES) }
}

fn major(release: &str) -> u32 {
    release.split('.').next().and_then(|number| number.parse().ok()).unwrap_or(u32::MAX)
}

/// From what the kernel was built for (`uname -v`), and what was chosen of several models, in parentheses.
fn preempts(version: &str, chosen: Option<&str>) -> bool {
    let built = version.split_whitespace().any(|word| word.starts_with("PREEMPT"));
    let chosen = chosen.unwrap_or_default();
    built && !chosen.contains("(none)") && !chosen.contains("(voluntary)")
}

/// At most so many calls were not recorded because a program was skipped; told by the process that has them open.
///
/// Where others stand by, a call is lost only if the hook's first and last were both skipped, and nobody took over. Each is
/// an upper bound, since calls out of scope are skipped as well, and so are programs that have nothing to do.
pub fn lost(hooks: &[Attached], taken_over: u64, owner: u32) -> u64 {
    let last = |name: &str| hooks.iter().find(|hook| hook.role == Role::Last && hook.name == name);
    let (mut alone, mut skipped, mut by_both) = (0, 0, 0);
    for hook in hooks.iter().filter(|hook| hook.role == Role::Events) {
        let missed = hook.missed(owner);
        match last(&hook.name) {
            None => alone += missed,
            Some(last) => {
                skipped += missed;
                by_both += missed.min(last.missed(owner));
            }
        }
    }
    alone + by_both.min(skipped.saturating_sub(taken_over))
}

/// How often each hook's own program was skipped, whoever recorded it then.
pub fn skipped(hooks: &[Attached], owner: u32) -> impl Iterator<Item = (&str, u64)> {
    let own = hooks.iter().filter(|hook| hook.role == Role::Events);
    own.map(move |hook| (hook.name.as_str(), hook.missed(owner)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_model_is_told_from_what_the_kernel_says() {
        let dynamic = "#1 SMP PREEMPT_DYNAMIC Sat Nov 28 2026";
        assert!(preempts(dynamic, Some("none voluntary full (lazy)\n")));
        assert!(preempts(dynamic, Some("none voluntary (full) lazy\n")));
        assert!(!preempts(dynamic, Some("(none) voluntary full\n")));
        assert!(!preempts(dynamic, Some("none (voluntary) full\n")));
        assert!(preempts(dynamic, None), "debugfs may not be mounted");
        assert!(preempts("#1 SMP PREEMPT Sat Nov 28 2026", None));
        assert!(!preempts("#1 SMP Debian 6.1.192-1 (2026-11-20)", None));
    }

    #[test]
    fn a_release_has_a_number() {
        assert_eq!([major("7.2.13-bpfvm"), major("6.18.44-fc-v669"), major("?")], [7, 6, u32::MAX]);
    }
}
