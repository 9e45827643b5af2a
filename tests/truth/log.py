"""What a program of the truth suite knows: every socket call it makes, in which thread, over which bytes.

A `Socket` behaves like `socket.socket` and notes each call: process, thread, the stream offsets of the bytes,
and CLOCK_MONOTONIC just before and just after. One file of JSON lines per process; README.md says what is in it.
"""

import ctypes
import errno
import itertools
import json
import os
import re
import select
import signal
import socket
import struct
import sys
import threading
import time
import traceback
from concurrent.futures import ThreadPoolExecutor

# How many times slower than usual this machine is: an emulated one computes twenty times slower.
SLOWNESS = int(os.environ.get("WHEREFORE_TEST_SLOWNESS", "1"))

IPPROTO_MPTCP = 262
SO_PROTOCOL = 38
now = _now = time.monotonic_ns
_numbers = itertools.count()
_records = []
_directory = None


def open_in(directory):
    """Logs into `directory` from now on. A thread that fails ends the program."""
    global _directory
    _directory = directory
    threading.excepthook = _end_program


def _end_program(failed):
    traceback.print_exception(failed.exc_type, failed.exc_value, failed.exc_traceback)
    os.kill(os.getpid(), signal.SIGTERM)


def write(**record):
    _records.append(record)


def flush():
    """Writes what this process has logged."""
    path = os.path.join(_directory, f"{os.getpid()}.jsonl")
    with open(path, "a", encoding="utf-8") as file:
        file.writelines(json.dumps(record) + "\n" for record in _records)
    _records.clear()


def address_text(address):
    """`127.0.0.1:80`, `[::1]:80`, `unix:/path`, `unix:@abstract`; an IPv4 address in IPv6 clothes is written as what it
    is. None for a Unix socket without a name."""
    if isinstance(address, (str, bytes)):
        name = os.fsdecode(address)
        return "unix:" + name.replace("\0", "@", 1) if name else None
    host, port = address[:2]
    if host.startswith("::ffff:") and "." in host:
        host = host[len("::ffff:"):]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _error_name(error):
    number = errno.EAGAIN if error.errno == errno.EWOULDBLOCK else error.errno
    return "EAGAIN" if number == errno.EAGAIN else errno.errorcode[number]


