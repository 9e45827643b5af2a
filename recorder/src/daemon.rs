//! The always-on recorder: the probes fill their rings, and nothing here runs until somebody asks: a person
//! through the API, a signal, or an alert. Then a worker process reads the rings and explains what it finds.
//!
//! One task owns everything and takes one request after the other, so that nothing has to be locked:
//!
//! ```text
//!   API ─────────┐
//!   SIGUSR2 ─────┼──▶ Ask ──▶ Daemon ──▶ worker ──▶ dumps/<time>-<name>/
//!   Alertmanager ┤
//!   [[trigger]] ──┘
//! ```

pub mod api;
pub mod client;
pub mod config;
pub mod history;
pub mod job;
mod metrics;
mod openapi;
pub mod peers;
pub mod profile;
pub mod raised;
pub mod reload;
mod seldom;
mod server;
pub mod status;
mod stop;
mod store;
pub mod tls;
mod triggers;
pub mod upload;
mod warnings;

use std::collections::VecDeque;
use std::fs;
use std::future::pending;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use jiff::Timestamp;
use schemars::JsonSchema;
use sd_notify::NotifyState;
use serde::{Deserialize, Serialize};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot, watch};

use crate::capture::attach::Settings;
use crate::capture::snapshot::Cut;
use crate::capture::{Capture, Counting, clock};
use crate::trigger::{Firing, Raise};
use config::Config;
use history::History;
use job::{Done, Job, Past, Worker, across};
use peers::Gathering;
use profile::Profiler;
use raised::DetailStatus;
use reload::{Live, Reloaded};
use seldom::clipped;
use status::{Counts, Status};
use store::{Draft, Refusal, Store};
use triggers::Triggers;
use upload::Uploads;

/// What the daemon is asked, and where the answer goes.
pub enum Ask {
    /// Record more, or no more.
    Detail(Raise, oneshot::Sender<Result<DetailStatus>>),
    /// How things stand; with the probes' cost, if it was counted.
    Status(Option<Counting>, oneshot::Sender<Result<Status>>),
    /// Begin to count what the probes cost.
    Count(oneshot::Sender<Result<Counting>>),
    /// Keep the window.
    Dump(Box<Firing>, oneshot::Sender<Result<Dumped, Refusal>>),
    /// Read the configuration again.
    Reload(oneshot::Sender<Result<Reloaded>>),
}

/// What became of a dump that was admitted.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Dumped {
    Kept {
        folder: PathBuf,
        done: Done,
        /// Where its recording is going to be uploaded to, if it is.
        #[serde(default)]
        upload: Option<String>,
    },
    Failed {
        why: String,
    },
}

/// Requests that wait for the daemon to take them.
pub const ASKS: usize = 64;
/// Dumps that wait for the one that is being made.
const MOST_WAITING: usize = 8;

struct Wanted {
    firing: Firing,
    /// Of its folder.
    name: String,
    reply: oneshot::Sender<Result<Dumped, Refusal>>,
    /// Other hosts' parts, where they were asked for.
    gathering: Option<Gathering>,
}

/// The dump that is being made.
struct Making {
    wanted: Wanted,
    draft: Draft,
}

struct Daemon {
    config: Config,
    /// Where it came from.
    file: Option<PathBuf>,
    live: watch::Sender<Live>,
    capture: Capture,
    history: Option<History>,
    profiler: Option<Profiler>,
    store: Store,
    uploads: Option<Uploads>,
    triggers: Triggers,
    started: Instant,
    counts: Counts,
    /// When events were counted as unwritten, so that a dump need not answer for those before its window.
    unwritten: VecDeque<(u64, u64)>,
    waiting: VecDeque<Wanted>,
    last: Option<Dumped>,
    /// Until when more is recorded than `flow`.
    raised_until: Option<Instant>,
}

