"""Messages through a SOCK_SEQPACKET socket: cut to the receiver's buffer, looked at, and answered."""

import random
import socket

import log


def serve(listener):
    connection, _ = listener.accept()
    with connection:
        while connection.recv(10, socket.MSG_PEEK):
            connection.send(connection.recv(100))


def run():
    listener = log.listen_unix(socket.SOCK_SEQPACKET)
    server = log.spawn(serve, listener)
    choose = random.Random(1)
    with log.connect_unix(listener.getsockname(), socket.SOCK_SEQPACKET) as connection:
        for _ in range(100):
            for _ in range(choose.randint(1, 4)):
                connection.send(bytes(choose.randint(1, 300)))
                connection.recv(choose.randint(1, 200))
        connection.shutdown(socket.SHUT_WR)
        connection.recv(1)
    log.wait(server)
