//! What is watched for in the kernel: events that match a pattern, processes that end badly, and too many events of
//! a kind in a stretch of time. The kernel half tests and counts; user space sleeps until it is told.

mod ends;

use std::collections::BTreeMap;
use std::net::Ipv6Addr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use aya::maps::Array;
use aya::programs::BtfTracePoint;
use aya::{Btf, Ebpf};
use jiff::Timestamp;
use probe_ebpf::fault::{Subject, Told, hook};
use probe_ebpf::watch::{
    EXITED, RESET_RECEIVED, RESET_SENT, TESTS_MAX, TOLD, Tally, Test, WATCHES_MAX, Watch, counts,
};
use serde::Deserialize;
use serde_json::json;
use tokio::io::unix::AsyncFd;

use super::{Bell, Rule, Seen, What};
use crate::capture::attach;
use crate::capture::clock;
use crate::capture::control::Control;
use crate::fault::arm::cgroup;
use crate::pattern::Pattern;
use ends::Ends;

/// What the kernel half is told of one trigger.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    watch: Watch,
    tests: Vec<Planned>,
    /// The pattern of its events.
    pub pattern: String,
}

/// A test whose cgroup is still a path.
#[derive(Clone, Debug, PartialEq)]
struct Planned {
    test: Test,
    cgroup: Option<String>,
}

/// More than this is too often: `10/s`, or a share of others, `5%`.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(try_from = "String")]
pub enum Above {
    PerSecond(f64),
    Percent(f64),
}

impl TryFrom<String> for Above {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let number = |number: &str| number.trim().parse::<f64>().ok().filter(|n| *n >= 0.0);
        let rate = text.strip_suffix("/s").and_then(number).filter(|n| *n < 1e9);
        let share = text.strip_suffix('%').and_then(number).filter(|n| *n <= 100.0);
        rate.map(Self::PerSecond)
            .or(share.map(Self::Percent))
            .ok_or_else(|| format!("`{text}` is no rate, like `10/s`, and no share, like `5%`"))
    }
}

/// Of fewer events no share is taken.
const FEWEST: u64 = 20;

impl Plan {
    /// Each event that matches.
    ///
    /// # Errors
    /// What the kernel cannot test, and why.
    pub fn event(pattern: &Pattern) -> Result<Self, String> {
        Self::each(pattern, &[ends::ANY])
    }

    fn each(pattern: &Pattern, within: &[Ends]) -> Result<Self, String> {
        let tests = ends::tests(pattern, counts::EVENTS, within)?;
        Ok(Self { watch: Watch::default(), tests, pattern: pattern.to_string() })
    }

    /// Each process that ends with a signal or an error, of those that the pattern means.
    ///
    /// # Errors
    /// What the kernel cannot test, and why.
    pub fn exit(pattern: &Pattern) -> Result<Self, String> {
        let text = format!("op=exit {pattern}");
        let pattern = text.trim().parse().map_err(|error| format!("{error}"))?;
        Self::each(&pattern, &[ends::FAILED, ends::STATUS])
    }

    /// More events than are allowed in a window, as such or of others.
    ///
    /// # Errors
    /// What the kernel cannot test, and why; what does not fit together.
    pub fn rate(
        count: &Pattern,
        of: Option<&Pattern>,
        above: Above,
        window: Duration,
    ) -> Result<Self, String> {
        let window_ns = u64::try_from(window.as_nanos()).unwrap_or(u64::MAX);
        if window_ns == 0 {
            return Err("`window` must be longer than nothing".to_owned());
        }
        let mut tests = ends::tests(count, counts::EVENTS, &[ends::ANY])?;
        let watch = match (above, of) {
            (Above::PerSecond(rate), None) => {
                Watch { window_ns, above: (rate * window.as_secs_f64()) as u64, share: 0 }
            }
            (Above::Percent(share), Some(of)) => {
                tests.extend(ends::tests(of, counts::OF, &[ends::ANY])?);
                let share = ((share * 100.0) as u64).max(1);
                Watch { window_ns, above: FEWEST, share }
            }
            (Above::PerSecond(_), Some(_)) => {
                return Err("a share, `above = \"5%\"`, goes with `of`; a rate does not".to_owned());
            }
            (Above::Percent(_), None) => {
                return Err("a share needs `of`: the events that it is a share of".to_owned());
            }
        };
        Ok(Self { watch, tests, pattern: count.to_string() })
    }
}

