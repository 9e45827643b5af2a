//! Where the running kernel keeps its fields, read from its BTF. Proven by the verifier: every access at
//! such an offset is checked against the type it is made on.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use anyhow::{Context, Result, bail};
use btf_rs::{Backend, Btf, Type};
use nix::sys::memfd::{MFdFlags, memfd_create};
use probe_ebpf::config::{ABSENT, Arguments, Offsets};

/// What a system call's number and its arguments are called among its registers.
const NUMBER: &str = if cfg!(target_arch = "aarch64") { "syscallno" } else { "orig_ax" };
/// The first three, and how much further on they lie where they are an array.
const ARGUMENTS: [(&str, u32); 3] = match cfg!(target_arch = "aarch64") {
    true => [("regs", 0), ("regs", 8), ("regs", 16)],
    false => [("di", 0), ("si", 0), ("dx", 0)],
};

/// What says that a thread makes a call of a 32-bit program, and the bit: `TS_COMPAT`, `TIF_32BIT`.
const COMPAT: (&str, u32) = match cfg!(target_arch = "aarch64") {
    true => ("thread_info.flags", 1 << 22),
    false => ("thread_info.status", 2),
};

const VMLINUX: &str = "/sys/kernel/btf/vmlinux";

/// Offsets and tracepoint prototypes of the running kernel.
///
/// # Errors
/// When the kernel has no BTF. A missing field is [`ABSENT`], not an error.
pub fn read() -> Result<(Offsets, Arguments)> {
    let btf = open().with_context(|| {
        format!("read {VMLINUX} (is the kernel built with CONFIG_DEBUG_INFO_BTF?)")
    })?;
    Ok((offsets(&btf), arguments(&btf)))
}

/// What the kernel calls its reasons for dropping packets, by number.
///
/// # Errors
/// When the kernel has no BTF.
pub fn drop_reasons() -> Result<Vec<(u32, String)>> {
    Ok(reasons(&open()?))
}

const UNSPECIFIED: &str = "NOT_SPECIFIED";

/// The values of `enum skb_drop_reason`, without what all their names begin with; none before Linux 5.17.
fn reasons(btf: &Btf) -> Vec<(u32, String)> {
    let types = btf.resolve_types_by_name("skb_drop_reason").unwrap_or_default();
    let Some(members) = types.into_iter().find_map(|found| match found {
        Type::Enum(found) => Some(found.members),
        _ => None,
    }) else {
        return Vec::new();
    };
    let named = members.into_iter().filter_map(|member| {
        let name = btf.resolve_name(&member).ok()?;
        let short = name.trim_start_matches("SKB_").trim_start_matches("DROP_REASON_");
        Some((member.val(), short.to_owned()))
    });
    named.collect()
}

