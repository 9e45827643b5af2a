//! A space–time diagram: a lane per thread or kernel lane, time runs down, arrows are messages.
//!
//! One self-contained file for browsers and image viewers, light or dark as the reader has it.

mod layout;

use std::collections::BTreeSet;
use std::io::{self, Write};

use super::Excerpt;
use crate::describe;
use crate::event::{Event, Op};
use crate::graph::{EdgeKind, Proof};
use layout::{Arrow, BOX_WIDTH, FONT, LABEL_GAP, Layout, MARGIN, Mark, layout, text_width};

/// More events than this are no picture any more.
pub const MAX_EVENTS: usize = 600;

/// From the top of the picture to the first heading: title and legend.
const TITLE_HEIGHT: f64 = 58.0;
const HOSTS_HEIGHT: f64 = 20.0;

/// Why there is no picture.
#[derive(Debug, thiserror::Error)]
pub enum SvgError {
    #[error("{count} events are more than a picture can show ({MAX_EVENTS})")]
    TooManyEvents { count: usize },
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl SvgError {
    /// What to do about it.
    pub const fn hint(&self) -> Option<&'static str> {
        match self {
            Self::TooManyEvents { .. } => Some(
                "take what led to one event with `--slice PATTERN`, or write `--to json` or `--to dot`",
            ),
            Self::Io(_) => None,
        }
    }
}

/// Writes the diagram.
///
/// # Errors
///
/// More than [`MAX_EVENTS`] events, or what writing says.
pub fn svg(excerpt: &Excerpt<'_>, out: &mut dyn Write) -> Result<(), SvgError> {
    let count = excerpt.selection.len();
    if count > MAX_EVENTS {
        return Err(SvgError::TooManyEvents { count });
    }
    let several_hosts = excerpt.history.hosts.len() > 1;
    let top = TITLE_HEIGHT + if several_hosts { HOSTS_HEIGHT } else { 0.0 };
    let mut layout = layout(excerpt, top);
    let title = title(excerpt, &layout);
    let legend = legend(&layout);
    let legend_width: f64 = legend.iter().map(|(kind, _)| legend_step(kind)).sum();
    layout.width =
        layout.width.max(text_width(&title) * 1.3 + 2.0 * MARGIN).max(legend_width + 2.0 * MARGIN);
    open(&layout, out)?;
    writeln!(out, "<text class=\"title\" x=\"{MARGIN}\" y=\"24\">{}</text>", escaped(&title))?;
    draw_legend(&legend, out)?;
    draw_lanes(excerpt, &layout, several_hosts, out)?;
    draw_times(&layout, out)?;
    for arrow in &layout.arrows {
        draw_arrow(excerpt, &layout, arrow, out)?;
    }
    for mark in &layout.marks {
        draw_mark(excerpt, &layout, mark, out)?;
    }
    draw_headings(&layout, out)?;
    out.write_all(b"</svg>\n")?;
    out.flush()?;
    Ok(())
}

fn title(excerpt: &Excerpt<'_>, layout: &Layout) -> String {
    let history = excerpt.history;
    let at = |mark: &Mark| describe::clock(history, &history.events[mark.event as usize]);
    match (layout.marks.first(), layout.marks.last()) {
        (Some(first), Some(last)) => {
            let count = layout.marks.len();
            let plural = if count == 1 { "" } else { "s" };
            format!("{count} event{plural}, {} .. {} UTC", at(first), at(last))
        }
        _ => "no events".to_owned(),
    }
}

