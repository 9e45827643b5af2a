"""Each end closes its direction on its own: the request's end is an EOF, the answer comes after it."""

import socket

import log
from message import recv_to_end


def serve(listener, connections):
    for _ in range(connections):
        connection, _ = listener.accept()
        with connection:
            connection.sendall(recv_to_end(connection, 500)[::-1])


def run():
    listener = log.listen()
    server = log.spawn(serve, listener, 40)
    for number in range(40):
        with log.connect(listener.getsockname()) as connection:
            for _ in range(number % 4):  # none at all: the EOF is all there is
                connection.sendall(b"part " * (number * 20 + 1))
            connection.shutdown(socket.SHUT_WR)
            recv_to_end(connection, 700)
    log.wait(server)
