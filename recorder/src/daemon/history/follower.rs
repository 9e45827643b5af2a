//! The history's own process: follows the rings into segments on disk. It may be killed at any moment, and its
//! successor goes on where it left off, as long as the rings still hold what came after.

use std::os::fd::{AsFd, BorrowedFd, RawFd};
use std::os::unix::process::parent_id;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Result;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde::{Deserialize, Serialize};

use super::control::{Listener, State, Word};
use super::segment::Segment;
use super::segments::Segments;
use crate::capture::attach::{Attached, preempt};
use crate::capture::cgroup::Cgroups;
use crate::capture::decode::Decoder;
use crate::capture::follow::Following;
use crate::capture::ring::Rings;
use crate::capture::ring::follower::Follower;
use crate::capture::snapshot::Source;
use crate::capture::{clock, procfs};
use crate::daemon::job::inherited;
use crate::daemon::status::resident_bytes;
use crate::event::{Event, Names, Ring};
use crate::hide::Hide;
use crate::recording::PART_ROWS;
use crate::recording::splice::OVERLAP_NS;

/// What the follower is to do.
#[derive(Debug, Serialize, Deserialize)]
pub struct Job {
    pub source: Source,
    /// The rings' maps: descriptors that it inherits.
    pub maps: [RawFd; 3],
    /// The probes, whose programs the daemon has open.
    pub hooks: Vec<Attached>,
    pub directory: PathBuf,
    pub age: Option<Duration>,
    pub size: u64,
    /// Names that are not written down.
    pub hide: Hide,
}

/// Follows until the daemon closes `stdin`, or this process has grown so large that it should be started anew.
///
/// # Errors
/// When the folder or the rings cannot be used at all. A full disk is waited for.
pub fn follow(job: Job, stdin: BorrowedFd<'_>) -> Result<()> {
    let mut segments = Segments::open(&job.directory, job.age, complete_bytes(job.size))?;
    segments.make_room()?;
    let listener = Listener::open(&job.directory)?;
    let attached_ns = job.source.attached_ns;
    let since_ns = segments.kept_to_ns(attached_ns).unwrap_or(attached_ns);
    let (following, from_ns) = resume(&job, since_ns)?;
    let mut history = History {
        state: State::default(),
        following,
        segments,
        segment: None,
        from_ns,
        tried: None,
        daemon: parent_id(),
        unwritten: 0,
        job,
    };
    history.catch_up(since_ns)?;
    history.run(&listener, stdin)
}

/// A segment's longest time.
const LONGEST: Duration = Duration::from_secs(60);
/// How often what is buffered is written down, however little it is.
const FLUSH: Duration = Duration::from_secs(5);
/// How long a disk that refused is left alone.
const RETRY: Duration = Duration::from_secs(2);
/// Beyond this a new process takes over: this one never forgets a name.
const MOST_RESIDENT: u64 = 256 << 20;

const fn segment_bytes(size: u64) -> u64 {
    let sixteenth = size / 16;
    if sixteenth < 64 << 20 { sixteenth } else { 64 << 20 }
}

/// What may be complete, so that it is within the limit together with the segment that is being written.
const fn complete_bytes(size: u64) -> u64 {
    /// What the last part may add beyond the limit of a segment.
    const PART: u64 = 4 << 20;
    size.saturating_sub(segment_bytes(size) + PART)
}

/// A follower that has everything up to a time, and since when nothing is missing.
fn resume(job: &Job, since_ns: u64) -> Result<(Following, [u64; 2])> {
    let rings = inherited(job.maps, job.source.shape)?;
    let (follower, from_ns) = Follower::resume(&rings, since_ns);
    let older_ns = follower.oldest_name_ns(&rings).unwrap_or(job.source.attached_ns);
    let mut decoder = Decoder::new(Cgroups::read());
    let tasks = procfs::tasks().into_iter().filter(|task| task.start_ns < older_ns).collect();
    decoder.know(tasks, |_| job.source.whole_machine);
    decoder.name_reasons(&job.source.drop_reasons);
    if job.source.whole_machine {
        decoder.take_all();
    }
    Ok((Following::new(rings, follower, decoder, since_ns), from_ns))
}

