"""Makes each of the calls that can be overridden three times, in two processes at a time: one called `victim`, one called
`bystander`. Prints for each process and call what it was answered: `victim connect ok EIO ok`.

Nothing but these calls is made under these names, so that the second of the victim's is the second that matches."""
import ctypes
import errno
import mmap
import os
import select
import socket
import sys

NUMBERS = dict(pair.split(":") for pair in sys.argv[1].split(","))
ROUNDS = 3
libc = ctypes.CDLL(None, use_errno=True)
instant = (ctypes.c_long * 2)(0, 0)
buffer = ctypes.create_string_buffer(b"x" * 8, 8)


class Piece(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("size", ctypes.c_size_t)]


class Message(ctypes.Structure):
    _fields_ = [
        ("name", ctypes.c_void_p), ("name_size", ctypes.c_uint),
        ("pieces", ctypes.c_void_p), ("count", ctypes.c_size_t),
        ("control", ctypes.c_void_p), ("control_size", ctypes.c_size_t),
        ("flags", ctypes.c_int),
        # What `sendmmsg` and `recvmmsg` say of each.
        ("moved", ctypes.c_uint),
    ]


class Waited(ctypes.Structure):
    _fields_ = [("fd", ctypes.c_int), ("events", ctypes.c_short), ("found", ctypes.c_short)]


piece = Piece(ctypes.addressof(buffer), 1)
message = Message(None, 0, ctypes.addressof(piece), 1, None, 0, 0, 0)


def address(port):
    raw = b"\x02\x00" + port.to_bytes(2, "big") + bytes([127, 0, 0, 1]) + bytes(8)
    return ctypes.create_string_buffer(raw, 16)


kept = []


def keep(thing):
    kept.append(thing)
    return thing


def listener(bound=True):
    s = keep(socket.socket())
    if bound:
        s.bind(("127.0.0.1", 0))
    return s


def pair():
    """Two ends of a TCP connection; the second has much to read."""
    server = listener()
    server.listen()
    one = keep(socket.create_connection(server.getsockname()))
    other = keep(server.accept()[0])
    one.send(b"y" * 1000)
    select.select([other], [], [])
    return one.fileno(), other.fileno()


def crowded():
    """A listener that nobody has accepted from."""
    server = listener()
    server.listen(16)
    for _ in range(ROUNDS + 1):
        keep(socket.create_connection(server.getsockname()))
    return server.fileno()


def fresh():
    return [keep(socket.socket()).fileno() for _ in range(ROUNDS)]


def prepared():
    """What each call is made with, round by round; all of it is good."""
    server = listener()
    server.listen(16)
    to = keep(address(server.getsockname()[1]))
    anywhere = keep(address(0))
    one, other = pair()
    ready = keep(select.epoll())
    ready.register(other, select.EPOLLIN)
    found = keep(ctypes.create_string_buffer(64))
    waited = keep(Waited(other, select.POLLIN, 0))

    def chosen():
        bits = (ctypes.c_ulong * 16)()
        bits[other // 64] = 1 << other % 64
        return keep(bits)

    same = lambda *arguments: [arguments] * ROUNDS
    spare = [pair()[0] for _ in range(ROUNDS)]
    return {
        "connect": [(fd, to, 16) for fd in fresh()],
        "accept": same(crowded(), None, None),
        "accept4": same(crowded(), None, None, 0),
        "bind": [(fd, anywhere, 16) for fd in fresh()],
        "listen": same(listener().fileno(), 5),
        "socket": same(socket.AF_INET, socket.SOCK_STREAM, 0),
        "sendto": same(one, buffer, 1, 0, None, 0),
        "sendmsg": same(one, ctypes.byref(message), 0),
        "sendmmsg": same(one, ctypes.byref(message), 1, 0),
        "write": same(one, buffer, 1),
        "writev": same(one, ctypes.byref(piece), 1),
        "recvfrom": same(other, buffer, 1, 0, None, None),
        "recvmsg": same(other, ctypes.byref(message), 0),
        "recvmmsg": same(other, ctypes.byref(message), 1, 0, None),
        "read": same(other, buffer, 1),
        "readv": same(other, ctypes.byref(piece), 1),
        "shutdown": [(fd, socket.SHUT_WR) for fd in spare],
        "close": [(os.dup(fd),) for fd in spare],
        "epoll_wait": same(ready.fileno(), found, 1, 0),
        "epoll_pwait": same(ready.fileno(), found, 1, 0, None, 8),
        "epoll_pwait2": same(ready.fileno(), found, 1, instant, None, 8),
        "poll": same(ctypes.byref(waited), 1, 0),
        "ppoll": same(ctypes.byref(waited), 1, instant, None, 8),
        "select": [(other + 1, chosen(), None, None, instant) for _ in range(ROUNDS)],
        "pselect6": [(other + 1, chosen(), None, None, instant, None) for _ in range(ROUNDS)],
    }


def play(comm, own, others):
    """In step with the other process: nobody makes a call before both are there."""
    calls = prepared()
    answers = {}
    libc.prctl(15, comm.encode(), 0, 0, 0)
    step = 0
    for name, number in NUMBERS.items():
        for arguments in calls[name]:
            step += 1
            own.value = step
            while others.value < step:
                libc.sched_yield()
            result = libc.syscall(int(number), *arguments)
            answers.setdefault(name, []).append(ctypes.get_errno() if result < 0 else 0)
            # The value, where a call is meant to succeed with another than its own.
            answers.setdefault(name + "=", []).append(result)
    libc.prctl(15, b"done", 0, 0, 0)
    for name in NUMBERS:
        told = [errno.errorcode[a] if a else "ok" for a in answers[name]]
        print(comm, name, *told, "=", *answers[name + "="], flush=True)


shared = mmap.mmap(-1, 4096)
turns = [ctypes.c_int.from_buffer(shared, 64 * i) for i in range(2)]
child = os.fork()
if child == 0:
    play("bystander", turns[1], turns[0])
    os._exit(0)
play("victim", turns[0], turns[1])
os.waitpid(child, 0)
