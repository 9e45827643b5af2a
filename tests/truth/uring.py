"""io_uring without a library: raw system calls, and a log line for each request, in the name of the thread that made
the call for it.

Who that is depends on the ring: the thread that submitted (at once, or later as its task work), a worker, or the
kernel's thread that polls the queue."""

import ctypes
import errno
import mmap
import os
import select
import struct
import threading
import time

from compare import ANY_WORKER

_SETUP, _ENTER = 425, 426
_GETEVENTS, _SQ_WAKEUP = 1, 2
_SETUP_SQPOLL, _SETUP_SINGLE_ISSUER, _SETUP_DEFER_TASKRUN = 1 << 1, 1 << 12, 1 << 13
_ENTRIES = 64
LINK, ASYNC, BUFFER_SELECT = 1 << 2, 1 << 4, 1 << 5
_SENDMSG, _RECVMSG, _ACCEPT, SEND, _RECV, _PROVIDE_BUFFERS, _SEND_ZC = 9, 10, 13, 26, 27, 31, 47
_MORE, _NOTIFICATION = 2, 8
_GROUP, _BUFFERS, _BUFFER_SIZE = 7, 8, 512

# Workers that find nothing may hand the request back to the thread that submitted it. Seen on 6.1, not on 6.12.
HAND_BACK = tuple(map(int, os.uname().release.split(".")[:2])) < (6, 12)

_libc = ctypes.CDLL(None, use_errno=True)


def needs():
    """Why there is no io_uring here, or None: tried, not guessed."""
    try:
        Ring().close()
    except OSError as error:
        return f"no io_uring: {error}"
    return None


def _call(number, *words):
    result = _libc.syscall(number, *words)
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


