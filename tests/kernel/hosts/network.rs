//! Network namespaces as hosts: LANs around bridges, joined by routers with and without NAT and port maps.
//!
//! ```text
//! host 3 ──┐                                             ┌── host 7
//! host 9 ──┼─ bridge in router 0 ── backbone ── router 1, bridge ─┼── host 1
//! host 4 ──┘  masquerade, port maps            routed    └── …
//! ```

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use tests::sim::Random;

/// Where the services listen.
const PORT: u16 = 7000;

pub struct Network {
    /// Names of the hosts' namespaces.
    pub hosts: Vec<String>,
    routers: Vec<String>,
    lan_of: Vec<usize>,
    /// Whether a LAN is hidden behind its router, which maps ports to its hosts.
    hidden: Vec<bool>,
}

impl Network {
    /// Makes so many hosts and joins them at random.
    pub fn make(hosts: usize, random: &mut Random) -> Self {
        let lans = random.between(3, 6) as usize;
        let lan_of = (0..hosts).map(|_| random.index(lans)).collect();
        Self::of(lan_of, (0..lans).map(|lan| lan == 0 || random.percent(60)).collect())
    }

    /// So many hosts in one LAN.
    pub fn flat(hosts: usize) -> Self {
        Self::of(vec![0; hosts], vec![false])
    }

    fn of(lan_of: Vec<usize>, hidden: Vec<bool>) -> Self {
        remove_orphans();
        let name = |kind: &str, number: usize| format!("wf-{}-{kind}{number}", std::process::id());
        let network = Self {
            hosts: (0..lan_of.len()).map(|n| name("h", n)).collect(),
            routers: (0..=hidden.len()).map(|n| name("r", n)).collect(),
            lan_of,
            hidden,
        };
        network.build();
        network
    }

    /// The last router is the backbone.
    fn backbone(&self) -> &str {
        self.routers.last().expect("there is one")
    }

    pub fn lan_address(&self, host: usize) -> Ipv4Addr {
        Ipv4Addr::new(10, 100 + self.lan_of[host] as u8, 0, 10 + host as u8)
    }

    const fn router_address(lan: usize) -> Ipv4Addr {
        Ipv4Addr::new(10, 99, 0, 1 + lan as u8)
    }

    /// The addresses under which one host reaches another's service.
    pub fn ways(&self, from: usize, to: usize) -> Vec<SocketAddr> {
        let lan = self.lan_of[to];
        let mapped = SocketAddrV4::new(Self::router_address(lan), 1000 + to as u16);
        let direct = SocketAddrV4::new(self.lan_address(to), PORT);
        let mut ways = Vec::new();
        if self.lan_of[from] == lan || !self.hidden[lan] {
            ways.push(direct.into());
        }
        if self.hidden[lan] {
            ways.push(mapped.into());
        }
        ways
    }

