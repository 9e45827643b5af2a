//! The making of a successor. It takes on everything that it can before it kills the process whose place it takes, so
//! that what is refused is refused in time.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};
use nix::fcntl::OFlag;
use nix::unistd::pipe2;

use super::learned::Learned;
use super::program::Program;

pub struct Anew {
    /// The file of its program.
    file: CString,
    /// The one whose place is taken.
    process: OwnedFd,
    /// The kernel half's program that tells of it, and its arguments.
    takes_place: OwnedFd,
    arguments: [u64; 2],
    learned: Learned,
}

/// How long a process may take to die.
const PATIENCE_MS: libc::c_int = 5_000;

type Step = fn(&Anew) -> io::Result<()>;

/// What a successor does between its fork and its program. No step allocates.
const STEPS: [(&str, Step); 13] = [
    ("be ended with the recorder", |_| end_with_recorder(libc::SIGKILL)),
    ("join its control group", Anew::join_cgroup),
    ("join its namespaces", Anew::join_namespaces),
    ("take its root and directory", Anew::take_directory),
    ("take its limits", Anew::take_limits),
    ("take its umask", Anew::take_umask),
    ("lead a session", Anew::lead_session),
    ("find its program", Anew::find_program),
    ("tell that it takes its place", Anew::tell),
    ("kill it", Anew::kill),
    ("live on without the recorder", |_| end_with_recorder(0)),
    ("become its user", Anew::become_user),
    ("give up new privileges", Anew::give_up_privileges),
];

impl Anew {
    /// # Errors
    /// When the program's name has no end.
    pub fn new(
        process: OwnedFd,
        program: &Program,
        learned: Learned,
        takes_place: OwnedFd,
        arguments: [u64; 2],
    ) -> Result<Self> {
        let file = CString::new(program.file.as_os_str().as_bytes()).context("name its program")?;
        Ok(Self { file, process, takes_place, arguments, learned })
    }

    /// Kills the process, and starts its program anew.
    ///
    /// # Errors
    /// Which step was refused, and why.
    pub fn spawn(mut self, program: &Program) -> Result<Child> {
        let mut command = Command::new(&program.file);
        if let [name, arguments @ ..] = &program.arguments[..] {
            command.arg0(name).args(arguments);
        }
        command.env_clear().envs(program.environment.iter().map(|(name, value)| (name, value)));
        let [input, output, error] = self
            .learned
            .files
            .each_mut()
            .map(|file| file.take().map_or_else(Stdio::null, Stdio::from));
        command.stdin(input).stdout(output).stderr(error);
        let (told, tell) = pipe2(OFlag::O_CLOEXEC).context("make a pipe")?;
        let mut tell = File::from(tell);
        let steps = move || {
            for (number, (_, step)) in (0u8..).zip(STEPS) {
                step(&self).inspect_err(|_| drop(tell.write(&[number])))?;
            }
            Ok(())
        };
        // SAFETY: only system calls, on what was made before.
        unsafe { command.pre_exec(steps) };
        let spawned = command.spawn();
        // Also the writing end, which would keep the reading one waiting.
        drop(command);
        spawned.with_context(|| {
            let mut step = [u8::MAX];
            let _ = File::from(told).read(&mut step);
            let step =
                STEPS.get(usize::from(step[0])).map_or("begin its program", |(name, _)| name);
            format!("{step} ({})", program.file.display())
        })
    }

    fn join_cgroup(&self) -> io::Result<()> {
        let Some(procs) = &self.learned.cgroup else { return Ok(()) };
        // SAFETY: the bytes are a constant.
        checked(unsafe { libc::write(procs.as_raw_fd(), c"0".as_ptr().cast(), 1) } as i64)
    }

    fn join_namespaces(&self) -> io::Result<()> {
        // SAFETY: a system call on a descriptor that is open.
        let enter = |fd: &OwnedFd| checked(unsafe { libc::setns(fd.as_raw_fd(), 0) }.into());
        self.learned.namespaces.iter().try_for_each(enter)
    }

