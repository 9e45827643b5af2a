//! Threads: whether they run, and where in the kernel those sleep that do not.

use std::fs;
use std::io;
use std::path::PathBuf;

use syscalls::Sysno;

use super::{MOST_THREADS, Unread};
use crate::capture::procfs::numbers;
use crate::state::Thread;

/// Field of `/proc/PID/stat` after the name, and its bit that says it is the kernel's own thread.
const FLAGS: usize = 6;
const PF_KTHREAD: u64 = 0x0020_0000;

pub(super) fn read(processes: &[u32], unread: &mut Unread) -> Vec<Thread> {
    let mut threads = Vec::new();
    for &pid in processes {
        for tid in numbers(&PathBuf::from(format!("/proc/{pid}/task"))) {
            if threads.len() == MOST_THREADS {
                unread.note(format_args!("threads beyond the {MOST_THREADS}th"));
                return threads;
            }
            match thread(pid, tid, unread) {
                Some(thread) => threads.push(thread),
                // One of the kernel's threads is its process's only one.
                None => break,
            }
        }
    }
    threads
}

/// Nothing of threads that have ended, and of the kernel's.
fn thread(pid: u32, tid: u32, unread: &mut Unread) -> Option<Thread> {
    let path = |file: &str| format!("/proc/{pid}/task/{tid}/{file}");
    let stat = fs::read_to_string(path("stat")).ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    let state = fields.next()?.to_owned();
    let flags: u64 = fields.nth(FLAGS - 1)?.parse().ok()?;
    if flags & PF_KTHREAD != 0 {
        return None;
    }
    let mut thread = Thread { pid, tid, state, ..Thread::default() };
    if ["S", "D"].contains(&thread.state.as_str()) {
        let mut read = |file: &str| {
            fs::read_to_string(path(file)).unwrap_or_else(|error| {
                if error.kind() != io::ErrorKind::NotFound {
                    unread.note(format_args!("/proc/PID/{file}: {error}"));
                }
                String::new()
            })
        };
        thread.wchan = read("wchan").trim().replace('\0', "");
        if thread.wchan == "0" {
            thread.wchan.clear();
        }
        thread.call = call(&read("syscall"));
    }
    Some(thread)
}

/// The name of the call whose number, arguments and stack these are.
fn call(text: &str) -> String {
    let number =
        text.split_ascii_whitespace().next().and_then(|number| number.parse::<usize>().ok());
    let Some(number) = number else { return String::new() };
    Sysno::new(number)
        .map_or_else(|| format!("system call {number}"), |call| call.name().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_told_by_its_number() {
        let futex = format!("{} 0x7f 0x80", libc::SYS_futex);
        assert_eq!(
            [call(&futex), call("9999 0x0"), call("running\n"), call("-1 0x7f 0x1")],
            ["futex", "system call 9999", "", ""]
        );
    }

    #[test]
    fn a_thread_that_sleeps_is_told_from_one_that_runs() {
        let (sleeper, awake) = std::sync::mpsc::channel::<()>();
        let (told, tid) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            told.send(nix::unistd::gettid().as_raw() as u32).expect("we wait for it");
            awake.recv().expect_err("nobody sends anything");
        });
        let (pid, tid) = (std::process::id(), tid.recv().expect("its number"));
        let mut unread = Unread::default();
        let asleep = |unread: &mut Unread| super::thread(pid, tid, unread).expect("it lives");
        for _ in 0..1000 {
            if asleep(&mut unread).state == "S" {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        assert_eq!(asleep(&mut unread).state, "S");
        let own = nix::unistd::gettid().as_raw() as u32;
        assert_eq!(super::thread(pid, own, &mut unread).expect("it lives").told(), "running");
        drop(sleeper);
        thread.join().expect("it ends");
    }
}
