"""A connection accepted by one process and answered by its child, then by itself again; and one passed on
through a Unix socket to a process that is no relation of the connection."""

import socket

import log
from message import recv_exactly


def serve(listener, connections):
    for _ in range(connections):
        connection, _ = listener.accept()
        recv_exactly(connection, 8)
        connection.sendall(b"from the parent")
        log.wait(log.spawn(child, connection))
        connection.sent += len(b"from the child")
        connection.received += 8
        connection.sendall(b"from the parent again")
        log.wait(log.spawn(last, connection))
        connection.drop()


def child(connection):
    recv_exactly(connection, 8)
    connection.sendall(b"from the child")
    connection.drop()


def last(connection):
    """The parent's copy stays open, so its shutdown is what ends the stream."""
    connection.sendall(b"the end")
    connection.shutdown(socket.SHUT_WR)
    connection.drop()


def hand_over(listener, channel, connections):
    for _ in range(connections):
        connection, _ = listener.accept()
        state = f"{connection.endpoint} {len(recv_exactly(connection, 8))}"
        socket.send_fds(channel, [state.encode()], [connection.fileno()])
        channel.recv(1)  # the other has it: this copy is not the last
        connection.drop()
        channel.send(b".")


def take_over(channel, connections):
    for _ in range(connections):
        state, (fd,), _, _ = socket.recv_fds(channel, 100, 1)
        connection = log.Socket(fileno=fd)
        connection.endpoint, received = state.decode().split()
        connection.received = int(received)
        channel.send(b".")
        channel.recv(1)
        recv_exactly(connection, 8)
        connection.sendall(b"from a stranger")
        connection.close()


def run():
    by_fork, by_message = log.listen(), log.listen()
    here, there = socket.socketpair()
    children = [log.spawn(serve, by_fork, 8), log.spawn(hand_over, by_message, here, 8),
                log.spawn(take_over, there, 8)]
    for listener in (by_fork, by_message):
        for _ in range(8):
            with log.connect(listener.getsockname()) as connection:
                connection.sendall(b"question")
                connection.sendall(b"question")
                while connection.recv(9):
                    pass
    log.wait(*children)
