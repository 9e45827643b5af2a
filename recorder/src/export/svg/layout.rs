//! Where everything in a space–time diagram stands: lanes side by side, events down the page in the order
//! of their ends.
//!
//! ```text
//!              │ curl[4312]       ││ nginx[4290]      kernel 127.0.0.1:80 │
//! 12:00:01.20  │      send 78 B ▮─────────▶▮ recv 78 B          │          │
//! ```
//!
//! Time is by rank, one row per event, since in real time the events of a request would be one blot.
//! A label stands on the side of its event where fewer arrows are, and lanes are as far apart as their
//! labels need.

use std::collections::HashMap;

use super::super::{Excerpt, Link};
use crate::describe;
use crate::event::{Address, Event, EventIndex};
use crate::graph::{EdgeKind, Side};

/// All lengths are in pixels.
pub const ROW: f64 = 24.0;
pub const FONT: f64 = 11.0;
pub const BOX_WIDTH: f64 = 9.0;
pub const BOX_HEIGHT: f64 = 9.0;
/// From a lane's axis to its labels.
pub const LABEL_GAP: f64 = 10.0;
/// Left of everything.
pub const MARGIN: f64 = 20.0;
/// How far a label is moved out of an arrow's way: less than half of what is left of a row.
const SHIFT: f64 = 6.0;
const HEADING: f64 = 30.0;
const GUTTER_CHARACTERS: usize = 15;
const GROUP_PADDING: f64 = 10.0;
const GROUP_GAP: f64 = 10.0;
/// The lanes' names stand again after so many rows, so that a long picture can be read on a screen.
const ROWS_PER_HEADING: usize = 40;
const ROWS_PER_TIME: usize = 5;
/// A pause that is longer than this part of the whole is shown as a gap.
const PAUSE_FRACTION: i128 = 5;
/// Kernel lanes of one process, one per address, before they become one.
const MAX_KERNEL_LANES: usize = 4;

pub struct Layout {
    pub width: f64,
    pub height: f64,
    /// Top of the first heading.
    pub top: f64,
    pub groups: Vec<Group>,
    pub lanes: Vec<Lane>,
    pub marks: Vec<Mark>,
    pub arrows: Vec<Arrow>,
    /// Baselines of the lines that name the lanes.
    pub headings: Vec<f64>,
    pub times: Vec<Time>,
}

/// One process.
pub struct Group {
    pub host: u16,
    pub left: f64,
    pub right: f64,
}

pub struct Lane {
    /// Host and process.
    pub process: (u16, u32),
    pub name: String,
    pub x: f64,
    pub is_kernel: bool,
}

/// An event's place.
pub struct Mark {
    pub event: EventIndex,
    pub lane: usize,
    /// Of the box: it reaches up to where its begin must be for the arrows that leave there.
    pub top: f64,
    pub bottom: f64,
    pub label: String,
    pub label_left: bool,
    /// How far down the label is moved, out of the way of arrows on its side.
    pub label_shift: f64,
}

impl Mark {
    /// Baseline of the label.
    pub fn label_y(&self) -> f64 {
        self.end() + FONT * 0.36 + self.label_shift
    }

    pub fn y(&self, side: Side) -> f64 {
        match side {
            Side::Begin => self.top + BOX_HEIGHT / 2.0,
            Side::End => self.end(),
        }
    }

    fn end(&self) -> f64 {
        self.bottom - BOX_HEIGHT / 2.0
    }
}

/// An edge between marks, by their indexes.
pub struct Arrow {
    pub link: Link,
    pub from: usize,
    pub to: usize,
}

/// What stands in the gutter: the clock, or how long a pause was.
pub struct Time {
    pub y: f64,
    pub text: String,
    pub is_pause: bool,
}

/// How wide a text is in a monospaced font: a little more than any common one needs.
pub fn text_width(text: &str) -> f64 {
    let columns: usize = text.chars().map(|c| if c as u32 >= 0x1100 { 2 } else { 1 }).sum();
    columns as f64 * FONT * 0.615
}

/// Places all that is in the excerpt, from `top` down.
pub fn layout(excerpt: &Excerpt<'_>, top: f64) -> Layout {
    let mut order = excerpt.selection.to_vec();
    let history = excerpt.history;
    order.sort_by_key(|&id| (describe::wall_ns(history, &history.events[id as usize]), id));
    let (keys, mut lanes) = lanes(excerpt, &order);
    let mut marks: Vec<Mark> = order
        .iter()
        .map(|&event| Mark {
            event,
            lane: keys[&lane_key(excerpt, event)],
            top: 0.0,
            bottom: 0.0,
            label: describe::act(history, &history.events[event as usize]),
            label_left: false,
            label_shift: 0.0,
        })
        .collect();
    let arrows = arrows(excerpt, &marks);
    choose_label_sides(&mut marks, &arrows);
    let groups = place_lanes(excerpt, &mut lanes, &marks, &order);
    let right = groups.last().map_or(gutter(), |group| group.right);
    let mut layout = Layout {
        width: right + GROUP_GAP,
        height: 0.0,
        top,
        groups,
        lanes,
        marks,
        arrows,
        headings: Vec::new(),
        times: Vec::new(),
    };
    place_rows(excerpt, &mut layout);
    reach_up_to_begins(&mut layout);
    layout
}

