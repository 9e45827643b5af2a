//! System calls that are overridden: one program at the entry of each function that an armed fault is about.
//!
//! A kprobe can be attached and have no effect. So after attaching the recorder makes one senseless call of each
//! kind, which the program answers instead of the kernel.

use std::io;
use std::path::Path;
use std::{process, ptr};

use anyhow::{Context, Result, bail};
use aya::Ebpf;
use aya::maps::Array;
use aya::programs::KProbe;
use probe_ebpf::fault::{DESCRIPTOR, PROOF_ARGUMENT, PROOF_RESULT, Sieve, Sieves, hook, size};

use super::{SievesBytes, map, sieves};
use crate::capture::attach::{self, prove};
use crate::fault::spec::Syscall;

/// What the functions' names begin with.
const PREFIX: &str = if cfg!(target_arch = "aarch64") { "__arm64_sys_" } else { "__x64_sys_" };

const PROGRAM: &str = "override_call";

/// The calls among hooks.
pub fn of(hooks: u64) -> Vec<Syscall> {
    let all = Syscall::ALL.into_iter().map(|(call, _)| call);
    all.filter(|call| hooks >> call.hook() & 1 == 1).collect()
}

/// Attaches the program to the functions of some calls.
///
/// # Errors
/// When the kernel cannot.
pub fn attach(ebpf: &mut Ebpf, calls: &[Syscall]) -> Result<()> {
    if calls.is_empty() {
        return Ok(());
    }
    // Refused by a kernel that has no kprobes, or runs none: nothing is loaded there.
    if !Path::new("/sys/bus/event_source/devices/kprobe").exists() {
        bail!("it has no kprobes (CONFIG_KPROBES, CONFIG_KPROBE_EVENTS)");
    }
    if let Some(why) = prove::forbidden() {
        bail!("{why}");
    }
    let mut numbers: Array<_, u32> = map(ebpf, "CALLS")?.try_into()?;
    for call in calls {
        let number = number(*call)
            .with_context(|| format!("this machine has no system call `{}`", call.as_str()))?;
        let descriptor = if call.has_socket() { DESCRIPTOR } else { 0 };
        numbers.set(number as u32, call.hook() | descriptor | sized(*call), 0)?;
    }
    let program = ebpf.program_mut(PROGRAM).with_context(|| format!("find {PROGRAM}"))?;
    let program: &mut KProbe = program.try_into()?;
    program.load().map_err(unhelpful)?;
    for call in calls {
        let function = format!("{PREFIX}{}", call.as_str());
        program.attach(&function, 0).map_err(|error| unlisted(&function, error.into()))?;
    }
    Ok(())
}

/// Sees to it that the program has an effect on each of these calls.
///
/// # Errors
/// When it has none.
pub fn prove_effect(ebpf: &mut Ebpf, calls: &[Syscall]) -> Result<()> {
    if calls.is_empty() {
        return Ok(());
    }
    let mut place = sieves(ebpf)?;
    let held = place.get(&0, 0)?;
    // No fault is for the recorder, whose own calls would be held back.
    let mut opened: Sieves = bytemuck::cast(held);
    opened[hook::CALL as usize].pids |= Sieve::of_pid(process::id());
    place.set(0, bytemuck::cast::<Sieves, SievesBytes>(opened), 0)?;
    let without = calls.iter().find(|call| !is_overridden(**call));
    place.set(0, held, 0)?;
    match without {
        None => Ok(()),
        Some(call) => bail!(
            "its program is attached to {PREFIX}{}, but has no effect: {}",
            call.as_str(),
            prove::reason()
        ),
    }
}

/// How many calls the kernel has made without running the program, whoever made them; 0 before 6.7, which does not count
/// them.
pub fn skipped(ebpf: &Ebpf) -> u64 {
    attach::skipped(ebpf, PROGRAM)
}

/// Attaches a program that does nothing to the function of `shutdown`.
///
/// # Errors
/// When the kernel cannot.
pub fn attach_idle(ebpf: &mut Ebpf, name: &str) -> Result<()> {
    let program = ebpf.program_mut(name).with_context(|| format!("find {name}"))?;
    let program: &mut KProbe = program.try_into()?;
    program.load()?;
    program.attach(format!("{PREFIX}{}", Syscall::Shutdown.as_str()), 0)?;
    Ok(())
}

