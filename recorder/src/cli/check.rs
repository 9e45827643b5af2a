//! `wherefore check`.

use std::io::{Write, stdout};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;

use crate::cli::input;
use crate::cli::record::grouped;
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
            host.name,
            grouped(host.raised),
            grouped(host.lost)
        )?;
    }
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