fn gutter() -> f64 {
    MARGIN + text_width(&" ".repeat(GUTTER_CHARACTERS)) + GROUP_GAP
}

/// Host, process, and within it: threads by tid, then kernel lanes by address.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct LaneKey {
    host: u16,
    pid: u32,
    tid: u32,
    kernel: Option<Address>,
}

fn lane_key(excerpt: &Excerpt<'_>, event: EventIndex) -> LaneKey {
    let Event { host, pid, tid, local, .. } = excerpt.history.events[event as usize];
    LaneKey { host, pid, tid, kernel: (tid == 0).then_some(local) }
}

/// The lanes from left to right: processes as they appear, their threads, then their kernel lanes; and
/// each key's number.
fn lanes(excerpt: &Excerpt<'_>, order: &[EventIndex]) -> (HashMap<LaneKey, usize>, Vec<Lane>) {
    let mut keys: Vec<LaneKey> = Vec::new();
    let mut processes: Vec<(u16, u32)> = Vec::new();
    // The newest name, which is the one that people know.
    let mut names: HashMap<LaneKey, EventIndex> = HashMap::new();
    for &event in order {
        let key = lane_key(excerpt, event);
        if names.insert(key, event).is_none() {
            keys.push(key);
        }
        if !processes.contains(&(key.host, key.pid)) {
            processes.push((key.host, key.pid));
        }
    }
    let process_of = |key: &LaneKey| (key.host, key.pid);
    // Stable: within these, as they appear. Hosts stand together.
    processes.sort_by_key(|&(host, _)| host);
    let place: HashMap<_, _> = processes.iter().zip(0..).map(|(p, i)| (*p, i)).collect();
    keys.sort_by_key(|key| (place[&process_of(key)], key.kernel.is_some()));
    let mut numbers = HashMap::new();
    let mut lanes: Vec<Lane> = Vec::new();
    for key in &keys {
        let process = process_of(key);
        let kernel_lanes = keys.iter().filter(|k| process_of(k) == process && k.kernel.is_some());
        let merged = kernel_lanes.count() > MAX_KERNEL_LANES && key.kernel.is_some();
        let is_last_lane =
            lanes.last().is_some_and(|lane| lane.process == process && lane.is_kernel);
        if !(merged && is_last_lane) {
            let name = lane_name(excerpt, names[key], merged);
            lanes.push(Lane { process, name, x: 0.0, is_kernel: key.kernel.is_some() });
        }
        numbers.insert(*key, lanes.len() - 1);
    }
    (numbers, lanes)
}

fn lane_name(excerpt: &Excerpt<'_>, event: EventIndex, merged: bool) -> String {
    let history = excerpt.history;
    let event = &history.events[event as usize];
    match describe::address(history, event.local) {
        Some(address) if event.in_kernel_lane() && !merged => format!("kernel {address}"),
        _ if event.in_kernel_lane() => "kernel".to_owned(),
        _ => describe::thread(history, event),
    }
}

/// What is drawn: all but program order along a lane, which the lane itself shows.
fn arrows(excerpt: &Excerpt<'_>, marks: &[Mark]) -> Vec<Arrow> {
    let place: HashMap<_, _> = marks.iter().zip(0..).map(|(mark, i)| (mark.event, i)).collect();
    excerpt
        .links()
        .filter(|link| link.edge.kind != EdgeKind::Interval)
        .map(|link| Arrow { link, from: place[&link.from], to: place[&link.to] })
        .filter(|arrow| {
            let same_lane = marks[arrow.from].lane == marks[arrow.to].lane;
            !(same_lane && arrow.link.edge.kind == EdgeKind::Program)
        })
        .collect()
}

/// Labels stand where fewer arrows are; where there are some on both sides, above those that go down or
/// below those that come from above.
fn choose_label_sides(marks: &mut [Mark], arrows: &[Arrow]) {
    /// Arrows of one mark on one of its sides.
    #[derive(Clone, Copy, Default)]
    struct Side {
        count: u32,
        from_above: u32,
    }
    let mut sides = vec![[Side::default(); 2]; marks.len()];
    for arrow in arrows {
        for (here, there) in [(arrow.from, arrow.to), (arrow.to, arrow.from)] {
            let (lane, other) = (marks[here].lane, marks[there].lane);
            if lane != other {
                let side = &mut sides[here][usize::from(other > lane)];
                side.count += 1;
                side.from_above += u32::from(there < here);
            }
        }
    }
    for (mark, [left, right]) in marks.iter_mut().zip(sides) {
        mark.label_left = right.count > left.count;
        let beside = if mark.label_left { left } else { right };
        mark.label_shift = match beside {
            Side { count: 0, .. } => 0.0,
            Side { count, from_above } if count == from_above => SHIFT,
            _ => -SHIFT,
        };
    }
}

