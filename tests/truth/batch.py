"""Many sends or receives in one system call (sendmmsg, recvmmsg), which Python does not offer.

The kernel makes each message a send or receive of its own. The log has a line for each, all with the times of the
whole."""

import ctypes
import os
import time

_libc = ctypes.CDLL(None, use_errno=True)


class _Vector(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]


class _Header(ctypes.Structure):
    _fields_ = [("name", ctypes.c_void_p), ("name_length", ctypes.c_uint32), ("vectors", ctypes.POINTER(_Vector)),
                ("vector_count", ctypes.c_size_t), ("control", ctypes.c_void_p), ("control_length", ctypes.c_size_t),
                ("flags", ctypes.c_int)]


class _Message(ctypes.Structure):
    _fields_ = [("header", _Header), ("length", ctypes.c_uint)]


def _messages(buffers):
    messages = (_Message * len(buffers))()
    for message, buffer in zip(messages, buffers):
        vector = _Vector(ctypes.addressof(buffer), len(buffer))
        message.header.vectors = ctypes.pointer(vector)
        message.header.vector_count = 1
    return messages


def _call(function, connection, messages, *rest):
    """The lengths of the messages that were done, and the time around."""
    before = time.monotonic_ns()
    count = function(connection.fileno(), messages, len(messages), *rest)
    after = time.monotonic_ns()
    if count < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return [message.length for message in messages[:count]], before, after


def send_many(connection, payloads):
    """Sends each payload, which must fit in the buffers, as a message of its own."""
    buffers = [ctypes.create_string_buffer(payload, len(payload)) for payload in payloads]
    lengths, before, after = _call(_libc.sendmmsg, connection, _messages(buffers), 0)
    for length in lengths:
        start = connection.sent
        connection.sent += length
        connection.note("send", before, [[start, start + length]], length, None, after=after)


def recv_many(connection, sizes):
    """Receives at most `sizes` bytes, each time waiting until there is something; False at the end."""
    buffers = [ctypes.create_string_buffer(size) for size in sizes]
    lengths, before, after = _call(_libc.recvmmsg, connection, _messages(buffers), 0, None)
    for length in lengths:
        start = connection.received
        connection.received += length
        more = {} if length else {"eof": True}
        connection.note("recv", before, [[start, start + length]] if length else None, length, None, after=after,
                        **more)
    return all(lengths)
