mod packet;

use expect_test::{Expect, expect};

use super::*;
use crate::fault::line;

fn everything() -> Capabilities {
    Capabilities { mechanisms: Mechanism::ALL.map(|m| (m, Ability::Yes)).into() }
}

/// What becomes of a fault, as a person reads it.
fn told(text: &str, victims: Victims, can: &Capabilities) -> String {
    let faults = Faults { seed: None, faults: vec![line::parse(text, "it").unwrap()] };
    match plan(&faults, victims, can) {
        Ok(choices) => {
            let choice = &choices[0];
            let mut text = format!("{}: {}", choice.mechanism.as_str(), choice.offer.does);
            for rejection in &choice.rejected {
                text += &format!("\n    {:<9} {}", rejection.mechanism, rejection.reason);
            }
            text
        }
        Err(refusal) => refusal.to_string(),
    }
}

fn check(text: &str, expected: Expect) {
    expected.assert_eq(&told(text, Victims::Named, &everything()));
}

#[test]
fn the_cheapest_that_can_is_taken_and_the_others_are_told() {
    check(
        "comm=app op=connect peer=:5432 => error=ECONNREFUSED, nth=3",
        expect![[r#"
        cgroup: connect4, connect6: bpf_set_retval(-ECONNREFUSED)
            destroy   it can only destroy connections
            signal    it can only send signals
            override  connect's address lies in the program's memory, where it may change: `via = "cgroup"` sees it"#]],
    );
    check(
        "comm=app op=connect => error=EIO, nth=3",
        expect![[r#"
        cgroup: connect4, connect6: bpf_set_retval(-EIO)
            destroy   it can only destroy connections
            signal    it can only send signals
            override  could do it, but cgroup is cheaper"#]],
    );
    check(
        "comm=app op=recv peer=:6379 => error=ECONNRESET, nth=3",
        expect![[r#"
        override: recvfrom, recvmsg, recvmmsg, read, readv: bpf_override_return(-ECONNRESET)
            cgroup    no program of a control group sees `recvfrom`
            destroy   it can only destroy connections
            signal    it can only send signals"#]],
    );
    check(
        "comm=app op=send protocol=udp => error=EPERM, nth=3",
        expect![[r#"
        cgroup: sendmsg4, sendmsg6: bpf_set_retval(-EPERM)
            destroy   it can only destroy connections
            signal    it can only send signals
            override  could do it, but cgroup is cheaper"#]],
    );
    check(
        "comm=app => error=EADDRINUSE, syscall=bind, nth=1",
        expect![[r#"
        cgroup: bind4, bind6: bpf_set_retval(-EADDRINUSE)
            destroy   it can only destroy connections
            signal    it can only send signals
            override  could do it, but cgroup is cheaper"#]],
    );
    check(
        "comm=app op=recv => kill=SIGKILL, nth=1",
        expect![[r#"
            signal: at recv: bpf_send_signal(SIGKILL)
                cgroup    it can only refuse calls, and lose packets
                destroy   it can only destroy connections
                override  it can only give a call another result"#]],
    );
    check(
        "comm=app op=send => pause=2s, nth=1",
        expect![[r#"
            signal: at send: bpf_send_signal(SIGSTOP), and SIGCONT after 2s
                cgroup    it can only refuse calls, and lose packets
                destroy   it can only destroy connections
                override  it can only give a call another result"#]],
    );
    check(
        "comm=app op=connect => return=0, nth=1",
        expect![[r#"
        override: connect: bpf_override_return(0)
            cgroup    it can refuse a call, but not return a value of choice
            destroy   it can only destroy connections
            signal    it can only send signals"#]],
    );
}

#[test]
fn a_connection_of_tcp_can_be_destroyed() {
    check(
        "comm=app op=recv,send peer=:6379 => destroy, nth=3",
        expect![[r#"
            destroy: at recv, send: SOCK_DESTROY, for TCP alone
                cgroup    it can only refuse calls, and lose packets
                signal    it can only send signals
                override  it can only give a call another result"#]],
    );
    for (pattern, reason) in [
        ("op=recv protocol=udp", "it destroys connections of TCP, and no others"),
        ("op=recv protocol=tcp,unix_stream", "it destroys connections of TCP, and no others"),
        ("op=listen", "a socket that listens is no connection"),
        ("op=accept", "it is not at hand where `accept` is noticed"),
        ("peer=:6379", "it does not say at which events: add `op=` to the pattern"),
    ] {
        let text = format!("comm=app {pattern} => destroy, nth=3");
        let told = told(&text, Victims::Named, &everything());
        assert!(told.contains(&format!("destroy   {reason}\n")), "{text}: {told}");
    }
}

#[test]
fn a_process_is_restarted_by_signals() {
    check(
        "comm=app op=recv => restart, nth=3",
        expect![[r#"
        signal: at recv: bpf_send_signal(SIGSTOP), then SIGKILL, and the same program anew
            cgroup    it can only refuse calls, and lose packets
            destroy   it can only destroy connections
            override  it can only give a call another result"#]],
    );
    for (pattern, reason) in [
        ("pid=1 op=recv", "process 1 cannot be restarted: the machine ends with it"),
        ("pid=7,1 op=recv", "process 1 cannot be restarted: the machine ends with it"),
        ("comm=app op=accept", "it is not at hand where `accept` is noticed"),
        ("comm=app protocol=tcp", "it does not say at which events: add `op=` to the pattern"),
    ] {
        let told = told(&format!("{pattern} => restart, nth=3"), Victims::Named, &everything());
        assert!(told.contains(&format!("signal    {reason}\n")), "{pattern}: {told}");
    }
}

/// Where user space does the deed it has to be told, and of TCP's sockets alone.
#[test]
fn a_rule_that_destroys_is_told_of_tcp() {
    let faults = ["comm=app op=recv => destroy, nth=1", "comm=app op=recv => kill=KILL, nth=1"];
    let faults = faults.map(|text| line::parse(text, text).unwrap()).to_vec();
    let faults = Faults { seed: None, faults };
    let choices = plan(&faults, Victims::Named, &everything()).unwrap();
    let compiled = compile(&choices, 7, 100, &|_| None).unwrap();
    let told: Vec<u32> = compiled.rules.iter().map(|rule| rule.flags).collect();
    let spoken: Vec<_> =
        compiled.matchers.iter().map(|m| (m.value.protocol, m.mask.protocol)).collect();
    let tcp = probe_ebpf::event::protocol::TCP.into();
    assert_eq!(told, [probe_ebpf::fault::flag::TOLD, 0]);
    assert_eq!(spoken, [(tcp, u16::MAX), (0, 0)]);
}

#[test]
fn what_none_can_do_is_refused_with_every_reason() {
    check(
        "op=connect => error=EIO, nth=1",
        expect![
            "fault `it`: it names no victims: say whom by comm=, pid= or cgroup=, or run a command after `--`"
        ],
    );
    check(
        "comm=* op=connect => error=EIO, nth=1",
        expect![
            "fault `it`: it names no victims: say whom by comm=, pid= or cgroup=, or run a command after `--`"
        ],
    );
    check(
        "comm=app => error=EIO, nth=1",
        expect![[r#"
        fault `it`: no mechanism can do this here
            cgroup    it does not say which calls: add `op=` to the pattern, or `syscall`
            destroy   it can only destroy connections
            signal    it can only send signals
            override  it does not say which calls: add `op=` to the pattern, or `syscall`"#]],
    );
    check(
        "comm=app peer=:80 => error=EIO, syscall=accept4, nth=1",
        expect![[r#"
        fault `it`: no mechanism can do this here
            cgroup    no program of a control group sees `accept4`
            destroy   it can only destroy connections
            signal    it can only send signals
            override  `accept4` has no peer, so `remote` cannot be asked"#]],
    );
    check(
        "comm=app op=connect peer=:80 => return=0, nth=1",
        expect![[r#"
        fault `it`: no mechanism can do this here
            cgroup    it can refuse a call, but not return a value of choice
            destroy   it can only destroy connections
            signal    it can only send signals
            override  connect's address lies in the program's memory, where it may change: `via = "cgroup"` sees it"#]],
    );
    check(
        "comm=app op=connect local=:80 => error=EIO, nth=1",
        expect![[r#"
            fault `it`: no mechanism can do this here
                cgroup    `local` is not known when `connect` is called
                destroy   it can only destroy connections
                signal    it can only send signals
                override  `connect` is called before the socket has one, so `local` cannot be asked"#]],
    );
}

/// A call on no socket, or on one that has no such address yet, cannot be asked for it.
#[test]
fn what_a_call_has_no_socket_for_is_not_asked() {
    for (call, key, reason) in [
        ("poll", "peer=:80", "`poll` has no peer, so `remote` cannot be asked"),
        ("epoll_wait", "peer=:80", "`epoll_wait` has no peer, so `remote` cannot be asked"),
        ("accept", "peer=:80", "`accept` has no peer, so `remote` cannot be asked"),
        ("socket", "peer=:80", "`socket` has no peer, so `remote` cannot be asked"),
        (
            "socket",
            "protocol=tcp",
            "`socket` is called on no socket, so `protocol` cannot be asked",
        ),
        (
            "bind",
            "local=:80",
            "`bind` is called before the socket has one, so `local` cannot be asked",
        ),
        ("select", "op=recv", "`select` is called on no socket, and needs its own fault"),
    ] {
        let text = format!("comm=app {key} => return=1, syscall={call}, nth=1");
        let told = told(&text, Victims::Named, &everything());
        assert!(told.ends_with(&format!("override  {reason}")), "{text}: {told}");
    }
    check(
        "comm=app local=:80 => error=EMFILE, syscall=accept4, nth=1",
        expect![[r#"
            override: accept4: bpf_override_return(-EMFILE)
                cgroup    no program of a control group sees `accept4`
                destroy   it can only destroy connections
                signal    it can only send signals"#]],
    );
}

/// Only calls on sockets are events: a fault that says `op=` means no others, one that says `syscall` alone means all.
#[test]
fn an_op_asks_for_a_socket() {
    for (text, asked) in [
        ("comm=app op=recv => error=EIO, nth=1", true),
        ("comm=app op=recv => error=EIO, syscall=read, nth=1", true),
        ("comm=app peer=:80 => error=EIO, syscall=read, nth=1", true),
        ("comm=app => error=EIO, syscall=read, nth=1", false),
        ("comm=app op=poll => error=EINTR, nth=1", false),
    ] {
        let faults = Faults { seed: None, faults: vec![line::parse(text, "it").unwrap()] };
        let can = everything();
        let choices = plan(&faults, Victims::Named, &can).unwrap();
        let compiled = compile(&choices, 7, 100, &|_| None).unwrap();
        let sockets = compiled.matchers.iter().map(|m| (m.value.socket, m.mask.socket));
        let wanted = if asked { (1, u16::MAX) } else { (0, 0) };
        assert!(sockets.into_iter().all(|socket| socket == wanted), "{text}");
    }
}

#[test]
fn what_the_kernel_cannot_test_is_refused() {
    check(
        "comm=app op=recv error=EIO => kill=KILL, nth=1",
        expect![[r#"
            fault `it`: no mechanism can do this here
                cgroup    it can only refuse calls, and lose packets
                destroy   it can only destroy connections
                signal    `error=EIO`: the kernel tests comm, pid, tid, cgroup (a path), protocol, local and peer
                override  it can only give a call another result"#]],
    );
    check(
        "comm=*app op=recv => kill=KILL, nth=1",
        expect![[r#"
            fault `it`: no mechanism can do this here
                cgroup    it can only refuse calls, and lose packets
                destroy   it can only destroy connections
                signal    `comm=*app`: the kernel tests whole names, or `beginning*`
                override  it can only give a call another result"#]],
    );
    check(
        "comm=app op=recv => kill=KILL, nth=1, after=\"comm=app\"",
        expect![[r#"
            fault `it`: no mechanism can do this here
                cgroup    it can only refuse calls, and lose packets
                destroy   it can only destroy connections
                signal    `comm=app` does not say which events: add `op=`
                override  it can only give a call another result"#]],
    );
    check(
        "comm=app op=recv => kill=KILL, nth=1, from=\"op=fork\"",
        expect![[r#"
            fault `it`: no mechanism can do this here
                cgroup    it can only refuse calls, and lose packets
                destroy   it can only destroy connections
                signal    `fork` in `op=fork` is not met in the kernel
                override  it can only give a call another result"#]],
    );
    check(
        "comm=app op=recv => delay=1s, nth=1",
        expect![[r#"
            fault `it`: no mechanism can do this here
                cgroup    it can only refuse calls, and lose packets
                destroy   it can only destroy connections
                signal    it strikes whole processes, and cannot delay one call
                override  a program in the kernel cannot wait"#]],
    );
    check(
        "comm=app op=recv => error=EIO, nth=1, via=signal",
        expect![[r#"
        fault `it`: no mechanism can do this here
            cgroup    not the one that `via` asks for
            destroy   not the one that `via` asks for
            signal    it can only send signals
            override  not the one that `via` asks for"#]],
    );
}

#[test]
fn what_the_kernel_lacks_is_said_as_its_reason() {
    let mut can = everything();
    let why = "it has no CONFIG_BPF_KPROBE_OVERRIDE".to_owned();
    can.mechanisms.insert(Mechanism::Override, Ability::No(why));
    can.mechanisms.insert(Mechanism::Cgroup, Ability::Unknown("no cgroup2 mount".to_owned()));
    let text = "op=connect => error=ECONNREFUSED, nth=3";
    expect![[r#"
        fault `it`: no mechanism can do this here
            cgroup    could not be tried: no cgroup2 mount
            destroy   it can only destroy connections
            signal    it can only send signals
            override  not on this kernel: it has no CONFIG_BPF_KPROBE_OVERRIDE
        hint: here works instead: `kill=SIGKILL` (signal), `destroy` (destroy)"#]]
    .assert_eq(&told(text, Victims::Scope, &can));
}

#[test]
fn a_pattern_becomes_values_and_masks() {
    let text = "comm=redis*,app peer=10.1.0.0/16:6379,:80 op=connect => error=EIO, nth=2, after=\"op=send\"";
    let fault = line::parse(text, "it").unwrap();
    let faults = Faults { seed: None, faults: vec![fault] };
    let choices = plan(&faults, Victims::Named, &everything()).unwrap();
    let compiled = compile(&choices, 7, 100, &|_| None).unwrap();
    let mut told = String::new();
    for matcher in &compiled.matchers {
        let (value, mask) = (matcher.value, matcher.mask);
        let comm: [u8; 16] = bytemuck::cast(value.comm);
        let bits: [u8; 16] = bytemuck::cast(mask.comm);
        let remote: [u8; 16] = bytemuck::cast(value.remote);
        let remote_bits = mask.remote.map(u64::count_ones).iter().sum::<u32>();
        told += &format!(
            "hooks {:b} role {}: comm {:?} of {}, remote {} of {remote_bits} bits, port {} of {:x}\n",
            matcher.hooks,
            matcher.role,
            String::from_utf8_lossy(&comm).trim_end_matches('\0'),
            bits.iter().filter(|&&b| b == 0xff).count(),
            std::net::Ipv6Addr::from(remote),
            value.remote_port,
            mask.remote_port,
        );
    }
    expect![[r#"
        hooks 1 role 0: comm "redis" of 5, remote ::ffff:10.1.0.0 of 112 bits, port 6379 of ffff
        hooks 1 role 0: comm "redis" of 5, remote :: of 0 bits, port 80 of ffff
        hooks 1 role 0: comm "app" of 4, remote ::ffff:10.1.0.0 of 112 bits, port 6379 of ffff
        hooks 1 role 0: comm "app" of 4, remote :: of 0 bits, port 80 of ffff
        hooks 1000 role 1: comm "" of 0, remote :: of 0 bits, port 0 of 0
    "#]]
    .assert_eq(&told);
    assert_eq!((compiled.rules[0].number, compiled.rules[0].needs_after), (2, 1));
}

/// What becomes of a partition between two sides.
fn cut(between: &str, more: &str) -> String {
    let text =
        format!("[[partition]]\nname = \"it\"\nbetween = {between}\nuntil = \"10s\"\n{more}");
    let faults = crate::fault::parse::file("it", &text).unwrap();
    match plan(&faults, Victims::Named, &everything()) {
        Ok(choices) => {
            let compiled = compile(&choices, 7, 100, &|path| Some((path.len() as u64, 1))).unwrap();
            let ways = compiled.cuts.iter().map(|cut| {
                let bits = |words: [u64; 2]| words.map(u64::count_ones).iter().sum::<u32>();
                let side = |level, cgroup, at, mask, port, ports| {
                    let at = std::net::Ipv6Addr::from(bytemuck::cast::<[u64; 2], [u8; 16]>(at));
                    format!(
                        "cgroup {cgroup} at {level}, {at} of {}, port {port} of {ports:x}",
                        bits(mask)
                    )
                };
                let (value, mask) = (cut.value, cut.mask);
                let source = side(
                    cut.source_level,
                    cut.source_cgroup,
                    value.source,
                    mask.source,
                    value.source_port,
                    mask.source_port,
                );
                let target = side(
                    cut.target_level,
                    cut.target_cgroup,
                    value.target,
                    mask.target,
                    value.target_port,
                    mask.target_port,
                );
                format!("\n  {source}\n    to {target}")
            });
            format!(
                "{}: {}{}",
                choices[0].mechanism.as_str(),
                choices[0].offer.does,
                ways.collect::<String>()
            )
        }
        Err(refusal) => {
            refusal.rejected.first().map_or(refusal.message.clone(), |r| r.reason.clone())
        }
    }
}

#[test]
fn a_partition_becomes_the_ways_that_are_cut() {
    let told = cut("[\"cgroup=/a\", \"peer=10.0.0.0/24,:80\"]", "one-way = true");
    expect![[r#"
        cgroup: cgroup_skb: packets from `cgroup=/a` to `remote=10.0.0.0/24,:80` are lost
          cgroup 2 at 2, :: of 0, port 0 of 0
            to cgroup 0 at 0, ::ffff:10.0.0.0 of 120, port 0 of 0
          cgroup 2 at 2, :: of 0, port 0 of 0
            to cgroup 0 at 0, :: of 0, port 80 of ffff"#]]
    .assert_eq(&told);
    let told = cut("[\"cgroup=/a\", \"cgroup=/bb local=10.0.0.1:5\"]", "");
    expect![[r#"
        cgroup: cgroup_skb: packets from `cgroup=/a` to `cgroup=/bb local=10.0.0.1:5`, and back, are lost
          cgroup 2 at 2, :: of 0, port 0 of 0
            to cgroup 3 at 2, ::ffff:10.0.0.1 of 128, port 5 of ffff
          cgroup 3 at 2, ::ffff:10.0.0.1 of 128, port 5 of ffff
            to cgroup 2 at 2, :: of 0, port 0 of 0"#]].assert_eq(&told);
}

#[test]
fn a_partition_that_packets_do_not_tell_is_refused() {
    let sides = "[\"cgroup=/a\", \"peer=:80\"]";
    expect!["a packet is lost when the call that sent it may have returned, so none can be given an `error`: refuse connects with a fault of their own"].assert_eq(&cut(sides, "error = \"EPERM\""));
    expect!["not the one that `via` asks for"].assert_eq(&cut(sides, "via = \"signal\""));
    expect![
        "`comm=app`: a packet does not tell; a side is named by cgroup, local or peer, and protocol"
    ]
    .assert_eq(&cut("[\"comm=app\", \"peer=:80\"]", ""));
    expect!["`local=:80 remote=:90`: local and peer mean the same of a side: say one"]
        .assert_eq(&cut("[\"cgroup=/a\", \"local=:80 peer=:90\"]", ""));
    expect!["the sides speak different protocols: no packet goes between them"]
        .assert_eq(&cut("[\"cgroup=/a protocol=tcp\", \"protocol=udp\"]", ""));
    expect!["`protocol=unix_stream`: the kernel tests comm, pid, tid, cgroup (a path), protocol, local and peer"].assert_eq(&cut("[\"cgroup=/a protocol=unix_stream\", \"peer=:80\"]", ""));
    expect!["it names no victims: say whom by comm=, pid= or cgroup=, or run a command after `--`"]
        .assert_eq(&cut("[\"local=:70\", \"peer=:80\"]", ""));
    expect![
        "`cgroup=/a*`: the kernel tests comm, pid, tid, cgroup (a path), protocol, local and peer"
    ]
    .assert_eq(&cut("[\"cgroup=/a*\", \"peer=:80\"]", ""));
}
