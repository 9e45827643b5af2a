//! `wherefore check`.

use std::io::{Write, stdout};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;

use crate::cli::input;
use crate::cli::record::grouped;
use crate::clocks::{Clocks, Offset, Reading};
use crate::describe::{self, printable};
use crate::event::{Event, History, Op};
use crate::graph::{EdgeKind, Graph, Proof, check};

/// Verify every edge of a recording's graph, independently of the code that built it
///
/// Exit status 1 when an edge is wrong or missing.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Recordings, or folders of them; those of several hosts are read as one
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Mend a recording that was cut off: write the footer that it lacks
    #[arg(long)]
    repair: bool,
}

/// Violations that are told one by one.
const MOST: usize = 20;

pub fn run(arguments: Arguments) -> Result<ExitCode> {
    let mut out = stdout().lock();
    if arguments.repair {
        for path in &arguments.files {
            match crate::recording::repair(path)? {
                Some(rows) => writeln!(out, "{}: {rows} events made whole", path.display())?,
                None => writeln!(out, "{}: nothing to mend", path.display())?,
            }
        }
    }
    let history = input::open(&arguments.files)?;
    let graph = Graph::build(&history);
    let violations = check::check(&history, &graph);
    let edges = graph.nodes.raw_edges().iter().map(|edge| edge.weight);
    let must = edges.clone().filter(|e| e.proof == Proof::Must).count();
    writeln!(
        out,
        "{} events, {} edges: {} must, {} may",
        grouped(history.events.len() as u64),
        grouped(graph.nodes.edge_count() as u64),
        grouped(must as u64),
        grouped((graph.nodes.edge_count() - must) as u64),
    )?;
    for kind in EdgeKind::ALL {
        let count = |proof| edges.clone().filter(|e| e.kind == kind && e.proof == proof).count();
        let (must, may) = (count(Proof::Must) as u64, count(Proof::May) as u64);
        if must + may > 0 {
            writeln!(
                out,
                "  {:<11}{:>12} must{:>12} may",
                kind.as_str(),
                grouped(must),
                grouped(may)
            )?;
        }
    }
    for host in &history.hosts {
        writeln!(
            out,
            "{}: {} raised, {} lost",
            printable(&host.name),
            grouped(host.raised),
            grouped(host.lost)
        )?;
    }
    clocks(&history, &graph, &mut out)?;
    for violation in violations.iter().take(MOST) {
        writeln!(out, "wrong: {violation}")?;
    }
    if violations.len() > MOST {
        writeln!(out, "… and {} more", violations.len() - MOST)?;
    }
    if violations.is_empty() {
        writeln!(out, "every edge holds")?;
        return Ok(ExitCode::SUCCESS);
    }
    Ok(ExitCode::FAILURE)
}

/// How far the hosts' clocks are apart: at the last message of each group of hosts that exchanged any, and at the
/// first, where they have drifted since.
fn clocks(history: &History, graph: &Graph, out: &mut impl Write) -> Result<()> {
    if history.hosts.len() < 2 {
        return Ok(());
    }
    let readings = Clocks::new(history, graph).readings();
    let mut told = 0;
    for (number, reading) in readings.iter().enumerate() {
        // What contradicts itself is told as a violation.
        let Ok(reading) = reading else { continue };
        let next = readings.get(number + 1).and_then(|next| next.as_ref().ok());
        let next = next.filter(|next| next.of == reading.of);
        for offset in &reading.offsets {
            let later = next.and_then(|n| n.offsets.iter().find(|o| o.host == offset.host));
            if later.is_some_and(|later| later.meets(offset)) {
                continue;
            }
            told += 1;
            if told <= MOST {
                clock(history, reading, offset, out)?;
            }
        }
    }
    if told > MOST {
        writeln!(out, "… and {} more clocks", told - MOST)?;
    }
    Ok(())
}

fn clock(
    history: &History,
    reading: &Reading,
    offset: &Offset,
    out: &mut impl Write,
) -> Result<()> {
    let name = |host: u16| printable(&history.hosts[usize::from(host)].name);
    let wall = offset.by_wall_clock(history, reading.of);
    let Some(ahead) = describe::ahead(wall.low_ns, wall.high_ns) else { return Ok(()) };
    let moment = Event { time_ns: reading.at_ns, host: reading.of, ..Event::blank(Op::Exit) };
    let (host, of, at) = (name(offset.host), name(reading.of), describe::clock(history, &moment));
    let messages = grouped(offset.messages);
    Ok(writeln!(out, "{host}: its clock is {ahead} {of}'s at {at} ({messages} messages)")?)
}
