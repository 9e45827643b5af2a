"""Requests through io_uring: sends and receives of every kind, made by the thread that submits, by its task work, by a
worker, or by the kernel's thread that polls the queue. Each is a call of the thread that made it."""

import socket

import log
import uring
from message import recv_exactly, recv_to_end

MODES = ["own", "deferred", "worker", "poller"]


def needs():
    return uring.needs()


def serve(listener):
    """Answers with the usual calls."""
    for _ in MODES:
        connection, _ = listener.accept()
        with connection:
            for _ in range(15):
                recv_exactly(connection, 24)
                connection.sendall(b"answer")
            recv_to_end(connection, 100)


def ask(ring, connection):
    for _ in range(3):
        for round in range(5):
            if round == 0 and not (ring.mode == "worker" and uring.HAND_BACK):
                ring.ask(connection, b"a question of 24 letters", 6)
                continue
            if round == 1:
                ring.send(connection, b"a question of 24 letters")
            elif round == 2:
                ring.sendmsg(connection, [b"a question", b" of 24", b" letters"])
            elif round == 3:
                ring.send(connection, b"a question of 24 letters", zero_copy=True)
            else:
                connection.sendall(b"a question of 24 letters")
            if round % 2:
                received = len(ring.recv(connection, 6))
            else:
                received = ring.recvmsg(connection, [2, 4])
            if received != 6:
                raise ValueError("the answer came in parts")
    ring.send(connection, bytes(1000), zero_copy=True)
    connection.shutdown(socket.SHUT_WR)
    ring.recv(connection, 100)


def serve_shots(listeners):
    """One request accepts all of a listener's. One of each connection receives all that comes, where it is known when."""
    for mode, listener in zip(("own", "deferred"), listeners):
        ring = uring.Ring(mode)
        for connection in ring.accept(listener, 3):
            with connection:
                if mode == "deferred":
                    ring.recv_to_end(connection)
                while mode == "own" and ring.recv(connection, 500):
                    pass
        ring.close()


def shoot(listeners):
    for listener in listeners:
        together = [log.connect(listener.getsockname()) for _ in range(3)]
        for connection in together:
            with connection:
                for i in range(1, 40):
                    connection.sendall(bytes(37 * i))
                connection.shutdown(socket.SHUT_WR)
                recv_to_end(connection)


def run():
    by_call, *by_shot = log.listen(), log.listen(), log.listen()
    servers = [log.spawn(serve, by_call), log.spawn(serve_shots, by_shot)]
    for mode in MODES:
        ring = uring.Ring(mode)
        with log.connect(by_call.getsockname()) as connection:
            ask(ring, connection)
        ring.close()
    shoot(by_shot)
    log.wait(*servers)
