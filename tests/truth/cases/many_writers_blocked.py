"""Racing writers whose sends block half way: the kernel then lets another in, and their bytes interleave."""

import random
import socket
import time

import log
from message import recv_to_end

RACING = True


def serve(listener):
    connection, _ = listener.accept()
    with connection:
        time.sleep(0.05)  # so that the buffers are full
        log.layout(connection, recv_to_end(connection, 50_000))


def small_buffer(connection):
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 60_000)


def run():
    listener = log.listen()
    server = log.spawn(serve, listener)
    with log.connect(listener.getsockname(), small_buffer) as connection:

        def write(number):
            choose = random.Random(number)
            start = 0
            for _ in range(12):
                data = bytes([number << 5]) * choose.randint(10_000, 600_000)
                start += connection.send_as(number, start, data)

        log.together(write, [(n,) for n in range(6)])
    log.wait(server)