/// Why the program is refused: mostly for the helper that not every kernel gives.
fn unhelpful(error: aya::programs::ProgramError) -> anyhow::Error {
    let told = format!("{error:?}");
    let helper = ["cannot use helper", "unknown func"];
    if helper.iter().any(|refused| told.contains(&format!("{refused} bpf_override_return"))) {
        return anyhow::anyhow!(
            "it does not let programs override what functions return (CONFIG_BPF_KPROBE_OVERRIDE; \
             most distributions' kernels lack it)"
        );
    }
    anyhow::Error::from(error).context(format!("load {PROGRAM}"))
}

/// Why the program cannot be attached: functions must be listed as such.
fn unlisted(function: &str, error: anyhow::Error) -> anyhow::Error {
    let list = std::fs::read_to_string("/sys/kernel/debug/error_injection/list");
    let listed = |text: &str| text.lines().any(|l| l.split_whitespace().next() == Some(function));
    match list {
        Ok(text) if !listed(&text) => anyhow::anyhow!(
            "{function} is not among the functions that may be overridden \
             (/sys/kernel/debug/error_injection/list)"
        ),
        _ => error.context(format!("attach {PROGRAM} to {function}")),
    }
}

/// Whether a senseless call of the recorder's own is answered by the program. Without it, it fails or returns at once.
fn is_overridden(call: Syscall) -> bool {
    let Some(number) = number(call) else { return false };
    let first = u64::from(PROOF_ARGUMENT);
    let (null, instant) = (ptr::null::<u8>(), [0i64; 2]);
    // SAFETY: no descriptor and no count is like that, so nothing is read or written. `poll` waits for nothing and for no
    // time; `ppoll` has a signal mask of no size, and `select` fewer than no descriptors, so that neither waits.
    let result = unsafe { libc::syscall(number, first, null, null, instant.as_ptr(), null, null) };
    result == -1 && io::Error::last_os_error().raw_os_error() == Some(-PROOF_RESULT)
}

/// Where a call says how much it is asked to send; nothing where that is no one number.
pub const fn sized(call: Syscall) -> u32 {
    match call {
        Syscall::Sendto | Syscall::Write => size::BYTES,
        Syscall::Writev => size::BUFFERS,
        Syscall::Sendmsg => size::MESSAGE,
        _ => 0,
    }
}

/// A call's number on this machine, if it has it.
pub fn number(call: Syscall) -> Option<i64> {
    use Syscall as S;
    Some(match call {
        S::Connect => libc::SYS_connect,
        S::Accept => libc::SYS_accept,
        S::Accept4 => libc::SYS_accept4,
        S::Bind => libc::SYS_bind,
        S::Listen => libc::SYS_listen,
        S::Socket => libc::SYS_socket,
        S::Sendto => libc::SYS_sendto,
        S::Sendmsg => libc::SYS_sendmsg,
        S::Sendmmsg => libc::SYS_sendmmsg,
        S::Recvfrom => libc::SYS_recvfrom,
        S::Recvmsg => libc::SYS_recvmsg,
        S::Recvmmsg => libc::SYS_recvmmsg,
        S::Read => libc::SYS_read,
        S::Readv => libc::SYS_readv,
        S::Write => libc::SYS_write,
        S::Writev => libc::SYS_writev,
        S::Close => libc::SYS_close,
        S::Shutdown => libc::SYS_shutdown,
        S::EpollPwait => libc::SYS_epoll_pwait,
        S::Ppoll => libc::SYS_ppoll,
        S::Pselect6 => libc::SYS_pselect6,
        S::EpollPwait2 => libc::SYS_epoll_pwait2,
        #[cfg(target_arch = "x86_64")]
        S::EpollWait => libc::SYS_epoll_wait,
        #[cfg(target_arch = "x86_64")]
        S::Poll => libc::SYS_poll,
        #[cfg(target_arch = "x86_64")]
        S::Select => libc::SYS_select,
        #[cfg(not(target_arch = "x86_64"))]
        S::EpollWait | S::Poll | S::Select => return None,
    })
}
