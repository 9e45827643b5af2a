//! What the programs of a control group for packets can do to single ones: lose them.

use bytemuck::Zeroable;
use probe_ebpf::fault::{Cut, Subject, Way, action, cut, hook, role};

use super::cgroup::datagrams;
use super::compile::{Sketch, alternatives};
use super::cut::CutSketch;
use super::{Offer, ops};
use crate::event::Op;
use crate::fault::spec::{Drop, Target};
use crate::pattern::Key;

pub(super) const PLACE: &str = "packets to sockets of this machine are lost there; others where they leave, which TCP takes for not sent yet";

pub(super) fn offer(target: &Target, what: Drop) -> Result<Offer, String> {
    let (lost, note) = match what {
        Drop::Packet => (
            "packets that bear bytes are lost",
            "packets are counted as sockets see them: of up to 64 KiB, which may be several on a wire",
        ),
        Drop::Message if !datagrams(target) => {
            return Err(
                "a message of a stream is no packet of its own: say `protocol=udp`".to_owned()
            );
        }
        Drop::Message if ops(&target.pattern) != [Op::Send] => {
            return Err("a message is lost when it is sent: say `op=send`".to_owned());
        }
        Drop::Message => {
            ("datagrams are lost", "the calls that send them return what they would have returned")
        }
        Drop::Blackhole => {
            return Err("from an event on all packets are lost, and no single ones".to_owned());
        }
    };
    ways(target)?;
    Ok(Offer {
        hooks: 1 << hook::PACKET,
        socket: false,
        action: action::LOSE_ONE,
        value: 0,
        does: format!("cgroup_skb: {lost}"),
        notes: [note, PLACE].map(str::to_owned).into(),
    })
}

/// Which packets are meant: those that the victims send for `op=send`, those that come to them for `op=recv`.
///
/// # Errors
/// When packets do not tell what is asked.
pub(super) fn ways(target: &Target) -> Result<Vec<CutSketch>, String> {
    let pattern = &target.pattern;
    let known = [Key::Op, Key::Cgroup, Key::Local, Key::Remote, Key::Protocol];
    if let Some(test) = pattern.tests.iter().find(|test| !known.contains(&test.key)) {
        return Err(format!(
            "`{test}`: a packet does not tell; its victim is named by cgroup, local, peer and protocol"
        ));
    }
    if !target.syscalls.is_empty() {
        return Err("a packet is no system call: say `op=send` or `op=recv` alone".to_owned());
    }
    if target.when.after.is_some() || target.when.before.is_some() {
        return Err("a packet is of no process in which `after` or `before` could hold".to_owned());
    }
    let ops = ops(pattern);
    if let Some(op) = ops.iter().find(|op| !matches!(op, Op::Send | Op::Recv)) {
        return Err(format!("`{op}` is no packet that bears bytes: say `op=send` or `op=recv`"));
    }
    if ops.is_empty() {
        return Err("it does not say which packets: add `op=send` or `op=recv`".to_owned());
    }
    let victims = alternatives(pattern, role::TARGET, 1 << hook::PACKET)?;
    Ok(ops
        .into_iter()
        .flat_map(|op| victims.iter().map(move |victim| way(victim, op, cut::BEARING)))
        .collect())
}

/// The packets that one victim sends, or those that come to it; only those that bits of [`cut`] mean.
pub(super) fn way(victim: &Sketch, op: Op, flags: u32) -> CutSketch {
    let leaves = |subject: &Subject| Way {
        source: subject.local,
        target: subject.remote,
        source_port: subject.local_port,
        target_port: subject.remote_port,
        protocol: subject.protocol.into(),
    };
    let [value, mask] = [&victim.matcher.value, &victim.matcher.mask].map(leaves);
    let sent = CutSketch {
        cut: Cut { value, mask, flags: flags | cut::BY_SENDER, ..Cut::zeroed() },
        source: victim.cgroup.clone(),
        target: None,
    };
    if op == Op::Send { sent } else { sent.turned(flags | cut::BY_RECEIVER) }
}
