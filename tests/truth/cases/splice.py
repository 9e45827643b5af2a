"""Bytes moved by splice: out of a socket no receive is raised, so the others' offsets must jump over the hole."""

import os
import random

import log
from message import recv_to_end


MUST_SHARE = 0.4  # behind a hole nothing proves that it was not a racing caller who moved the bytes


def needs():
    return None if hasattr(os, "splice") else "os.splice needs Python 3.10"


def serve(listener):
    connection, _ = listener.accept()
    choose = random.Random(8)
    reader, writer = os.pipe()
    with connection:
        for _ in range(150):
            connection.recv(choose.randint(1, 300))
            taken = connection.splice_to(writer, choose.randint(1, 300))
            os.read(reader, taken)
        recv_to_end(connection)


def run():
    listener = log.listen()
    server = log.spawn(serve, listener)
    choose = random.Random(9)
    reader, writer = os.pipe()
    with log.connect(listener.getsockname()) as connection:
        for _ in range(400):
            left = os.write(writer, bytes(choose.randint(200, 500)))
            while left:
                left -= connection.splice_from(reader, left)
            connection.sendall(b"sent as usual")
    log.wait(server)
