//! The graph as one JSON object, for other programs; docs/graph-json.md is the reference.

use std::io::{self, Write};

use serde::Serialize;

use super::{Excerpt, Link};
use crate::clocks::{Clocks, Contradiction, Offset, Reading};
use crate::container::Runtime;
use crate::describe;
use crate::event::{Event, EventIndex, Flags, History, Host, Proof, Protocol};
use crate::pattern::FlagName;

/// Writes one object, an event or edge per line. Nothing is gathered in memory.
pub fn json(excerpt: &Excerpt<'_>, out: &mut dyn Write) -> io::Result<()> {
    out.write_all(b"{\"events\":[")?;
    let events = excerpt.selection.iter().map(|&id| EventRow::new(excerpt.history, id));
    rows(events, out)?;
    out.write_all(b"],\"edges\":[")?;
    rows(excerpt.links().map(EdgeRow::from), out)?;
    out.write_all(b"],\"hosts\":[")?;
    rows(excerpt.history.hosts.iter().map(HostRow::from), out)?;
    out.write_all(b"],\"clocks\":[")?;
    let several = excerpt.history.hosts.len() > 1;
    let readings = several.then(|| Clocks::new(excerpt.history, excerpt.graph).readings());
    let offsets = readings.iter().flatten().flat_map(|r| clocks(excerpt.history, r));
    rows(offsets, out)?;
    out.write_all(b"]}\n")?;
    out.flush()
}

fn rows(rows: impl Iterator<Item = impl Serialize>, out: &mut dyn Write) -> io::Result<()> {
    for (i, row) in rows.enumerate() {
        out.write_all(if i == 0 { b"\n" } else { b",\n" })?;
        serde_json::to_writer(&mut *out, &row)?;
    }
    out.write_all(b"\n")
}

#[derive(Serialize)]
struct HostRow<'a> {
    name: &'a str,
    boot_id: &'a str,
    wall_offset_ns: i64,
}

impl<'a> From<&'a Host> for HostRow<'a> {
    fn from(host: &'a Host) -> Self {
        let Host { name, boot_id, wall_offset_ns, .. } = host;
        Self { name, boot_id, wall_offset_ns: *wall_offset_ns }
    }
}

/// By how much one host's monotonic clock was ahead of another's when that showed `at_ns`. Of hosts whose
/// messages fit no offset, that they contradict each other.
#[derive(Serialize)]
pub struct ClockRow<'a> {
    host: &'a str,
    of: &'a str,
    at_ns: Option<u64>,
    low_ns: Option<i64>,
    high_ns: Option<i64>,
    messages: Option<u64>,
    contradiction_ns: Option<i64>,
}

/// A row per host that is compared with another.
pub fn clocks<'a>(
    history: &'a History,
    reading: &Result<Reading, Contradiction>,
) -> Vec<ClockRow<'a>> {
    let name = |host: u16| history.hosts[usize::from(host)].name.as_str();
    // A bound beyond 292 years is none.
    let bound = |ns: i128| i64::try_from(ns).ok();
    match *reading {
        Ok(Reading { of, at_ns, ref offsets }) => {
            let row = |offset: &Offset| ClockRow {
                host: name(offset.host),
                of: name(of),
                at_ns: Some(at_ns),
                low_ns: offset.low_ns.and_then(bound),
                high_ns: offset.high_ns.and_then(bound),
                messages: Some(offset.messages),
                contradiction_ns: None,
            };
            offsets.iter().map(row).collect()
        }
        Err(Contradiction { hosts: [of, host], by_ns, .. }) => vec![ClockRow {
            host: name(host),
            of: name(of),
            at_ns: None,
            low_ns: None,
            high_ns: None,
            messages: None,
            contradiction_ns: bound(by_ns),
        }],
    }
}

