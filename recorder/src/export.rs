//! A history and its graph in forms that other programs, and people, read; one file per form.

mod dot;
mod edges;
#[cfg(test)]
mod example;
mod json;
mod svg;

pub use dot::dot;
pub use edges::edges;
pub use json::{EventRow, clocks, json};
pub use svg::{MAX_EVENTS as SVG_MAX_EVENTS, SvgError, svg};

use crate::event::{EventIndex, History};
use crate::graph::{Edge, EdgeKind, Graph, Side, event_of, node};

/// What to write: some events of a history, and the edges among them.
#[derive(Clone, Copy, Debug)]
pub struct Excerpt<'a> {
    pub history: &'a History,
    pub graph: &'a Graph,
    /// The events to write, in the order to write them: all, or a slice.
    pub selection: &'a [EventIndex],
    /// Whether to write, too, that each event's begin precedes its end, which a reader knows anyway.
    pub interval_edges: bool,
}

/// An edge whose both events are in the excerpt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Link {
    from: EventIndex,
    from_side: Side,
    to: EventIndex,
    to_side: Side,
    edge: Edge,
}

impl Excerpt<'_> {
    /// The edges to write, by their cause; at one cause sorted, so that equal graphs give equal text.
    fn links(&self) -> impl Iterator<Item = Link> {
        let mut selected = vec![false; self.history.events.len()];
        self.selection.iter().for_each(|&event| selected[event as usize] = true);
        self.selection.iter().flat_map(move |&event| {
            let mut links: Vec<Link> = [Side::Begin, Side::End]
                .into_iter()
                .flat_map(|side| self.links_of(event, side))
                .filter(|link| selected.get(link.to as usize) == Some(&true))
                .filter(|link| self.interval_edges || link.edge.kind != EdgeKind::Interval)
                .collect();
            links.sort_by_key(|l| (l.to, l.from_side, l.to_side, l.edge.kind, l.edge.proof));
            links
        })
    }

    fn links_of(&self, from: EventIndex, from_side: Side) -> impl Iterator<Item = Link> {
        use petgraph::visit::EdgeRef;
        self.graph.nodes.edges(node(from, from_side)).map(move |edge| {
            let (to, to_side) = event_of(edge.target());
            Link { from, from_side, to, to_side, edge: *edge.weight() }
        })
    }
}