impl Plan {
    /// Which event a dump explains where nothing else is said: a process's end, or the last that was counted.
    pub fn symptom(&self, labels: &BTreeMap<String, String>) -> String {
        match labels.get("tid").filter(|_| self.is_exit()) {
            Some(tid) => format!("op=exit tid={tid}"),
            None => self.pattern.clone(),
        }
    }

    fn is_exit(&self) -> bool {
        self.tests.iter().any(|planned| planned.test.matcher.hooks == 1 << EXITED)
    }
}

/// Whether all of them fit into the kernel half together.
///
/// # Errors
/// When they do not.
pub fn fits(rules: &[Rule]) -> Result<(), String> {
    let plans: Vec<&Plan> = rules.iter().filter_map(|rule| rule.what.plan()).collect();
    let tests: usize = plans.iter().map(|plan| plan.tests.len()).sum();
    if plans.len() > WATCHES_MAX as usize || tests > TESTS_MAX as usize {
        return Err(format!(
            "the kernel watches for {WATCHES_MAX} triggers and {TESTS_MAX} alternatives of their patterns; these are {} and {tests}",
            plans.len()
        ));
    }
    Ok(())
}

/// Programs of the kernel half, their tracepoints, and the hooks that they are for.
const PROGRAMS: [(&str, &str, u64); 6] = [
    ("watch_sent", "sock_send_length", 1 << hook::SENT),
    ("watch_received", "sock_recv_length", 1 << hook::RECEIVED),
    (
        "watch_state",
        "inet_sock_set_state",
        1 << hook::CONNECTING | 1 << hook::LISTENING | 1 << hook::CLOSING,
    ),
    ("watch_exit", "sched_process_exit", 1 << EXITED),
    ("watch_reset_sent", "tcp_send_reset", 1 << RESET_SENT),
    ("watch_reset_received", "tcp_receive_reset", 1 << RESET_RECEIVED),
];

/// Has the kernel half watch for these, in this order, and for nothing else.
///
/// # Errors
/// When there is no such cgroup, or a map or program is refused.
pub fn arm(ebpf: &mut Ebpf, plans: &[&Plan]) -> Result<()> {
    let mut tests = Vec::new();
    for (index, plan) in (0..).zip(plans) {
        for planned in &plan.tests {
            let mut test = planned.test;
            test.matcher.rule = index;
            if let Some(path) = &planned.cgroup {
                let found = cgroup(path).with_context(|| format!("find the cgroup {path}"))?;
                (test.matcher.cgroup, test.matcher.cgroup_level) = (found.0, found.1 + 1);
            }
            tests.push(test);
        }
    }
    let hooks = tests.iter().fold(0, |hooks, test| hooks | test.matcher.hooks);
    // An unused test is the end of them: written last, the first makes all of them hold at once.
    write(ebpf, "TESTS", 0, bytes(Test::default()))?;
    for (index, plan) in (0..).zip(plans) {
        write(ebpf, "WATCHES", index, bytemuck::cast::<Watch, [u8; WATCH]>(plan.watch))?;
        write(ebpf, "TALLIES", index, [0; size_of::<Tally>()])?;
    }
    tests.resize(TESTS_MAX as usize, Test::default());
    for (index, test) in (0..TESTS_MAX).zip(&tests).rev() {
        write(ebpf, "TESTS", index, bytes(*test))?;
    }
    attach(ebpf, hooks)
}

const WATCH: usize = size_of::<Watch>();
const TEST: usize = size_of::<Test>();

fn bytes(test: Test) -> [u8; TEST] {
    bytemuck::cast(test)
}

fn write<const N: usize>(ebpf: &mut Ebpf, map: &str, index: u32, value: [u8; N]) -> Result<()> {
    let data = ebpf.map_mut(map).with_context(|| format!("the probes have no map {map}"))?;
    let mut array: Array<_, [u8; N]> = data.try_into()?;
    array.set(index, value, 0).with_context(|| format!("write the triggers into {map}"))
}

