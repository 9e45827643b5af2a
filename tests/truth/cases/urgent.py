"""Urgent bytes (MSG_OOB): taken aside, left where they are (SO_OOBINLINE), passed over."""

import select
import socket

import log
from message import recv_exactly, recv_to_end


def aside(connection):
    recv_exactly(connection, 6)
    select.select([], [], [connection], 10)
    connection.recv_urgent(socket.MSG_PEEK)
    connection.recv_urgent()
    recv_exactly(connection, 5)
    connection.sendall(b"taken")


def inline(connection):
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)
    recv_exactly(connection, 12)  # stops at the mark, goes on behind it
    connection.sendall(b"taken")


def passed_over(connection):
    recv_exactly(connection, 6)
    select.select([], [], [connection], 10)
    connection.skip(log.now(), 1)
    recv_exactly(connection, 5)
    connection.sendall(b"taken")


PLAYS = [aside, inline, passed_over]


def serve(listener, rounds):
    for number in range(3 * rounds):
        with listener.accept()[0] as connection:
            for _ in range(10):
                PLAYS[number % 3](connection)
            recv_to_end(connection)


def run():
    listener = log.listen()
    server = log.spawn(serve, listener, 3)
    for _ in range(9):
        with log.connect(listener.getsockname()) as connection:
            for _ in range(10):
                connection.sendall(b"before")
                connection.send(b"!", socket.MSG_OOB)
                connection.sendall(b"after")
                recv_exactly(connection, 5)
    log.wait(server)
