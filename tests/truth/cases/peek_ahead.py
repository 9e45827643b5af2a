"""Peeks that go on where the one before ended (SO_PEEK_OFF): bytes are looked at long before they are thrown away, as
those do who wait for somebody else to confirm them."""

import random
import select
import socket

import log
from message import recv_to_end

SO_PEEK_OFF = 42
MUST_SHARE = 0.3  # a peek tells how far it looked, not that the bytes before were looked at


def needs():
    """On TCP since Linux 6.9."""
    with log.Socket(socket.AF_INET, socket.SOCK_STREAM) as connection:
        try:
            connection.setsockopt(socket.SOL_SOCKET, SO_PEEK_OFF, 0)
        except OSError as error:
            return f"no SO_PEEK_OFF on TCP: {error}"
    return None


def serve(listener):
    connection, _ = listener.accept()
    choose = random.Random(3)
    connection.setsockopt(socket.SOL_SOCKET, SO_PEEK_OFF, 0)
    ahead = 0
    with connection:
        for _ in range(200):
            select.select([connection], [], [])
            ahead += connection.peek_ahead(choose.randint(1, 400), ahead)
            if choose.random() < 0.4:
                ahead -= len(connection.recv(choose.randint(1, ahead), socket.MSG_TRUNC))
        connection.setsockopt(socket.SOL_SOCKET, SO_PEEK_OFF, -1)
        recv_to_end(connection)


def run():
    listener = log.listen()
    server = log.spawn(serve, listener)
    choose = random.Random(4)
    with log.connect(listener.getsockname()) as connection:
        for _ in range(400):
            connection.sendall(bytes(choose.randint(200, 300)))
    log.wait(server)