#[expect(clippy::too_many_lines, reason = "one line for each field")]
fn offsets(btf: &Btf) -> Offsets {
    let at = |structure: &str, path: &str| field(btf, structure, path).unwrap_or(ABSENT);
    let argument = |index: usize| {
        let (name, further) = ARGUMENTS[index];
        at("pt_regs", name).saturating_add(further)
    };
    let or_zero = |structure: &str, path: &str| field(btf, structure, path).unwrap_or(0);
    Offsets {
        task_pid: at("task_struct", "pid"),
        task_tgid: at("task_struct", "tgid"),
        task_comm: at("task_struct", "comm"),
        task_group_leader: at("task_struct", "group_leader"),
        task_real_parent: at("task_struct", "real_parent"),
        task_start_time: at("task_struct", "start_time"),
        task_exit_code: at("task_struct", "exit_code"),
        task_flags: at("task_struct", "flags"),
        task_nvcsw: at("task_struct", "nvcsw"),
        task_signal: at("task_struct", "signal"),
        signal_live: at("signal_struct", "live.counter"),
        task_cgroups: at("task_struct", "cgroups"),
        css_set_dfl_cgrp: at("css_set", "dfl_cgrp"),
        cgroup_kn: at("cgroup", "kn"),
        cgroup_root: at("cgroup", "root"),
        cgroup_root_hierarchy_id: at("cgroup_root", "hierarchy_id"),
        kernfs_node_id: at("kernfs_node", "id"),
        common_family: at("sock_common", "skc_family"),
        common_state: at("sock_common", "skc_state"),
        common_daddr: at("sock_common", "skc_daddr"),
        common_rcv_saddr: at("sock_common", "skc_rcv_saddr"),
        common_dport: at("sock_common", "skc_dport"),
        common_num: at("sock_common", "skc_num"),
        common_v6_daddr: at("sock_common", "skc_v6_daddr"),
        common_v6_rcv_saddr: at("sock_common", "skc_v6_rcv_saddr"),
        common_cookie: at("sock_common", "skc_cookie"),
        common_flags: at("sock_common", "skc_flags"),
        skb_cb: at("sk_buff", "cb"),
        common_net: at("sock_common", "skc_net"),
        net_inum: at("net", "ns.inum"),
        net_cookie: at("net", "net_cookie"),
        sock_protocol: at("sock", "sk_protocol"),
        sock_err: at("sock", "sk_err"),
        sock_peek_off: at("sock", "sk_peek_off"),
        sock_type: at("sock", "sk_type"),
        sock_shutdown: at("sock", "sk_shutdown"),
        sock_queue_length: at("sock", "sk_receive_queue.qlen"),
        unix_peer: at("unix_sock", "peer"),
        unix_addr: at("unix_sock", "addr"),
        unix_queued: at("unix_sock", "inq_len"),
        unix_address_len: at("unix_address", "len"),
        unix_address_name: at("unix_address", "name"),
        tcp_write_seq: at("tcp_sock", "write_seq"),
        tcp_snd_una: at("tcp_sock", "snd_una"),
        tcp_snd_nxt: at("tcp_sock", "snd_nxt"),
        tcp_bytes_acked: at("tcp_sock", "bytes_acked"),
        tcp_bytes_sent: at("tcp_sock", "bytes_sent"),
        tcp_bytes_retrans: at("tcp_sock", "bytes_retrans"),
        tcp_copied_seq: at("tcp_sock", "copied_seq"),
        tcp_rcv_nxt: at("tcp_sock", "rcv_nxt"),
        tcp_bytes_received: at("tcp_sock", "bytes_received"),
        tcp_is_mptcp: or_zero("tcp_sock", "is_mptcp"),
        mptcp_write_seq: or_zero("mptcp_sock", "write_seq"),
        mptcp_snd_nxt: or_zero("mptcp_sock", "snd_nxt"),
        mptcp_bytes_sent: or_zero("mptcp_sock", "bytes_sent"),
        mptcp_ack_seq: or_zero("mptcp_sock", "ack_seq"),
        mptcp_bytes_received: or_zero("mptcp_sock", "bytes_received"),
        mptcp_bytes_consumed: or_zero("mptcp_sock", "bytes_consumed"),
        mptcp_remote_key: or_zero("mptcp_sock", "remote_key"),
        mptcp_first: or_zero("mptcp_sock", "first"),
        tcp_repair: at("tcp_sock", "repair"),
        tcp_repair_mask: bit(btf, "tcp_sock", "repair"),
        siginfo_code: at("kernel_siginfo", "si_code"),
        socket_sk: at("socket", "sk"),
        task_files: at("task_struct", "files"),
        files_fdt: at("files_struct", "fdt"),
        fdt_max_fds: at("fdtable", "max_fds"),
        fdt_fd: at("fdtable", "fd"),
        file_inode: at("file", "f_inode"),
        file_private_data: at("file", "private_data"),
        inode_mode: at("inode", "i_mode"),
        regs_number: at("pt_regs", NUMBER),
        regs_first: argument(0),
        regs_second: argument(1),
        regs_third: argument(2),
        skb_head: at("sk_buff", "head"),
        skb_network_header: at("sk_buff", "network_header"),
        skb_protocol: at("sk_buff", "protocol"),
        skb_dev: at("sk_buff", "dev"),
        device_net: at("net_device", "nd_net.net"),
        task_mm: at("task_struct", "mm"),
        mm_arg_start: at("mm_struct", "arg_start"),
        mm_arg_end: at("mm_struct", "arg_end"),
        mm_env_end: at("mm_struct", "env_end"),
        bprm_filename: at("linux_binprm", "filename"),
        bprm_interp: at("linux_binprm", "interp"),
        task_compat: at("task_struct", COMPAT.0),
        task_thread_pid: at("task_struct", "thread_pid"),
        pid_level: at("pid", "level"),
        task_on_rq: at("task_struct", "on_rq"),
        task_sched_delayed: at("task_struct", "se.sched_delayed"),
        task_preempt_count: at("task_struct", "thread_info.preempt.count"),
        task_cfs_rq: at("task_struct", "se.cfs_rq"),
        cfs_rq_rq: at("cfs_rq", "rq"),
        preempt_count_from_rq: preempt_count_from_rq(btf).unwrap_or(ABSENT),
    }
}