/// One event, in the order of its columns.
#[derive(Serialize)]
pub struct EventRow<'a> {
    id: EventIndex,
    host: &'a str,
    begin_ns: u64,
    time_ns: u64,
    pid: Option<u32>,
    tid: Option<u32>,
    comm: &'a str,
    cgroup: &'a str,
    runtime: Option<&'static str>,
    container: Option<String>,
    pod: Option<String>,
    lane: &'static str,
    op: &'static str,
    protocol: Option<&'static str>,
    local: Option<String>,
    remote: Option<String>,
    netns: Option<u32>,
    netns_name: Option<String>,
    socket: Option<u64>,
    iss: Option<u32>,
    irs: Option<u32>,
    stream_start: Option<u64>,
    stream_end: Option<u64>,
    result: i64,
    error: Option<String>,
    signal: Option<String>,
    target: Option<u32>,
    syscall: Option<&'a str>,
    fd: Option<u32>,
    eof: bool,
    peek: bool,
    flags: Vec<&'static str>,
    cpu: u16,
    ring: &'static str,
    position: u64,
}

impl<'a> EventRow<'a> {
    pub fn new(history: &'a History, id: EventIndex) -> Self {
        let event = &history.events[id as usize];
        let host = history.hosts.get(usize::from(event.host));
        let container = history.container(event).unwrap_or_default();
        let numbers_known = event.proof != Proof::Unknown;
        Self {
            id,
            host: host.map_or("", |host| &host.name),
            begin_ns: event.begin_ns,
            time_ns: event.time_ns,
            pid: present(event.pid),
            tid: present(event.tid),
            comm: history.comm(event),
            cgroup: history.names.text(event.cgroup),
            runtime: container.runtime.map(Runtime::as_str),
            container: text(container.label()),
            pod: text(container.pod_label()),
            lane: if event.in_kernel_lane() { "kernel" } else { "thread" },
            op: event.op.as_str(),
            protocol: event.protocol.map(Protocol::as_str),
            local: history.names.socket_address(event.local).map(|address| address.to_string()),
            remote: history.names.socket_address(event.remote).map(|address| address.to_string()),
            netns: present(event.netns),
            netns_name: history.namespace(event).map(|namespace| namespace.label().into_owned()),
            socket: (event.socket != 0).then_some(event.socket),
            iss: numbers_known.then_some(event.iss),
            irs: numbers_known.then_some(event.irs),
            stream_start: event.has_range().then_some(event.stream_start),
            stream_end: event.has_range().then_some(event.stream_end),
            result: event.result,
            error: describe::error_name(event),
            signal: (event.signal != 0).then(|| describe::signal_name(event.signal)),
            target: present(event.target),
            syscall: Some(history.names.text(event.syscall)).filter(|name| !name.is_empty()),
            fd: event.fd.number(),
            eof: event.flags.has(Flags::EOF),
            peek: event.flags.has(Flags::PEEK),
            flags: flags(event),
            cpu: event.cpu,
            ring: event.ring.as_str(),
            position: event.position,
        }
    }
}

fn text(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

/// A number of which 0 means that there is none.
fn present(number: u32) -> Option<u32> {
    (number != 0).then_some(number)
}

/// The flags that have no key of their own.
fn flags(event: &Event) -> Vec<&'static str> {
    FlagName::ALL
        .into_iter()
        .filter(|flag| !matches!(flag, FlagName::Eof | FlagName::Peek))
        .filter(|flag| event.flags.has(flag.bits()))
        .map(FlagName::as_str)
        .collect()
}

#[derive(Serialize)]
struct EdgeRow {
    from: EventIndex,
    from_side: &'static str,
    to: EventIndex,
    to_side: &'static str,
    kind: &'static str,
    proof: &'static str,
}

