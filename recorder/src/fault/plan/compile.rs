//! From a fault to what the kernel half tests: one rule, and a matcher for each way an event can match.

use std::net::IpAddr;

use bytemuck::Zeroable;
use probe_ebpf::event::protocol;
use probe_ebpf::fault::{
    CUTS_MAX, Cut, MATCHERS_MAX, Matcher, RULES_MAX, Rule, Subject, action, flag, pick, role,
};

use super::cut::CutSketch;
use super::{Choice, Offer, cut, hole, ops, packet, signal};
use crate::event::Protocol;
use crate::fault::spec::{Fault, Latch, Nature, Pick, When};
use crate::pattern::{AddressTest, Glob, Key, Lane, Pattern, Relation, Test, Value};

/// What is written into the kernel half's maps.
#[derive(Clone, Debug, Default)]
pub struct Compiled {
    pub rules: Vec<Rule>,
    /// Per rule: whether it is open from the beginning.
    pub open: Vec<bool>,
    pub matchers: Vec<Matcher>,
    pub cuts: Vec<Cut>,
}

/// A matcher whose cgroup is still a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sketch {
    pub matcher: Matcher,
    pub cgroup: Option<String>,
}

/// Compiles what was planned. `now_ns` is the monotonic clock; `cgroup` gives a path's identifier and depth.
///
/// # Errors
/// When there is more than the maps hold, or no such cgroup.
pub fn compile(
    choices: &[Choice<'_>],
    seed: u64,
    now_ns: u64,
    cgroup: &dyn Fn(&str) -> Option<(u64, u32)>,
) -> Result<Compiled, String> {
    let mut compiled = Compiled::default();
    for (index, choice) in choices.iter().enumerate() {
        let rule = rule(choice, seed ^ index as u64, now_ns);
        let open = !matches!(choice.fault.from, Latch::At(_));
        compiled.add(rule, open, sketches(choice.fault, &choice.offer)?, cgroup)?;
        match &choice.fault.nature {
            Nature::Partition(partition) => {
                compiled.cut(index as u32, cut::cuts(partition)?, cgroup)?;
            }
            Nature::Event(target) if choice.offer.action == action::LOSE_ONE => {
                compiled.cut(index as u32, packet::ways(target)?, cgroup)?;
            }
            Nature::Event(target) if choice.offer.action == action::HOLE => {
                compiled.cut(index as u32, hole::ways(target, choice.offer.hooks)?, cgroup)?;
            }
            Nature::Event(_) => {}
        }
    }
    Ok(compiled)
}

impl Compiled {
    /// Adds a rule and what leads to it; `open`: from the beginning.
    ///
    /// # Errors
    /// When there is more than the maps hold, or no such cgroup.
    pub fn add(
        &mut self,
        rule: Rule,
        open: bool,
        sketches: Vec<Sketch>,
        cgroup: &dyn Fn(&str) -> Option<(u64, u32)>,
    ) -> Result<(), String> {
        let index = self.rules.len() as u32;
        self.rules.push(rule);
        self.open.push(open);
        for sketch in sketches {
            let mut matcher = Matcher { rule: index, ..sketch.matcher };
            (matcher.cgroup, matcher.cgroup_level) = find(sketch.cgroup, cgroup)?;
            self.matchers.push(matcher);
        }
        if self.rules.len() > RULES_MAX as usize {
            return Err(format!("at most {RULES_MAX} faults can be armed at once"));
        }
        if self.matchers.len() > MATCHERS_MAX as usize {
            return Err(format!(
                "the patterns have {} alternatives together, and the kernel half tests {MATCHERS_MAX}",
                self.matchers.len()
            ));
        }
        Ok(())
    }
}

impl Compiled {
    /// Adds the ways that a rule cuts.
    fn cut(
        &mut self,
        rule: u32,
        ways: Vec<CutSketch>,
        cgroup: &dyn Fn(&str) -> Option<(u64, u32)>,
    ) -> Result<(), String> {
        for sketch in ways {
            let mut cut = Cut { rule: rule + 1, ..sketch.cut };
            (cut.source_cgroup, cut.source_level) = find(sketch.source, cgroup)?;
            (cut.target_cgroup, cut.target_level) = find(sketch.target, cgroup)?;
            self.cuts.push(cut);
        }
        if self.cuts.len() > CUTS_MAX as usize {
            return Err(format!(
                "packets of {} ways are lost, and the kernel half tests {CUTS_MAX}",
                self.cuts.len()
            ));
        }
        Ok(())
    }
}

/// The identifier of a cgroup and its depth, plus one; zeroes where any will do.
fn find(
    path: Option<String>,
    cgroup: &dyn Fn(&str) -> Option<(u64, u32)>,
) -> Result<(u64, u32), String> {
    let Some(path) = path else { return Ok((0, 0)) };
    let found = cgroup(&path).ok_or_else(|| format!("there is no cgroup {path}"))?;
    Ok((found.0, found.1 + 1))
}

/// A rule that only tells of its events, as often as they come.
pub fn telling() -> Rule {
    Rule {
        action: action::TELL,
        flags: flag::TOLD,
        limit: u64::MAX,
        until_ns: u64::MAX,
        ..Rule::zeroed()
    }
}

fn rule(choice: &Choice<'_>, seed: u64, now_ns: u64) -> Rule {
    let fault = choice.fault;
    let always = When::default();
    let when = match &fault.nature {
        Nature::Event(target) => &target.when,
        Nature::Partition(_) => &always,
    };
    let after = |time: std::time::Duration| {
        now_ns.saturating_add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX))
    };
    let (pick, number) = match when.pick {
        Pick::All => (pick::ALL, 0),
        Pick::Nth(n) => (pick::NTH, n),
        Pick::Every(n) => (pick::EVERY, n),
        Pick::Probability(p) => (pick::CHANCE, (p * 4_294_967_296.0) as u64),
    };
    let until_ns = if let Latch::After(time) = fault.until { after(time) } else { u64::MAX };
    Rule {
        action: choice.offer.action,
        value: choice.offer.value,
        pick,
        needs_after: u32::from(when.after.is_some()),
        number,
        seed,
        limit: fault.limit.count.unwrap_or(u64::MAX),
        from_ns: if let Latch::After(time) = fault.from { after(time) } else { 0 },
        until_ns: fault.limit.duration.map_or(until_ns, |time| until_ns.min(after(time))),
        // Where user space has a part in the deed.
        flags: match choice.offer.action {
            action::DESTROY | action::RESTART => flag::TOLD,
            _ => 0,
        },
        reserved: 0,
    }
}

