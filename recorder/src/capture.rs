//! From the kernel to events: loads and attaches the probes, reads their rings, and decodes what they hold.

pub mod attach;
pub mod cgroup;
pub mod clock;
pub mod control;
mod coverage;
pub mod decode;
pub mod detail;
mod generations;
pub mod namespace;
pub mod offsets;
pub mod places;
pub mod procfs;
pub mod ring;
pub mod scope;
pub mod snapshot;
pub mod sockets;

use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use anyhow::{Context, Result};
use aya::{Btf, Ebpf};

use crate::event::{Event, Gap, Host, Names, Ring, Window};
use attach::family::Family;
use attach::{Attached, Loaded, Settings, preempt};
use cgroup::Cgroups;
pub use coverage::{Cost, Counting, Coverage};
use decode::Decoder;
use detail::{Detail, Details};
use ring::{Batch, Follower, Rings};
pub use scope::Scope;
use snapshot::{Cut, Source};

/// The probes at work, and where their rings have been read to.
pub struct Capture {
    /// Keeps programs, maps and links: dropping it detaches everything.
    ebpf: Ebpf,
    hooks: Vec<Attached>,
    details: Details,
    family: Family,
    rings: Rings,
    follower: Follower,
    decoder: Decoder,
    /// Events that were read before everything older was: they wait for the next turn.
    waiting: Batch,
    attached_ns: u64,
    window_to_ns: u64,
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
        let Loaded { mut ebpf, family, mut hooks } = attach::load_family(&btf, &scope, &settings)?;
        let rings = Rings::map(&ebpf, &settings)?;
        let marked = scope.mark(attach::map_fd(&ebpf, "TASKS")?.as_fd())?;
        hooks.extend(attach::attach_common(&mut ebpf, &btf, family)?);
        let attached_ns = clock::monotonic_ns();
        let follower = Follower::new(&rings);
        let mut decoder = Decoder::new(Cgroups::read());
        if scope == Scope::All {
            decoder.take_all();
        }
        decoder.know(procfs::tasks(), |tid| scope == Scope::All || marked.contains(&tid));
        Ok(Self {
            ebpf,
            hooks,
            details: Details::default(),
            family,
            rings,
            follower,
            decoder,
            waiting: Batch::default(),
            attached_ns,
            window_to_ns: attached_ns,
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
        self.decoder.name_faults(faults);
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
        self.decoder.name_reasons(self.details.reasons());
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
        let now_ns = clock::monotonic_ns();
        self.window_to_ns = now_ns.saturating_sub(IN_FLIGHT.as_nanos() as u64);
        self.drain_until(self.window_to_ns, sink)
    }

    /// Reads everything there is. Call it once, at the end.
    ///
    /// # Errors
    /// Those of `sink`.
    pub fn drain_rest(&mut self, sink: &mut Sink<'_>) -> Result<u64> {
        self.window_to_ns = clock::monotonic_ns();
        // Programs that were busy writing a moment ago have finished by then.
        std::thread::sleep(IN_FLIGHT);
        self.drain_until(u64::MAX, sink)
    }

    fn drain_until(&mut self, until_ns: u64, sink: &mut Sink<'_>) -> Result<u64> {
        self.follower.drain(&self.rings, &mut self.waiting);
        let ready = self.waiting.in_order(until_ns);
        let named = ready.iter().filter(|raw| raw.ring == Ring::Rare);
        self.decoder.look_ahead(named.map(|raw| (*raw, self.waiting.detail(raw))));
        let mut count = 0;
        let mut events = Vec::with_capacity(BLOCK.min(ready.len()));
        for block in ready.chunks(BLOCK) {
            events.clear();
            for raw in block {
                self.decoder.decode(raw, self.waiting.detail(raw), &mut events);
            }
            count += events.len() as u64;
            sink(&self.decoder.names, &events)?;
        }
        self.waiting.keep_after(until_ns);
        self.decoder.places.look();
        Ok(count)
    }

    /// Reads what the rings hold, and leaves them to fill on: as often as one likes. What was overwritten
    /// is not lost but before the window.
    ///
    /// # Errors
    /// Those of `sink`.
    pub fn snapshot(&self, cut: Cut, sink: &mut Sink<'_>) -> Result<Host> {
        snapshot::take(&self.rings, &self.source(), cut, sink)
    }

    /// What whoever takes a snapshot has to know.
    pub fn source(&self) -> Source {
        let host = self.host();
        Source {
            shape: self.rings.shape(),
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

    pub const fn scope(&self) -> &Scope {
        &self.scope
    }

    pub fn names(&self) -> &Names {
        &self.decoder.names
    }

    /// Gaps so far.
    pub fn gaps(&self) -> &[Gap] {
        &self.follower.gaps
    }

    /// Events lost so far: overwritten before they were read, or never written.
    pub fn lost(&self) -> u64 {
        self.follower.lost + self.unwritten()
    }

    /// Events that the probes had no storage for, or that came while the same probe was at work.
    fn unwritten(&self) -> u64 {
        self.rings.dropped()
            + preempt::lost(&self.hooks, self.rings.taken_over())
            + self.details.missed()
    }

    /// What is known about this host and this recording now.
    pub fn host(&self) -> Host {
        let from_ns = self.attached_ns;
        let window = |ring| Window {
            from_ns: self.follower.complete_from(ring).max(from_ns),
            to_ns: self.window_to_ns,
        };
        let lost = self.lost();
        Host {
            name: procfs::host_name(),
            boot_id: procfs::boot_id(),
            kernel: procfs::kernel_release(),
            cpus: self.rings.cpus,
            attached_ns: self.attached_ns,
            wall_offset_ns: self.wall_offset_ns,
            family: self.family.to_string(),
            hooks: self
                .hooks
                .iter()
                .filter(|h| h.missing.is_none())
                .map(|h| h.name.clone())
                .collect(),
            missing_hooks: self
                .hooks
                .iter()
                .filter_map(|h| h.missing.as_ref().map(|why| format!("{}: {why}", h.name)))
                .collect(),
            detail: Detail::FLOW.to_string(),
            details: self.details.stretches().to_vec(),
            drop_reasons: self.decoder.reasons_seen(),
            drops_untold: self.rings.drops_untold(),
            scope: self.scope.to_string(),
            bulk_window: window(Ring::Bulk),
            rare_window: window(Ring::Rare),
            gaps: self.follower.gaps.clone(),
            raised: self.follower.written() + self.unwritten() - self.decoder.records,
            lost,
            tasks: self.decoder.tasks(),
            containers: self.decoder.places.called(),
            namespaces: self.decoder.places.namespaces(),
            faults: self.faults.clone(),
        }
    }
}