struct History {
    following: Following,
    segments: Segments,
    /// None: nothing can be written.
    segment: Option<Segment>,
    /// Since when the next segment is complete, per ring.
    from_ns: [u64; 2],
    /// When the disk was tried last.
    tried: Option<Instant>,
    /// Who has the probes open. (Once it is killed, this process has another parent.)
    daemon: u32,
    /// Events that the probes could not write, as far as is known.
    unwritten: u64,
    state: State,
    job: Job,
}

impl History {
    /// Takes over what the rings hold since another follower stopped.
    fn catch_up(&mut self, since_ns: u64) -> Result<()> {
        let Following { follower, rings, .. } = &self.following;
        let names_overwritten = follower.oldest_name_ns(rings).is_some();
        self.begin_segment();
        let earliest_ns = since_ns.saturating_sub(OVERLAP_NS);
        let begun_ns = clock::monotonic_ns();
        while self.following.window_to_ns < begun_ns {
            self.turn(earliest_ns)?;
            self.look_after_segment();
        }
        let unnamed_ns = self.following.decoder.unnamed_ns;
        if names_overwritten && unnamed_ns > 0 {
            // What cannot be joined to its other end lies before the window, as in a snapshot.
            self.from_ns = self.from_ns.map(|from_ns| from_ns.max(unnamed_ns + 1));
            if let Some(segment) = &mut self.segment {
                segment.begin_at(self.from_ns);
            }
        }
        Ok(())
    }

    fn run(&mut self, listener: &Listener, stdin: BorrowedFd<'_>) -> Result<()> {
        let pause = pause(&self.following.rings);
        loop {
            let mut waiting = [
                PollFd::new(stdin, PollFlags::POLLIN),
                PollFd::new(listener.socket().as_fd(), PollFlags::POLLIN),
            ];
            poll(&mut waiting, if self.following.behind { PollTimeout::ZERO } else { pause })?;
            let over = waiting[0].any().unwrap_or(false);
            self.turn(0)?;
            listener.answer(|word| self.answer(word));
            if over || self.is_large() {
                return self.end();
            }
            self.look_after_segment();
        }
    }

    /// Reads what is new, and writes it where that is possible.
    fn turn(&mut self, earliest_ns: u64) -> Result<()> {
        let Self { following, segment, state, .. } = self;
        let lost_before = following.follower.lost;
        let mut failed = None;
        following.drain(&mut |names: &Names, events: &[Event]| {
            let first = events.partition_point(|event| event.time_ns < earliest_ns);
            let events = &events[first..];
            state.events += events.len() as u64;
            match segment {
                Some(segment) if failed.is_none() => {
                    failed = segment.append(names, events).err();
                }
                _ => state.missed += events.len() as u64,
            }
            Ok(())
        })?;
        state.lost += following.follower.lost - lost_before;
        if let Some(error) = failed {
            self.pause(&error.into());
        }
        Ok(())
    }

    fn look_after_segment(&mut self) {
        let lasts = self.job.age.map_or(LONGEST, |age| (age / 10).min(LONGEST));
        let Some(segment) = &self.segment else {
            return self.try_again();
        };
        if segment.lasts() >= lasts || segment.bytes() >= segment_bytes(self.job.size) {
            self.end_segment();
            self.begin_segment();
        } else if segment.since_flush() >= FLUSH || segment.buffered() >= self.flush_at() {
            self.flush();
        }
    }

    fn begin_segment(&mut self) {
        self.tried = Some(Instant::now());
        let path = self.segments.new_path();
        let unwritten = self.unwritten();
        let Job { source, hide, .. } = &self.job;
        match Segment::create(path.clone(), source, self.from_ns, unwritten, hide) {
            Ok(segment) => self.segment = Some(segment),
            Err(error) => {
                // Nothing is in it.
                let _ = std::fs::remove_file(path);
                self.pause(&error.into());
            }
        }
    }