impl From<Link> for EdgeRow {
    fn from(link: Link) -> Self {
        Self {
            from: link.from,
            from_side: link.from_side.as_str(),
            to: link.to,
            to_side: link.to_side.as_str(),
            kind: link.edge.kind.as_str(),
            proof: link.edge.proof.as_str(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use expect_test::expect;

    use super::*;
    use crate::event::{Op, Ring};
    use crate::export::example;
    use crate::graph::{Edge, EdgeKind, Graph, Proof as EdgeProof, Side, node};

    fn written(excerpt: &Excerpt<'_>) -> String {
        let mut out = Vec::new();
        json(excerpt, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    /// Two ends of one send, and the kernel's view of a reset: each column filled or null once.
    fn small() -> (History, Graph) {
        let mut history = History {
            hosts: vec![Host { name: "a".into(), ..Host::default() }],
            ..History::default()
        };
        let mut address =
            |text: &str| history.names.intern_address(text.parse::<SocketAddr>().unwrap());
        let (client, server) = (address("[::1]:53122"), address("127.0.0.1:80"));
        let send = Event {
            time_ns: 20,
            begin_ns: 10,
            position: 5,
            socket: 77,
            stream_end: 497,
            result: 497,
            iss: 1000,
            irs: 2000,
            pid: 40,
            tid: 41,
            netns: 4_026_531_840,
            comm: history.names.intern("a \"b\"\u{1b}\\<é>"),
            cgroup: history.names.intern("/app"),
            local: client,
            remote: server,
            cpu: 1,
            proof: Proof::Established,
            flags: Flags::RANGE.with(Flags::ACTIVE),
            ..Event::blank(Op::Send)
        };
        let receive = Event {
            op: Op::Recv,
            time_ns: 15,
            error: 104,
            result: 0,
            flags: Flags::PEEK,
            proof: Proof::Unknown,
            ..send
        };
        let reset = Event { time_ns: 30, socket: 77, local: server, ..Event::blank(Op::ResetSent) };
        let kill = Event { signal: 9, target: 41, pid: 9, tid: 9, ..Event::blank(Op::Signal) };
        history.events = vec![send, receive, reset, Event { ring: Ring::Rare, ..kill }];
        let mut graph = Graph::default();
        for _ in 0..8 {
            graph.nodes.add_node(());
        }
        let mut edge = |from, to, kind, proof| {
            graph.nodes.add_edge(from, to, Edge { kind, proof });
        };
        edge(node(0, Side::Begin), node(0, Side::End), EdgeKind::Interval, EdgeProof::Must);
        edge(node(0, Side::Begin), node(1, Side::End), EdgeKind::Bytes, EdgeProof::Must);
        edge(node(0, Side::End), node(2, Side::Begin), EdgeKind::Close, EdgeProof::May);
        (history, graph)
    }

    /// Other programs read this: a change here is a change for them.
    #[test]
    fn the_form_is_pinned() {
        let (history, graph) = small();
        let excerpt = Excerpt {
            history: &history,
            graph: &graph,
            selection: &[0, 1, 2, 3],
            interval_edges: false,
        };
        expect![[r#"
            {"events":[
            {"id":0,"host":"a","begin_ns":10,"time_ns":20,"pid":40,"tid":41,"comm":"a \"b\"\u001b\\<é>","cgroup":"/app","runtime":null,"container":null,"pod":null,"lane":"thread","op":"send","protocol":"tcp","local":"[::1]:53122","remote":"127.0.0.1:80","netns":4026531840,"netns_name":null,"socket":77,"iss":1000,"irs":2000,"stream_start":0,"stream_end":497,"result":497,"error":null,"signal":null,"target":null,"syscall":null,"fd":null,"eof":false,"peek":false,"flags":["active"],"cpu":1,"ring":"bulk","position":5},
            {"id":1,"host":"a","begin_ns":10,"time_ns":15,"pid":40,"tid":41,"comm":"a \"b\"\u001b\\<é>","cgroup":"/app","runtime":null,"container":null,"pod":null,"lane":"thread","op":"recv","protocol":"tcp","local":"[::1]:53122","remote":"127.0.0.1:80","netns":4026531840,"netns_name":null,"socket":77,"iss":null,"irs":null,"stream_start":null,"stream_end":null,"result":0,"error":"ECONNRESET","signal":null,"target":null,"syscall":null,"fd":null,"eof":false,"peek":true,"flags":[],"cpu":1,"ring":"bulk","position":5},
            {"id":2,"host":"a","begin_ns":0,"time_ns":30,"pid":null,"tid":null,"comm":"","cgroup":"","runtime":null,"container":null,"pod":null,"lane":"kernel","op":"reset_sent","protocol":"tcp","local":"127.0.0.1:80","remote":null,"netns":null,"netns_name":null,"socket":77,"iss":null,"irs":null,"stream_start":null,"stream_end":null,"result":0,"error":null,"signal":null,"target":null,"syscall":null,"fd":null,"eof":false,"peek":false,"flags":[],"cpu":0,"ring":"bulk","position":0},
            {"id":3,"host":"a","begin_ns":0,"time_ns":0,"pid":9,"tid":9,"comm":"","cgroup":"","runtime":null,"container":null,"pod":null,"lane":"thread","op":"signal","protocol":null,"local":null,"remote":null,"netns":null,"netns_name":null,"socket":null,"iss":null,"irs":null,"stream_start":null,"stream_end":null,"result":0,"error":null,"signal":"SIGKILL","target":41,"syscall":null,"fd":null,"eof":false,"peek":false,"flags":[],"cpu":0,"ring":"rare","position":0}
            ],"edges":[
            {"from":0,"from_side":"begin","to":1,"to_side":"end","kind":"bytes","proof":"must"},
            {"from":0,"from_side":"end","to":2,"to_side":"begin","kind":"close","proof":"may"}
            ],"hosts":[
            {"name":"a","boot_id":"","wall_offset_ns":0}
            ],"clocks":[
            ]}
        "#]].assert_eq(&written(&excerpt));
    }

    #[test]
    fn edges_need_both_ends_and_ids_stay() {
        let (history, graph) = small();
        let selection = [0, 2];
        let excerpt = Excerpt {
            history: &history,
            graph: &graph,
            selection: &selection,
            interval_edges: true,
        };
        let value: serde_json::Value = serde_json::from_str(&written(&excerpt)).unwrap();
        let ids: Vec<_> = value["events"].as_array().unwrap().iter().map(|e| &e["id"]).collect();
        assert_eq!(ids, [0, 2]);
        let edges: Vec<_> = value["edges"]
            .as_array()
            .unwrap()
            .iter()
            .map(|e| (e["to"].as_u64().unwrap(), e["kind"].as_str().unwrap()))
            .collect();
        assert_eq!(edges, [(0, "interval"), (2, "close")]);
        assert_eq!(value["events"][0]["comm"], "a \"b\"\u{1b}\\<é>");
    }

    #[test]
    fn nothing_is_an_object_too() {
        let (history, graph) = small();
        let excerpt =
            Excerpt { history: &history, graph: &graph, selection: &[], interval_edges: false };
        expect![[r#"
            {"events":[
            ],"edges":[
            ],"hosts":[
            {"name":"a","boot_id":"","wall_offset_ns":0}
            ],"clocks":[
            ]}
        "#]]
        .assert_eq(&written(&excerpt));
    }

    #[test]
    fn every_event_and_edge_of_the_example_is_there() {
        let (history, graph) = example::three_tiers();
        let selection: Vec<_> = (0..history.events.len() as u32).collect();
        let excerpt = Excerpt {
            history: &history,
            graph: &graph,
            selection: &selection,
            interval_edges: true,
        };
        let value: serde_json::Value = serde_json::from_str(&written(&excerpt)).unwrap();
        assert_eq!(value["events"].as_array().unwrap().len(), history.events.len());
        assert_eq!(value["edges"].as_array().unwrap().len(), graph.nodes.edge_count());
    }
}
