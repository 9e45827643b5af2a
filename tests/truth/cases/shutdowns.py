"""Connections ended in every order: one direction at a time with much still to come, for reading only, both at once,
with bytes left unread."""

import socket

import log
from message import recv_exactly, recv_to_end

TAIL = bytes(range(256)) * 2000


def long_tail(connection):
    recv_to_end(connection)
    for i in range(0, len(TAIL), 50_000):
        connection.sendall(TAIL[i:i + 50_000])


def ask_long_tail(connection):
    connection.sendall(b"all of it, please")
    connection.shutdown(socket.SHUT_WR)
    if recv_to_end(connection, 30_000) != TAIL:
        raise ValueError("the tail is not the tail")


def to_the_deaf(connection):
    recv_exactly(connection, 6)
    connection.sendall(b"heard all the same")
    recv_to_end(connection)


def deaf(connection):
    connection.shutdown(socket.SHUT_RD)
    if connection.recv(100) != b"":  # nothing has come, and nothing is waited for
        raise ValueError("a socket shut for reading waits")
    connection.sendall(b"speak!")
    while not connection.recv(100):  # what comes is received in spite of all
        pass


def both_at_once(connection):
    recv_exactly(connection, 4)
    connection.shutdown(socket.SHUT_RDWR)


def ask_both(connection):
    connection.sendall(b"both")
    recv_to_end(connection)


def leaves_unread(connection):
    recv_exactly(connection, 5)
    connection.sendall(b"enough")
    connection.close_unread()


def ask_unread(connection):
    connection.sendall(b"hello, is anybody listening to what I say?")
    recv_exactly(connection, 6)
    try:
        connection.recv(1)
    except ConnectionResetError:
        pass


PLAYS = [(long_tail, ask_long_tail), (to_the_deaf, deaf), (both_at_once, ask_both), (leaves_unread, ask_unread)]


def serve(listener, rounds):
    for _ in range(rounds):
        for play, _ in PLAYS:
            with listener.accept()[0] as connection:
                play(connection)


def run():
    listener = log.listen()
    server = log.spawn(serve, listener, 6)
    for _ in range(6):
        for _, play in PLAYS:
            with log.connect(listener.getsockname()) as connection:
                play(connection)
    log.wait(server)