    /// Makes a command run inside a host's namespace.
    pub fn place(&self, host: usize, command: &mut Command) {
        let path = format!("/run/netns/{}", self.hosts[host]);
        let namespace = File::open(path).expect("the namespace is there");
        let enter = move || {
            // SAFETY: setns takes an open descriptor of a namespace; it is async-signal-safe.
            match unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) } {
                0 => Ok(()),
                _ => Err(std::io::Error::last_os_error()),
            }
        };
        // SAFETY: between fork and exec it makes one system call and allocates nothing.
        unsafe { command.pre_exec(enter) };
    }

    fn build(&self) {
        let mut all = String::new();
        for name in self.hosts.iter().chain(&self.routers) {
            writeln!(all, "netns add {name}").expect("text");
        }
        for (host, &lan) in self.lan_of.iter().enumerate() {
            let (router, name) = (&self.routers[lan], &self.hosts[host]);
            writeln!(all, "link add h{host} netns {router} type veth peer name eth0 netns {name}")
                .expect("text");
        }
        let backbone = self.backbone();
        for (lan, router) in self.routers[..self.hidden.len()].iter().enumerate() {
            writeln!(
                all,
                "link add r{lan} netns {backbone} type veth peer name out netns {router}"
            )
            .expect("text");
        }
        run(Command::new("ip").args(["-batch", "-"]), &all);
        for (host, &lan) in self.lan_of.iter().enumerate() {
            let (address, gateway) =
                (self.lan_address(host), Ipv4Addr::new(10, 100 + lan as u8, 0, 1));
            let lines = format!(
                "link set lo up\naddress add {address}/24 dev eth0\nlink set eth0 up\n\
                 route add default via {gateway}\n"
            );
            inside(&self.hosts[host], &lines);
        }
        let ports: String = (0..self.hidden.len())
            .fold(String::new(), |text, lan| text + &port(&format!("r{lan}")));
        inside(backbone, &format!("{BRIDGE}{ports}"));
        (0..self.hidden.len()).for_each(|lan| self.build_router(lan));
    }

    fn build_router(&self, lan: usize) {
        let router = &self.routers[lan];
        let members = (0..self.hosts.len()).filter(|&host| self.lan_of[host] == lan);
        let mut lines = BRIDGE.to_owned();
        members.clone().for_each(|host| lines += &port(&format!("h{host}")));
        let (inner, outer) = (Ipv4Addr::new(10, 100 + lan as u8, 0, 1), Self::router_address(lan));
        write!(
            lines,
            "address add {inner}/24 dev br0\naddress add {outer}/24 dev out\nlink set out up\n"
        )
        .expect("text");
        for other in (0..self.hidden.len()).filter(|&other| other != lan && !self.hidden[other]) {
            let via = Self::router_address(other);
            writeln!(lines, "route add 10.{}.0.0/24 via {via}", 100 + other).expect("text");
        }
        inside(router, &lines);
        let forward = "echo 1 > /proc/sys/net/ipv4/ip_forward";
        run(Command::new("ip").args(["netns", "exec", router, "sh", "-c", forward]), "");
        if self.hidden[lan] {
            let mut rules = NAT.replace("INNER", &format!("10.{}.0.0/24", 100 + lan));
            for host in members {
                let (at, to) = (1000 + host, self.lan_address(host));
                writeln!(
                    rules,
                    "add rule ip nat pre ip daddr {outer} tcp dport {at} dnat to {to}:{PORT}"
                )
                .expect("text");
            }
            run(Command::new("ip").args(["netns", "exec", router, "nft", "-f", "-"]), &rules);
        }
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for name in self.hosts.iter().chain(&self.routers) {
            // One that was not made cannot be removed.
            let _ =
                Command::new("ip").args(["netns", "delete", name]).stderr(Stdio::null()).status();
        }
    }
}

const BRIDGE: &str = "link set lo up\nlink add br0 type bridge\nlink set br0 up\n";

fn port(device: &str) -> String {
    format!("link set {device} master br0\nlink set {device} up\n")
}

/// Whoever comes from inside is seen as the router, inside as well: an answer must take the same way back.
const NAT: &str = "
add table ip nat
add chain ip nat pre { type nat hook prerouting priority -100; }
add chain ip nat post { type nat hook postrouting priority 100; }
add rule ip nat post ip saddr INNER ip daddr != INNER masquerade
add rule ip nat post ip saddr INNER ct status dnat masquerade
";

fn inside(name: &str, lines: &str) {
    run(Command::new("ip").args(["-n", name, "-batch", "-"]), lines);
}

fn run(command: &mut Command, input: &str) {
    let command = command.stdin(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("ip and nft are installed by setup");
    child.stdin.take().expect("it is piped").write_all(input.as_bytes()).expect("it reads");
    let output = child.wait_with_output().expect("it is our child");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {said}\n{input}");
}

/// Namespaces of a run that was killed: named after a process that is no more.
fn remove_orphans() {
    for entry in fs::read_dir("/run/netns").into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let owner = name.strip_prefix("wf-").and_then(|rest| rest.split('-').next());
        let gone = owner.is_some_and(|pid| !fs::exists(format!("/proc/{pid}")).unwrap_or(true));
        if gone {
            let _ = Command::new("ip").args(["netns", "delete", &name]).status();
        }
    }
}
