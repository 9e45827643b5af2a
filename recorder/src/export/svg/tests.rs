use std::collections::HashMap;

use expect_test::expect_file;

use super::*;
use crate::event::{Event, History, Host, Op};
use crate::export::example;
use crate::graph::{Edge, EdgeKind, Graph, Side, node};

fn written(history: &History, graph: &Graph) -> String {
    let selection: Vec<_> = (0..history.events.len() as u32).collect();
    let excerpt = Excerpt { history, graph, selection: &selection, interval_edges: false };
    let mut out = Vec::new();
    svg(&excerpt, &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

#[test]
fn the_example_is_drawn() {
    let (history, graph) = example::three_tiers();
    expect_file!["../tests/three-tiers.svg"].assert_eq(&written(&history, &graph));
}

/// Where labels and headings stand: left, right and baseline.
fn texts(layout: &Layout) -> Vec<(f64, f64, f64, &str)> {
    let mut texts = Vec::new();
    for mark in &layout.marks {
        let (x, width) = (layout.lanes[mark.lane].x, text_width(&mark.label));
        let left = if mark.label_left { x - LABEL_GAP - width } else { x + LABEL_GAP };
        texts.push((left, left + width, mark.label_y(), mark.label.as_str()));
    }
    for y in &layout.headings {
        for lane in &layout.lanes {
            let half = text_width(&lane.name) / 2.0;
            texts.push((lane.x - half, lane.x + half, *y, lane.name.as_str()));
        }
    }
    texts
}

#[test]
fn no_text_overlaps_another_or_leaves_its_process() {
    let mut two_hosts = example::three_tiers();
    two_hosts.0.hosts.push(Host {
        name: "a-host-with-a-really-long-name.example.org".into(),
        ..Host::default()
    });
    for event in &mut two_hosts.0.events {
        event.host = u16::from(event.pid == 4288);
    }
    for (history, graph) in [example::three_tiers(), example::busy(140), two_hosts] {
        let selection: Vec<_> = (0..history.events.len() as u32).collect();
        let excerpt = Excerpt {
            history: &history,
            graph: &graph,
            selection: &selection,
            interval_edges: false,
        };
        let layout = layout(&excerpt, 50.0);
        let texts = texts(&layout);
        for (i, a) in texts.iter().enumerate() {
            for b in &texts[i + 1..] {
                let apart = a.1 <= b.0 || b.1 <= a.0 || (a.2 - b.2).abs() >= FONT;
                assert!(apart, "{a:?} {b:?}");
            }
            assert!(layout.groups.iter().any(|g| g.left <= a.0 && a.1 <= g.right), "{a:?}");
        }
        for pair in layout.groups.windows(2) {
            assert!(pair[0].right < pair[1].left);
        }
    }
}

#[test]
fn boxes_of_a_lane_follow_each_other_and_arrows_go_down() {
    for (history, graph) in [example::three_tiers(), example::busy(100)] {
        let selection: Vec<_> = (0..history.events.len() as u32).collect();
        let excerpt = Excerpt {
            history: &history,
            graph: &graph,
            selection: &selection,
            interval_edges: false,
        };
        let layout = layout(&excerpt, 50.0);
        let mut bottoms = HashMap::new();
        for mark in &layout.marks {
            let above = bottoms.insert(mark.lane, mark.bottom).unwrap_or(0.0);
            assert!(above < mark.top && mark.top < mark.bottom);
        }
        for arrow in &layout.arrows {
            let (from, to) = (&layout.marks[arrow.from], &layout.marks[arrow.to]);
            assert!(from.y(arrow.link.from_side) <= to.y(arrow.link.to_side), "{:?}", arrow.link);
        }
    }
}

/// With a receiver whose clock is behind, a send's effect stands above its cause.
#[test]
fn boxes_of_a_lane_follow_each_other_when_clocks_differ() {
    let (mut history, graph) = example::busy(100);
    let behind =
        Host { wall_offset_ns: history.hosts[0].wall_offset_ns - 500_000, ..Host::default() };
    history.hosts.push(behind);
    history.events.iter_mut().for_each(|event| event.host = u16::from(event.pid == 700));
    let selection: Vec<_> = (0..history.events.len() as u32).collect();
    let excerpt =
        Excerpt { history: &history, graph: &graph, selection: &selection, interval_edges: false };
    let mut bottoms = HashMap::new();
    for mark in &layout(&excerpt, 50.0).marks {
        let above = bottoms.insert(mark.lane, mark.bottom).unwrap_or(0.0);
        assert!(above < mark.top && mark.top < mark.bottom);
    }
}

#[test]
fn a_picture_of_too_many_events_is_refused_with_advice() {
    let (history, graph) = example::busy(151);
    let selection: Vec<_> = (0..history.events.len() as u32).collect();
    let excerpt =
        Excerpt { history: &history, graph: &graph, selection: &selection, interval_edges: false };
    let error = svg(&excerpt, &mut Vec::new()).expect_err("604 events");
    assert_eq!(error.to_string(), "604 events are more than a picture can show (600)");
    assert!(error.hint().is_some_and(|hint| hint.contains("--slice PATTERN")));
    let few = Excerpt { selection: &selection[..600], ..excerpt };
    svg(&few, &mut Vec::new()).expect("600 events");
}

#[test]
fn many_sockets_of_a_process_share_one_kernel_lane() {
    let mut history = History::default();
    for port in 0..6 {
        let local = history.names.intern_address(([127, 0, 0, 1], 5000 + port).into());
        history.events.push(Event { pid: 5, local, ..Event::blank(Op::Closed) });
    }
    let text = written(&history, &Graph::default());
    assert_eq!(text.matches("kernelname\"").count(), 1);
    history.events.truncate(4);
    let text = written(&history, &Graph::default());
    assert_eq!(text.matches("kernelname\"").count(), 4);
}

#[test]
fn names_cannot_become_markup() {
    let mut history = History::default();
    let comm = history.names.intern("</text>\"&\u{1b}\n\u{ffff}");
    history.events = vec![Event { pid: 1, tid: 1, comm, ..Event::blank(Op::Exec) }; 2];
    let mut graph = Graph::default();
    (0..4).for_each(|_| {
        graph.nodes.add_node(());
    });
    let edge = Edge { kind: EdgeKind::Task, proof: Proof::May };
    graph.nodes.add_edge(node(0, Side::Begin), node(1, Side::End), edge);
    let text = written(&history, &graph);
    let name = "&lt;/text&gt;&quot;&amp;\\u{1b}\\n\\u{ffff}";
    assert!(text.contains(&format!(">exec {name}</text>")), "{text}");
    assert!(text.contains(&format!(">{name}[1]</text>")), "{text}");
    assert!(!text.contains(|c: char| c.is_control() && c != '\n'));
    assert_eq!(text.matches("<text").count(), text.matches("</text>").count());
}

#[test]
fn nothing_is_a_picture_too() {
    assert!(written(&History::default(), &Graph::default()).contains("no events"));
}
