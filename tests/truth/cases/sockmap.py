"""Bytes that a BPF program passes from socket to socket, past TCP: neither end's counters move with them, so that only
the lengths of the calls can tell a tracer which bytes they were."""

import socket

import log
import sockmap
from message import recv_exactly, recv_to_end

RACING = True  # offsets are not to be had, nor proofs
SIZES = [100, 100, 300, 7, 100, 5000]


def needs():
    return sockmap.needs()


def serve(listener, channel):
    """One process: the descriptors of both ends go into the map."""
    redirect = sockmap.Redirect(sockmap.SENDS)
    for _ in range(4):
        connection, _ = listener.accept()
        _, (fd,), _, _ = socket.recv_fds(channel, 1, 1)
        other = socket.socket(fileno=fd)
        with connection:
            for size in SIZES:
                recv_exactly(connection, size, 60)
            connection.sendall(b"redirect")
            channel.recv(1)
            redirect.begin(other, connection)
            channel.send(b".")
            for size in SIZES:
                recv_exactly(connection, size, 60)
            redirect.end()
            other.close()
            connection.sendall(b"and back")
            for size in SIZES:
                recv_exactly(connection, size, 60)
            recv_to_end(connection)


def run():
    listener = log.listen()
    here, there = socket.socketpair()
    server = log.spawn(serve, listener, there)
    for _ in range(4):
        with log.connect(listener.getsockname()) as connection:
            socket.send_fds(here, [b"."], [connection.fileno()])
            for size in SIZES:
                connection.sendall(bytes(size))
            recv_exactly(connection, 8)
            here.send(b".")
            here.recv(1)
            for size in SIZES:
                connection.sendall(bytes(size))
            recv_exactly(connection, 8)
            for size in SIZES:
                connection.sendall(bytes(size))
    log.wait(server)
