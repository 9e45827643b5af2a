"""Two hosts (network namespaces joined by veth) with delay and loss between them: bytes come late and twice."""

import random
import subprocess

import log
import netns
from message import answer_all, ask


def needs():
    return netns.needs_nft()


def disturb(net, letter, device):
    """Delay and loss: netem where the kernel has it, else random drops on arrival and a slow queue."""
    name = net.name(letter)
    netem = ["tc", "-n", name, "qdisc", "add", "dev", device, "root", "netem", "delay", "3ms", "1ms", "loss", "3%"]
    if subprocess.run(netem, capture_output=True).returncode == 0:
        return
    netns.sh("tc", "-n", name, "qdisc", "add", "dev", device, "root", "tbf", "rate", "30mbit", "burst", "4kb",
             "latency", "20ms")
    netns.nft(name, "add table inet loss; add chain inet loss in { type filter hook input priority 0; }; "
                    f"add rule inet loss in iifname {device} numgen random mod 100 < 4 drop")


def serve(listening, inside):
    inside()
    listener = log.listen("10.77.0.2", 7000)
    listening.set()
    for _ in range(4):
        answer_all(listener.accept()[0])


def client(address):
    for number in range(4):
        choose = random.Random(number)
        with log.connect(address) as connection:
            for _ in range(25):
                ask(connection, choose.randbytes(choose.choice([10, 900, 9000])))


def retransmitted():
    """How many segments this namespace sent again."""
    with open("/proc/self/net/snmp", encoding="ascii") as file:
        names, values = [line.split() for line in file if line.startswith("Tcp:")]
    return int(values[names.index("RetransSegs")])


def check_loss(inside):
    inside()
    assert retransmitted() > 0, "nothing was lost on the way: the case tested nothing"


def run():
    with netns.Net("a", "b") as net:
        device = net.link("a", "10.77.0.1", "b", "10.77.0.2")
        for letter in "ab":
            # A lost segment is sent again after 10 ms instead of 200: more of them in the same time.
            netns.sh("ip", "-n", net.name(letter), "route", "change", "10.77.0.0/24", "dev", device, "rto_min", "10ms")
            disturb(net, letter, device)
        listening = log.Flag()
        server = log.spawn(serve, listening, net.inside("b"))
        listening.wait()
        log.wait(log.spawn(client, ("10.77.0.2", 7000), inside=net.inside("a")), server)
        log.wait(log.spawn(check_loss, net.inside("a")))
