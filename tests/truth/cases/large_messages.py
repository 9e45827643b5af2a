"""Sends far larger than the buffers: each blocks, and is received in many parts before it returns."""

import socket

import log
from message import recv_exactly, recv_to_end

SIZE = 3_000_000


def small_buffer(connection):
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 100_000)


def serve(listener, connections):
    for _ in range(connections):
        connection, _ = listener.accept()
        small_buffer(connection)
        with connection:
            for _ in range(4):
                connection.sendall(recv_exactly(connection, SIZE, 20_000))
            recv_to_end(connection)


def run():
    listener = log.listen()
    server = log.spawn(serve, listener, 2)
    data = bytes(SIZE)
    for _ in range(2):
        with log.connect(listener.getsockname(), small_buffer) as connection:
            for _ in range(4):
                connection.sendall(data)
                recv_exactly(connection, SIZE, 100_000)
    log.wait(server)
