//! Where an answer ends for want of a recording: the other ends of its connections that are in none.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};

use crate::event::{Event, EventIndex, Flags, History, Op};
use crate::graph::{Endpoint, Graph};
use crate::slice::Reach;

/// Something that was heard from, and that no recording here has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Beyond {
    pub ip: IpAddr,
    /// The port that was connected to; nothing where it was the other end that connected.
    pub port: Option<u16>,
    /// A host that is recorded and has this address: its process was not in scope, or not any more.
    pub host: Option<u16>,
    /// Whether what came from there must have had an influence, or may.
    pub reach: Reach,
    /// How many connections that is, and an event of one of them.
    pub connections: usize,
    pub heard_by: EventIndex,
}

/// What these events, reached by a slice, heard from outside. Must first, then by how many connections.
pub fn beyond(
    history: &History,
    graph: &Graph,
    events: impl Iterator<Item = (EventIndex, Reach)>,
) -> Vec<Beyond> {
    let mut addresses: Option<HashMap<IpAddr, u16>> = None;
    let mut seen = HashSet::new();
    let mut found: BTreeMap<(IpAddr, Option<u16>), Beyond> = BTreeMap::new();
    for (index, reach) in events {
        let event = &history.events[index as usize];
        if !hears(event) {
            continue;
        }
        let Some(number) = graph.endpoint_of(history, index) else { continue };
        let endpoint = &graph.endpoints[number as usize];
        let Some(remote) = history.names.address(endpoint.remote) else { continue };
        if endpoint.connection.is_some() {
            continue;
        }
        let port = connected_to(history, graph, endpoint, remote);
        let ip = remote.ip().to_canonical();
        let addresses = addresses.get_or_insert_with(|| addresses_of(history, graph));
        let own = ip.is_loopback().then_some(endpoint.host);
        let host = own.or_else(|| addresses.get(&ip).copied());
        if host.is_some() && !was_established(history, graph, endpoint) {
            continue;
        }
        let known = found.entry((ip, port)).or_insert_with(|| Beyond {
            ip,
            port,
            host,
            reach,
            connections: 0,
            heard_by: index,
        });
        known.connections += usize::from(seen.insert(number));
        known.reach = known.reach.max(reach);
    }
    let mut found: Vec<Beyond> = found.into_values().collect();
    found.sort_by_key(|b| std::cmp::Reverse((b.reach, b.connections)));
    found
}

/// Whether there was somebody at the other end: of a host that is recorded, who never was there said nothing.
fn was_established(history: &History, graph: &Graph, endpoint: &Endpoint) -> bool {
    let mut events =
        graph.events_of_endpoint(endpoint).iter().map(|&e| &history.events[e as usize]);
    events.any(|event| event.op == Op::Established || event.has_range())
}

/// Whether an event may be the other end's doing.
fn hears(event: &Event) -> bool {
    let received = event.op == Op::Recv && (event.error == 0 || event.flags.has(Flags::EOF));
    received || matches!(event.op, Op::ResetReceived | Op::Error | Op::Established)
}

/// The port at the other end, where it was this one that connected; of older connections, the lower port is
/// taken to have listened.
fn connected_to(
    history: &History,
    graph: &Graph,
    endpoint: &Endpoint,
    remote: SocketAddr,
) -> Option<u16> {
    let events = graph.events_of_endpoint(endpoint).iter().map(|&e| &history.events[e as usize]);
    let made = events.filter(|event| matches!(event.op, Op::Connect | Op::Established));
    let mut asked = made.map(|e| e.op == Op::Connect || e.flags.has(Flags::ACTIVE));
    let local = history.names.address(endpoint.local).map_or(0, |local| local.port());
    let active = asked.next().unwrap_or(local == 0 || remote.port() < local);
    active.then_some(remote.port())
}

/// The addresses that recorded hosts have, as far as their sockets tell.
fn addresses_of(history: &History, graph: &Graph) -> HashMap<IpAddr, u16> {
    let mut addresses = HashMap::new();
    for endpoint in &graph.endpoints {
        let ip = history.names.address(endpoint.local).map(|local| local.ip().to_canonical());
        if let Some(ip) = ip.filter(|ip| !ip.is_loopback() && !ip.is_unspecified()) {
            addresses.entry(ip).or_insert(endpoint.host);
        }
    }
    addresses
}

impl Beyond {
    /// `10.0.0.7:5432`, or `10.0.0.9`.
    pub fn address(&self) -> String {
        match self.port {
            Some(port) => SocketAddr::new(self.ip, port).to_string(),
            None => self.ip.to_string(),
        }
    }
}
