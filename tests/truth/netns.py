"""Network namespaces for programs that must be on different hosts: made, joined by veth, always removed."""

import atexit
import ctypes
import os
import re
import signal
import subprocess
import sys


def sh(*command, input=None):
    """Runs a command; its output is in the error when it fails."""
    done = subprocess.run(command, input=input, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: {(done.stderr or done.stdout).strip()}")
    return done.stdout


def needs():
    """Why namespaces cannot be had here, or None: tried, not guessed."""
    name = f"wf-{os.getpid()}-probe"
    try:
        sh("ip", "netns", "add", name)
        sh("ip", "netns", "delete", name)
    except (OSError, RuntimeError) as error:
        return f"no network namespaces: {error}"
    return None


def _reason(what, error):
    """Without this run's own names, so that it is the same in every run."""
    return f"{what}: {error}".replace(f"wf-{os.getpid()}-", "")


def needs_links():
    """Why namespaces cannot be joined here, or None."""
    if reason := needs():
        return reason
    try:
        with Net("a", "b") as net:
            net.link("a", "10.79.0.1", "b", "10.79.0.2")
    except (OSError, RuntimeError) as error:
        return _reason("no veth", error)
    return None


def needs_nft():
    """Why nft rules cannot be had in a namespace here, or None."""
    if reason := needs():
        return reason
    try:
        with Net("p") as net:
            nft(net.name("p"), "add table ip probe; add chain ip probe nat { type nat hook postrouting priority 100; }")
    except (OSError, RuntimeError) as error:
        return _reason("no nft", error)
    return None


def nft(name, rules):
    sh("ip", "netns", "exec", name, "nft", "-f", "-", input=rules)


class Net:
    """A few namespaces, each with its loopback up. `with Net("a", "b") as net:`"""

    def __init__(self, *letters):
        self.names = {letter: f"wf-{os.getpid()}-{letter}" for letter in letters}
        self.owner = os.getpid()
        self.links = 0

    def __enter__(self):
        _remove_orphans()
        atexit.register(self.remove)
        signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))
        try:
            for name in self.names.values():
                sh("ip", "netns", "add", name)
                sh("ip", "-n", name, "link", "set", "lo", "up")
        except BaseException:
            self.remove()
            raise
        return self

    def __exit__(self, *_):
        self.remove()

    def remove(self):
        if os.getpid() != self.owner:
            return  # a child inherits the object, not the duty
        for name in self.names.values():
            subprocess.run(["ip", "netns", "delete", name], capture_output=True)

    def name(self, letter):
        return self.names[letter]

    def link(self, a, address_a, b, address_b):
        """Joins two namespaces by a veth pair, in a /24; returns the two devices' names."""
        device = f"v{self.links}"
        self.links += 1
        sh("ip", "link", "add", device, "netns", self.name(a), "type", "veth", "peer", "name", device, "netns",
           self.name(b))
        for letter, address in ((a, address_a), (b, address_b)):
            sh("ip", "-n", self.name(letter), "address", "add", f"{address}/24", "dev", device)
            sh("ip", "-n", self.name(letter), "link", "set", device, "up")
        return device

    def inside(self, letter):
        """What a process must call to be in the namespace."""
        path = f"/run/netns/{self.name(letter)}"

        def enter():
            libc = ctypes.CDLL(None, use_errno=True)
            with open(path, "rb") as file:
                if libc.setns(file.fileno(), 0x40000000) != 0:  # CLONE_NEWNET
                    raise OSError(ctypes.get_errno(), f"setns {path}")

        return enter


def _remove_orphans():
    """Namespaces of a run that was killed: named after a process that is no more."""
    for name in re.findall(r"^wf-\d+-\w+", sh("ip", "netns", "list"), re.MULTILINE):
        if not os.path.exists(f"/proc/{name.split('-')[1]}"):
            subprocess.run(["ip", "netns", "delete", name], capture_output=True)
