"""Connections taken apart and put together again (TCP_REPAIR), as checkpoint and restore do: queues are looked at, and
the connection goes on with another socket, which counts from where it was put together. A tracer cannot know that it is
the same."""

import socket
import struct

import log
from message import recv_exactly, recv_to_end

BLIND = True
REPAIR, QUEUE, QUEUE_SEQUENCE, WINDOW = 19, 20, 21, 29
RECEIVED, SENT, OFF_AND_SILENT = 1, 2, -1
ROUNDS = 4


def needs():
    with log.Socket(socket.AF_INET, socket.SOCK_STREAM) as connection:
        try:
            set_option(connection, REPAIR, 1)
        except OSError as error:
            return f"no TCP_REPAIR: {error}"
    return None


def set_option(connection, option, value):
    connection.setsockopt(socket.IPPROTO_TCP, option, struct.pack("i", value) if value < 0 else struct.pack("I", value))


def sequence(connection, queue):
    set_option(connection, QUEUE, queue)
    return struct.unpack("I", connection.getsockopt(socket.IPPROTO_TCP, QUEUE_SEQUENCE, 4))[0]


def look_at_queues(connection):
    """Both queues hold something: what was sent is not what will be received."""
    connection.setblocking(False)
    try:
        while True:
            connection.send(bytes(300_000))
    except BlockingIOError:
        pass
    connection.setblocking(True)
    set_option(connection, REPAIR, 1)
    for queue in (SENT, RECEIVED):
        set_option(connection, QUEUE, queue)
        connection.peek_at_queue(5000)
    set_option(connection, REPAIR, OFF_AND_SILENT)


def move(connection):
    """The same connection, in another socket."""
    local, remote = connection.getsockname(), connection.getpeername()
    set_option(connection, REPAIR, 1)
    window = connection.getsockopt(socket.IPPROTO_TCP, WINDOW, 20)
    sequences = [(queue, sequence(connection, queue)) for queue in (RECEIVED, SENT)]
    connection.drop()
    other = log.Socket(socket.AF_INET, socket.SOCK_STREAM)
    set_option(other, REPAIR, 1)
    other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    for queue, number in sequences:
        set_option(other, QUEUE, queue)
        set_option(other, QUEUE_SEQUENCE, number)
    other.bind(local)
    other.connect_again(remote, connection)
    other.setsockopt(socket.IPPROTO_TCP, WINDOW, window)
    set_option(other, REPAIR, OFF_AND_SILENT)
    return other


def serve(listener, line):
    for _ in range(ROUNDS):
        connection, _ = listener.accept()
        with connection:
            connection.sendall(bytes(8000))
            line.recv(1)
            line.send(b".")
            total = int.from_bytes(line.recv(8), "big")
            recv_exactly(connection, total)
            for i in range(5):
                recv_exactly(connection, 10 * (i + 1))
                connection.sendall(b"answer")
            recv_to_end(connection)


def run():
    listener = log.listen()
    here, there = socket.socketpair()
    server = log.spawn(serve, listener, there)
    for number in range(ROUNDS):
        # (`move` binds the port a second time.)
        connection = log.connect(listener.getsockname(), log.at_port(0))
        if number % 2:  # with bytes behind it, or from the beginning
            recv_exactly(connection, 2000)
            look_at_queues(connection)
        here.send(b".")
        here.recv(1)
        here.send(connection.sent.to_bytes(8, "big"))
        recv_exactly(connection, 8000 - connection.received)
        connection.sendall(b"the first ")
        recv_exactly(connection, 6)
        with move(connection) as connection:
            for i in range(1, 5):
                connection.sendall(bytes(10 * (i + 1)))
                recv_exactly(connection, 6)
            connection.shutdown(socket.SHUT_WR)
            recv_to_end(connection)
    log.wait(server)