class Socket(socket.socket):
    """A TCP socket that notes its calls. `sent` and `received` are the offsets its own calls have reached."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.endpoint = None
        self.sent = 0
        self.received = 0
        self.finished = False
        self.deaf = False

    # Life of a connection.

    def accept(self):
        fd, address = self._accept()
        connection = Socket(self.family, self.type, self.proto, fileno=fd)
        if self.gettimeout() and socket.getdefaulttimeout() is None:
            connection.setblocking(True)
        connection._established(self.getsockname(), address)
        return connection, address

    def connect(self, address):
        if self.family == socket.AF_UNIX:
            self.bind(unix_name())
        super().connect(address)
        self._established(self.getsockname(), address)

    def connect_again(self, address, before):
        """Goes on with the connection of a socket that is no more."""
        super().connect(address)
        self.endpoint, self.sent, self.received = before.endpoint, before.sent, before.received

    def connect_with(self, data, address, flags=0):
        """Connects by sending (MSG_FASTOPEN); the socket. One that does not wait, and has no cookie, sends again."""
        before = _now()
        try:
            count, error = self.sendto(data, socket.MSG_FASTOPEN | flags, address), None
        except BlockingIOError as in_progress:
            count, error = 0, errno.errorcode[in_progress.errno]
        after = _now()
        self._established(self.getsockname(), address)
        self.sent = count
        self.note("send", before, [[0, count]] if count else None, count, error, after=after)
        if error:
            select.select([], [self], [])
            self.sendall(data)
        return self

    def _established(self, local, remote):
        """`local` may be the listener's address: an accepted socket that was reset meanwhile forgets its own."""
        try:
            local = self.getsockname() if self.family == socket.AF_UNIX or self.getsockname()[1] else local
        except OSError:
            pass
        self.endpoint = f"{os.getpid()}.{next(_numbers)}"
        write(op="endpoint", endpoint=self.endpoint, time=_now(), local=address_text(local),
              remote=address_text(remote), protocol=self.protocol())

    def protocol(self):
        if self.family != socket.AF_UNIX:
            return "mptcp" if self.getsockopt(socket.SOL_SOCKET, SO_PROTOCOL) == IPPROTO_MPTCP else "tcp"
        return "unix_stream" if self.type == socket.SOCK_STREAM else "unix_seqpacket"

    def name_connection(self, name):
        """Says which connection this is, where addresses do not (NAT). Both ends must say the same."""
        write(op="name", endpoint=self.endpoint, name=name)

    def shutdown(self, how):
        before = _now()
        super().shutdown(how)
        if how == socket.SHUT_RD:
            self.deaf = True
        else:
            self._log_end("close", before)

    def close(self):
        before = _now()
        was_open = self.fileno() >= 0
        super().close()
        if was_open and self.endpoint is not None:
            self._log_end("close", before)

    def abort(self):
        """Throws the connection away: the other end gets a reset."""
        self.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_unread()

    def close_unread(self):
        """Closes with bytes left to read, which throws the connection away, too."""
        before = _now()
        super().close()
        self._log_end("abort", before)

    def drop(self):
        """Closes this process's copy of a descriptor another process still holds: nothing goes out."""
        super().close()

    def _log_end(self, op, before):
        if self.family == socket.AF_UNIX:
            return  # no tracer of calls on sockets sees it
        if not self.finished:
            self.finished = True
            write(op=op, endpoint=self.endpoint, pid=os.getpid(), tid=threading.get_native_id(),
                  ranges=[[self.sent, self.sent + 1]], before=before, after=_now())

    def resume(self, endpoint, sent):
        """Goes on where another process has come to, whose descriptor this is."""
        self.endpoint, self.sent = endpoint, int(sent)

    # Sends.

    def send(self, data, flags=0):
        return self._send(super().send, data, flags)

    def sendall(self, data, flags=0):
        view = memoryview(data).cast("B")
        while view:
            view = view[self.send(view, flags):]

    def sendmsg(self, buffers, ancdata=(), flags=0, *rest):
        return self._send(super().sendmsg, buffers, ancdata, flags, *rest)

    def sendfile(self, file, offset=0, count=None):
        """One `sendfile` call. The kernel may hand it to the socket in parts, so it may be several events."""
        return self._send(os.sendfile, self.fileno(), file.fileno(), offset, count, split=True)

    def splice_from(self, pipe, count):
        """Like `sendfile`, from a pipe."""
        return self._send(os.splice, pipe, self.fileno(), count, split=True)

    def send_as(self, writer, span_start, data, flags=0):
        """A send that races with others: `writer` is in every byte, the reader logs which byte came where."""
        return self._send(super().send, data, flags, writer=writer, span_start=span_start)

    def _send(self, function, *args, writer=None, span_start=0, split=False):
        before = _now()
        try:
            count = function(*args)
        except OSError as error:
            self.note("send", before, None, 0, _error_name(error))
            raise
        if writer is not None:
            self.note("send", before, None, count, None, writer=writer, span=[span_start, span_start + count])
            return count
        start = self.sent
        self.sent += self._moved(count)
        ranges = [[start, self.sent]] if count else None
        self.note("send", before, ranges, count, None, **({"split": True} if split else {}))
        return count

    def _moved(self, count):
        """How far a call that moved so many bytes goes on in the stream: messages count one each."""
        return min(count, 1) if self.type == socket.SOCK_SEQPACKET else count

    # Receives.

    def recv(self, size, flags=0):
        return self._recv(super().recv, len, flags, size, flags)

    def recv_into(self, buffer, size=0, flags=0):
        return self._recv(super().recv_into, int, flags, buffer, size, flags)

    def recvmsg(self, size, ancillary=0, flags=0):
        return self._recv(super().recvmsg, lambda r: len(r[0]), flags, size, ancillary, flags)

    def recvmsg_into(self, buffers, ancillary=0, flags=0):
        return self._recv(super().recvmsg_into, lambda r: r[0], flags, buffers, ancillary, flags)

    def peek_at_queue(self, size):
        """In repair mode: what lies in a queue, which need not be that of the bytes to receive."""
        before = _now()
        self.note("recv", before, None, len(super().recv(size, socket.MSG_PEEK)), None, peek=True)

    def peek_ahead(self, size, ahead):
        """A peek that begins so many bytes behind the next one (SO_PEEK_OFF); how many it saw."""
        before = _now()
        count = len(super().recv(size, socket.MSG_PEEK))
        start = self.received + ahead
        self.note("recv", before, [[start, start + count]], count, None, peek=True)
        return count

    def recv_counted(self, size, flags=0):
        """A receive that races with others: where its bytes stand is in the bytes (`counted`)."""
        return self._recv(super().recv, len, flags, size, flags, counted=True)

    def recv_nothing(self):
        """Asks for no bytes while some wait: gets none, which is not the end."""
        before = _now()
        self.note("recv", before, None, super().recvmsg_into([])[0], None)

    def recv_urgent(self, flags=0):
        """The urgent byte, the next that waits: it is no part of what other receives take. A tracer sees the call, but
        not which byte it was."""
        before = _now()
        value = super().recv(1, socket.MSG_OOB | flags)
        self.note("recv", before, None, len(value), None, **({"peek": True} if flags & socket.MSG_PEEK else {}))
        if not flags & socket.MSG_PEEK:
            self.skip(before, 1)
        return value

    def recv_error(self, size=100):
        """What lies in the error queue: no bytes of the stream, or a copy of some that were sent."""
        before = _now()
        value, ancillary, _, _ = super().recvmsg(size, 1000, socket.MSG_ERRQUEUE)
        self.note("recv", before, None, len(value), None)
        return ancillary

    def skip(self, before, count):
        """Bytes that no call which a tracer sees took, or of which it cannot tell where they were."""
        start = self.received
        self.received += count
        self.note("recv", before, [[start, start + count]], count, None, unseen=True)

    def splice_to(self, pipe, count):
        """Takes bytes without a receive: no tracer of receives sees this call, only the hole it leaves."""
        return self._recv(os.splice, int, 0, self.fileno(), pipe, count, unseen=True)

    def _recv(self, function, length, flags, *args, counted=False, unseen=False):
        before = _now()
        try:
            value = function(*args)
        except OSError as error:
            self.note("recv", before, None, 0, _error_name(error))
            raise
        count = length(value)
        after = _now()
        more = {"unseen": True} if unseen else {}
        ranges = [[self.received, self.received + self._moved(count)]]
        if flags & socket.MSG_PEEK:
            more["peek"] = True
        elif counted and count:
            ranges = counted_ranges(value)
            if ranges is None:
                more["bytes"] = value.hex()
        else:
            self.received += self._moved(count)
        if count == 0:
            more["eof"] = not self.deaf
            ranges = None
        self.note("recv", before, ranges, count, None, after=after, **more)
        return value

    def note(self, op, before, ranges, result, error, after=None, **more):
        if error not in (None, "EAGAIN", "EINPROGRESS"):
            self.finished = True  # reset: a close has nothing left to say
        more.setdefault("tid", threading.get_native_id())
        write(op=op, endpoint=self.endpoint, pid=os.getpid(), ranges=ranges, result=result, error=error, before=before,
              after=after or _now(), **more)


