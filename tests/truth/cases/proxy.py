"""A proxy that cuts and joins what it passes on, with a thread for each direction."""

import random
import select
import socket

import log
from message import answer_all, ask


def backend(listener, connections):
    for _ in range(connections):
        connection, _ = listener.accept()
        answer_all(connection, at_most=333)


def relay(source, target, seed):
    choose = random.Random(seed)
    pending = b""
    while part := source.recv(choose.randint(1, 900)):
        pending += part
        while pending and choose.random() < 0.8:
            cut = choose.randint(1, 500)
            target.sendall(pending[:cut])
            pending = pending[cut:]
        if pending and not ready(source):  # nothing more will come before this is answered
            target.sendall(pending)
            pending = b""
    if pending:
        target.sendall(pending)
    target.shutdown(socket.SHUT_WR)


def ready(connection):
    return bool(select.select([connection], [], [], 0)[0])


def proxy(listener, target, connections):
    for number in range(connections):
        front, _ = listener.accept()
        back = log.connect(target)
        log.together(relay, [(front, back, 2 * number), (back, front, 2 * number + 1)])
        front.close()
        back.close()


def run():
    inner, outer = log.listen(), log.listen()
    children = [log.spawn(backend, inner, 3), log.spawn(proxy, outer, inner.getsockname(), 3)]
    for number in range(3):
        choose = random.Random(number)
        with log.connect(outer.getsockname()) as connection:
            for _ in range(30):
                ask(connection, choose.randbytes(choose.randint(1, 3000)))
    log.wait(*children)
