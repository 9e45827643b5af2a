//! From the kernel to events: loads and attaches the probes, reads their rings, and decodes what they hold.

pub mod attach;
pub mod cgroup;
pub mod clock;
pub mod control;
mod coverage;
pub mod decode;
pub mod detail;
pub mod follow;
mod generations;
pub mod namespace;
pub mod netlink;
pub mod newest;
pub mod offsets;
pub mod places;
pub mod procfs;
pub mod ring;
pub mod scope;
pub mod snapshot;
pub mod sockets;
pub mod state;
pub mod unpreempted;

use std::os::fd::{AsFd, BorrowedFd};
use std::process;
use std::time::Duration;

use anyhow::{Context, Result};
use aya::{Btf, Ebpf};

use crate::event::{Event, Gap, Host, Names, Ring, Window};
use attach::family::Family;
use attach::returns::Returns;
use attach::{Attached, Loaded, Probes, Settings, preempt};
use cgroup::Cgroups;
pub use coverage::{Cost, Counting, Coverage};
use decode::Decoder;
use detail::{Detail, Details};
use follow::Following;
use ring::Rings;
use ring::follower::Follower;
pub use scope::Scope;
use snapshot::{Cut, Source};

/// The probes at work, and where their rings have been read to.
pub struct Capture {
    /// Keeps programs, maps and links: dropping it detaches everything.
    ebpf: Ebpf,
    _returns: Returns,
    hooks: Vec<Attached>,
    details: Details,
    family: Family,
    following: Following,
    attached_ns: u64,
    scope: Scope,
    settings: Settings,
    wall_offset_ns: i64,
    /// Fault files of what is armed.
    faults: Vec<String>,
}

/// Takes events as they are decoded, with the names they refer to.
pub type Sink<'a> = dyn FnMut(&Names, &[Event]) -> Result<()> + 'a;

/// Events that are decoded at a time.
const BLOCK: usize = 1 << 16;

/// How far back a program that took its time stamp may still be busy writing its slot.
const IN_FLIGHT: Duration = Duration::from_millis(2);

impl Capture {
    /// Loads the probes, attaches them, and takes what the scope names into it.
    ///
    /// # Errors
    /// When a map or a hook without which nothing can be recorded is refused; the text says which and why.
    pub fn start(scope: Scope, settings: Settings) -> Result<Self> {
        let btf =
            Btf::from_sys_fs().context("read the kernel's types from /sys/kernel/btf/vmlinux")?;
        let Loaded { mut probes, family, mut hooks } =
            attach::load_family(&btf, &scope, &settings)?;
        let rings = Rings::map(&probes.ebpf, &settings)?;
        hooks.extend(attach::attach_common(&mut probes, &btf, family)?);
        // Not earlier: threads that are made meanwhile are seen to be.
        let marked = scope.mark(attach::map_fd(&probes.ebpf, "TASKS")?.as_fd())?;
        hooks.extend(attach::walk_older(&mut probes, &btf)?);
        let Probes { ebpf, returns } = probes;
        let attached_ns = clock::monotonic_ns();
        let follower = Follower::new(&rings);
        let mut decoder = Decoder::new(Cgroups::read());
        if scope == Scope::All {
            decoder.take_all();
        }
        decoder.know(procfs::tasks(), |tid| scope == Scope::All || marked.contains(&tid));
        Ok(Self {
            ebpf,
            _returns: returns,
            hooks,
            details: Details::default(),
            family,
            following: Following::new(rings, follower, decoder, attached_ns),
            attached_ns,
            scope,
            settings,
            wall_offset_ns: clock::wall_offset_ns(),
            faults: Vec::new(),
        })
    }

    /// Runs `spawn` with the calling thread marked, so that the child it makes is in scope.
    pub fn spawn_in_scope<T>(&self, spawn: impl FnOnce() -> Result<T>) -> Result<T> {
        let tasks = attach::map_fd(&self.ebpf, "TASKS")?;
        let marked = scope::mark_thread(tasks.as_fd(), scope::own_thread()?.as_fd(), true);
        marked.context("mark the recorder's own thread")?;
        let spawned = spawn();
        scope::mark_thread(tasks.as_fd(), scope::own_thread()?.as_fd(), false)
            .context("unmark the recorder's own thread")?;
        spawned
    }

