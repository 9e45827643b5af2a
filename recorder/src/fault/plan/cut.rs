//! What the programs of a control group for packets can do: lose those between two sides.

use bytemuck::Zeroable;
use probe_ebpf::fault::{Cut, Subject, Way, action, hook, role};

use super::Offer;
use super::compile::{Sketch, alternatives};
use crate::fault::spec::Partition;
use crate::pattern::{Key, Pattern};

/// Packets of one way, whose control groups are still paths.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CutSketch {
    pub cut: Cut,
    pub source: Option<String>,
    pub target: Option<String>,
}

impl CutSketch {
    /// The way back.
    pub(super) fn turned(self, flags: u32) -> Self {
        let (value, mask) = (self.cut.value.turned(), self.cut.mask.turned());
        let cut = Cut { value, mask, flags, ..self.cut };
        Self { cut, source: self.target, target: self.source }
    }
}

pub(super) fn offer(partition: &Partition) -> Result<Offer, String> {
    if partition.error.is_some() {
        let reason = "a packet is lost when the call that sent it may have returned, so none can be given an `error`: refuse connects with a fault of their own";
        return Err(reason.to_owned());
    }
    cuts(partition)?;
    let [one, other] = &partition.between;
    let back = if partition.one_way { "" } else { ", and back," };
    Ok(Offer {
        hooks: 1 << hook::PACKET,
        socket: false,
        action: action::LOSE,
        value: 0,
        does: format!("cgroup_skb: packets from `{one}` to `{other}`{back} are lost"),
        notes: vec![
            "packets to sockets of this machine are lost there; others where they leave, which TCP takes for not sent yet".to_owned(),
            "only where one end at least is in the recording's scope".to_owned(),
        ],
    })
}

/// All ways that a partition cuts.
///
/// # Errors
/// When a side cannot be told by its packets, or no packet can have both sides' properties.
pub(super) fn cuts(partition: &Partition) -> Result<Vec<CutSketch>, String> {
    let [one, other] = &partition.between;
    let (one, other) = (side(one)?, side(other)?);
    let mut all = Vec::new();
    for a in &one {
        for b in &other {
            all.extend(way(a, b));
            if !partition.one_way {
                all.extend(way(b, a));
            }
        }
    }
    if all.is_empty() {
        return Err("the sides speak different protocols: no packet goes between them".to_owned());
    }
    Ok(all)
}

/// The alternatives of a side. Both addresses that a pattern may give are the side's own here.
fn side(pattern: &Pattern) -> Result<Vec<Sketch>, String> {
    let known = [Key::Cgroup, Key::Local, Key::Remote, Key::Protocol];
    if let Some(test) = pattern.tests.iter().find(|test| !known.contains(&test.key)) {
        return Err(format!(
            "`{test}`: a packet does not tell; a side is named by cgroup, local or peer, and protocol"
        ));
    }
    let keys = pattern.keys();
    if keys.contains(&Key::Local) && keys.contains(&Key::Remote) {
        return Err(format!("`{pattern}`: local and peer mean the same of a side: say one"));
    }
    alternatives(pattern, role::TARGET, 1 << hook::PACKET)
}

/// From one side to another; nothing where no packet can be of both.
fn way(source: &Sketch, target: &Sketch) -> Option<CutSketch> {
    let (from, to) = (&source.matcher, &target.matcher);
    let protocol = from.mask.protocol & to.mask.protocol;
    if (from.value.protocol ^ to.value.protocol) & protocol != 0 {
        return None;
    }
    let join = |from: &Subject, to: &Subject| Way {
        source: address(from),
        target: address(to),
        source_port: from.local_port | from.remote_port,
        target_port: to.local_port | to.remote_port,
        protocol: (from.protocol | to.protocol).into(),
    };
    let cut = Cut {
        value: join(&from.value, &to.value),
        mask: join(&from.mask, &to.mask),
        ..Cut::zeroed()
    };
    Some(CutSketch { cut, source: source.cgroup.clone(), target: target.cgroup.clone() })
}

/// Whichever of the two was given; the other is zero.
fn address(subject: &Subject) -> [u64; 2] {
    [subject.local[0] | subject.remote[0], subject.local[1] | subject.remote[1]]
}