/// How far the counter of interrupts lies after the run queue among a CPU's variables, with a sign. From Linux 6.2 to
/// 6.14 it was part of a structure.
fn preempt_count_from_rq(btf: &Btf) -> Option<u32> {
    let queue = variable(btf, "runqueues")?;
    let within =
        || Some(variable(btf, "pcpu_hot")? + field(btf, "pcpu_hot", "preempt_count").ok()?);
    let counter = variable(btf, "__preempt_count").or_else(within)?;
    Some(counter.wrapping_sub(queue))
}

/// Where in the section of the CPUs' variables one of them lies.
fn variable(btf: &Btf, name: &str) -> Option<u32> {
    let section = btf.resolve_types_by_name(".data..percpu").ok()?.pop()?;
    let Type::Datasec(section) = section else { return None };
    section.variables.iter().find_map(|place| {
        let Ok(Type::Var(variable)) = btf.resolve_chained_type(place) else { return None };
        let named = btf.resolve_name(&variable).is_ok_and(|found| found == name);
        named.then(|| place.offset())
    })
}

/// Why it cannot be told on this kernel whether a thread or an interrupt wakes another; nothing if it can.
///
/// # Errors
/// When the kernel has no BTF.
pub fn waker_unknown() -> Result<Option<String>> {
    let offsets = offsets(&open()?);
    let by_queue = [offsets.task_cfs_rq, offsets.cfs_rq_rq, offsets.preempt_count_from_rq];
    let missing = by_queue.contains(&ABSENT) && offsets.task_preempt_count == ABSENT;
    Ok(missing.then(|| {
        "its types do not say where it counts interrupts (CONFIG_FAIR_GROUP_SCHED, variables of \
         each CPU in BTF)"
            .to_owned()
    }))
}

fn arguments(btf: &Btf) -> Arguments {
    Arguments {
        send_reset_skb: argument(btf, "tcp_send_reset", "sk_buff"),
        send_reset_reason: argument(btf, "tcp_send_reset", "sk_rst_reason"),
        exit_group_dead: argument(btf, "sched_process_exit", "bool"),
        mark_victim_task: u32::from(argument(btf, "mark_victim", "task_struct") != ABSENT),
        accept_arguments: parameters(btf, "inet_csk_accept").unwrap_or(ABSENT),
        drop_reason_unspecified: reasons(btf)
            .iter()
            .find(|(_, name)| *name == UNSPECIFIED)
            .map_or(ABSENT, |(number, _)| *number),
        compat_mask: COMPAT.1,
    }
}

/// The kernel's BTF, mapped: parsed into memory it would take ten times its size. By way of a copy, since
/// before Linux 6.16 the original cannot be mapped.
fn open() -> Result<Btf> {
    let mut copy: File = memfd_create(c"btf", MFdFlags::MFD_CLOEXEC)?.into();
    io::copy(&mut File::open(VMLINUX)?, &mut copy)?;
    let path = format!("/proc/self/fd/{}", copy.as_raw_fd());
    Ok(Btf::from_file_with_backend(path, Backend::Mmap)?)
}

/// Byte offset of a field, through anonymous structs and unions and along a dotted path.
fn field(btf: &Btf, structure: &str, path: &str) -> Result<u32> {
    let mut types = btf.resolve_types_by_name(structure)?;
    types.retain(|t| matches!(t, Type::Struct(_)));
    let Some(mut current) = types.pop() else { bail!("no struct {structure}") };
    let mut offset = 0;
    for name in path.split('.') {
        let (at, inner) =
            member(btf, &current, name)?.with_context(|| format!("no {structure}.{path}"))?;
        offset += at;
        current = inner;
    }
    Ok(offset)
}

