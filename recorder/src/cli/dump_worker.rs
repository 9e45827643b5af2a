//! What the daemon starts to make a dump: reads the rings it inherits, writes the recording, and explains it.
//! The daemon gives the folder its name when this has ended well.

mod compared;
mod seen;
mod silence;

use std::fs::{self, File};
use std::io::{self, BufWriter, Write, stdin, stdout};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};

use crate::capture::ring::Rings;
use crate::capture::snapshot::{self, Cut, Source};
use crate::capture::state;
use crate::cli::input::Symptom;
use crate::cli::why::{json, text};
use crate::daemon::history::{control, segments};
use crate::daemon::job::{Done, Job, Past, attend};
use crate::describe::{clock, describe, lane, printable};
use crate::event::{EventIndex, History, Host};
use crate::explain::missing::Missing;
use crate::explain::{missing, short_duration, window};
use crate::export::{self, Excerpt, SVG_MAX_EVENTS};
use crate::graph::Graph;
use crate::incident::{self, Culprit, Incident};
use crate::lookback::{self, Extent, Limits, Outcome};
use crate::pattern::Pattern;
use crate::recording::splice::{self, Piece};
use crate::recording::{read, write::Writer};
use crate::slice::{Options, Reach};
use crate::state::State;
use compared::Compared;
use seen::Seen;

/// Make a dump, as the daemon says on standard input
#[derive(Debug, clap::Args)]
pub struct Arguments {}

pub fn run(_: Arguments) -> Result<ExitCode> {
    // Others go first.
    attend(10, 1000)?;
    let mut job: Job = serde_json::from_reader(stdin()).context("understand the job")?;
    let path = job.folder.join("recording.parquet");
    let mut done = match job.recorded.take() {
        Some(recorded) => recorded,
        None => record(&job, &path)?,
    };
    if job.explain {
        done.headline = explain_all(&mut job, &path, &done)?;
        done.peers = job.peers;
    }
    serde_json::to_writer(stdout().lock(), &done)?;
    Ok(ExitCode::SUCCESS)
}

/// Writes what the rings hold, and before it what the history does, where that is wanted.
fn record(job: &Job, path: &Path) -> Result<Done> {
    let rings = job.rings()?;
    // Before all else: what waits now may go on while the rings are read.
    let state = state::read();
    let mut compared = Compared::new(job);
    let (host, events) = match &job.past {
        Some(past) => {
            if compared.is_wanted() {
                snapshot::take(&rings, &job.source, job.cut, &mut |names, some| {
                    compared.add(names, some);
                    Ok(())
                })?;
            }
            with_past(job, past, &rings, state, path)?
        }
        None => from_rings(&rings, job, &job.source, job.cut, path, &mut compared)?
            .finish(path, state)?,
    };
    let window = window(&host);
    Ok(Done {
        unusual: compared.unusual(window.to_ns, host.wall_offset_ns),
        events,
        bytes: fs::metadata(path)?.len(),
        window_s: window.to_ns.saturating_sub(window.from_ns) as f64 / 1e9,
        late_s: late(job, &host),
        headline: String::new(),
        peers: Vec::new(),
    })
}

/// A recording of which only the end is missing.
struct Rest {
    writer: Writer<File>,
    host: Host,
    events: u64,
    seen: Seen,
}

impl Rest {
    fn finish(mut self, path: &Path, state: State) -> Result<(Host, u64)> {
        self.host.state = Some(self.seen.of(state));
        let file = self.writer.finish(&self.host)?;
        file.sync_all().with_context(|| format!("write {} to the disk", path.display()))?;
        Ok((self.host, self.events))
    }
}

fn from_rings(
    rings: &Rings,
    job: &Job,
    source: &Source,
    cut: Cut,
    path: &Path,
    compared: &mut Compared,
) -> Result<Rest> {
    let mut writer = Writer::hiding(path, &source.host(), job.hide.clone())?;
    let (mut events, mut seen) = (0, Seen::default());
    let host = snapshot::take(rings, source, cut, &mut |names, some| {
        events += some.len() as u64;
        seen.add(some);
        compared.add(names, some);
        Ok(writer.append(names, some)?)
    })?;
    Ok(Rest { writer, host, events, seen })
}