/// All ways in which an event can be met by a fault.
///
/// # Errors
/// What the kernel cannot test, and why.
pub(super) fn sketches(fault: &Fault, offer: &Offer) -> Result<Vec<Sketch>, String> {
    let always = When::default();
    let (mut all, when) = match &fault.nature {
        Nature::Event(target) if offer.action == action::LOSE_ONE => (Vec::new(), &target.when),
        Nature::Event(target) => (targets(&target.pattern, offer)?, &target.when),
        Nature::Partition(_) => (Vec::new(), &always),
    };
    let mut watch = |pattern: &Pattern, role: u32| -> Result<(), String> {
        all.extend(watch(pattern, role)?);
        Ok(())
    };
    when.after.iter().try_for_each(|pattern| watch(pattern, role::AFTER))?;
    when.before.iter().try_for_each(|pattern| watch(pattern, role::BEFORE))?;
    for (latch, role) in [(&fault.from, role::FROM), (&fault.until, role::UNTIL)] {
        if let Latch::At(pattern) = latch {
            watch(pattern, role)?;
        }
    }
    Ok(all)
}

/// The matchers that lead to the rule itself.
fn targets(pattern: &Pattern, offer: &Offer) -> Result<Vec<Sketch>, String> {
    let mut all = alternatives(pattern, role::TARGET, offer.hooks)?;
    if offer.socket {
        for sketch in &mut all {
            let Matcher { value, mask, .. } = &mut sketch.matcher;
            (value.socket, mask.socket) = (1, u16::MAX);
        }
    }
    if offer.action == action::HOLE {
        hole::of_tcp(&mut all);
    }
    if offer.action == action::DESTROY {
        for sketch in &mut all {
            let Matcher { value, mask, .. } = &mut sketch.matcher;
            (value.protocol, mask.protocol) = (protocol::TCP.into(), u16::MAX);
        }
    }
    Ok(all)
}

/// The matchers that meet a pattern's events where threads raise them; what a match does is one of [`role`].
///
/// # Errors
/// What the kernel cannot test, and why.
pub fn watch(pattern: &Pattern, role: u32) -> Result<Vec<Sketch>, String> {
    let mut hooks = 0u64;
    for op in ops(pattern) {
        let hook = signal::watched(op);
        hooks |=
            1 << hook.ok_or_else(|| format!("`{op}` in `{pattern}` is not met in the kernel"))?;
    }
    if hooks == 0 {
        return Err(format!("`{pattern}` does not say which events: add `op=`"));
    }
    alternatives(pattern, role, hooks)
}

