//! What an answer says of hosts: which are not here, how their clocks differ, until when each is complete.

use std::collections::BTreeSet;
use std::io::{Result, Write};

use super::{NAMED, plural};
use crate::cli::record::grouped;
use crate::clocks::{Contradiction, Offset};
use crate::describe::{self, clock, lane, printable};
use crate::event::{Detailed, Event, History, Op, Window};
use crate::explain::beyond::Beyond;
use crate::explain::{Answer, window};
use crate::slice::Reach;

/// Where the answer ends because a recording is missing.
pub(super) fn beyond(history: &History, found: &[Beyond], out: &mut impl Write) -> Result<()> {
    for beyond in found.iter().take(NAMED) {
        let heard_by = lane(history, &history.events[beyond.heard_by as usize]);
        let (address, connections) = (beyond.address(), plural(beyond.connections, "connection"));
        let may = if beyond.reach == Reach::Must { "" } else { ", and only possible" };
        let told = match beyond.host.and_then(|host| history.hosts.get(usize::from(host))) {
            Some(host) => format!(
                "what {address} on {} did was not recorded ({connections}, of {heard_by}{may}): a wider scope may \
                 lead further",
                printable(&host.name)
            ),
            None => format!(
                "host {address} is not in these recordings ({connections}, of {heard_by}{may}): a recording of it may \
                 lead further"
            ),
        };
        writeln!(out, "beyond   {told}")?;
    }
    match found.len().saturating_sub(NAMED) {
        0 => Ok(()),
        more => writeln!(out, "beyond   {more} other hosts or processes that were not recorded"),
    }
}

/// The clocks of the hosts that the chain leads over, against that of the symptom's host.
pub(super) fn clocks(history: &History, answer: &Answer, out: &mut impl Write) -> Result<()> {
    let name = |host: u16| printable(&history.hosts[usize::from(host)].name).into_owned();
    let reading = match &answer.clocks {
        None => return Ok(()),
        Some(Err(contradiction)) => {
            return writeln!(out, "clocks   {}", contradictory(history, contradiction));
        }
        Some(Ok(reading)) => reading,
    };
    let events = answer.chain.iter().map(|step| &history.events[step.event as usize]);
    let involved: BTreeSet<u16> = events.map(|event| event.host).collect();
    let told = reading.offsets.iter().filter(|offset| involved.contains(&offset.host));
    for offset in told {
        let Offset { host, messages, .. } = *offset;
        let offset = offset.by_wall_clock(history, reading.of);
        let Some(ahead) = describe::ahead(offset.low_ns, offset.high_ns) else { continue };
        let from = match messages {
            0 => "by way of other hosts".to_owned(),
            n => format!("from {}", plural(n as usize, "message")),
        };
        writeln!(out, "clocks   {}'s clock is {ahead} {}'s, {from}", name(host), name(reading.of))?;
    }
    Ok(())
}

/// What to say of messages that fit no offset.
pub fn contradictory(history: &History, found: &Contradiction) -> String {
    let [one, other] =
        found.hosts.map(|h| printable(&history.hosts[usize::from(h)].name).into_owned());
    format!(
        "no offset of the clocks of {one} and {other} fits their messages: one of the clocks was held or set (a \
         machine that slept, or was copied while it ran?), or the recordings do not belong together"
    )
}

/// Until when each recording is complete, and what is missing.
pub(super) fn windows(history: &History, out: &mut impl Write) -> Result<()> {
    for (number, host) in history.hosts.iter().enumerate() {
        let window = window(host);
        let at = |time_ns| {
            let event = Event { time_ns, host: number as u16, ..Event::blank(Op::Exit) };
            clock(history, &event)
        };
        let loss = match (host.lost, host.gaps.len()) {
            (0, 0) => "nothing lost".to_owned(),
            (lost, gaps) => format!("{} events lost in {gaps} gaps", grouped(lost)),
        };
        writeln!(
            out,
            "window   {}: {} .. {} UTC, {} CPUs, {loss}",
            printable(&host.name),
            at(window.from_ns),
            at(window.to_ns),
            host.cpus,
        )?;
        for stretch in host.details.iter().filter(|stretch| overlaps(stretch, window)) {
            let until = if stretch.to_ns == 0 { window.to_ns } else { stretch.to_ns };
            writeln!(
                out,
                "detail   {}: {} {} .. {}",
                printable(&host.name),
                printable(&stretch.detail),
                at(stretch.from_ns),
                at(until)
            )?;
        }
        if host.drops_untold > 0 {
            let untold = grouped(host.drops_untold);
            writeln!(out, "untold   {}: {untold} more dropped packets", printable(&host.name))?;
        }
    }
    Ok(())
}

/// Whether more was recorded in a part of the window.
const fn overlaps(stretch: &Detailed, window: Window) -> bool {
    stretch.from_ns <= window.to_ns && (stretch.to_ns == 0 || stretch.to_ns >= window.from_ns)
}
