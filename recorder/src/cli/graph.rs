//! `wherefore graph`.

use std::fs::File;
use std::io::{BufWriter, Write, stdout};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};

use crate::cli::{Hinted, input};
use crate::event::{EventIndex, History};
use crate::export::{self, Excerpt, SvgError};
use crate::graph::Graph;
use crate::pattern::Pattern;
use crate::slice;

/// Write the causal graph, or a slice of it, for people or for other programs
///
/// Exit status 1 when no event matches the slice's pattern.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Recordings, or folders of them; those of several hosts are read as one
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// The form
    #[arg(long, value_enum, required_unless_present = "edges")]
    to: Option<Form>,
    /// Only what must or may have led to the last event that matches
    #[arg(long, value_name = "PATTERN")]
    slice: Option<Pattern>,
    /// With --slice: only what must have led to it
    #[arg(long, requires = "slice")]
    must: bool,
    #[command(flatten)]
    slicing: input::SliceArguments,
    /// Write the edges as rows of a Parquet file
    #[arg(long, value_name = "FILE")]
    edges: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Form {
    /// A space–time diagram
    Svg,
    /// For Graphviz
    Dot,
    /// One object: events and edges
    Json,
}

pub fn run(arguments: Arguments) -> Result<ExitCode> {
    let history = input::open(&arguments.files)?;
    let graph = Graph::build(&history);
    let Some(selection) = select(&history, &graph, &arguments) else {
        let Hinted { message, hint } = input::no_match(&history, arguments.slice.as_ref());
        crate::cli::tell(&message, Some(&hint));
        return Ok(ExitCode::FAILURE);
    };
    let excerpt =
        Excerpt { history: &history, graph: &graph, selection: &selection, interval_edges: false };
    if let Some(path) = &arguments.edges {
        let write = || export::edges(&excerpt, File::create(path)?);
        write().with_context(|| format!("write edges to {}", path.display()))?;
    }
    let mut out = BufWriter::new(stdout().lock());
    match arguments.to {
        Some(Form::Json) => export::json(&excerpt, &mut out)?,
        Some(Form::Dot) => export::dot(&excerpt, &mut out)?,
        Some(Form::Svg) => export::svg(&excerpt, &mut out).map_err(with_hint)?,
        None => {}
    }
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

/// All events, or those of the slice in their order.
fn select(history: &History, graph: &Graph, arguments: &Arguments) -> Option<Vec<EventIndex>> {
    let Some(pattern) = &arguments.slice else {
        return Some((0..history.events.len() as EventIndex).collect());
    };
    let symptom = input::symptom(history, Some(pattern))?;
    let options = arguments.slicing.options();
    let slice = slice::backward(history, graph, &[symptom.event], options);
    let least = if arguments.must { slice::Reach::Must } else { slice::Reach::May };
    let mut selection = slice.order.clone();
    selection.retain(|&event| slice.reach(event) >= least);
    selection.sort_unstable();
    Some(selection)
}

fn with_hint(error: SvgError) -> anyhow::Error {
    match error.hint() {
        Some(hint) => Hinted { message: error.to_string(), hint: hint.to_owned() }.into(),
        None => error.into(),
    }
}