/// The history up to now, and from the rings what came after it.
fn with_past(
    job: &Job,
    past: &Past,
    rings: &Rings,
    state: State,
    path: &Path,
) -> Result<(Host, u64)> {
    let flushed = control::ask(&past.directory, control::Word::Flush);
    let mut pieces =
        segments::since(&past.directory, &job.source.host().boot_id, job.cut.since_ns)?;
    let own = |piece: &&Piece| piece.host.attached_ns == job.source.attached_ns;
    let since_ns = pieces.iter().filter(own).map(Piece::to_ns).max().unwrap_or(job.cut.since_ns);
    let mut source = job.source.clone();
    if let Ok(state) = &flushed {
        // The segments have the others.
        source.unwritten = past.unwritten.saturating_sub(state.unwritten);
    }
    let cut = Cut { since_ns, ..job.cut };
    let path_of_rest = job.folder.join("rest.parquet");
    let mut rest = from_rings(rings, job, &source, cut, &path_of_rest, &mut Compared::default())?;
    // The follower may be older than the detail that told the reasons.
    rest.host.drop_reasons = source.drop_reasons.into_iter().collect();
    for piece in &pieces {
        // One that made room for newer ones meanwhile has nothing to tell.
        let _ = rest.seen.add_recording(&piece.path);
    }
    rest.finish(&path_of_rest, state)?;
    pieces.push(Piece::open(&path_of_rest)?);
    let spliced = splice::splice(&pieces, job.cut.since_ns, path).context("join the history")?;
    fs::remove_file(&path_of_rest).with_context(|| format!("remove {}", path_of_rest.display()))?;
    Ok(spliced)
}

/// By how much the window begins after what the dump is about, s.
fn late(job: &Job, host: &Host) -> Option<f64> {
    let late_ns = i128::from(window(host).from_ns) - job.began_ns(host.wall_offset_ns)?;
    (late_ns > 0).then(|| late_ns as f64 / 1e9)
}

/// What is looked for in a scope.
const FAILED: &str = "error=* error!=EAGAIN,EINPROGRESS";

/// Beyond this only the parts are read that explain the symptom.
const WHOLE: Limits = Limits { whole: 2_000_000, most: 2_000_000 };

/// Explains over all hosts. What others sent and cannot be read, alone or together with this host's recording, is put
/// aside and named: it does not spoil the rest.
fn explain_all(job: &mut Job, path: &Path, done: &Done) -> Result<String> {
    for part in &mut job.peers {
        let file = part.file.as_ref().map(|file| job.folder.join(file));
        if let Some(Err(error)) = file.map(|file| read::open_index(&file)) {
            part.put_aside(&job.folder, &error.to_string())?;
        }
    }
    let others = job.peers.iter().filter_map(|part| part.file.as_ref());
    let mut files = vec![path.to_owned()];
    files.extend(others.map(|file| job.folder.join(file)));
    let told = explain(job, &files, done).or_else(|error| {
        if files.len() == 1 {
            return Err(error);
        }
        for part in job.peers.iter_mut().filter(|part| part.file.is_some()) {
            part.put_aside(&job.folder, &format!("{error:#}"))?;
        }
        explain(job, &files[..1], done)
    })?;
    if !job.peers.is_empty() {
        let said = serde_json::to_vec_pretty(&job.peers)?;
        fs::write(job.folder.join("peers.json"), said).context("write peers.json")?;
    }
    Ok(told)
}