/// One sketch for each combination of the values that a pattern allows.
pub fn alternatives(pattern: &Pattern, role: u32, hooks: u64) -> Result<Vec<Sketch>, String> {
    let matcher = Matcher { hooks, role, ..Matcher::zeroed() };
    let mut sketches = vec![Sketch { matcher, cgroup: None }];
    for test in &pattern.tests {
        if test.key == Key::Op {
            continue;
        }
        if test.relation != Relation::Is {
            return Err(format!("`{test}`: the kernel tests only `=`"));
        }
        let mut next = Vec::new();
        for sketch in &sketches {
            for value in &test.values {
                let mut sketch = sketch.clone();
                narrow(&mut sketch, test, value)?;
                next.push(sketch);
            }
        }
        sketches = next;
        if sketches.len() > MATCHERS_MAX as usize {
            return Err(format!("`{pattern}` has too many alternatives for the kernel to test"));
        }
    }
    Ok(sketches)
}

fn narrow(sketch: &mut Sketch, test: &Test, value: &Value) -> Result<(), String> {
    let Matcher { value: wanted, mask, .. } = &mut sketch.matcher;
    match (test.key, value) {
        (Key::Comm, Value::Text(glob)) => comm(wanted, mask, glob, test)?,
        (Key::Pid, Value::Number(pid)) => {
            (wanted.pid, mask.pid) = (small(*pid, test)?, u32::MAX);
        }
        (Key::Tid, Value::Number(tid)) => {
            (wanted.tid, mask.tid) = (small(*tid, test)?, u32::MAX);
        }
        (Key::Local, Value::Address(address)) => {
            let port = (&mut wanted.local_port, &mut mask.local_port);
            place(&mut wanted.local, &mut mask.local, port, address);
        }
        (Key::Remote, Value::Address(address)) => {
            let port = (&mut wanted.remote_port, &mut mask.remote_port);
            place(&mut wanted.remote, &mut mask.remote, port, address);
        }
        (Key::Protocol, Value::Protocol(spoken @ (Protocol::Tcp | Protocol::Udp))) => {
            let number = if *spoken == Protocol::Tcp { protocol::TCP } else { protocol::UDP };
            (wanted.protocol, mask.protocol) = (number.into(), u16::MAX);
        }
        (Key::Lane, Value::Lane(Lane::Thread)) => {}
        (Key::Cgroup, Value::Text(glob)) if glob.pieces.len() == 1 => {
            sketch.cgroup = Some(glob.pieces[0].clone());
        }
        _ => {
            return Err(format!(
                "`{test}`: the kernel tests comm, pid, tid, cgroup (a path), protocol, local and peer"
            ));
        }
    }
    Ok(())
}

fn small(number: i128, test: &Test) -> Result<u32, String> {
    u32::try_from(number).map_err(|_| format!("`{test}` can never hold"))
}

/// A whole name, its end included, or the beginning of one.
fn comm(wanted: &mut Subject, mask: &mut Subject, glob: &Glob, test: &Test) -> Result<(), String> {
    let (name, whole) = match &glob.pieces[..] {
        [name] => (name, true),
        [name, end] if end.is_empty() => (name, false),
        _ => return Err(format!("`{test}`: the kernel tests whole names, or `beginning*`")),
    };
    let (mut bytes, mut bits) = ([0u8; 16], [0u8; 16]);
    let length = name.len().min(15);
    bytes[..length].copy_from_slice(&name.as_bytes()[..length]);
    bits[..length].fill(0xff);
    if whole {
        bits[length] = 0xff;
    }
    (wanted.comm, mask.comm) = (bytemuck::cast(bytes), bytemuck::cast(bits));
    Ok(())
}

/// An address as 16 bytes, IPv4 as v4-mapped IPv6.
fn place(
    wanted: &mut [u64; 2],
    mask: &mut [u64; 2],
    port: (&mut u16, &mut u16),
    address: &AddressTest,
) {
    if let Some(number) = address.port {
        (*port.0, *port.1) = (number, u16::MAX);
    }
    let Some((ip, bits)) = address.block else { return };
    let (bytes, bits) = match ip {
        IpAddr::V4(ip) => (ip.to_ipv6_mapped().octets(), u32::from(bits) + 96),
        IpAddr::V6(ip) => (ip.octets(), u32::from(bits)),
    };
    let all = u128::MAX.checked_shl(128 - bits).unwrap_or(0);
    *wanted = bytemuck::cast(bytes);
    *mask = bytemuck::cast(all.to_be_bytes());
}
