"""Receives that look without taking (MSG_PEEK), the same bytes several times, also at the end."""

import socket

import log
from message import recv_exactly


def serve(listener, connections):
    for _ in range(connections):
        connection, _ = listener.accept()
        with connection:
            while connection.recv(7, socket.MSG_PEEK):
                connection.recv(3, socket.MSG_PEEK)
                connection.recv(1000, socket.MSG_PEEK)
                connection.sendall(connection.recv(11))
            connection.recv(7)


def run():
    listener = log.listen()
    server = log.spawn(serve, listener, 5)
    for number in range(5):
        with log.connect(listener.getsockname()) as connection:
            for i in range(20):
                connection.sendall(b"look " * (i + number + 1))
                recv_exactly(connection, 5 * (i + number + 1))
    log.wait(server)