    /// Completes the segment; what follows it belongs to the next.
    fn end_segment(&mut self) {
        self.flush();
        let Some(segment) = self.segment.take() else { return };
        let unwritten = self.unwritten();
        let path = segment.finish(&self.following, unwritten).map_err(anyhow::Error::from);
        let kept = path.and_then(|path| self.segments.complete(&path));
        self.go_on_from_here();
        if let Err(error) = kept.and_then(|()| self.segments.make_room()) {
            self.pause(&error);
        }
    }

    /// Another segment begins where everything has been read up to.
    fn go_on_from_here(&mut self) {
        self.following.follower.gaps.clear();
        self.following.decoder.forget_the_gone();
        self.from_ns = [self.following.window_to_ns; 2];
    }

    /// What is not yet safe is still in the rings, for whoever comes after this process.
    fn flush_at(&self) -> u64 {
        (PART_ROWS as u64 / 2).min(u64::from(self.job.source.shape.bulk_slots) / 2)
    }

    fn flush(&mut self) {
        let unwritten = self.unwritten();
        let Some(segment) = &mut self.segment else { return };
        if let Err(error) = segment.flush(&self.following, unwritten) {
            self.pause(&error.into());
        }
    }

    /// The disk refuses: what is complete stays, what was buffered is missed, and nothing is written for a while.
    fn pause(&mut self, error: &anyhow::Error) {
        self.state.missed += self.segment.take().map_or(0, |segment| segment.buffered());
        self.tried = Some(Instant::now());
        let why = format!("{error:#}");
        if self.state.paused.is_none() {
            log::error!("the history pauses: {why}");
        }
        self.state.paused = Some(why);
    }

    fn try_again(&mut self) {
        if self.tried.is_some_and(|tried| tried.elapsed() < RETRY) {
            return;
        }
        self.tried = Some(Instant::now());
        if let Err(error) = self.segments.mend().and_then(|()| self.segments.make_room()) {
            self.state.paused = Some(format!("{error:#}"));
            return;
        }
        self.go_on_from_here();
        self.begin_segment();
        if self.segment.is_some() {
            self.state.paused = None;
            log::info!("the history goes on; {} events were missed so far", self.state.missed);
        }
    }

    fn answer(&mut self, word: Word) -> State {
        if word == Word::Flush {
            self.flush();
        }
        let own_ns = self.from_ns[0].max(self.from_ns[1]);
        State {
            since_ns: self.segments.complete_from_ns(self.job.source.attached_ns, own_ns),
            until_ns: self.following.window_to_ns,
            unwritten: self.unwritten(),
            cpu_ns: clock::process_cpu_ns(),
            resident_bytes: resident_bytes(),
            ..self.state.clone()
        }
    }

    fn end(&mut self) -> Result<()> {
        let Self { following, segment, .. } = self;
        following.drain_rest(&mut |names, events| {
            // What fails here fails again when the segment is ended.
            let _ = segment.as_mut().map(|segment| segment.append(names, events));
            Ok(())
        })?;
        self.end_segment();
        match &self.state.paused {
            Some(why) => anyhow::bail!("{why}"),
            None => Ok(()),
        }
    }

    /// Asked for once a segment would do; but it is one line of `/proc`.
    fn is_large(&self) -> bool {
        self.segment.as_ref().is_some_and(|s| s.since_flush() >= FLUSH)
            && resident_bytes() > MOST_RESIDENT
    }

    /// Events that the probes could not write. Never fewer than before: what was skipped is counted a moment earlier than that
    /// another took it over, and a daemon that is gone cannot be asked.
    fn unwritten(&mut self) -> u64 {
        let rings = &self.following.rings;
        let skipped = preempt::lost(&self.job.hooks, rings.taken_over(), self.daemon);
        self.unwritten = self.unwritten.max(rings.dropped() + skipped);
        self.unwritten
    }
}

/// How long the rings are left alone: at most as long as a quarter of the smallest takes to fill at a rate that is
/// not reached for long.
fn pause(rings: &Rings) -> PollTimeout {
    const FASTEST: u64 = 200_000;
    let slots = u64::from(rings.slots(Ring::Rare).min(rings.slots(Ring::Bulk)));
    let ms = (slots / 4 * 1000 / FASTEST).clamp(20, 500);
    PollTimeout::from(ms as u16)
}
