"""Sends over TCP from an io_uring worker: raw system calls, since Python has no io_uring."""
import ctypes
import mmap
import os
import socket
import struct

SETUP, ENTER, SEND, ASYNC, GETEVENTS = 425, 426, 26, 1 << 4, 1
libc = ctypes.CDLL(None, use_errno=True)


def call(number, *words):
    result = libc.syscall(number, *words)
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


class Uring:
    def __init__(self):
        parameters = ctypes.create_string_buffer(120)
        self.fd = call(SETUP, 1, parameters)
        words = struct.unpack("30I", parameters.raw)
        tail, mask, array, entries = words[11], words[12], words[16], words[0]
        self.tail, self.array = tail, array
        self.ring = mmap.mmap(self.fd, array + entries * 4, offset=0)
        self.entries = mmap.mmap(self.fd, entries * 64, offset=0x10000000)

    def send(self, connection, data):
        """Sends from a worker; the call that submits waits for it."""
        buffer = ctypes.create_string_buffer(data, len(data))
        entry = struct.pack("BBHiQQIi", SEND, ASYNC, 0, connection.fileno(), 0, ctypes.addressof(buffer), len(data), 0)
        self.entries[:64] = entry.ljust(64, b"\0")
        self.ring[self.array:self.array + 4] = struct.pack("I", 0)
        tail = struct.unpack_from("I", self.ring, self.tail)[0]
        struct.pack_into("I", self.ring, self.tail, tail + 1)
        call(ENTER, self.fd, 1, 1, GETEVENTS, None, 0)


listener = socket.create_server(("127.0.0.1", 0))
client = socket.create_connection(listener.getsockname())
server = listener.accept()[0]
Uring().send(client, b"x" * 77)
print(len(server.recv(100)))