/// Runs until it is told to stop by SIGTERM or SIGINT.
///
/// # Errors
/// When the probes, the API or the folder for dumps cannot be set up.
pub async fn run(config: Config, file: Option<PathBuf>, ready: impl FnOnce(&Config)) -> Result<()> {
    let store = Store::open(&config.dumps)?;
    let (ask, asked) = mpsc::channel(ASKS);
    let (live, seen) = watch::channel(Live::of(&config)?);
    // Before the probes: a second daemon is told so at once, and harms nothing.
    let api = server::Server::open(&config, ask, seen)?;
    let uploads = Uploads::of(&config.dumps, &store)?;
    let settings =
        Settings { ring_bytes: config.ring.0, probe_log: false, record_self: false, family: None };
    let mut capture = Capture::start(config.scope(), settings)?;
    let (mut triggers, fired) = Triggers::new();
    triggers.watch(&config.trigger);
    triggers.arm(&mut capture);
    give_back_memory();
    let begin =
        |limits| History::start(limits, config.hide.clone(), &config.dumps.directory, &capture);
    let history = config.history.clone().map(begin);
    let learn = |settings| Profiler::new(settings, config.hide.clone(), &config.dumps.directory);
    let profiler = config.profile.0.clone().map(learn);
    let daemon = Daemon {
        config,
        file,
        live,
        capture,
        history,
        profiler,
        store,
        uploads,
        triggers,
        started: Instant::now(),
        counts: Counts::default(),
        unwritten: VecDeque::new(),
        waiting: VecDeque::new(),
        last: None,
        raised_until: None,
    };
    let serving = api.serve();
    ready(&daemon.config);
    // For systemd, where it waits for this; nobody else hears it.
    let _ = sd_notify::notify(&[NotifyState::Ready]);
    daemon.serve(asked, fired, serving).await
}

/// Reading the kernel's types took tens of MiB that are of no use any more.
fn give_back_memory() {
    // SAFETY: it only looks through the allocator's own free memory.
    unsafe { libc::malloc_trim(0) };
}

impl Daemon {
    async fn serve(
        mut self,
        mut asked: mpsc::Receiver<Ask>,
        mut fired: mpsc::Receiver<Firing>,
        serving: server::Serving,
    ) -> Result<()> {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let mut dump = signal(SignalKind::user_defined2())?;
        let mut reload = signal(SignalKind::hangup())?;
        // The dump in the making: first it waits, then its worker runs.
        let mut due: Option<tokio::time::Instant> = None;
        let mut making: Option<Making> = None;
        let mut worker: Option<tokio::task::JoinHandle<Result<Done>>> = None;
        loop {
            if due.is_none() && making.is_none() {
                due = self.waiting.front().map(|wanted| self.due(&wanted.firing));
            }
            tokio::select! {
                Some(ask) = asked.recv() => self.take(ask),
                _ = dump.recv() => self.fired(Firing::new("signal", "signal")),
                Some(firing) = fired.recv() => self.fired(firing),
                () = until(self.raised_until.map(Into::into)) => self.lower(),
                // Whoever sent it looks at the log.
                _ = reload.recv() => drop(self.reload()),
                () = until(due) => {
                    due = None;
                    (making, worker) = self.begin().unzip();
                }
                done = ended(&mut worker) => {
                    worker = None;
                    if let Some(making) = making.take() {
                        self.conclude(making, done);
                    }
                }
                ended = history::ended(&mut self.history) => {
                    if let Some(history) = &mut self.history {
                        history.restart(&ended, &self.capture);
                    }
                }
                next = profile::next(&mut self.profiler) => {
                    if let Some(profiler) = &mut self.profiler {
                        profiler.go_on(next, &self.capture);
                    }
                }
                next = upload::next(&mut self.uploads) => {
                    if let Some(uploads) = &mut self.uploads {
                        uploads.go_on(next);
                    }
                }
                _ = interrupt.recv() => break,
                _ = terminate.recv() => break,
            }
        }
        drop(asked);
        self.stop(making.zip(worker), serving).await;
        Ok(())
    }