/// The bit that a one-bit field has in its byte, as a mask; 0 when there is no such field.
fn bit(btf: &Btf, structure: &str, name: &str) -> u32 {
    let mut types = btf.resolve_types_by_name(structure).unwrap_or_default();
    types.retain(|t| matches!(t, Type::Struct(_)));
    let Some(Type::Struct(structure)) = types.pop() else { return 0 };
    let field = structure.members.iter().find(|m| btf.resolve_name(*m).is_ok_and(|n| n == name));
    field.map_or(0, |field| 1 << (field.bit_offset() % 8))
}

fn member(btf: &Btf, within: &Type, name: &str) -> Result<Option<(u32, Type)>> {
    let (Type::Struct(structure) | Type::Union(structure)) = within else { return Ok(None) };
    for field in &structure.members {
        let at = field.bit_offset() / 8;
        let inner = bare(btf, btf.resolve_chained_type(field)?)?;
        let own = btf.resolve_name(field).unwrap_or_default();
        if own == name {
            return Ok(Some((at, inner)));
        }
        if own.is_empty()
            && let Some((deeper, found)) = member(btf, &inner, name)?
        {
            return Ok(Some((at + deeper, found)));
        }
    }
    Ok(None)
}

/// The type below typedefs and qualifiers.
fn bare(btf: &Btf, mut r#type: Type) -> Result<Type> {
    while matches!(
        r#type,
        Type::Typedef(_)
            | Type::Const(_)
            | Type::Volatile(_)
            | Type::Restrict(_)
            | Type::TypeTag(_)
    ) {
        let Some(chained) = r#type.as_btf_type() else { break };
        r#type = btf.resolve_chained_type(chained)?;
    }
    Ok(r#type)
}

/// Which argument of a tracepoint (the first is 0) has a type of that name, behind pointers and
/// qualifiers; [`ABSENT`] when none has or there is no such tracepoint.
fn argument(btf: &Btf, tracepoint: &str, wanted: &str) -> u32 {
    let find = || -> Result<Option<u32>> {
        let typedef = btf
            .resolve_types_by_name(&format!("btf_trace_{tracepoint}"))?
            .pop()
            .context("no such tracepoint")?;
        let mut prototype = None;
        if let Some(typedef) = typedef.as_btf_type() {
            for r#type in btf.chained_type_iter(typedef) {
                if let Type::FuncProto(found) = r#type {
                    prototype = Some(found);
                }
            }
        }
        let prototype = prototype.context("not a function")?;
        // The first parameter is the tracepoint's own `void *`.
        for (index, parameter) in prototype.parameters.iter().skip(1).enumerate() {
            if names(btf, parameter).iter().any(|name| name == wanted) {
                return Ok(Some(index as u32));
            }
        }
        Ok(None)
    };
    find().ok().flatten().unwrap_or(ABSENT)
}

/// How many parameters a function of the kernel has.
fn parameters(btf: &Btf, function: &str) -> Option<u32> {
    let types = btf.resolve_types_by_name(function).ok()?;
    let function = types.iter().find(|t| matches!(t, Type::Func(_)))?.as_btf_type()?;
    match btf.resolve_chained_type(function).ok()? {
        Type::FuncProto(prototype) => Some(prototype.parameters.len() as u32),
        _ => None,
    }
}

/// Names along the chain of types that a parameter refers to.
fn names(btf: &Btf, parameter: &btf_rs::Parameter) -> Vec<String> {
    let Ok(first) = btf.resolve_chained_type(parameter) else { return Vec::new() };
    let mut found = name_of(btf, &first).into_iter().collect::<Vec<_>>();
    if let Some(first) = first.as_btf_type() {
        found.extend(btf.chained_type_iter(first).filter_map(|t| name_of(btf, &t)));
    }
    found
}

fn name_of(btf: &Btf, r#type: &Type) -> Option<String> {
    btf.resolve_name(r#type.as_btf_type()?).ok()
}