fn place_lanes(
    excerpt: &Excerpt<'_>,
    lanes: &mut [Lane],
    marks: &[Mark],
    order: &[EventIndex],
) -> Vec<Group> {
    let mut sides: Vec<[f64; 2]> =
        lanes.iter().map(|lane| [text_width(&lane.name) / 2.0 + LABEL_GAP / 2.0; 2]).collect();
    for mark in marks {
        let side = &mut sides[mark.lane][usize::from(!mark.label_left)];
        *side = side.max(text_width(&mark.label) + 2.0 * LABEL_GAP);
    }
    let mut x = gutter();
    let mut groups: Vec<Group> = Vec::new();
    let mut last_process = None;
    for (lane, [left, right]) in lanes.iter_mut().zip(sides) {
        if last_process.replace(lane.process) == Some(lane.process) {
            x += GROUP_GAP / 2.0;
        } else {
            x += if groups.is_empty() { 0.0 } else { GROUP_PADDING + GROUP_GAP };
            groups.push(Group { host: lane.process.0, left: x, right: x });
            x += GROUP_PADDING;
        }
        lane.x = x + left;
        x = lane.x + right;
        if let Some(group) = groups.last_mut() {
            group.right = x + GROUP_PADDING;
        }
    }
    widen_for_hosts(excerpt, lanes, &mut groups, order);
    groups
}

/// A host's name stands above its first process, which must be as wide.
fn widen_for_hosts(
    excerpt: &Excerpt<'_>,
    lanes: &mut [Lane],
    groups: &mut [Group],
    order: &[EventIndex],
) {
    if excerpt.history.hosts.len() < 2 || order.is_empty() {
        return;
    }
    for i in 0..groups.len() {
        let Group { host, left, right } = groups[i];
        let name = excerpt.history.hosts.get(usize::from(host)).map_or("", |host| &host.name);
        let missing = text_width(&describe::printable(name)) + GROUP_PADDING - (right - left);
        if missing <= 0.0 {
            continue;
        }
        groups[i].right += missing;
        for group in &mut groups[i + 1..] {
            group.left += missing;
            group.right += missing;
        }
        lanes.iter_mut().filter(|lane| lane.x > right).for_each(|lane| lane.x += missing);
    }
}

fn place_rows(excerpt: &Excerpt<'_>, layout: &mut Layout) {
    let history = excerpt.history;
    let wall_ns = |mark: &Mark| describe::wall_ns(history, &history.events[mark.event as usize]);
    let whole_ns = match (layout.marks.first(), layout.marks.last()) {
        (Some(first), Some(last)) => wall_ns(last) - wall_ns(first),
        _ => 0,
    };
    let mut y = layout.top;
    let mut last_ns = None;
    let mut rows_since_time = 0;
    for (i, mark) in layout.marks.iter_mut().enumerate() {
        let now_ns = wall_ns(mark);
        let pause_ns = last_ns.map_or(0, |last_ns| now_ns - last_ns);
        let paused = pause_ns > 0 && pause_ns * PAUSE_FRACTION > whole_ns;
        if i % ROWS_PER_HEADING == 0 {
            layout.headings.push(y + HEADING / 2.0 + FONT / 2.0);
            y += HEADING;
        }
        if paused {
            layout.times.push(Time { y: y + ROW / 2.0, text: duration(pause_ns), is_pause: true });
            y += ROW;
        }
        if i == 0 || paused || rows_since_time >= ROWS_PER_TIME {
            let text = describe::clock(history, &history.events[mark.event as usize]);
            layout.times.push(Time { y: y + ROW / 2.0, text, is_pause: false });
            rows_since_time = 0;
        }
        mark.top = y + ROW / 2.0 - BOX_HEIGHT / 2.0;
        mark.bottom = mark.top + BOX_HEIGHT;
        y += ROW;
        rows_since_time += 1;
        last_ns = Some(now_ns);
    }
    layout.height = y + ROW / 2.0;
}

/// A send is often stamped after the receive that it caused: its box then begins above the receive's end,
/// but below the previous event of its lane.
fn reach_up_to_begins(layout: &mut Layout) {
    let ends: Vec<f64> = layout.marks.iter().map(Mark::end).collect();
    for arrow in &layout.arrows {
        if arrow.link.from_side == Side::Begin && ends[arrow.to] < ends[arrow.from] {
            let top = ends[arrow.to] - 0.6 * ROW - BOX_HEIGHT / 2.0;
            let mark = &mut layout.marks[arrow.from];
            mark.top = mark.top.min(top);
        }
    }
    let mut lowest: Vec<f64> = vec![0.0; layout.lanes.len()];
    for mark in &mut layout.marks {
        mark.top = mark.top.max(lowest[mark.lane] + 3.0).min(mark.bottom - BOX_HEIGHT);
        lowest[mark.lane] = mark.bottom;
    }
}

/// `1.30 s`, `79 ms`, `61 µs`, `5 ns`.
pub fn duration(ns: i128) -> String {
    match ns {
        1_000_000_000.. => format!("{:.2} s", ns as f64 / 1e9),
        1_000_000.. => format!("{} ms", ns / 1_000_000),
        1000.. => format!("{} µs", ns / 1000),
        _ => format!("{ns} ns"),
    }
}