    /// The kernel half, for those who arm faults in it, and what the faults are called, by rule.
    pub fn kernel_half<'a>(&mut self, faults: impl Iterator<Item = &'a str>) -> &mut Ebpf {
        self.following.decoder.name_faults(faults);
        &mut self.ebpf
    }

    /// Keeps in the recording what was armed: the text of a fault file.
    pub fn note_faults(&mut self, file: String) {
        self.faults = vec![file];
    }

    /// What the kernel half holds.
    pub const fn maps(&self) -> &Ebpf {
        &self.ebpf
    }

    /// The same, to run programs of it.
    pub const fn maps_mut(&mut self) -> &mut Ebpf {
        &mut self.ebpf
    }

    /// Records more than `flow` from now on, or no more than that.
    ///
    /// # Errors
    /// When the kernel refuses a hook; everything stays as it was.
    pub fn set_detail(&mut self, detail: Detail) -> Result<()> {
        self.details.set(&mut self.ebpf, detail, clock::monotonic_ns())?;
        self.following.decoder.name_reasons(self.details.reasons());
        Ok(())
    }

    pub const fn detail(&self) -> Detail {
        self.details.now()
    }

    /// Hands out the probes' diagnostics to [`log`], where they were asked for.
    pub fn logger(&mut self) -> Result<Option<aya_log::EbpfLogger<&'static dyn log::Log>>> {
        if !self.settings.probe_log {
            return Ok(None);
        }
        aya_log::EbpfLogger::init(&mut self.ebpf).context("read the probes' log").map(Some)
    }

    /// Reads everything that has been written up to a moment ago and hands it to `sink`, in order of time.
    ///
    /// # Errors
    /// Those of `sink`.
    pub fn drain(&mut self, sink: &mut Sink<'_>) -> Result<u64> {
        self.following.drain(sink)
    }

    /// Reads everything there is. Call it once, at the end.
    ///
    /// # Errors
    /// Those of `sink`.
    pub fn drain_rest(&mut self, sink: &mut Sink<'_>) -> Result<u64> {
        self.following.drain_rest(sink)
    }

    /// Reads what the rings hold, and leaves them to fill on: as often as one likes. What was overwritten
    /// is not lost but before the window.
    ///
    /// # Errors
    /// Those of `sink`.
    pub fn snapshot(&self, cut: Cut, sink: &mut Sink<'_>) -> Result<Host> {
        snapshot::take(&self.following.rings, &self.source(), cut, sink)
    }

    /// What whoever takes a snapshot has to know.
    pub fn source(&self) -> Source {
        let host = self.host();
        Source {
            shape: self.following.rings.shape(),
            attached_ns: self.attached_ns,
            // Read anew: since the probes were attached the clock may have been set.
            wall_offset_ns: clock::wall_offset_ns(),
            scope: host.scope,
            whole_machine: self.scope == Scope::All,
            family: host.family,
            hooks: host.hooks,
            missing_hooks: host.missing_hooks,
            unwritten: self.unwritten(),
            details: self.details.stretches().to_vec(),
            drop_reasons: self.details.reasons().to_vec(),
        }
    }

    /// The maps that hold the rings; whoever has them and [`Capture::source`] can take snapshots.
    pub fn ring_maps(&self) -> Result<[BorrowedFd<'_>; 3]> {
        Rings::maps(&self.ebpf)
    }

    /// The hooks, for whoever asks `/proc` what they missed.
    pub fn hooks(&self) -> &[Attached] {
        &self.hooks
    }

    pub const fn scope(&self) -> &Scope {
        &self.scope
    }

    pub fn names(&self) -> &Names {
        &self.following.decoder.names
    }

    /// Gaps so far.
    pub fn gaps(&self) -> &[Gap] {
        &self.following.follower.gaps
    }

    /// Events lost so far: overwritten before they were read, or never written.
    pub fn lost(&self) -> u64 {
        self.following.follower.lost + self.unwritten()
    }

    /// Events that the probes had no storage for, or that came while the same probe was at work.
    fn unwritten(&self) -> u64 {
        self.following.rings.dropped()
            + preempt::lost(&self.hooks, self.following.rings.taken_over(), process::id())
            + self.details.missed()
    }

    /// What the lost events were lost by, in words; none where nothing was.
    pub fn losses(&self) -> Option<String> {
        if self.lost() == 0 {
            return None;
        }
        let mut by = vec![
            (self.following.follower.lost, "overwritten before they were read".to_owned()),
            (
                self.following.rings.dropped(),
                "without storage for the thread or socket, or a place for the call's return"
                    .to_owned(),
            ),
            (self.details.missed(), "at hooks of the detail, while their program ran".to_owned()),
        ];
        for (hook, count) in preempt::skipped(&self.hooks, process::id()) {
            by.push((count, format!("skipped at {hook}, while its program ran")));
        }
        let by = by.iter().filter(|(count, _)| *count > 0);
        let by: Vec<_> = by.map(|(count, what)| format!("{count} {what}")).collect();
        Some(by.join(", "))
    }

    /// What is known about this host and this recording now.
    pub fn host(&self) -> Host {
        let from_ns = self.attached_ns;
        let window = |ring| Window {
            from_ns: self.following.follower.complete_from(ring).max(from_ns),
            to_ns: self.following.window_to_ns,
        };
        let lost = self.lost();
        Host {
            name: procfs::host_name(),
            boot_id: procfs::boot_id(),
            kernel: procfs::kernel_release(),
            cpus: self.following.rings.cpus,
            attached_ns: self.attached_ns,
            wall_offset_ns: self.wall_offset_ns,
            family: self.family.to_string(),
            hooks: self
                .hooks
                .iter()
                .filter(|h| h.missing.is_none() && !h.stands_by())
                .map(|h| h.name.clone())
                .collect(),
            missing_hooks: self
                .hooks
                .iter()
                .filter_map(|h| h.missing.as_ref().map(|why| format!("{}: {why}", h.name)))
                .collect(),
            detail: Detail::FLOW.to_string(),
            details: self.details.stretches().to_vec(),
            drop_reasons: self.following.decoder.reasons_seen(),
            drops_untold: self.following.rings.drops_untold(),
            scope: self.scope.to_string(),
            bulk_window: window(Ring::Bulk),
            rare_window: window(Ring::Rare),
            gaps: self.following.follower.gaps.clone(),
            raised: self.following.follower.written() + self.unwritten()
                - self.following.decoder.records,
            lost,
            tasks: self.following.decoder.tasks(),
            containers: self.following.decoder.places.called(),
            namespaces: self.following.decoder.places.namespaces(),
            faults: self.faults.clone(),
            state: None,
        }
    }
}
