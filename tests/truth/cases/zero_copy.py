"""Bytes that are not copied: sends that lend their pages (MSG_ZEROCOPY) and hear of it through the error queue, pages
given to a pipe and spliced on (vmsplice), and a receive that maps pages (TCP_ZEROCOPY_RECEIVE)."""

import ctypes
import errno
import mmap
import os
import select
import socket
import struct

import log
from message import recv_exactly, recv_to_end

SO_ZEROCOPY, MSG_ZEROCOPY, TCP_ZEROCOPY_RECEIVE, PAGE = 60, 0x4000000, 35, 4096
MUST_SHARE = 0  # behind a hole nothing proves that it was not a racing caller who moved the bytes

_libc = ctypes.CDLL(None, use_errno=True)


def map_some(connection, area):
    """Takes whole pages, if there are, without a receive; then what the kernel says has to be copied."""
    request = ctypes.create_string_buffer(struct.pack("QIIIiQiIQQII", area, 16 * PAGE, *[0] * 10), 64)
    length = ctypes.c_uint32(64)
    before = log.now()
    if _libc.getsockopt(connection.fileno(), socket.IPPROTO_TCP, TCP_ZEROCOPY_RECEIVE, request, ctypes.byref(length)):
        if ctypes.get_errno() == errno.EIO:  # nothing is left but the end
            return 0, 0
        raise OSError(ctypes.get_errno(), "TCP_ZEROCOPY_RECEIVE")
    _, taken, to_copy = struct.unpack_from("QII", request)
    if taken:
        connection.skip(before, taken)
    return taken, to_copy


def serve(listener):
    connection, _ = listener.accept()
    area = _libc.mmap
    area.restype = ctypes.c_void_p
    address = area(None, ctypes.c_size_t(16 * PAGE), mmap.PROT_READ, mmap.MAP_SHARED, connection.fileno(),
                   ctypes.c_size_t(0))
    if address in (None, ctypes.c_void_p(-1).value):
        raise OSError(ctypes.get_errno(), "mmap of a socket")
    mapped = 0
    with connection:
        while True:
            select.select([connection], [], [])
            taken, to_copy = map_some(connection, address)
            mapped += taken
            if not taken and not connection.recv(to_copy or PAGE):
                break
    if mapped == 0:
        raise RuntimeError("no page could be mapped")


def drain_errors(connection):
    """What the kernel says of the pages that were lent."""
    while select.select([], [], [connection], 0)[2]:
        connection.recv_error()


def run():
    listener = log.listen()
    server = log.spawn(serve, listener)
    reader, writer = os.pipe()
    pages = mmap.mmap(-1, 16 * PAGE)
    with log.connect(listener.getsockname()) as connection:
        connection.setsockopt(socket.SOL_SOCKET, SO_ZEROCOPY, 1)
        for number in range(60):
            connection.sendall(memoryview(pages)[:PAGE * (number % 8 + 1)], MSG_ZEROCOPY)
            if number % 3 == 0:
                drain_errors(connection)
            vector = struct.pack("QQ", ctypes.addressof(ctypes.c_char.from_buffer(pages)), PAGE * (number % 4 + 1))
            left = _libc.vmsplice(writer, ctypes.create_string_buffer(vector), ctypes.c_ulong(1), 0)
            while left:
                left -= connection.splice_from(reader, left)
    log.wait(server)