    fn take(&mut self, ask: Ask) {
        match ask {
            // Whoever asked may have gone: then nobody hears the answer.
            Ask::Status(counting, reply) => {
                let _ = reply.send(self.status(counting.as_ref()));
            }
            Ask::Count(reply) => {
                let _ = reply.send(self.capture.count());
            }
            Ask::Detail(raise, reply) => {
                let raised = self.raise(raise);
                let _ = reply.send(raised);
            }
            Ask::Dump(firing, reply) => self.want(*firing, reply),
            Ask::Reload(reply) => {
                let _ = reply.send(self.reload());
            }
        }
    }

    /// A signal or a trigger: nobody waits for an answer.
    fn fired(&mut self, firing: Firing) {
        let (reply, _) = oneshot::channel();
        self.want(firing, reply);
    }

    fn want(&mut self, mut firing: Firing, reply: oneshot::Sender<Result<Dumped, Refusal>>) {
        let now = Instant::now();
        firing.hide(&self.config.hide);
        // Where its time went with the rest, it names none any more.
        firing.incident = firing.incident.filter(|name| store::is_name(name));
        self.counts.triggered += 1;
        // Also where no dump is made: it is the next time that matters.
        if let Some(Err(error)) = firing.raise.map(|raise| self.raise(raise)) {
            log::error!("record more for {}: {error:#}", clipped(&firing.name));
        }
        let refusal = match self.store.admit(&firing, now) {
            Err(refusal) => refusal,
            Ok(()) if self.waiting.len() >= MOST_WAITING => {
                Refusal::Busy { waiting: self.waiting.len() }
            }
            Ok(()) => {
                self.store.count(&firing, now);
                self.triggers.count(&firing, None);
                // Others are asked before anything is done here: the oldest that they hold is about to go.
                let name = self.store.name(&firing, Timestamp::now());
                let gathering = self.gather(&firing, &name);
                self.waiting.push_back(Wanted { firing, name, reply, gathering });
                return;
            }
        };
        if self.triggers.count(&firing, Some(&refusal)) {
            log::info!("no dump for {}: {refusal}", clipped(&firing.name));
        }
        self.counts.refused += 1;
        let _ = reply.send(Err(refusal));
    }

    fn due(&self, firing: &Firing) -> tokio::time::Instant {
        let after = firing.after_ms.map_or(self.config.dumps.after.0, Duration::from_millis);
        tokio::time::Instant::now() + after
    }

    /// Starts the worker for the dump that has waited longest.
    fn begin(&mut self) -> Option<(Making, tokio::task::JoinHandle<Result<Done>>)> {
        let mut wanted = self.waiting.pop_front()?;
        let gathering = wanted.gathering.take();
        let started = self.store.draft(&wanted.name).and_then(|draft| {
            let worker = self.start_worker(&wanted.firing, &draft, gathering);
            match worker {
                Ok(worker) => Ok((draft, worker)),
                Err(error) => {
                    draft.discard();
                    Err(error)
                }
            }
        });
        match started {
            Ok((draft, worker)) => Some((Making { wanted, draft }, tokio::spawn(worker))),
            Err(error) => {
                self.fail(wanted, &error);
                None
            }
        }
    }

    fn start_worker(
        &mut self,
        firing: &Firing,
        draft: &Draft,
        gathering: Option<Gathering>,
    ) -> Result<impl Future<Output = Result<Done>> + Send + use<>> {
        let said = serde_json::to_vec_pretty(&serde_json::json!({
            "name": firing.name,
            "source": firing.source,
            "began": firing.began,
            "symptoms": firing.symptoms,
            "missing": firing.missing,
            "scope": firing.scope,
            "said": firing.said,
        }))?;
        let path = draft.folder.join("trigger.json");
        fs::write(&path, said).with_context(|| format!("write {}", path.display()))?;
        let mut source = self.capture.source();
        let since_ns = firing.since.map_or(0, |since| {
            let wall_ns = since.as_nanosecond() as i64;
            wall_ns.saturating_sub(source.wall_offset_ns).max(0) as u64
        });
        let window_ns = self.capture.coverage().map(|c| (c.window_s * 1e9) as u64);
        let oldest_ns = clock::monotonic_ns().saturating_sub(window_ns[0].max(window_ns[1]));
        let past = self.past(since_ns, oldest_ns, source.unwritten);
        let before = self.unwritten_before(since_ns.max(oldest_ns));
        source.unwritten = source.unwritten.saturating_sub(before);
        let job = Job {
            source,
            cut: Cut { since_ns, ..Cut::ALL },
            maps: [-1; 3],
            hide: self.config.hide.clone(),
            past,
            folder: draft.folder.clone(),
            name: firing.name.clone(),
            told_by: firing.source.to_owned(),
            symptoms: firing.symptoms.clone(),
            missing: firing.missing.clone(),
            scope: firing.scope.clone(),
            began: firing.began,
            explain: gathering.is_none(),
            recorded: None,
            peers: Vec::new(),
            profile: self.profiler.as_ref().map(|profiler| profiler.file().to_owned()),
        };
        let worker = Worker::start(job.clone(), Some(self.capture.ring_maps()?))?;
        Ok(across(worker, job, gathering))
    }

