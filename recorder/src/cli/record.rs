//! `wherefore record`.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{IsTerminal, Write};
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::builder::{PossibleValuesParser, TypedValueParser};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{MissedTickBehavior, interval};

use crate::capture::attach::Settings;
use crate::capture::attach::family::Family;
use crate::capture::detail::Detail;
use crate::capture::{Capture, Scope, procfs};
use crate::cli::Hinted;
use crate::event::{Event, Names};
use crate::quantity;
use crate::recording::write::Writer;

/// Record a command's process tree while it runs, or a chosen scope until Ctrl-C
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The recording, a Parquet file
    #[arg(short, long, value_name = "FILE", default_value = "wherefore.parquet")]
    output: PathBuf,
    /// Record the whole machine
    #[arg(long, conflicts_with_all = ["pid", "cgroup", "command"])]
    all: bool,
    /// Record this process and its descendants
    #[arg(long, value_name = "PID", conflicts_with_all = ["cgroup", "command"])]
    pid: Option<u32>,
    /// Record this cgroup (a path below the cgroup2 mount) and those below it
    #[arg(long, value_name = "PATH", conflicts_with = "command")]
    cgroup: Option<PathBuf>,
    /// Stop after this time, for example 10s or 2m
    #[arg(long, value_name = "TIME", value_parser = quantity::duration)]
    r#for: Option<Duration>,
    /// Memory for the kernel's rings
    #[arg(long, value_name = "SIZE", default_value = "64MiB", value_parser = quantity::size)]
    ring: u64,
    /// Leave the rings alone until the end, and keep what they still hold then
    #[arg(long)]
    snapshot: bool,
    /// Exit with the command's own status
    #[arg(long, requires = "command", conflicts_with_all = ["all", "pid", "cgroup"])]
    pass_status: bool,
    /// See sends and receives by this family of hooks [default: the first that works here]
    #[arg(long, value_name = "FAMILY", value_parser = family_parser())]
    hooks: Option<Family>,
    /// Record more than `flow`: `+syscall` adds system calls in which threads wait, and those about sockets and pipes;
    /// `+sched` which thread woke which; `+net` the packets that the kernel drops, and why; or several, `+syscall+sched`
    #[arg(long, value_name = "DETAIL", default_value = "flow")]
    detail: Detail,
    /// Show the probes' own diagnostics
    #[arg(long)]
    probe_log: bool,
    /// Say nothing but errors
    #[arg(short, long)]
    quiet: bool,
    /// The command to run and record
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
    #[arg(skip)]
    printing: Printing,
}

impl Arguments {
    /// Records a command alone, and is otherwise as with no words.
    pub(super) fn of_command(output: PathBuf, command: Vec<String>) -> Self {
        let words = ["record", "--quiet", "--output"].map(OsString::from).into_iter();
        let words = words.chain([output.into_os_string(), OsString::from("--")]);
        let words = words.chain(command.into_iter().map(OsString::from));
        let alone = <Self as clap::Args>::augment_args(clap::Command::new("record"));
        <Self as clap::FromArgMatches>::from_arg_matches(&alone.get_matches_from(words))
            .expect("these words are right")
    }

    /// Keeps what the command prints apart from results on stdout.
    pub(super) const fn printing_to_stderr(&mut self) {
        self.printing = Printing::ToStderr;
    }
}

/// What becomes of what the command prints.
#[derive(Clone, Copy, Debug, Default)]
enum Printing {
    #[default]
    Through,
    ToStderr,
}

impl Printing {
    fn stdout(self) -> Result<Stdio> {
        Ok(match self {
            Self::Through => Stdio::inherit(),
            Self::ToStderr => std::io::stderr().as_fd().try_clone_to_owned()?.into(),
        })
    }
}

/// How a recording ended.
pub(super) struct Ended {
    /// Of the command; nothing where none was run, or it was left behind.
    pub(super) status: Option<ExitStatus>,
    /// Somebody asked for the end, or the time was up.
    pub(super) stopped: bool,
}