def counted(start_word, words):
    """Bytes that say where they stand: word i of 8 bytes holds i, and only its first byte has the top bit."""
    out = bytearray()
    for number in range(start_word, start_word + words):
        out += bytes([0x80 | (number >> 49) & 0x7F] + [(number >> shift) & 0x7F for shift in range(42, -1, -7)])
    return bytes(out)


def counted_ranges(data):
    """Where in the stream a stretch of `counted` bytes stands, in parts if a receive was interrupted between words;
    None when it is too short to tell."""
    first = next((i for i, byte in enumerate(data[:8]) if byte & 0x80), None)
    if first is None or len(data) < first + 8:
        return None
    ranges = []
    for at in range(first, len(data) - 7, 8):
        number = 0
        for byte in data[at:at + 8]:
            number = number << 7 | byte & 0x7F
        if ranges and ranges[-1][1] == number * 8:
            ranges[-1][1] += 8
        else:
            ranges.append([number * 8, number * 8 + 8])
    ranges[0][0] -= first
    ranges[-1][1] += (len(data) - first) % 8
    return ranges


def layout(connection, data):
    """Logs which bytes came from whom, in a stream whose racing writers each repeat one byte: 32 times its number."""
    runs = [[run[1][0] >> 5, len(run[0])] for run in re.finditer(rb"((?s:.))\1*", data)]
    write(op="layout", endpoint=connection.endpoint, runs=runs)


# Listening, connecting, processes and threads.


