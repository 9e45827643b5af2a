//! What is tested before the matchers: for whom those of a hook could be, by name or number.

use probe_ebpf::fault::{Matcher, SIEVES, Sieve, Sieves, hook};

/// One for each hook, and the last for all calls.
pub fn sieves(matchers: &[Matcher]) -> Sieves {
    let mut sieves = [Sieve::default(); SIEVES];
    for matcher in matchers {
        let through = through(matcher);
        for hook in (0..u64::BITS).filter(|hook| matcher.hooks >> hook & 1 != 0) {
            let sieve = &mut sieves[hook.min(hook::CALL) as usize];
            sieve.names |= through.names;
            sieve.pids |= through.pids;
        }
    }
    sieves
}

/// Whom one matcher lets through.
fn through(Matcher { value, mask, .. }: &Matcher) -> Sieve {
    let whole = {
        let (name, tested): ([u8; 16], [u8; 16]) =
            (bytemuck::cast(value.comm), bytemuck::cast(mask.comm));
        // Its end is tested as well.
        name.into_iter().zip(tested).any(|(byte, tested)| byte == 0 && tested != 0)
    };
    if whole {
        Sieve { names: Sieve::of_name(value.comm), pids: 0 }
    } else if mask.pid == u32::MAX {
        Sieve { names: 0, pids: Sieve::of_pid(value.pid) }
    } else {
        Sieve::ALL
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::plan::watch;
    use crate::pattern::Pattern;
    use probe_ebpf::fault::role;

    /// The sieve for receives of a fault with this pattern.
    fn sieve(pattern: &str) -> Sieve {
        let pattern: Pattern = pattern.parse().unwrap();
        let sketches = watch(&pattern, role::TARGET).unwrap();
        let matchers: Vec<Matcher> = sketches.iter().map(|sketch| sketch.matcher).collect();
        sieves(&matchers)[hook::RECEIVED as usize]
    }

    fn name(text: &str) -> [u64; 2] {
        let mut bytes = [0; 16];
        bytes[..text.len()].copy_from_slice(text.as_bytes());
        bytemuck::cast(bytes)
    }

    #[test]
    fn whom_a_fault_is_for_is_let_through_whatever_their_name() {
        for victim in ["a", "seven77", "eight888", "nine99999", "fifteen15151515"] {
            let sieve = sieve(&format!("comm={victim} op=recv"));
            assert!(!sieve.holds_back(name(victim), 1), "{victim}");
            let others = (0..64).map(|i| name(&format!("other{i}")));
            let held_back = others.filter(|other| sieve.holds_back(*other, 1)).count();
            assert!(held_back > 48, "{victim}: {held_back} of 64");
        }
        let several = sieve("comm=a,b op=recv peer=:80,:81");
        assert!(["a", "b"].iter().all(|victim| !several.holds_back(name(victim), 1)));
    }

    #[test]
    fn a_process_is_let_through_by_its_number_under_any_name() {
        let sieve = sieve("pid=4711 op=recv");
        assert!(!sieve.holds_back(name("whoever"), 4711));
        assert!((1..=64).filter(|pid| sieve.holds_back(name("whoever"), *pid)).count() > 48);
    }

    #[test]
    fn what_it_cannot_tell_apart_lets_everybody_through() {
        for pattern in ["op=recv", "comm=red* op=recv", "tid=4711 op=recv", "op=recv peer=:80"] {
            assert_eq!(sieve(pattern), Sieve::ALL, "{pattern}");
        }
        // Where one fault is for anybody, all have to be looked at.
        assert_eq!(sieve("comm=a,red* op=recv").names, u64::MAX);
    }

    #[test]
    fn each_hook_has_its_own_and_all_calls_have_one() {
        let of = |hooks: u64| sieves(&[Matcher { hooks, ..bytemuck::Zeroable::zeroed() }]);
        let open = |hooks| {
            let open = |(place, sieve): (usize, &Sieve)| (*sieve == Sieve::ALL).then_some(place);
            of(hooks).iter().enumerate().filter_map(open).collect::<Vec<_>>()
        };
        assert_eq!(open(1 << hook::SENT | 1 << hook::CLOSING), [3, 7]);
        assert_eq!(open(1 << hook::CALL), [hook::CALL as usize]);
        assert_eq!(open(1 << (hook::CALL + hook::CALLS_MAX - 1)), [hook::CALL as usize]);
        assert_eq!(of(0), [Sieve::default(); SIEVES]);
    }
}