/// What a command does besides recording.
pub(super) trait Besides {
    /// When everything is being recorded, and before the command is started.
    fn begin(&mut self, _capture: &mut Capture) -> Result<()> {
        Ok(())
    }

    /// With all events, in order.
    fn see(&mut self, _names: &Names, _events: &[Event]) {}

    /// Every few milliseconds.
    fn turn(&mut self, _capture: &mut Capture) -> Result<()> {
        Ok(())
    }

    /// Whether another process has taken the place of the command, which has ended, and is still there.
    fn goes_on(&mut self, _command: u32) -> bool {
        false
    }

    /// When the command has ended, and before the rest is read.
    fn end(&mut self, capture: &mut Capture) -> Result<()> {
        self.turn(capture)
    }
}

struct Nothing;

impl Besides for Nothing {}

pub fn run(arguments: Arguments) -> Result<ExitCode> {
    let ended = run_with(&arguments, &mut Nothing)?;
    match ended.status {
        Some(status) if arguments.pass_status => {
            let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
            Ok(ExitCode::from(code.unwrap_or(2) as u8))
        }
        _ => Ok(ExitCode::SUCCESS),
    }
}

/// Records, and does something besides.
pub(super) fn run_with(arguments: &Arguments, besides: &mut dyn Besides) -> Result<Ended> {
    let scope = scope(arguments)?;
    if arguments.probe_log {
        env_logger::Builder::new().filter_module("probe", log::LevelFilter::Debug).init();
    }
    // One thread: the child must be made by the thread that is marked in the kernel.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(record(arguments, scope, besides))
}

/// Whether the words bound whose events are recorded: a command, a process or a cgroup.
pub(super) const fn is_bounded(arguments: &Arguments) -> bool {
    arguments.pid.is_some() || arguments.cgroup.is_some() || !arguments.command.is_empty()
}

fn scope(arguments: &Arguments) -> Result<Scope> {
    Ok(match (&arguments.pid, &arguments.cgroup) {
        _ if arguments.all => Scope::All,
        (Some(pid), _) => Scope::Process(*pid),
        (_, Some(cgroup)) => Scope::Cgroup(cgroup.clone()),
        _ => match arguments.command.first() {
            Some(program) => Scope::Command(program.clone()),
            None => bail!(Hinted {
                message: "nothing to record".to_owned(),
                hint: "give a command after `--`, or --all, --pid PID or --cgroup PATH".to_owned(),
            }),
        },
    })
}

/// Sets everything up, follows the rings until the end, and finishes the file.
async fn record(arguments: &Arguments, scope: Scope, besides: &mut dyn Besides) -> Result<Ended> {
    let settings = Settings {
        ring_bytes: arguments.ring,
        probe_log: arguments.probe_log,
        record_self: false,
        family: arguments.hooks,
    };
    let mut capture = Capture::start(scope, settings).map_err(with_hint)?;
    capture.set_detail(arguments.detail)?;
    let logger = capture.logger()?;
    let output = Output::reserve(&arguments.output)?;
    besides.begin(&mut capture).inspect_err(|_| output.give_back())?;
    let child = match arguments.command.split_first() {
        Some((program, words)) => {
            let stdout = arguments.printing.stdout()?;
            let mut command = Command::new(program);
            command.args(words).stdout(stdout);
            let spawn = || command.spawn().with_context(|| format!("run {program}"));
            Some(capture.spawn_in_scope(spawn).inspect_err(|_| output.give_back())?)
        }
        None => None,
    };
    let writer = Writer::create(&arguments.output, &capture.host())?;
    if child.is_none() && !arguments.quiet {
        announce(&capture);
    }
    let mut session = Session {
        writer,
        events: 0,
        started: Instant::now(),
        flushed: Instant::now(),
        line: ProgressLine::new(arguments.quiet),
        snapshot: arguments.snapshot,
        logger,
        besides,
    };
    let ended = session.follow(&mut capture, child, arguments.r#for).await?;
    session.line.clear();
    session.finish(&mut capture, &arguments.output, arguments.quiet)?;
    Ok(ended)
}

/// Says that everything from now on is recorded.
#[expect(clippy::print_stderr, reason = "talk goes to stderr")]
fn announce(capture: &Capture) {
    eprintln!("recording {}; Ctrl-C ends it", capture.scope());
}

/// A recording in the making.
struct Session<'a> {
    writer: Writer<File>,
    events: u64,
    started: Instant,
    flushed: Instant,
    line: ProgressLine,
    snapshot: bool,
    logger: Option<aya_log::EbpfLogger<&'static dyn log::Log>>,
    besides: &'a mut dyn Besides,
}

