"""One send over TCP through io_uring; the argument says who makes the call."""
import ctypes
import os
import socket
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "truth"))
sys.dont_write_bytecode = True

import uring  # noqa: E402

listener = socket.create_server(("127.0.0.1", 0))
client = socket.create_connection(listener.getsockname())
server = listener.accept()[0]
ring = uring.Ring(sys.argv[1])
data = ctypes.create_string_buffer(b"x" * 77, 77)
ring.queue(uring.SEND, client.fileno(), ctypes.addressof(data), 77, data)
ring.enter(1)
print(len(server.recv(100)))
