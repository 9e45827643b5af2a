//! Faults that lose packets: which packets they become, and what is refused.

use expect_test::expect;

use super::*;

/// The ways whose packets are lost, as flags, source and target.
fn ways(text: &str) -> String {
    let faults = Faults { seed: None, faults: vec![line::parse(text, "it").unwrap()] };
    let can = everything();
    let choices = plan(&faults, Victims::Scope, &can).unwrap();
    let compiled = compile(&choices, 7, 100, &|path| Some((path.len() as u64, 1))).unwrap();
    assert!(compiled.matchers.is_empty(), "no thread's event leads to it");
    let end = |level, cgroup, at: [u64; 2], port| {
        let at = std::net::Ipv6Addr::from(bytemuck::cast::<[u64; 2], [u8; 16]>(at));
        format!("cgroup {cgroup} at {level}, {at} port {port}")
    };
    let ways = compiled.cuts.iter().map(|cut| {
        let (flags, value) = (cut.flags, cut.value);
        let source = end(cut.source_level, cut.source_cgroup, value.source, value.source_port);
        let target = end(cut.target_level, cut.target_cgroup, value.target, value.target_port);
        format!("{flags:03b} protocol {}: {source} to {target}\n", value.protocol)
    });
    ways.collect()
}

#[test]
fn packets_that_leave_and_packets_that_come_in() {
    let told = ways(
        "cgroup=/a op=send,recv local=10.0.0.1 peer=:80,:90 protocol=tcp => drop=packet, nth=3",
    );
    expect![[r#"
        011 protocol 1: cgroup 2 at 2, ::ffff:10.0.0.1 port 0 to cgroup 0 at 0, :: port 80
        011 protocol 1: cgroup 2 at 2, ::ffff:10.0.0.1 port 0 to cgroup 0 at 0, :: port 90
        101 protocol 1: cgroup 0 at 0, :: port 80 to cgroup 2 at 2, ::ffff:10.0.0.1 port 0
        101 protocol 1: cgroup 0 at 0, :: port 90 to cgroup 2 at 2, ::ffff:10.0.0.1 port 0
    "#]]
    .assert_eq(&told);
    expect![[r#"
        011 protocol 0: cgroup 0 at 0, :: port 0 to cgroup 0 at 0, :: port 0
    "#]]
    .assert_eq(&ways("op=send => drop=packet, nth=3"));
    expect![[r#"
        011 protocol 2: cgroup 0 at 0, :: port 0 to cgroup 0 at 0, :: port 0
    "#]]
    .assert_eq(&ways("op=send protocol=udp => drop=message, nth=3"));
}

#[test]
fn what_packets_do_not_tell_is_refused() {
    let reason = |text: &str| {
        let told = told(text, Victims::Scope, &everything());
        let line = told.lines().find(|line| line.starts_with("    cgroup")).unwrap_or(&told);
        line.trim_start_matches("    cgroup    ").to_owned() + "\n"
    };
    let reasons = [
        "comm=app op=send => drop=packet, nth=3",
        "pid=7 op=send => drop=packet, nth=3",
        "tid=7 op=recv => drop=packet, nth=3",
        "op=connect => drop=packet, nth=3",
        "peer=:80 => drop=packet, nth=3",
        "op=send => drop=packet, nth=3, after=\"op=connect\"",
        "op=send => drop=packet, nth=3, before=\"op=connect\"",
        "op=send => drop=packet, nth=3, syscall=sendto",
        "op=send protocol=unix_stream => drop=packet, nth=3",
        "op=send => drop=packet, nth=3, from=\"op=fork\"",
        "op=recv protocol=udp => drop=message, nth=3",
        "op=send protocol=udp,tcp => drop=message, nth=3",
        "cgroup=/a* op=send => drop=packet, nth=3",
    ]
    .map(reason);
    expect![[r#"
        `comm=app`: a packet does not tell; its victim is named by cgroup, local, peer and protocol
        `pid=7`: a packet does not tell; its victim is named by cgroup, local, peer and protocol
        `tid=7`: a packet does not tell; its victim is named by cgroup, local, peer and protocol
        `connect` is no packet that bears bytes: say `op=send` or `op=recv`
        it does not say which packets: add `op=send` or `op=recv`
        a packet is of no process in which `after` or `before` could hold
        a packet is of no process in which `after` or `before` could hold
        a packet is no system call: say `op=send` or `op=recv` alone
        `protocol=unix_stream`: the kernel tests comm, pid, tid, cgroup (a path), protocol, local and peer
        `fork` in `op=fork` is not met in the kernel
        a message is lost when it is sent: say `op=send`
        a message of a stream is no packet of its own: say `protocol=udp`
        `cgroup=/a*`: the kernel tests comm, pid, tid, cgroup (a path), protocol, local and peer
    "#]].assert_eq(&reasons.concat());
    let nobody = told("peer=:80 op=send => drop=packet, nth=3", Victims::Named, &everything());
    assert!(nobody.contains("it names no victims"), "{nobody}");
}
