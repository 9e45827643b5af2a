"""Several sends and receives in one system call (sendmmsg, recvmmsg): an event for each."""

import random

import log
from batch import recv_many, send_many


def serve(listener):
    connection, _ = listener.accept()
    choose = random.Random(1)
    with connection:
        while recv_many(connection, [choose.randint(1, 400) for _ in range(choose.randint(1, 20))]):
            pass


def run():
    listener = log.listen()
    server = log.spawn(serve, listener)
    choose = random.Random(2)
    with log.connect(listener.getsockname()) as connection:
        for _ in range(60):
            send_many(connection, [bytes(choose.randint(1, 300)) for _ in range(choose.randint(1, 20))])
    log.wait(server)
