//! Sockets that tracepoints alone do not explain: those older than the recorder, and datagrams' other ends.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::MetadataExt;

use anyhow::{Context, Result};
use aya::maps::Array;
use aya::programs::{CgroupAttachMode, CgroupSock, CgroupSockAddr, Iter};
use aya::{Btf, Ebpf};

use crate::capture::namespace::within;
use crate::capture::procfs;

/// Most network namespaces whose Unix sockets are looked at.
const NAMESPACES_MAX: usize = 4096;

/// Lets the kernel walk over all open files, so that the sockets in scope are named and Unix sockets are known to be
/// older than the recorder.
pub fn name_open(ebpf: &mut Ebpf, btf: &Btf) -> Result<()> {
    program(ebpf, "open_sockets")?
        .load("task_file", btf)
        .context("load the iterator over files")?;
    walk(ebpf, "open_sockets")
}

/// The same with the Unix sockets of every network namespace, also those that no file holds. What is first seen
/// after this is as old as that.
pub fn find_older(ebpf: &mut Ebpf, btf: &Btf) -> Result<()> {
    let loaded = program(ebpf, "unix_sockets")?.load("unix", btf);
    loaded.context("load the iterator over Unix sockets")?;
    let own = File::open("/proc/self/ns/net").context("open /proc/self/ns/net")?.metadata()?.ino();
    for (number, namespace) in namespaces() {
        if number == own {
            walk(ebpf, "unix_sockets")?;
            continue;
        }
        if let Err(error) = within(&namespace, || walk(ebpf, "unix_sockets")) {
            log::debug!("look at the Unix sockets of network namespace {number}: {error:#}");
        }
    }
    let counting = ebpf.map_mut("COUNTING").context("find the map COUNTING")?;
    Array::<_, u32>::try_from(counting)?.set(0, 1, 0).context("begin to count Unix sockets")
}

/// The network namespaces that processes are in, by number.
fn namespaces() -> BTreeMap<u64, File> {
    let mut found = BTreeMap::new();
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let numbered = |entry: &std::fs::DirEntry| {
        entry.file_name().to_str().is_some_and(|name| name.bytes().all(|b| b.is_ascii_digit()))
    };
    for process in entries.filter(numbered) {
        let path = process.path().join("ns/net");
        let Ok(number) = std::fs::metadata(&path).map(|namespace| namespace.ino()) else {
            continue;
        };
        if found.len() < NAMESPACES_MAX
            && !found.contains_key(&number)
            && let Ok(file) = File::open(&path)
        {
            found.insert(number, file);
        }
    }
    found
}

fn walk(ebpf: &mut Ebpf, name: &str) -> Result<()> {
    let program = program(ebpf, name)?;
    let link = program.attach().with_context(|| format!("attach the iterator {name}"))?;
    let mut file = program.take_link(link)?.into_file()?;
    std::io::copy(&mut file, &mut std::io::sink()).with_context(|| format!("run {name}"))?;
    Ok(())
}

fn program<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut Iter> {
    let program = ebpf.program_mut(name).with_context(|| format!("find the program {name}"))?;
    Ok(program.try_into()?)
}

/// The programs that see the addresses which calls on datagram sockets give or are given.
const PEER_PROGRAMS: [&str; 4] = ["sendmsg4", "sendmsg6", "recvmsg4", "recvmsg6"];

/// Attaches them for the whole machine. They never change what a call does.
pub fn attach_peers(ebpf: &mut Ebpf) -> Result<()> {
    let root = root_of_cgroups()?;
    for name in PEER_PROGRAMS {
        let program = ebpf.program_mut(name).with_context(|| format!("find the program {name}"))?;
        let program: &mut CgroupSockAddr = program.try_into()?;
        program.load().with_context(|| format!("load {name}"))?;
        program
            .attach(&root, CgroupAttachMode::Single)
            .with_context(|| format!("attach {name}"))?;
    }
    Ok(())
}

/// Attaches a program that is run, on the whole machine, when a socket is made.
pub fn attach_made(program: &mut CgroupSock) -> Result<()> {
    program.load()?;
    program.attach(root_of_cgroups()?, CgroupAttachMode::Single)?;
    Ok(())
}

/// Where programs of control groups are attached for the whole machine.
pub fn root_of_cgroups() -> Result<File> {
    let mount = procfs::cgroup_mount().context("find the cgroup2 mount in /proc/mounts")?;
    File::open(&mount).with_context(|| format!("open {}", mount.display()))
}
