//! The graph in Graphviz's language: a cluster per process, an arrow per edge, dashed where only possible.

use std::collections::BTreeMap;
use std::io::{self, Write};

use super::Excerpt;
use crate::describe;
use crate::event::{EventIndex, History};
use crate::graph::Proof;

/// Writes a `digraph` for `dot -Tsvg` and its like.
pub fn dot(excerpt: &Excerpt<'_>, out: &mut dyn Write) -> io::Result<()> {
    let history = excerpt.history;
    writeln!(out, "digraph wherefore {{")?;
    writeln!(out, "  graph [fontname=\"monospace\", fontsize=12];")?;
    writeln!(out, "  node [shape=box, style=rounded, fontname=\"monospace\", fontsize=10];")?;
    writeln!(out, "  edge [fontname=\"monospace\", fontsize=9];")?;
    for (number, (process, events)) in processes(excerpt).into_iter().enumerate() {
        writeln!(out, "  subgraph cluster_{number} {{")?;
        writeln!(out, "    label={};", quoted(&process_name(history, process, events[0])))?;
        for id in events {
            event(history, id, out)?;
        }
        writeln!(out, "  }}")?;
    }
    for link in excerpt.links() {
        let style = match link.edge.proof {
            Proof::Must => "solid",
            Proof::May => "dashed",
        };
        let kind = link.edge.kind.as_str();
        writeln!(out, "  e{} -> e{} [label=\"{kind}\", style={style}];", link.from, link.to)?;
    }
    writeln!(out, "}}")?;
    out.flush()
}

/// Host and process; 0 where the kernel's event has no owner.
type Process = (u16, u32);

fn processes(excerpt: &Excerpt<'_>) -> BTreeMap<Process, Vec<EventIndex>> {
    let mut processes: BTreeMap<Process, Vec<EventIndex>> = BTreeMap::new();
    for &id in excerpt.selection {
        let event = &excerpt.history.events[id as usize];
        processes.entry((event.host, event.pid)).or_default().push(id);
    }
    processes
}

fn process_name(history: &History, (host, pid): Process, first: EventIndex) -> String {
    let comm = describe::printable(history.comm(&history.events[first as usize]));
    let name = if pid == 0 { "kernel".to_owned() } else { format!("{comm}[{pid}]") };
    match history.hosts.get(usize::from(host)) {
        Some(host) if history.hosts.len() > 1 => format!("{}:{name}", host.name),
        _ => name,
    }
}

fn event(history: &History, id: EventIndex, out: &mut dyn Write) -> io::Result<()> {
    let event = &history.events[id as usize];
    let lane = describe::lane(history, event);
    let (what, when) = (describe::describe(history, event), describe::clock(history, event));
    let mut look = String::new();
    if event.in_kernel_lane() {
        look.push_str(", style=\"rounded,dotted\"");
    }
    if event.error != 0 {
        look.push_str(", color=red");
    }
    writeln!(out, "    e{id} [label={}{look}];", quoted(&format!("{what}\n{lane}\n{when}")))
}

/// A quoted string in which a line break is one, and nothing else is special.
fn quoted(text: &str) -> String {
    let lines: Vec<String> = text
        .split('\n')
        .map(|line| describe::printable(line).replace('\\', "\\\\").replace('"', "\\\""))
        .collect();
    format!("\"{}\"", lines.join("\\n"))
}

#[cfg(test)]
mod tests {
    use expect_test::expect_file;

    use super::*;
    use crate::event::{Event, Op};
    use crate::export::example;
    use crate::graph::Graph;

    fn written(history: &History, graph: &Graph) -> String {
        let selection: Vec<_> = (0..history.events.len() as u32).collect();
        let excerpt = Excerpt { history, graph, selection: &selection, interval_edges: false };
        let mut out = Vec::new();
        dot(&excerpt, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_example_has_a_cluster_per_process() {
        let (history, graph) = example::three_tiers();
        expect_file!["tests/three-tiers.dot"].assert_eq(&written(&history, &graph));
    }

    #[test]
    fn names_cannot_leave_their_quotes() {
        let mut history = History::default();
        let comm = history.names.intern("\"];x\\\n\u{1b}<&>");
        history.events = vec![Event { pid: 1, tid: 1, comm, ..Event::blank(Op::Exec) }];
        let mut graph = Graph::default();
        graph.nodes.add_node(());
        graph.nodes.add_node(());
        let text = written(&history, &graph);
        expect_test::expect![[r#"
            digraph wherefore {
              graph [fontname="monospace", fontsize=12];
              node [shape=box, style=rounded, fontname="monospace", fontsize=10];
              edge [fontname="monospace", fontsize=9];
              subgraph cluster_0 {
                label="\"];x\\\\n\\u{1b}<&>[1]";
                e0 [label="exec \"];x\\\\n\\u{1b}<&>\n\"];x\\\\n\\u{1b}<&>[1]\n00:00:00.000000"];
              }
            }
        "#]]
        .assert_eq(&text);
    }
}