/// Light first; the dark colours stand in a media query, which viewers that know none pass over.
const STYLE: &str = r#"<style>
text { font-family: ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace; font-size: 11px; fill: #24292f; }
.title { font-size: 13px; font-weight: bold; }
.page { fill: #ffffff; }
.group { fill: #f3f5f8; }
.lane { stroke: #b4bcc6; stroke-width: 1.2; }
.kernel { stroke-dasharray: 2 3; }
.heading { font-weight: bold; text-anchor: middle; paint-order: stroke; stroke: #f3f5f8; stroke-width: 5px; }
.kernelname { font-weight: normal; }
.clock { fill: #6a737d; }
.rule { stroke: #8a929c; stroke-dasharray: 1 4; }
.label { paint-order: stroke; stroke: #f3f5f8; stroke-width: 3px; stroke-linejoin: round; }
.bad { fill: #c62828; }
.event { fill: #57606a; }
.inkernel { fill: #f3f5f8; stroke: #57606a; stroke-width: 1.5; }
.event.bad { fill: #d32f2f; }
.inkernel.bad { fill: #f3f5f8; stroke: #d32f2f; }
.arrow { fill: none; stroke-width: 1.5; }
.may { stroke-dasharray: 5 4; }
.program { stroke: #7a828c; } .program-head { fill: #7a828c; }
.bytes { stroke: #1f6feb; } .bytes-head { fill: #1f6feb; }
.connection { stroke: #0f8a7e; } .connection-head { fill: #0f8a7e; }
.close { stroke: #c76a00; } .close-head { fill: #c76a00; }
.task { stroke: #8250df; } .task-head { fill: #8250df; }
.signal, .fault { stroke: #d1242f; } .signal-head, .fault-head { fill: #d1242f; }
.wake { stroke: #8250df; } .wake-head { fill: #8250df; }
g.mark:hover .label { font-weight: bold; }
.arrow:hover { stroke-width: 3.5; }
@media (prefers-color-scheme: dark) {
text { fill: #dfe5ec; }
.page { fill: #0d1117; }
.group { fill: #171d26; }
.lane { stroke: #4a5462; }
.heading, .label { stroke: #171d26; }
.clock { fill: #9aa4b0; }
.bad { fill: #ff8a80; }
.event { fill: #aab4c0; }
.inkernel { fill: #171d26; stroke: #aab4c0; }
.event.bad { fill: #ff6b60; }
.inkernel.bad { fill: #171d26; stroke: #ff6b60; }
.bytes { stroke: #58a6ff; } .bytes-head { fill: #58a6ff; }
.connection { stroke: #3fbdae; } .connection-head { fill: #3fbdae; }
.close { stroke: #f0a04b; } .close-head { fill: #f0a04b; }
.task { stroke: #b995ff; } .task-head { fill: #b995ff; }
.signal, .fault { stroke: #ff6b60; } .signal-head, .fault-head { fill: #ff6b60; }
.wake { stroke: #b995ff; } .wake-head { fill: #b995ff; }
}
</style>
"#;

fn open(layout: &Layout, out: &mut dyn Write) -> io::Result<()> {
    let Layout { width, height, .. } = layout;
    writeln!(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width:.0}\" height=\"{height:.0}\" viewBox=\"0 0 {width:.0} {height:.0}\">"
    )?;
    out.write_all(STYLE.as_bytes())?;
    out.write_all(b"<defs>\n")?;
    for kind in EdgeKind::ALL {
        let kind = kind.as_str();
        writeln!(
            out,
            "<marker id=\"{kind}\" viewBox=\"0 0 8 8\" refX=\"7\" refY=\"4\" markerWidth=\"8\" markerHeight=\"8\" markerUnits=\"userSpaceOnUse\" orient=\"auto\"><path class=\"{kind}-head\" d=\"M0 0.8L8 4L0 7.2z\"/></marker>"
        )?;
    }
    out.write_all(b"</defs>\n")?;
    writeln!(out, "<rect class=\"page\" width=\"{width:.0}\" height=\"{height:.0}\"/>")
}

/// The kinds and proofs that are drawn.
fn legend(layout: &Layout) -> Vec<(&'static str, Proof)> {
    let kinds: BTreeSet<_> = layout.arrows.iter().map(|a| a.link.edge.kind).collect();
    let mut legend: Vec<_> = kinds.iter().map(|kind| (kind.as_str(), Proof::Must)).collect();
    if layout.arrows.iter().any(|arrow| arrow.link.edge.proof == Proof::May) {
        legend.push(("only possible", Proof::May));
    }
    legend
}

fn legend_step(text: &str) -> f64 {
    text_width(text) + 56.0
}

fn draw_legend(legend: &[(&str, Proof)], out: &mut dyn Write) -> io::Result<()> {
    let mut x = MARGIN;
    for &(text, proof) in legend {
        let class = if proof == Proof::May { "program may" } else { text };
        let marker = if proof == Proof::May { "program" } else { text };
        writeln!(
            out,
            "<path class=\"arrow {class}\" marker-end=\"url(#{marker})\" d=\"M{x:.1} 42H{:.1}\"/><text x=\"{:.1}\" y=\"46\">{text}</text>",
            x + 26.0,
            x + 33.0
        )?;
        x += legend_step(text);
    }
    Ok(())
}

fn draw_lanes(
    excerpt: &Excerpt<'_>,
    layout: &Layout,
    several_hosts: bool,
    out: &mut dyn Write,
) -> io::Result<()> {
    let bottom = layout.height - 8.0;
    let mut last_host = None;
    for group in &layout.groups {
        writeln!(
            out,
            "<rect class=\"group\" x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\" rx=\"6\"/>",
            group.left,
            layout.top,
            group.right - group.left,
            bottom - layout.top
        )?;
        if several_hosts && last_host.replace(group.host) != Some(group.host) {
            let host = excerpt.history.hosts.get(usize::from(group.host));
            let name = escaped(host.map_or("", |host| &host.name));
            let (x, y) = (group.left + 4.0, layout.top - 7.0);
            writeln!(out, "<text class=\"title\" x=\"{x:.1}\" y=\"{y:.1}\">{name}</text>")?;
        }
    }
    for lane in &layout.lanes {
        let class = if lane.is_kernel { "lane kernel" } else { "lane" };
        let (x, top) = (lane.x, layout.top + 26.0);
        writeln!(out, "<path class=\"{class}\" d=\"M{x:.1} {top:.1}V{:.1}\"/>", bottom - 6.0)?;
    }
    Ok(())
}

fn draw_headings(layout: &Layout, out: &mut dyn Write) -> io::Result<()> {
    for y in &layout.headings {
        for lane in &layout.lanes {
            let class = if lane.is_kernel { "heading kernelname" } else { "heading" };
            let name = escaped(&lane.name);
            writeln!(
                out,
                "<text class=\"{class}\" x=\"{:.1}\" y=\"{y:.1}\">{name}</text>",
                lane.x
            )?;
        }
    }
    Ok(())
}

fn draw_times(layout: &Layout, out: &mut dyn Write) -> io::Result<()> {
    for time in &layout.times {
        let baseline = time.y + FONT * 0.36;
        if time.is_pause {
            let right = layout.groups.last().map_or(0.0, |group| group.right);
            let y = time.y;
            writeln!(out, "<path class=\"rule\" d=\"M{MARGIN} {:.1}H{right:.1}\"/>", y + 12.0)?;
            writeln!(
                out,
                "<text class=\"clock\" x=\"{MARGIN}\" y=\"{baseline:.1}\">⋮ {}</text>",
                time.text
            )?;
        } else {
            writeln!(
                out,
                "<text class=\"clock\" x=\"{MARGIN}\" y=\"{baseline:.1}\">{}</text>",
                time.text
            )?;
        }
    }
    Ok(())
}

fn draw_arrow(
    excerpt: &Excerpt<'_>,
    layout: &Layout,
    arrow: &Arrow,
    out: &mut dyn Write,
) -> io::Result<()> {
    let (from, to) = (&layout.marks[arrow.from], &layout.marks[arrow.to]);
    let (y1, y2) = (from.y(arrow.link.from_side), to.y(arrow.link.to_side));
    let (x1, x2) = (layout.lanes[from.lane].x, layout.lanes[to.lane].x);
    let kind = arrow.link.edge.kind.as_str();
    let proof = arrow.link.edge.proof.as_str();
    let half = BOX_WIDTH / 2.0;
    let path = if from.lane == to.lane {
        // Beside its own lane, on the side without this label.
        let side = if to.label_left { 1.0 } else { -1.0 };
        let (x, bulge) = (x1 + side * half, x1 + side * 22.0);
        format!("M{x:.1} {y1:.1}C{bulge:.1} {y1:.1} {bulge:.1} {y2:.1} {x:.1} {y2:.1}")
    } else {
        let way = (x2 - x1).signum();
        format!("M{:.1} {y1:.1}L{:.1} {y2:.1}", x1 + way * half, x2 - way * (half + 1.0))
    };
    let history = excerpt.history;
    let line = |mark: &Mark| line(excerpt, &history.events[mark.event as usize]);
    let tooltip =
        escaped_lines(&format!("{kind}, {proof}\nfrom {}\nto   {}", line(from), line(to)));
    writeln!(
        out,
        "<path class=\"arrow {kind} {proof}\" marker-end=\"url(#{kind})\" d=\"{path}\"><title>{tooltip}</title></path>"
    )
}

fn draw_mark(
    excerpt: &Excerpt<'_>,
    layout: &Layout,
    mark: &Mark,
    out: &mut dyn Write,
) -> io::Result<()> {
    let event = &excerpt.history.events[mark.event as usize];
    let x = layout.lanes[mark.lane].x;
    let place = if event.in_kernel_lane() { "inkernel" } else { "event" };
    let bad = if is_bad(event) { " bad" } else { "" };
    let (label_x, anchor) = match mark.label_left {
        true => (x - LABEL_GAP, " text-anchor=\"end\""),
        false => (x + LABEL_GAP, ""),
    };
    writeln!(
        out,
        "<g class=\"mark\"><title>{}</title><rect class=\"{place}{bad}\" x=\"{:.1}\" y=\"{:.1}\" width=\"{BOX_WIDTH}\" height=\"{:.1}\" rx=\"2.5\"/><text class=\"label{bad}\" x=\"{label_x:.1}\" y=\"{:.1}\"{anchor}>{}</text></g>",
        escaped_lines(&tooltip(excerpt, mark, event)),
        x - BOX_WIDTH / 2.0,
        mark.top,
        mark.bottom - mark.top,
        mark.label_y(),
        escaped(&mark.label)
    )
}

/// What a reader looks for first.
fn is_bad(event: &Event) -> bool {
    event.error != 0
        || event.signal != 0
        || matches!(event.op, Op::ResetSent | Op::ResetReceived | Op::Abort | Op::OomKill)
}

fn line(excerpt: &Excerpt<'_>, event: &Event) -> String {
    let history = excerpt.history;
    format!("{}  {}", describe::lane(history, event), describe::describe(history, event))
}

fn tooltip(excerpt: &Excerpt<'_>, mark: &Mark, event: &Event) -> String {
    let history = excerpt.history;
    let mut lines = vec![line(excerpt, event)];
    lines.push(format!("{} UTC, {} ns since boot", describe::clock(history, event), event.time_ns));
    lines.extend(describe::byte_range(event));
    let address = |address| describe::address(history, address);
    if let (Some(local), Some(remote)) = (address(event.local), address(event.remote)) {
        lines.push(format!("{local} ⇄ {remote}"));
    }
    let within = event.time_ns.saturating_sub(event.begin_ns);
    lines.push(format!("took at most {}", layout::duration(within.into())));
    lines.push(format!("event {} · cpu {}", mark.event, event.cpu));
    lines.join("\n")
}

/// Text for XML, of one line: what is not allowed in XML even as a number is written out.
fn escaped(text: &str) -> String {
    let mut xml = String::with_capacity(text.len());
    for c in describe::printable(text).chars() {
        match c {
            '&' => xml.push_str("&amp;"),
            '<' => xml.push_str("&lt;"),
            '>' => xml.push_str("&gt;"),
            '"' => xml.push_str("&quot;"),
            '\u{fffe}' | '\u{ffff}' => xml.extend(c.escape_default()),
            c => xml.push(c),
        }
    }
    xml
}

fn escaped_lines(text: &str) -> String {
    let lines: Vec<String> = text.split('\n').map(escaped).collect();
    lines.join("\n")
}

#[cfg(test)]
mod tests;