/// How often the rings are read. At 100,000 events/s this is 2,000 events a turn.
const TURN: Duration = Duration::from_millis(20);
/// How much a crash of the recorder may cost.
const FLUSH: Duration = Duration::from_secs(5);
/// How long a command has to end after it was asked to.
const PATIENCE: Duration = Duration::from_secs(2);

impl Session<'_> {
    /// Follows until the command ends, the time is up, or somebody wants us to stop. A recording that
    /// cannot be written any more does not take the command down with it.
    async fn follow(
        &mut self,
        capture: &mut Capture,
        mut child: Option<Child>,
        limit: Option<Duration>,
    ) -> Result<Ended> {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let mut turn = interval(TURN);
        turn.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut until = limit.map(|limit| self.started + limit);
        let mut asked = false;
        let command = child.as_ref().and_then(Child::id);
        // The command's own status, while another process has its place.
        let mut replaced = None;
        loop {
            let stop = tokio::select! {
                status = wait(&mut child) => {
                    (replaced, child) = (Some(status?), None);
                    false
                }
                () = passed(until) => true,
                // A snapshot leaves the rings alone, and sleeps.
                _ = turn.tick(), if !self.snapshot || replaced.is_some() => false,
                _ = interrupt.recv() => true,
                _ = terminate.recv() => true,
            };
            if let (Some(status), Some(command)) = (replaced, command)
                && !self.besides.goes_on(command)
            {
                return Ok(Ended { status: Some(status), stopped: asked });
            }
            if stop {
                if asked || child.is_none() {
                    return Ok(Ended { status: None, stopped: true });
                }
                asked = true;
                ask_to_end(child.as_ref());
                until = Some(Instant::now() + PATIENCE);
            }
            if let Err(error) = self.turn(capture) {
                self.line.clear();
                if child.is_some() {
                    let status = wait(&mut child).await?;
                    return Err(
                        error.context(format!("recording stopped; the command went on: {status}"))
                    );
                }
                return Err(error);
            }
        }
    }

    fn turn(&mut self, capture: &mut Capture) -> Result<()> {
        self.flush_log();
        let (writer, besides) = (&mut self.writer, &mut self.besides);
        self.events += capture.drain(&mut |names, events| {
            besides.see(names, events);
            Ok(writer.append(names, events)?)
        })?;
        self.besides.turn(capture)?;
        if self.flushed.elapsed() >= FLUSH {
            self.writer.set_host(&capture.host());
            self.writer.flush()?;
            self.flushed = Instant::now();
        }
        self.line.show(self.events, self.started.elapsed(), capture.lost());
        Ok(())
    }

    fn flush_log(&mut self) {
        if let Some(logger) = &mut self.logger {
            logger.flush();
        }
    }

    /// Reads the rest, finishes the file and says what is in it.
    #[expect(clippy::print_stderr, reason = "talk goes to stderr")]
    fn finish(mut self, capture: &mut Capture, output: &Path, quiet: bool) -> Result<()> {
        let (writer, besides) = (&mut self.writer, &mut self.besides);
        // What is told only now is in the rest.
        besides.end(capture)?;
        self.events += capture.drain_rest(&mut |names, events| {
            besides.see(names, events);
            Ok(writer.append(names, events)?)
        })?;
        self.besides.turn(capture)?;
        self.flush_log();
        self.writer.finish(&capture.host())?;
        if !quiet {
            let bytes = fs::metadata(output).map_or(0, |m| m.len());
            eprintln!(
                "recorded {} events in {:.1} s, {} lost, {:.1} KiB: {}",
                grouped(self.events),
                self.started.elapsed().as_secs_f64(),
                grouped(capture.lost()),
                bytes as f64 / 1024.0,
                output.display(),
            );
            if let Some(losses) = capture.losses() {
                eprintln!("lost: {losses}");
            }
        }
        Ok(())
    }
}