class Ring:
    """`mode`: who makes the calls. `own`: the submitter, whenever it enters the kernel; `deferred`: the submitter, when
    it waits; `worker`; `poller`."""

    def __init__(self, mode="own"):
        self.mode = mode
        flags = {"deferred": _SETUP_SINGLE_ISSUER | _SETUP_DEFER_TASKRUN, "poller": _SETUP_SQPOLL}.get(mode, 0)
        parameters = ctypes.create_string_buffer(struct.pack("6I", 0, 0, flags, 0, 2000, 0), 120)
        self.fd = _call(_SETUP, _ENTRIES, parameters)
        words = struct.unpack("30I", parameters.raw)
        self.sq_head, self.sq_tail, self.sq_flags, self.sq_array = words[10], words[11], words[14], words[16]
        self.cq_head, self.cq_tail, self.cqes, self.cq_mask = words[20], words[21], words[25], words[1] - 1
        size = max(self.sq_array + 4 * words[0], self.cqes + 16 * words[1])
        self.ring = mmap.mmap(self.fd, size, offset=0)
        self.entries = mmap.mmap(self.fd, words[0] * 64, offset=0x10000000)
        self.kept = {}  # what the kernel still reads or writes
        self.number = 0

    def close(self):
        self.ring.close()
        self.entries.close()
        os.close(self.fd)

    # Requests.

    def queue(self, opcode, fd, address, length, kept=None, flags=0, priority=0, operation=0, offset=0, group=0):
        """Puts a request into the queue; its number."""
        self.number += 1
        self.kept[self.number] = kept
        flags |= ASYNC if self.mode == "worker" else 0
        tail = self._read(self.sq_tail)
        slot = tail % _ENTRIES
        entry = struct.pack("BBHiQQIIQH", opcode, flags, priority, fd, offset, address, length, operation, self.number,
                            group)
        self.entries[64 * slot:64 * slot + 64] = entry.ljust(64, b"\0")
        struct.pack_into("I", self.ring, self.sq_array + 4 * slot, slot)
        struct.pack_into("I", self.ring, self.sq_tail, tail + 1)
        return self.number

    def enter(self, wait):
        """Submits what is queued and waits for so many completions; (number, result, flags) of all that came."""
        submit = self._read(self.sq_tail) - self._read(self.sq_head)
        flags = _GETEVENTS if wait else 0
        if self.mode == "poller":
            submit = 0
            flags |= _SQ_WAKEUP if self._read(self.sq_flags) & 1 else 0
        _call(_ENTER, self.fd, submit, wait, flags, None, 0)
        done = []
        head, tail = self._read(self.cq_head), self._read(self.cq_tail)
        while head != tail:
            at = self.cqes + 16 * (head & self.cq_mask)
            done.append(struct.unpack_from("QiI", self.ring, at))
            head += 1
        struct.pack_into("I", self.ring, self.cq_head, head)
        return done

    def _read(self, offset):
        return struct.unpack_from("I", self.ring, offset)[0]

    # Logged calls, one at a time.

    def send(self, connection, data, zero_copy=False):
        buffer = ctypes.create_string_buffer(data, len(data))
        before = time.monotonic_ns()
        self.queue(_SEND_ZC if zero_copy else SEND, connection.fileno(), ctypes.addressof(buffer), len(data), buffer)
        self.note_send(connection, before, self._one())

    def sendmsg(self, connection, parts):
        before = time.monotonic_ns()
        self._queue_message(_SENDMSG, connection, [ctypes.create_string_buffer(part, len(part)) for part in parts])
        self.note_send(connection, before, self._one())

    def recv(self, connection, size):
        buffer = ctypes.create_string_buffer(size)
        self._settle(connection)
        before = time.monotonic_ns()
        self.queue(_RECV, connection.fileno(), ctypes.addressof(buffer), size, buffer)
        result = self._one()
        self.note_recv(connection, before, result)
        return buffer.raw[:result]

    def recvmsg(self, connection, sizes):
        self._settle(connection)
        before = time.monotonic_ns()
        self._queue_message(_RECVMSG, connection, [ctypes.create_string_buffer(size) for size in sizes])
        result = self._one()
        self.note_recv(connection, before, result)
        return result

    def ask(self, connection, data, size):
        """A send and, linked to it, a receive."""
        question, answer = ctypes.create_string_buffer(data, len(data)), ctypes.create_string_buffer(size)
        before = time.monotonic_ns()
        self.queue(SEND, connection.fileno(), ctypes.addressof(question), len(data), question, flags=LINK)
        self.queue(_RECV, connection.fileno(), ctypes.addressof(answer), size, answer)
        done = self.enter(2)
        after = time.monotonic_ns()
        (_, sent, _), (_, received, _) = sorted(done)
        self.note_send(connection, before, sent, after)
        self.note_recv(connection, before, received, after)

    def recv_to_end(self, connection):
        """One request that receives again and again into buffers that it chooses (multishot)."""
        buffers = ctypes.create_string_buffer(_BUFFERS * _BUFFER_SIZE)
        self._provide(buffers)
        multishot = 1 << 1
        before = time.monotonic_ns()
        armed = self.queue(_RECV, connection.fileno(), 0, 0, flags=BUFFER_SELECT, priority=multishot, group=_GROUP)
        while True:
            done = self.enter(1)
            after = time.monotonic_ns()
            for number, result, flags in done:
                if number != armed:
                    continue
                if result == -errno.ENOBUFS:  # not a call: none was made without a buffer
                    armed = None
                    continue
                self.note_recv(connection, before, result, after)
                if result == 0:
                    return
                if not flags & _MORE:
                    armed = None
            if armed is None:
                self._provide(buffers)
                armed = self.queue(_RECV, connection.fileno(), 0, 0, flags=BUFFER_SELECT, priority=multishot,
                                   group=_GROUP)
            before = after

    def accept(self, listener, count):
        """Accepts so many connections by one request."""
        import log

        multishot = 1
        self.queue(_ACCEPT, listener.fileno(), 0, 0, priority=multishot)
        accepted = []
        while len(accepted) < count:
            for _, fd, _ in self.enter(1):
                connection = log.Socket(fileno=fd)
                connection._established(listener.getsockname(), connection.getpeername())
                accepted.append(connection)
        return accepted

    # How they are made and logged.

    def _settle(self, connection):
        """Sees to it that a worker finds something, where else nobody knows whose call it is."""
        if self.mode == "worker" and HAND_BACK:
            select.select([connection], [], [])

    def _provide(self, buffers):
        self.queue(_PROVIDE_BUFFERS, _BUFFERS, ctypes.addressof(buffers), _BUFFER_SIZE, buffers, group=_GROUP)
        self.enter(1)

    def _queue_message(self, opcode, connection, buffers):
        vectors = ctypes.create_string_buffer(b"".join(
            struct.pack("QQ", ctypes.addressof(buffer), ctypes.sizeof(buffer)) for buffer in buffers))
        header = ctypes.create_string_buffer(struct.pack("QQQQQQQ", 0, 0, ctypes.addressof(vectors), len(buffers), 0, 0, 0))
        self.queue(opcode, connection.fileno(), ctypes.addressof(header), 1, (buffers, vectors, header))

    def _one(self):
        """The result of the one request that is under way."""
        done = []
        while not done or done[-1][2] & _MORE:  # a send without a copy says twice that it is done
            done += self.enter(1)
        return done[0][1]

    def note_send(self, connection, before, result, after=None):
        start = connection.sent
        connection.sent += result
        connection.note("send", before, [[start, start + result]], result, None, after, **self._how())

    def note_recv(self, connection, before, result, after=None):
        start = connection.received
        connection.received += result
        more = {} if result else {"eof": True}
        connection.note("recv", before, [[start, start + result]] if result else None, result, None, after, **more,
                        **self._how())

    def _how(self):
        """Whose call it was; there may have been one before that found the socket not ready."""
        kernels = self.mode in ("worker", "poller")  # (the poller may hand a request on to a worker)
        return {"tid": ANY_WORKER if kernels else threading.get_native_id(), "attempts": True}
