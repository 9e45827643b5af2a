//! Which program a process runs, with which arguments and environment: as the kernel half noted it when the program began,
//! since many write over both to show a title. Of older processes, what they show, where it looks as it was given.

use std::ffi::{OsStr, OsString};
use std::fs::{self, Metadata};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use probe_ebpf::fault::PROGRAM_NAME;

use crate::describe::printable;

/// What a process was started with.
pub struct Noted {
    name: OsString,
    is_script: bool,
    arguments: Vec<u8>,
    environment: Vec<u8>,
}

impl Noted {
    /// A [`Program`](probe_ebpf::fault::Program) out of the ring, with its process.
    pub fn parse(item: &[u8]) -> Option<(u32, Self)> {
        let (head, rest) = item.split_at_checked(16)?;
        let [pid, arguments, length, is_script] = bytemuck::pod_read_unaligned::<[u32; 4]>(head);
        let (name, bytes) = rest.split_at_checked(PROGRAM_NAME)?;
        let name = name.split(|byte| *byte == 0).next()?;
        let (arguments, environment) =
            bytes.get(..length as usize)?.split_at_checked(arguments as usize)?;
        let noted = Self {
            name: OsStr::from_bytes(name).to_owned(),
            is_script: is_script != 0,
            arguments: arguments.to_vec(),
            environment: environment.to_vec(),
        };
        Some((pid, noted))
    }
}

/// What is started.
#[derive(Debug)]
pub struct Program {
    /// As seen from the process.
    pub file: PathBuf,
    /// With the program's own name.
    pub arguments: Vec<OsString>,
    pub environment: Vec<(OsString, OsString)>,
}

impl Program {
    /// # Errors
    /// When the process runs a copy of its parent's program, or its program or arguments cannot be known.
    pub fn of(pid: u32, noted: Option<&Noted>) -> Result<Self> {
        ensure!(!is_copy(pid)?, "it is a copy of its parent, which began no program of its own");
        let shown;
        let noted = match noted {
            Some(noted) => noted,
            None => {
                shown = shown_by(pid)?;
                &shown
            }
        };
        let mut arguments = texts(&noted.arguments);
        if noted.is_script {
            // The kernel has put the interpreter, its argument if there is one, and the file before them.
            let file = arguments.iter().take(3).position(|argument| *argument == noted.name);
            arguments.drain(..file.context("the arguments of its script are not to be told")?);
        }
        let environment = texts(&noted.environment);
        let environment: Vec<_> = environment.iter().filter_map(|text| pair(text)).collect();
        let file = find(pid, noted, arguments.first(), &environment)?;
        Ok(Self { file, arguments, environment })
    }
}

/// Whether it was forked and has begun no program since.
fn is_copy(pid: u32) -> Result<bool> {
    const PF_FORKNOEXEC: u64 = 0x40;
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).context("it had ended")?;
    let flags = stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(6)?.parse().ok());
    let flags: u64 = flags.context("read the flags of the process")?;
    Ok(flags & PF_FORKNOEXEC != 0)
}

fn shown_by(pid: u32) -> Result<Noted> {
    let read =
        |what| fs::read(format!("/proc/{pid}/{what}")).with_context(|| format!("read {what}"));
    let (arguments, environment) = (read("cmdline")?, read("environ")?);
    Ok(Noted { name: OsString::new(), is_script: false, arguments, environment })
}

/// Whether a process shows what it cannot have been started with, though it begins as it should.
fn is_written_over(noted: &Noted) -> bool {
    noted.arguments.ends_with(&[0, 0]) || noted.environment.starts_with(&[0])
}

/// The file by the name it was asked for, if that is still the one that runs; else the one that runs.
fn find(
    pid: u32,
    noted: &Noted,
    first: Option<&OsString>,
    environment: &[(OsString, OsString)],
) -> Result<PathBuf> {
    let running = format!("/proc/{pid}/exe");
    let link =
        fs::read_link(&running).context("it runs no program of a file (a kernel thread?)")?;
    let running = fs::metadata(&running).context("look at its program")?;
    let path = environment.iter().find(|(name, _)| name == "PATH").map(|(_, value)| value);
    let candidates = names(&noted.name, first, path);
    let is_it = |file: &PathBuf| {
        let found = fs::metadata(inside(pid, file));
        found.is_ok_and(|found| noted.is_script || same(&found, &running))
    };
    let found = candidates.into_iter().find(is_it);
    let is_shown = noted.name.is_empty();
    if is_shown && (found.is_none() || is_written_over(noted)) {
        let name = first.map(|first| first.to_string_lossy()).unwrap_or_default();
        let name: String = printable(&name).chars().take(SHOWN_MAX).collect();
        bail!(
            "it has written over its arguments (it calls itself `{name}`): start it under `inject`"
        );
    }
    if let Some(file) = found {
        return Ok(file);
    }
    ensure!(!noted.is_script, "its script {} is not found any more", noted.name.display());
    ensure!(
        fs::metadata(inside(pid, &link)).is_ok_and(|found| same(&found, &running)),
        "its program has been removed or replaced ({})",
        link.display()
    );
    Ok(link)
}

/// Characters of a name that may be long.
const SHOWN_MAX: usize = 60;

/// By what names its program may have been asked for.
fn names(noted: &OsStr, first: Option<&OsString>, path: Option<&OsString>) -> Vec<PathBuf> {
    let mut names = Vec::new();
    if !noted.is_empty() {
        names.push(PathBuf::from(noted));
    } else if let Some(first) = first {
        if first.as_bytes().contains(&b'/') {
            names.push(PathBuf::from(first));
        } else {
            let folders = path.map(std::env::split_paths).into_iter().flatten();
            names.extend(folders.map(|folder| folder.join(first)));
        }
    }
    // A name without a folder would be looked for in our own path.
    names.retain(|name| name.as_os_str().as_bytes().contains(&b'/'));
    names
}

/// Where a process's path leads, as seen from here.
fn inside(pid: u32, path: &Path) -> PathBuf {
    match path.strip_prefix("/") {
        Ok(below) => Path::new(&format!("/proc/{pid}/root")).join(below),
        Err(_) => Path::new(&format!("/proc/{pid}/cwd")).join(path),
    }
}

fn same(one: &Metadata, other: &Metadata) -> bool {
    (one.dev(), one.ino()) == (other.dev(), other.ino())
}

fn texts(bytes: &[u8]) -> Vec<OsString> {
    let bytes = bytes.strip_suffix(&[0]).unwrap_or(bytes);
    if bytes.is_empty() {
        return Vec::new();
    }
    bytes.split(|byte| *byte == 0).map(|text| OsStr::from_bytes(text).to_owned()).collect()
}

fn pair(text: &OsStr) -> Option<(OsString, OsString)> {
    let at = text.as_bytes().iter().position(|byte| *byte == b'=').filter(|&at| at > 0)?;
    let (name, value) = text.as_bytes().split_at(at);
    Some((OsStr::from_bytes(name).to_owned(), OsStr::from_bytes(&value[1..]).to_owned()))
}