async fn passed(until: Option<Instant>) {
    match until {
        Some(until) => tokio::time::sleep_until(until.into()).await,
        None => std::future::pending().await,
    }
}

async fn wait(child: &mut Option<Child>) -> Result<ExitStatus> {
    match child {
        Some(child) => child.wait().await.context("wait for the command"),
        None => std::future::pending().await,
    }
}

/// Ctrl-C on a terminal reaches the command as well; SIGTERM to us alone would not.
fn ask_to_end(child: Option<&Child>) {
    if let Some(pid) = child.and_then(Child::id) {
        // It may have ended at this moment, which is what is wanted.
        let _ = kill(Pid::from_raw(pid as i32), Signal::SIGTERM);
    }
}

/// The output file, opened before the command runs, so that a bad path costs nothing; what it held stays
/// until the command has been started.
struct Output<'a> {
    path: &'a Path,
    is_new: bool,
}

impl<'a> Output<'a> {
    fn reserve(path: &'a Path) -> Result<Self> {
        let is_new = !path.exists();
        OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)
            .with_context(|| format!("write {}", path.display()))?;
        Ok(Self { path, is_new })
    }

    fn give_back(&self) {
        if self.is_new {
            // Nothing was written; an empty file left behind would only puzzle.
            let _ = fs::remove_file(self.path);
        }
    }
}

pub fn with_hint(error: anyhow::Error) -> anyhow::Error {
    let hint = if !Path::new("/sys/kernel/btf/vmlinux").exists() {
        "this kernel tells nothing of its types: it needs CONFIG_DEBUG_INFO_BTF=y, which most distributions' kernels have"
    } else if !procfs::may_load_probes() {
        "recording needs root, or CAP_BPF and CAP_PERFMON; `wherefore doctor` tells what is missing"
    } else {
        return error;
    };
    error.context(Hinted { message: "start recording".to_owned(), hint: hint.to_owned() })
}

/// One line on the terminal that is written over and over.
struct ProgressLine {
    shown: Option<Instant>,
    on: bool,
}

impl ProgressLine {
    fn new(quiet: bool) -> Self {
        Self { shown: None, on: !quiet && std::io::stderr().is_terminal() }
    }

    fn show(&mut self, events: u64, elapsed: Duration, lost: u64) {
        if !self.on || self.shown.is_some_and(|at| at.elapsed() < Duration::from_millis(500)) {
            return;
        }
        self.shown = Some(Instant::now());
        let rate = events as f64 / elapsed.as_secs_f64().max(0.001);
        let text = format!("{} events, {rate:.0}/s, {} lost", grouped(events), grouped(lost));
        // A progress line that cannot be shown is no reason to stop.
        let _ = write!(std::io::stderr(), "\r\x1b[K{text}");
    }

    fn clear(&self) {
        if self.shown.is_some() {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}

/// A number with commas between its thousands.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

pub fn family_parser() -> impl TypedValueParser<Value = Family> {
    PossibleValuesParser::new(Family::ALL.map(Family::as_str))
        .map(|name| Family::parse(&name).expect("only possible values pass"))
}
