"""Sockets that never wait: EAGAIN on both sides, sends that take a part."""

import select
import socket
import time

import log
from message import recv_to_end

SIZE = 2_000_000


def serve(listener):
    connection, _ = listener.accept()
    connection.setblocking(False)
    with connection:
        received = 0
        while received < SIZE:
            for _ in range(3):
                try:
                    received += len(connection.recv(30_000))
                except BlockingIOError:
                    pass
            time.sleep(0.0005)  # slower than the writer, so that it meets full buffers
        connection.setblocking(True)
        recv_to_end(connection)


def run():
    listener = log.listen()
    server = log.spawn(serve, listener)
    with log.connect(listener.getsockname()) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 30_000)
        connection.setblocking(False)
        left = memoryview(bytes(SIZE))
        while left:
            try:
                left = left[connection.send(left[:70_000]):]
            except BlockingIOError:
                select.select([], [connection], [])
    log.wait(server)
