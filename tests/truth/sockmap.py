"""BPF programs that pass bytes from socket to socket behind TCP's back, made by hand: a few instructions each."""

import ctypes
import os
import struct

_BPF = 321
_MAP_CREATE, _MAP_UPDATE, _MAP_DELETE, _PROG_LOAD, _PROG_ATTACH = 0, 2, 3, 5, 8
_SOCKMAP = 15
_INGRESS = 1
# Program type, attach type, the helper that redirects to a map's entry.
SENDS = (16, 7, 60)  # what is sent: sk_msg
RECEIVES = (14, 38, 52)  # what comes in: sk_skb

_libc = ctypes.CDLL(None, use_errno=True)


def needs():
    """Why there are no sockmaps here, or None: tried, not guessed."""
    try:
        Redirect(SENDS).close()
    except OSError as error:
        return f"no sockmap: {error}"
    return None


def _bpf(command, *parts):
    attributes = ctypes.create_string_buffer(b"".join(parts), 128)
    result = _libc.syscall(_BPF, command, attributes, len(attributes))
    if result < 0:
        raise OSError(ctypes.get_errno(), f"bpf command {command}: {os.strerror(ctypes.get_errno())}")
    return result


def _instruction(code, destination=0, source=0, offset=0, value=0):
    return struct.pack("BBhi", code, source << 4 | destination, offset, value)


class Redirect:
    """What one socket sends, or what comes in for it, is put into another's receive queue."""

    def __init__(self, what):
        program_type, attach_type, helper = what
        self.targets, self.sources = (_bpf(_MAP_CREATE, struct.pack("5I", _SOCKMAP, 4, 4, 1, 0)) for _ in range(2))
        move, load_64, call, leave = 0xb7, 0x18, 0x85, 0x95
        code = b"".join([
            _instruction(load_64, 2, 1, 0, self.targets), _instruction(0),
            _instruction(move, 3, value=0),
            _instruction(move, 4, value=_INGRESS),
            _instruction(call, value=helper),
            _instruction(leave),
        ])
        instructions, licence = ctypes.create_string_buffer(code, len(code)), ctypes.create_string_buffer(b"GPL")
        self.program = _bpf(_PROG_LOAD, struct.pack(
            "IIQQIIQII16sII", program_type, len(code) // 8, ctypes.addressof(instructions), ctypes.addressof(licence),
            0, 0, 0, 0, 0, b"", 0, attach_type))
        _bpf(_PROG_ATTACH, struct.pack("4I", self.sources, self.program, attach_type, 0))

    def begin(self, source, target):
        for place, connection in ((self.targets, target), (self.sources, source)):
            key, value = ctypes.c_uint32(0), ctypes.c_uint32(connection.fileno())
            _bpf(_MAP_UPDATE, struct.pack("IIQQQ", place, 0, ctypes.addressof(key), ctypes.addressof(value), 0))

    def end(self):
        for place in (self.sources, self.targets):
            key = ctypes.c_uint32(0)
            _bpf(_MAP_DELETE, struct.pack("IIQQQ", place, 0, ctypes.addressof(key), 0, 0))

    def close(self):
        for fd in (self.program, self.sources, self.targets):
            os.close(fd)