    fn take_directory(&self) -> io::Result<()> {
        // SAFETY: system calls on descriptors that are open, and a constant.
        unsafe {
            if let Some(root) = &self.learned.root {
                checked(libc::fchdir(root.as_raw_fd()).into())?;
                checked(libc::chroot(c".".as_ptr()).into())?;
            }
            checked(libc::fchdir(self.learned.directory.as_raw_fd()).into())
        }
    }

    fn take_limits(&self) -> io::Result<()> {
        for (limit, value) in (0..).zip(&self.learned.limits) {
            // SAFETY: the value lives until the call returns.
            checked(unsafe { libc::setrlimit(limit, value) }.into())?;
        }
        Ok(())
    }

    fn take_umask(&self) -> io::Result<()> {
        // SAFETY: a system call on a number.
        unsafe { libc::umask(self.learned.umask) };
        Ok(())
    }

    fn lead_session(&self) -> io::Result<()> {
        if self.learned.leads_session {
            // SAFETY: a system call without arguments.
            checked(unsafe { libc::setsid() }.into())?;
        }
        Ok(())
    }

    fn find_program(&self) -> io::Result<()> {
        // SAFETY: the text lives until the call returns.
        checked(unsafe { libc::access(self.file.as_ptr(), libc::X_OK) }.into())
    }

    fn tell(&self) -> io::Result<()> {
        let attributes = TestRun {
            program: self.takes_place.as_raw_fd() as u32,
            context_size: size_of_val(&self.arguments) as u32,
            context: self.arguments.as_ptr() as u64,
            ..TestRun::default()
        };
        let size = size_of::<TestRun>();
        let place = &raw const attributes;
        // SAFETY: attributes and arguments live until the call returns.
        checked(unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_TEST_RUN, place, size) })
    }

    fn kill(&self) -> io::Result<()> {
        let fd = self.process.as_raw_fd();
        let nothing = std::ptr::null::<libc::siginfo_t>();
        let mut wanted = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
        // SAFETY: system calls on a descriptor that is open, and a place that lives until they return.
        unsafe {
            checked(libc::syscall(libc::SYS_pidfd_send_signal, fd, libc::SIGKILL, nothing, 0))?;
            match libc::poll(&raw mut wanted, 1, PATIENCE_MS) {
                1 => Ok(()),
                0 => Err(io::Error::from_raw_os_error(libc::ETIMEDOUT)),
                _ => Err(io::Error::last_os_error()),
            }
        }
    }

    fn become_user(&self) -> io::Result<()> {
        let Learned { users, groups, more_groups, .. } = &self.learned;
        // SAFETY: system calls on numbers, and a list that lives until they return.
        unsafe {
            if libc::geteuid() == 0 {
                checked(libc::setgroups(more_groups.len(), more_groups.as_ptr()).into())?;
            }
            checked(libc::setresgid(groups[0], groups[1], groups[2]).into())?;
            checked(libc::setresuid(users[0], users[1], users[2]).into())
        }
    }

    fn give_up_privileges(&self) -> io::Result<()> {
        if self.learned.no_new_privileges {
            // SAFETY: a system call on numbers.
            checked(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }.into())?;
        }
        Ok(())
    }
}

/// Until it has killed, a successor is nothing without the recorder: the other process is let go on then.
fn end_with_recorder(signal: libc::c_int) -> io::Result<()> {
    // SAFETY: a system call on numbers.
    checked(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, signal) }.into())
}

const BPF_PROG_TEST_RUN: libc::c_long = 10;

/// The part of `bpf_attr` that runs a program.
#[repr(C)]
#[derive(Default)]
struct TestRun {
    program: u32,
    result: u32,
    data_size: [u32; 2],
    data: [u64; 2],
    repeat: u32,
    duration: u32,
    context_size: u32,
    context_room: u32,
    context: u64,
    context_out: u64,
    flags: u32,
    cpu: u32,
    batch: u32,
    reserved: u32,
}

fn checked(result: i64) -> io::Result<()> {
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