    /// The history, where more is wanted than the rings hold. Without a time from which on something is wanted,
    /// what they hold is enough.
    fn past(&self, since_ns: u64, oldest_ns: u64, unwritten: u64) -> Option<Past> {
        let history = self.history.as_ref().filter(|_| since_ns > 0)?;
        (since_ns < oldest_ns)
            .then(|| Past { directory: history.directory().to_owned(), unwritten })
    }

    /// Events that are known to have been unwritten before a time.
    fn unwritten_before(&self, time_ns: u64) -> u64 {
        let before = self.unwritten.iter().rev().find(|(at_ns, _)| *at_ns <= time_ns);
        before.map_or(0, |(_, unwritten)| *unwritten)
    }

    /// Notes how many events could not be written up to now.
    fn note_unwritten(&mut self) {
        const MOST: usize = 1024;
        let unwritten = self.capture.source().unwritten;
        self.unwritten.push_back((clock::monotonic_ns(), unwritten));
        let surplus = self.unwritten.len().saturating_sub(MOST);
        self.unwritten.drain(..surplus);
    }

    fn conclude(&mut self, making: Making, done: Result<Done>) {
        let Making { wanted, draft } = making;
        self.note_unwritten();
        let kept = match done {
            Ok(done) => {
                let own = || store::incident(&wanted.name);
                let incident = wanted.firing.incident.clone().unwrap_or_else(own);
                let uploads = self.uploads.as_ref();
                let note =
                    uploads.map(|uploads| uploads.note(&draft.folder, &incident, &done.peers));
                self.store.keep(draft, &wanted.firing).map(|folder| (folder, done, note))
            }
            Err(error) => {
                draft.discard();
                Err(error)
            }
        };
        match kept {
            Ok((folder, done, note)) => {
                log::info!("{}: {}", folder.display(), done.headline);
                self.counts.kept += 1;
                self.counts.late += u64::from(done.late_s.is_some());
                let missing = done.peers.iter().filter(|part| part.missing.is_some());
                self.counts.missing_parts += missing.count() as u64;
                let upload = self.uploads.as_mut().zip(note);
                let upload = upload.map(|(uploads, note)| uploads.add(folder.clone(), note));
                let dumped = Dumped::Kept { folder, done, upload };
                self.last = Some(dumped.clone());
                let _ = wanted.reply.send(Ok(dumped));
            }
            Err(error) => self.fail(wanted, &error),
        }
    }

    fn fail(&mut self, wanted: Wanted, error: &anyhow::Error) {
        log::error!("the dump for {} failed: {error:#}", clipped(&wanted.firing.name));
        self.counts.failed += 1;
        let dumped = Dumped::Failed { why: format!("{error:#}") };
        self.last = Some(dumped.clone());
        let _ = wanted.reply.send(Ok(dumped));
    }
}

async fn until(due: Option<tokio::time::Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => pending().await,
    }
}

async fn ended(worker: &mut Option<tokio::task::JoinHandle<Result<Done>>>) -> Result<Done> {
    match worker {
        Some(worker) => worker.await.context("wait for the worker")?,
        None => pending().await,
    }
}
