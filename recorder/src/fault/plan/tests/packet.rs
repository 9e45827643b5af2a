//! Faults that lose packets: which packets they become, and what is refused.

use expect_test::expect;

use probe_ebpf::fault::hook;

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

/// A message of a stream is lost by the call that sends it.
#[test]
fn messages_that_calls_do_not_send() {
    check(
        "comm=app op=send => drop=message, nth=3",
        expect![[r#"
        override: sendto, sendmsg, write, writev: bpf_override_return(what it was asked to send)
            cgroup    a message of a stream is no packet of its own: say `protocol=udp`
            destroy   it can only destroy connections
            signal    it can only send signals"#]],
    );
    check(
        "comm=app op=recv => drop=message, nth=3",
        expect![[r#"
        fault `it`: no mechanism can do this here
            cgroup    a message of a stream is no packet of its own: say `protocol=udp`
            destroy   it can only destroy connections
            signal    it can only send signals
            override  `recvfrom` sends no message that could be lost"#]],
    );
    check(
        "comm=app => drop=message, syscall=sendmmsg, nth=3",
        expect![[r#"
        fault `it`: no mechanism can do this here
            cgroup    a message of a stream is no packet of its own: say `protocol=udp`
            destroy   it can only destroy connections
            signal    it can only send signals
            override  `sendmmsg` also says in the program's memory how much of each message was sent"#]],
    );
}

/// Matchers lead to the event, and cuts are for the sockets that are marked there.
#[test]
fn a_connection_that_falls_silent() {
    let text = "comm=a,b cgroup=/x op=recv,send peer=:80 => drop=blackhole, nth=3, until=10s";
    check(
        text,
        expect![[r#"
        cgroup: at recv, send: cgroup_skb: from then on all packets of its socket are lost
            destroy   it can only destroy connections
            signal    it can only send signals
            override  it can only give a call another result"#]],
    );
    let faults = Faults { seed: None, faults: vec![line::parse(text, "it").unwrap()] };
    let can = everything();
    let choices = plan(&faults, Victims::Named, &can).unwrap();
    let compiled = compile(&choices, 7, 100, &|path| Some((path.len() as u64, 1))).unwrap();
    let hooks = 1 << hook::SENT | 1 << hook::RECEIVED;
    assert!(compiled.matchers.iter().all(|m| m.hooks == hooks && m.value.protocol == 1));
    let ways = compiled.cuts.iter().map(|cut| {
        let (value, cgroups) = (cut.value, [cut.source_level, cut.target_level]);
        (cut.flags, value.source_port, value.target_port, value.protocol, cgroups)
    });
    assert_eq!(ways.collect::<Vec<_>>(), [(0b1010, 0, 80, 1, [0; 2]), (0b1100, 80, 0, 1, [0; 2])]);
    for (pattern, reason) in [
        ("op=send protocol=unix_stream", "only sockets of TCP and UDP have packets of their own"),
        ("op=fork", "it is not at hand where `fork` is noticed"),
        ("peer=:80", "it does not say at which events: add `op=` to the pattern"),
    ] {
        let text = format!("comm=app {pattern} => drop=blackhole, nth=3");
        let told = told(&text, Victims::Named, &everything());
        assert!(told.contains(&format!("cgroup    {reason}\n")), "{text}: {told}");
    }
}

#[test]
fn a_process_that_dies_and_falls_silent() {
    check(
        "comm=app op=recv => crash, nth=3, until=10s",
        expect![[r#"
        cgroup: at recv: bpf_send_signal(SIGKILL); cgroup_skb: all packets of its sockets of TCP and UDP are lost, also what the kernel answers for them
            destroy   it can only destroy connections
            signal    it can only send signals
            override  it can only give a call another result"#]],
    );
    let faults =
        ["comm=app op=recv => crash, nth=3, until=10s", "comm=app op=recv => crash, nth=3"];
    let ends = faults.map(|text| {
        let faults = Faults { seed: None, faults: vec![line::parse(text, "it").unwrap()] };
        let notes = plan(&faults, Victims::Named, &everything()).unwrap()[0].offer.notes.clone();
        !notes.iter().any(|note| note.contains("it lasts until the recording ends"))
    });
    assert_eq!(ends, [true, false]);
    check(
        "comm=app => crash, syscall=read, nth=3",
        expect![[r#"
        fault `it`: no mechanism can do this here
            cgroup    it acts at recorded events: say `op=` instead of `syscall`
            destroy   it can only destroy connections
            signal    it can only send signals
            override  it can only give a call another result"#]],
    );
}
