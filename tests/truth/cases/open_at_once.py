"""Connections without a listener: two ends that ask each other at the same time, and a socket that asks itself."""

import socket
import time

import log
import netns
from message import recv_exactly, recv_to_end

A, B = ("10.77.1.1", 5001), ("10.77.1.2", 5002)
CONNECTIONS = 4


def needs():
    return netns.needs_nft()


def bound(address):
    connection = log.Socket(socket.AF_INET, socket.SOCK_STREAM)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    connection.bind(address)
    return connection


def talk(connection, first):
    with connection:
        for turn in range(6):
            if turn % 2 == first:
                connection.sendall(b"%d says turn %d" % (first, turn))
            else:
                recv_exactly(connection, len(b"0 says turn 0"))
        connection.shutdown(socket.SHUT_WR)
        recv_to_end(connection)


def meet(own, other, first):
    def one(number):
        connection = bound((own[0], own[1] + number))
        connection.connect((other[0], other[1] + number))
        talk(connection, first)

    log.together(one, ((number,) for number in range(CONNECTIONS)))


def ask_itself():
    for number in range(CONNECTIONS):
        with bound(("127.0.0.1", 0)) as connection:
            connection.connect(connection.getsockname())
            for i in range(5):
                connection.sendall(b"to myself" * (i + 1))
                recv_exactly(connection, 9 * (i + 1), 7)
            connection.shutdown(socket.SHUT_WR)
            recv_to_end(connection)


def run():
    with netns.Net("a", "b") as net:
        net.link("a", A[0], "b", B[0])
        for letter in "ab":  # nobody hears the first SYN: both have asked when the second one comes
            netns.nft(net.name(letter), "add table ip deaf; add chain ip deaf input { type filter hook input priority 0; };"
                                        "add rule ip deaf input tcp flags & (syn | ack) == syn drop")
        children = [log.spawn(meet, A, B, 0, inside=net.inside("a")), log.spawn(meet, B, A, 1, inside=net.inside("b"))]
        time.sleep(0.5)
        for letter in "ab":
            netns.nft(net.name(letter), "delete table ip deaf")
        log.wait(*children, log.spawn(ask_itself))
