"""What the flags of a call change: bytes thrown away (MSG_TRUNC), a wait for all that a signal or a timeout ends
(MSG_WAITALL), no wait at all (MSG_DONTWAIT), bytes held back (MSG_MORE, TCP_CORK), none asked for or given."""

import select
import signal
import socket
import struct

import log
from message import recv_exactly, recv_to_end


def serve(listener):
    connection, _ = listener.accept()
    signal.signal(signal.SIGALRM, lambda *_: None)
    with connection:
        for _ in range(20):
            throw_away(connection)
            wait_for_all(connection)
            wait_for_none(connection)
            recv_exactly(connection, 3 * 4 + 3 * 5, 8)
            connection.sendall(b"next")
        recv_to_end(connection)


def throw_away(connection):
    connection.recv(100, socket.MSG_TRUNC)
    connection.sendall(b"away")
    connection.recv(100, socket.MSG_TRUNC | socket.MSG_PEEK)
    connection.recv(3, socket.MSG_TRUNC | socket.MSG_WAITALL)
    connection.recv(100)
    connection.sendall(b"away")


def wait_for_all(connection):
    """Gets less than all: a signal comes, then the time is over."""
    for limit in (signal_soon, patience):
        select.select([connection], [], [])
        limit(connection, 0.01)
        connection.recv(5000, socket.MSG_WAITALL)
        limit(connection, 0)
        connection.sendall(b"part")


def signal_soon(_, seconds):
    signal.setitimer(signal.ITIMER_REAL, seconds)


def patience(connection, seconds):
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", 0, int(seconds * 1e6)))


def wait_for_none(connection):
    try:
        connection.recv(100, socket.MSG_DONTWAIT)
    except BlockingIOError:
        pass
    connection.sendall(b"none")
    select.select([connection], [], [])
    connection.recv_nothing()
    connection.recv(100, socket.MSG_DONTWAIT)
    connection.sendall(b"some")


def run():
    listener = log.listen()
    server = log.spawn(serve, listener)
    with log.connect(listener.getsockname()) as connection:
        for _ in range(20):
            for part in (b"thrown away", b"seen", b"part of all", b"part of all"):
                connection.send(b"")
                connection.sendall(part)
                recv_exactly(connection, 4)
            recv_exactly(connection, 4)
            connection.sendall(b"waits", socket.MSG_DONTWAIT)
            recv_exactly(connection, 4)
            hold_back(connection)
            recv_exactly(connection, 4)
    log.wait(server)


def hold_back(connection):
    for flags in (socket.MSG_MORE, socket.MSG_MORE, 0):
        connection.send(b"more", flags)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)
    for _ in range(3):
        connection.send(b"corks")
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 0)
