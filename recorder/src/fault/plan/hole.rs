//! What the programs of a control group for packets can do from an event on: lose all of its connection's, or of all sockets
//! of its process, which dies.

use probe_ebpf::event::protocol;
use probe_ebpf::fault::{action, cut, hook, role};

use super::Offer;
use super::compile::{Sketch, alternatives};
use super::cut::CutSketch;
use super::packet::{PLACE, way};
use super::signal::at_events;
use crate::event::{Op, Protocol};
use crate::fault::spec::{Fault, Latch, Target};
use crate::pattern::{Key, Value};

/// The process dies, and its sockets fall silent.
pub(super) fn crash(fault: &Fault, target: &Target) -> Result<Offer, String> {
    let (hooks, at) = at_events(target)?;
    let mut notes = vec![
        "it strikes the whole process, when the call has ended".to_owned(),
        "sockets that it shares with other processes fall silent for these as well; what ends in Unix sockets and pipes is seen there".to_owned(),
    ];
    notes.extend(endless(fault));
    Ok(Offer {
        hooks: hooks | 1 << hook::SILENCE,
        socket: false,
        action: action::CRASH,
        value: libc::SIGKILL,
        does: format!(
            "{at}: bpf_send_signal(SIGKILL); cgroup_skb: all packets of its sockets of TCP and UDP are lost, also what the kernel answers for them"
        ),
        notes,
    })
}

/// What is to be known of a fault that nothing ends.
fn endless(fault: &Fault) -> Option<String> {
    let ends = fault.limit.duration.is_some() || fault.until != Latch::Never;
    let note = "it lasts until the recording ends: neither `until` nor `limit` says when the network heals";
    (!ends).then(|| note.to_owned())
}

pub(super) fn offer(fault: &Fault, target: &Target) -> Result<Offer, String> {
    let (hooks, at) = at_events(target)?;
    let spoken = target.pattern.tests.iter().filter(|test| test.key == Key::Protocol);
    for value in spoken.flat_map(|test| &test.values) {
        if !matches!(value, Value::Protocol(Protocol::Tcp | Protocol::Udp)) {
            return Err("only sockets of TCP and UDP have packets of their own".to_owned());
        }
    }
    let mut notes = vec![
        "what the event itself sent or received has gone through".to_owned(),
        PLACE.to_owned(),
    ];
    notes.extend(endless(fault));
    Ok(Offer {
        hooks,
        socket: false,
        action: action::HOLE,
        value: 0,
        does: format!("{at}: cgroup_skb: from then on all packets of its socket are lost"),
        notes,
    })
}

/// Unless the pattern says otherwise the sockets of TCP are meant: others are no connections.
pub(super) fn of_tcp(sketches: &mut [Sketch]) {
    for sketch in sketches.iter_mut().filter(|sketch| sketch.matcher.mask.protocol == 0) {
        sketch.matcher.value.protocol = protocol::TCP.into();
        sketch.matcher.mask.protocol = u16::MAX;
    }
}

/// The packets of sockets at which such an event may come, both ways; the kernel half marks those where it came.
pub(super) fn ways(target: &Target, hooks: u64) -> Result<Vec<CutSketch>, String> {
    let mut victims = alternatives(&target.pattern, role::TARGET, hooks)?;
    of_tcp(&mut victims);
    let mut ways = Vec::new();
    for victim in &mut victims {
        victim.cgroup = None;
        for op in [Op::Send, Op::Recv] {
            let way = way(victim, op, cut::MARKED);
            if !ways.contains(&way) {
                ways.push(way);
            }
        }
    }
    Ok(ways)
}