/// Writes `why.txt`, `why.json` and `graph.svg`; the first line of the answer.
fn explain(job: &Job, files: &[PathBuf], done: &Done) -> Result<String> {
    let patterns: Vec<Pattern> =
        job.symptoms.iter().map(|text| text.parse()).collect::<Result<_, _>>()?;
    let scope: Pattern = job.scope.as_deref().map_or_else(|| Ok(Pattern::default()), str::parse)?;
    // Of large recordings it is the last failure in the scope, not the one with the best culprit.
    let failed = job.scope.as_ref().map(|scope| format!("{scope} {FAILED}").parse::<Pattern>());
    let failed = failed.transpose()?;
    let asked = patterns.iter().chain(&failed).map(Some).chain([None]);
    for pattern in asked {
        match lookback::look_back(files, pattern, Options::default(), WHOLE)? {
            Outcome::Whole => break,
            Outcome::NoMatch { .. } => {}
            Outcome::Found(part) => {
                let lookback::LookedBack { history, graph, symptom, matched, extent, .. } = *part;
                let options = Options { partial: true, ..Options::default() };
                let incident = incident::explain(&history, &graph, symptom, matched, options);
                let found =
                    Found { job, done, history: &history, graph: &graph, extent: Some(&extent) };
                return found.write(Some(&incident));
            }
        }
    }
    let history = read::open(files)?.history;
    let graph = Graph::build(&history);
    let incident = incident::find(&history, &graph, &patterns, &scope, Options::default());
    Found { job, done, history: &history, graph: &graph, extent: None }.write(incident.as_ref())
}

/// An event that should have happened, and what is known about it.
type Asked = (Pattern, Option<Missing>);

/// Lines that an answer begins with: the likeliest culprit and others.
const TOLD: usize = 3;

/// What an answer is about.
struct Found<'a> {
    job: &'a Job,
    done: &'a Done,
    history: &'a History,
    graph: &'a Graph,
    extent: Option<&'a Extent>,
}

