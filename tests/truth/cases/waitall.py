"""Receives that wait for all they asked for (MSG_WAITALL), filled by many small sends."""

import socket

import log
from message import recv_to_end


def serve(listener):
    connection, _ = listener.accept()
    with connection:
        for i in range(40):
            connection.recv(2500, socket.MSG_WAITALL)
            connection.sendall(b"%03d" % i)
        connection.recv(1000, socket.MSG_WAITALL)  # gets less: the end comes first
        recv_to_end(connection)


def run():
    listener = log.listen()
    server = log.spawn(serve, listener)
    with log.connect(listener.getsockname()) as connection:
        for _ in range(40):
            for _ in range(25):
                connection.sendall(bytes(100))
            connection.recv(3, socket.MSG_WAITALL)
        connection.sendall(bytes(400))
    log.wait(server)