def listen(host="127.0.0.1", port=0, backlog=128):
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = Socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # what is accepted inherits it
    listener.bind((host, port))
    listener.listen(backlog)
    return listener


def unix_name():
    """A name of the abstract namespace that nobody else has."""
    return f"\0wf-{os.getpid()}-{next(_numbers)}"


def listen_unix(kind=socket.SOCK_STREAM):
    listener = Socket(socket.AF_UNIX, kind)
    listener.bind(unix_name())
    listener.listen(128)
    return listener


def connect_unix(address, kind=socket.SOCK_STREAM):
    connection = Socket(socket.AF_UNIX, kind)
    connection.connect(address)
    return connection


def pair(name, kind=socket.SOCK_STREAM):
    """The two ends of a connection without addresses."""
    ends = [Socket(one.family, one.type, one.proto, fileno=one.detach()) for one in socket.socketpair(type=kind)]
    for end in ends:
        end._established("", "")
        end.name_connection(name)
    return ends


def connect(address, prepare=None):
    """A connection to `address`; `prepare` may set options before it is made."""
    connection = Socket(socket.AF_INET6 if ":" in address[0] else socket.AF_INET, socket.SOCK_STREAM)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if prepare:
        prepare(connection)
    connection.connect(address)
    return connection


def at_port(port):
    """For `connect`: from this port, which may be bound again while its last connection is not forgotten; 0: from one
    that no other connection shares."""
    def prepare(connection):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        connection.bind(("127.0.0.1", port))

    return prepare


def spawn(function, *args, inside=None):
    """Runs `function` in a child process, first calling `inside` there (to enter a namespace)."""
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        die_with_parent()
        _records.clear()
        if inside:
            inside()
        function(*args)
        flush()
        status = 0
    except BaseException:
        traceback.print_exc()
        os.kill(os.getppid(), signal.SIGTERM)  # it may be waiting for what will not come
    finally:
        sys.stderr.flush()
        os._exit(status)


def die_with_parent():
    """A case that is stopped leaves no process behind."""
    parent_death_signal = 1
    ctypes.CDLL(None).prctl(parent_death_signal, signal.SIGKILL)


def wait(*pids):
    """Waits for children; all must have done well."""
    failed = [pid for pid in pids if os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) != 0]
    if failed:
        raise RuntimeError(f"{len(failed)} of {len(pids)} child processes failed")


def together(function, arguments):
    """Calls `function` with each of `arguments` (tuples), each in its own thread, and waits."""
    arguments = list(arguments)
    barrier = threading.Barrier(len(arguments))  # so that the pool really has that many threads

    def one(args):
        barrier.wait()
        return function(*args)

    with ThreadPoolExecutor(len(arguments)) as pool:
        return list(pool.map(one, arguments))


class Flag:
    """Set by one process, awaited by another."""

    def __init__(self):
        self.reader, self.writer = os.pipe()

    def set(self):
        os.write(self.writer, b".")

    def wait(self):
        os.close(self.writer)  # if the setter dies, the read ends
        if os.read(self.reader, 1) != b".":
            raise RuntimeError("the process to wait for ended early")


class StartLine:
    """Child processes that wait here go on at the same moment."""

    def __init__(self):
        self.reader, self.writer = os.pipe()

    def wait(self):
        os.close(self.writer)
        self.turn_ns = int.from_bytes(os.read(self.reader, 8), "big")

    def go(self, count):
        os.write(self.writer, _now().to_bytes(8, "big") * count)

    def next_turn(self, period_ns=2_000_000):
        """Waits for the next of the moments that all have in common, so that they meet again."""
        now = _now()
        self.turn_ns += (now - self.turn_ns) // period_ns * period_ns + period_ns
        time.sleep((self.turn_ns - now) / 1e9)


def until_recorded(timeout_s=60 * SLOWNESS):
    """For programs older than their recorder: tells the runner to start it, and waits until it runs.

    Calls that ended before are part of the truth about offsets, but not expected in the recording."""
    with open(os.path.join(_directory, "ready"), "w", encoding="utf-8"):
        pass
    deadline = time.monotonic() + timeout_s
    while not os.path.exists(os.path.join(_directory, "go")):
        if time.monotonic() > deadline:
            raise TimeoutError("nobody started a recorder")
        time.sleep(0.01)
    write(op="recorded_from", time=_now())