/// Attaches what is needed and not attached yet.
fn attach(ebpf: &mut Ebpf, hooks: u64) -> Result<()> {
    for (name, tracepoint, at) in PROGRAMS {
        let program = ebpf.program_mut(name).with_context(|| format!("find {name}"))?;
        let program: &mut BtfTracePoint = program.try_into()?;
        let attached = program.fd().is_ok();
        if hooks & at != 0 && !attached {
            let btf = Btf::from_sys_fs().context("read the kernel's types")?;
            program.load(tracepoint, &btf).with_context(|| format!("load {name}"))?;
            program.attach().with_context(|| format!("attach {name}"))?;
        } else if hooks & at == 0 && attached {
            program.unload().with_context(|| format!("detach {name}"))?;
        }
    }
    Ok(())
}

/// How often the kernel skipped a program that watches since it was at work for another thread of its CPU: what happened
/// then no trigger has seen, if it was anything that one looks for.
pub fn skipped(ebpf: &Ebpf) -> u64 {
    PROGRAMS.iter().map(|(name, ..)| attach::skipped(ebpf, name)).sum()
}

/// The bells of the triggers that the kernel watches for, in their order.
pub type Bells = Arc<Mutex<Vec<(Plan, Arc<Mutex<Bell>>)>>>;

/// Rings them as the kernel tells, without end.
///
/// # Errors
/// When the control ring cannot be waited for.
pub async fn listen(control: Control, bells: Bells) -> Result<()> {
    // SAFETY: the ring's descriptor is open as long as it lives.
    let mut control = unsafe { AsyncFd::register(control) }.context("wait for the control ring")?;
    loop {
        let mut ready = control.readable_mut().await.context("wait for the control ring")?;
        for told in ready.get_inner_mut() {
            let bells = bells.lock().unwrap_or_else(PoisonError::into_inner);
            let told_of = (0..).zip(bells.iter()).filter(|(i, _)| told.rules >> i & 1 == 1);
            for (_, (plan, bell)) in told_of.filter(|_| told.hook >= TOLD) {
                let mut bell = bell.lock().unwrap_or_else(PoisonError::into_inner);
                bell.ring(seen(&told, plan));
            }
        }
        ready.clear_ready();
    }
}

fn seen(told: &Told, plan: &Plan) -> Seen {
    let Subject { comm, local, remote, local_port, remote_port, pid, tid, .. } = told.subject;
    let comm: [u8; 16] = bytemuck::cast(comm);
    let comm = comm.split(|byte| *byte == 0).next().unwrap_or_default();
    let address = |words: [u64; 2], port: u16| {
        let address = Ipv6Addr::from(bytemuck::cast::<[u64; 2], [u8; 16]>(words)).to_canonical();
        std::net::SocketAddr::new(address, port).to_string()
    };
    let mut labels = BTreeMap::new();
    if pid != 0 {
        labels.insert("comm".to_owned(), String::from_utf8_lossy(comm).into_owned());
        labels.insert("pid".to_owned(), pid.to_string());
        labels.insert("tid".to_owned(), tid.to_string());
    }
    if told.hook != TOLD + EXITED {
        labels.insert("local".to_owned(), address(local, local_port));
        labels.insert("remote".to_owned(), address(remote, remote_port));
    }
    let wall_ns = i128::from(told.time_ns) + i128::from(clock::wall_offset_ns());
    let began = Timestamp::from_nanosecond(wall_ns).unwrap_or_else(|_| Timestamp::now());
    Seen { began, said: json!({ "matched": plan.pattern, "labels": labels }), labels }
}

/// What can stand in the patterns of these triggers.
pub const LABELS: [&str; 5] = ["comm", "pid", "tid", "local", "remote"];

impl What {
    /// What the kernel is told of it, where the kernel watches for it.
    pub const fn plan(&self) -> Option<&Plan> {
        match self {
            Self::Kernel { plan, .. } => Some(plan),
            _ => None,
        }
    }
}
