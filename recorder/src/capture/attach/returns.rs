//! Probes of functions' returns, with room for thousands of calls at a time.
//!
//! A return probe needs a place for every call that is under way. Of a perf event by itself the kernel makes ten places,
//! or two per CPU. More are to be had only from tracefs: a line of `kprobe_events` defines the probe, and a perf event
//! opens it. It fires while one has it open; the definition outlives whoever wrote it. As long as a perf event
//! has a definition open the kernel refuses to remove it, so that what can be removed, under a lock that is held from
//! the definition to its opening, is left over from a recorder that was killed.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process;

use anyhow::{Context, Result};
use aya::programs::KProbe;

use crate::capture::clock;

/// Places for calls under way, of each function: the most that the kernel makes (`KRETPROBE_MAXACTIVE_MAX` in
/// kernel/trace/trace_kprobe.c), since a server may have a thread waiting per connection. Since Linux 6.7 they take
/// about 200 KiB and 32 KiB per CPU, at once.
pub const PLACES: u32 = 4096;

/// Whose definitions these are: `wherefore_PID/FUNCTION_NANOSECONDS`. A pid alone comes again, and is another's in
/// another namespace.
const GROUP: &str = "wherefore_";

/// The return probes of a set of programs.
#[derive(Default)]
pub struct Returns {
    attached: Vec<(&'static str, Return)>,
    /// Why one is not here, but has the few places of a perf event by itself.
    few: Option<String>,
}

impl Returns {
    /// Attaches a program that is loaded.
    ///
    /// # Errors
    /// When the function cannot be probed at all.
    pub fn attach(
        &mut self,
        name: &'static str,
        program: &mut KProbe,
        function: &str,
    ) -> Result<()> {
        match Return::attach(program, function) {
            Ok(attached) => self.attached.push((name, attached)),
            Err(error) => {
                program.attach(function, 0)?;
                self.few = Some(format!("{error:#}"));
            }
        }
        Ok(())
    }

    pub fn detach(&mut self, name: &str) {
        self.attached.retain(|(program, _)| *program != name);
    }

    /// How many places each function has, and why not more.
    pub fn places(&self, cpus: u32) -> String {
        match &self.few {
            None => PLACES.to_string(),
            Some(why) => {
                format!("{}, since it cannot be defined in tracefs: {why}", (2 * cpus).max(10))
            }
        }
    }
}

/// A probe of a function's return with its program. The perf event is closed before the definition is removed.
struct Return {
    _event: OwnedFd,
    _definition: Definition,
}

impl Return {
    fn attach(program: &KProbe, function: &str) -> Result<Self> {
        let tracefs = mounted()?;
        let _lock = lock(&tracefs)?;
        let definition = Definition::write(&tracefs, function)?;
        let id = tracefs.join("events").join(&definition.name).join("id");
        let id = fs::read_to_string(&id).with_context(|| format!("read {}", id.display()))?;
        let id = id.trim().parse().context("read the number of the return probe")?;
        let event = open_event(id).context("open the return probe")?;
        run_at(event.as_fd(), program.fd()?.as_fd()).context("attach to the return probe")?;
        Ok(Self { _event: event, _definition: definition })
    }
}

/// A line of `kprobe_events`, which is removed when this is dropped.
struct Definition {
    events: File,
    name: String,
}

impl Definition {
    fn write(tracefs: &Path, function: &str) -> Result<Self> {
        let mut events = open(tracefs)?;
        let name = format!("{GROUP}{}/{function}_{}", process::id(), clock::monotonic_ns());
        let line = format!("r{PLACES}:{name} {function}");
        events.write_all(line.as_bytes()).with_context(|| format!("define {line}"))?;
        Ok(Self { events, name })
    }
}

impl Drop for Definition {
    fn drop(&mut self) {
        if let Err(error) = remove(&mut self.events, &self.name) {
            log::warn!("remove {} from kprobe_events: {error}", self.name);
        }
    }
}

/// Removes what recorders that were killed have left.
pub fn clear() -> Result<()> {
    let tracefs = mounted()?;
    let mut events = lock(&tracefs)?;
    let mut text = String::new();
    events.read_to_string(&mut text).context("read kprobe_events")?;
    for name in text.lines().filter_map(defined).filter(|name| name.starts_with(GROUP)) {
        match remove(&mut events, name) {
            // Somebody has it open.
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {}
            removed => removed.with_context(|| format!("remove {name} from kprobe_events"))?,
        }
    }
    Ok(())
}

/// The name in a line `r4096:GROUP/NAME FUNCTION`.
fn defined(line: &str) -> Option<&str> {
    line.split_once(':')?.1.split(' ').next()
}

/// Where its owner and the next recorder both remove it, one finds it gone.
fn remove(events: &mut File, name: &str) -> io::Result<()> {
    match events.write_all(format!("-:{name}").as_bytes()) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

fn mounted() -> Result<PathBuf> {
    let places = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"].map(PathBuf::from);
    let there = places.into_iter().find(|place| place.join("events").exists());
    there.context("it is not mounted at /sys/kernel/tracing, or may not be read")
}

/// Opens the list of definitions. Written without `append`, it would first be emptied.
fn open(tracefs: &Path) -> Result<File> {
    let path = tracefs.join("kprobe_events");
    let opened = File::options().read(true).append(true).open(&path);
    opened.with_context(|| format!("write {}", path.display()))
}

/// Keeps other recorders from removing what is not opened yet, until it is dropped.
fn lock(tracefs: &Path) -> Result<File> {
    let events = open(tracefs)?;
    events.lock().context("lock kprobe_events")?;
    Ok(events)
}

/// `struct perf_event_attr` (include/uapi/linux/perf_event.h) in its first version.
#[repr(C)]
#[derive(Default)]
struct Attributes {
    kind: u32,
    size: u32,
    config: u64,
    unused: [u64; 6],
}

const _: () = assert!(size_of::<Attributes>() == 64);

const PERF_TYPE_TRACEPOINT: u32 = 2;
const PERF_FLAG_FD_CLOEXEC: libc::c_ulong = 8;
const PERF_EVENT_IOC_ENABLE: libc::Ioctl = libc::_IO(b'$' as u32, 0);
const PERF_EVENT_IOC_SET_BPF: libc::Ioctl = libc::_IOW::<u32>(b'$' as u32, 8);

/// A perf event of a tracepoint, by its number. It counts on one CPU; its program is run on all.
fn open_event(id: u64) -> io::Result<OwnedFd> {
    let size = size_of::<Attributes>() as u32;
    let attributes =
        Attributes { kind: PERF_TYPE_TRACEPOINT, size, config: id, ..Default::default() };
    let (pid, cpu, group) = (-1, 0, -1);
    // SAFETY: the attributes are as long as they say; the descriptor that is returned is ours.
    unsafe {
        let number = libc::SYS_perf_event_open;
        match libc::syscall(number, &raw const attributes, pid, cpu, group, PERF_FLAG_FD_CLOEXEC) {
            -1 => Err(io::Error::last_os_error()),
            fd => Ok(OwnedFd::from_raw_fd(fd as i32)),
        }
    }
}

fn run_at(event: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let ask = |request: libc::Ioctl, argument: libc::c_int| {
        // SAFETY: both requests take a number.
        match unsafe { libc::ioctl(event.as_raw_fd(), request, argument) } {
            -1 => Err(io::Error::last_os_error()),
            _ => Ok(()),
        }
    };
    ask(PERF_EVENT_IOC_SET_BPF, program.as_raw_fd())?;
    ask(PERF_EVENT_IOC_ENABLE, 0)
}
