"""Runs a command while every CPU is taken away again and again, for 0.5 to 30 ms: a quarter of the time.

    python3 tests/stutter.py SEED COMMAND [ARGUMENT...]

As root. A virtual machine whose host is busy is like that: what a test takes for granted of who comes first shows.
"""
import ctypes
import os
import random
import signal
import subprocess
import sys
import time

PR_SET_PDEATHSIG = 1


def take_away(cpu, seed):
    """Never returns."""
    os.sched_setaffinity(0, {cpu})
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(50))
    chance = random.Random(seed + cpu)
    while True:
        time.sleep(chance.uniform(0.0005, 0.06))
        ends = time.monotonic() + chance.choice([0.0005, 0.002, 0.005, 0.01, 0.03])
        while time.monotonic() < ends:
            pass


def start(cpu, seed):
    own = os.getpid()
    pid = os.fork()
    if pid:
        return pid
    # Whatever ends this program ends them.
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() == own:
        take_away(cpu, seed)
    os._exit(1)


def main():
    if len(sys.argv) < 3 or not sys.argv[1].isdigit():
        sys.exit(__doc__.strip())
    takers = [start(cpu, int(sys.argv[1])) for cpu in os.sched_getaffinity(0)]
    try:
        return subprocess.call(sys.argv[2:])
    finally:
        for pid in takers:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


sys.exit(main())