impl Found<'_> {
    fn write(&self, incident: Option<&Incident>) -> Result<String> {
        let file = |name: &str| -> io::Result<BufWriter<File>> {
            Ok(BufWriter::new(File::create(self.job.folder.join(name))?))
        };
        let missing = self.missing()?;
        let halted = missing.as_ref().and_then(|(_, missing)| missing.as_ref());
        let mut first: Vec<String> = halted
            .map_or_else(Vec::new, |missing| silence::lines(self.history, self.graph, missing));
        if first.is_empty() {
            first.push(self.headline(incident));
            let others = incident.iter().flat_map(|incident| incident.culprits.iter().skip(1));
            first.extend(others.map(|culprit| self.told(culprit)));
        }
        first.truncate(TOLD);
        let mut text = file("why.txt").context("make why.txt")?;
        self.text(incident, missing.as_ref(), &first, &mut text).context("write why.txt")?;
        text.flush().context("write why.txt")?;
        if incident.is_some() || halted.is_some() {
            let mut json = file("why.json").context("make why.json")?;
            self.json(incident, halted, &mut json).context("write why.json")?;
        }
        if let Some(incident) = incident {
            let mut picture = file("graph.svg").context("make graph.svg")?;
            self.picture(incident, &mut picture).context("write graph.svg")?;
        }
        Ok(first.swap_remove(0))
    }

    /// The likeliest culprit, in one line.
    fn headline(&self, incident: Option<&Incident>) -> String {
        let Some(incident) = incident else {
            return "nothing failed in the window".to_owned();
        };
        match incident.culprits.first() {
            Some(culprit) => self.told(culprit),
            None => "culprit  none seen: nobody died, and no connection was reset or refused, before the symptom"
                .to_owned(),
        }
    }

    fn told(&self, culprit: &Culprit) -> String {
        let event = &self.history.events[culprit.event as usize];
        let label = if culprit.reach == Reach::Must { "culprit" } else { "possibly" };
        let sure = match (culprit.reach, culprit.step) {
            (Reach::Must, Some(0)) => "the symptom itself".to_owned(),
            (Reach::Must, Some(1)) => "certain, one step before the symptom".to_owned(),
            (Reach::Must, Some(step)) => format!("certain, {step} steps before the symptom"),
            (Reach::Must, None) => "certain, beside the chain".to_owned(),
            _ => "nothing proves it".to_owned(),
        };
        format!(
            "{label:<8} {}  {}  {}: {}; {sure}",
            clock(self.history, event),
            lane(self.history, event),
            describe(self.history, event),
            culprit.cause.told(),
        )
    }

    fn text(
        &self,
        incident: Option<&Incident>,
        missing: Option<&Asked>,
        first: &[String],
        out: &mut impl Write,
    ) -> Result<()> {
        let job = self.job;
        writeln!(out, "incident {}, told by {}", printable(&job.name), job.told_by)?;
        for line in first {
            writeln!(out, "{line}")?;
        }
        for unusual in &self.done.unusual {
            writeln!(out, "{unusual}")?;
        }
        if let Some(late_s) = self.done.late_s {
            writeln!(
                out,
                "late     the window begins {} after what this is about: larger rings would have held the cause",
                short_duration((late_s * 1e9) as u64),
            )?;
        }
        for part in &job.peers {
            match &part.missing {
                Some(why) => writeln!(out, "silent   {} is not in this dump: {why}", part.peer)?,
                None => writeln!(out, "peer     {} has sent its part", part.peer)?,
            }
        }
        writeln!(out)?;
        if let Some(incident) = incident {
            text::why(self.history, &symptom(incident), &incident.answer, self.extent, out)?;
        }
        if let Some((pattern, missing)) = missing {
            writeln!(out)?;
            match missing {
                Some(missing) => text::missing(self.history, pattern, missing, out)?,
                None => writeln!(out, "missing  {pattern}: its threads asked nobody for anything")?,
            }
        }
        Ok(())
    }

    /// What is known about the event that did not happen, if one was asked about.
    fn missing(&self) -> Result<Option<Asked>> {
        let Some(text) = &self.job.missing else { return Ok(None) };
        let pattern: Pattern = text.parse()?;
        let found = missing::missing(self.history, self.graph, &pattern, Options::default());
        Ok(Some((pattern, found)))
    }

    /// The answer as `why --json` gives it, the culprits, and what is missing.
    fn json(
        &self,
        incident: Option<&Incident>,
        missing: Option<&Missing>,
        out: &mut impl Write,
    ) -> Result<()> {
        let mut answer = serde_json::json!({});
        if let Some(incident) = incident {
            let mut text = Vec::new();
            let (symptom, extent) = (symptom(incident), self.extent);
            json::why(self.history, &symptom, &incident.answer, extent, &mut text)?;
            answer = serde_json::from_slice(&text)?;
            answer["culprits"] = incident.culprits.iter().map(|c| self.culprit(c)).collect();
        }
        if let Some(missing) = missing {
            answer["missing"] = json::missing_value(self.history, missing);
        }
        answer["unusual"] = serde_json::to_value(&self.done.unusual)?;
        answer["incident"] =
            serde_json::json!({ "name": self.job.name, "told_by": self.job.told_by });
        serde_json::to_writer_pretty(&mut *out, &answer)?;
        writeln!(out)?;
        Ok(out.flush()?)
    }

    fn culprit(&self, culprit: &Culprit) -> serde_json::Value {
        serde_json::json!({
            "event": export::EventRow::new(self.history, culprit.event),
            "cause": culprit.cause.as_str(),
            "proof": if culprit.reach == Reach::Must { "must" } else { "may" },
            "step": culprit.step,
        })
    }

    /// The chain, and what else must have led to the symptom and is nearest to it.
    fn picture(&self, incident: &Incident, out: &mut impl Write) -> Result<()> {
        const NEAREST: usize = 120;
        let slice = &incident.answer.slice;
        let near = slice.order.iter().copied().filter(|&e| slice.reach(e) == Reach::Must);
        let mut selection: Vec<EventIndex> = near.take(NEAREST).collect();
        selection.extend(incident.answer.chain.iter().map(|step| step.event));
        selection.truncate(SVG_MAX_EVENTS);
        selection.sort_unstable();
        selection.dedup();
        let excerpt = Excerpt {
            history: self.history,
            graph: self.graph,
            selection: &selection,
            interval_edges: false,
        };
        Ok(export::svg(&excerpt, out)?)
    }
}

const fn symptom(incident: &Incident) -> Symptom {
    Symptom { event: incident.symptom, matched: incident.matched }
}
