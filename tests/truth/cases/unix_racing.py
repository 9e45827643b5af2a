"""Eight threads write to one Unix socket at will; the writer's number in every byte tells the reader whose it is."""

import random

import log
from message import recv_to_end

RACING = True


def serve(listener):
    connection, _ = listener.accept()
    with connection:
        log.layout(connection, recv_to_end(connection, 3000))


def run():
    listener = log.listen_unix()
    server = log.spawn(serve, listener)
    with log.connect_unix(listener.getsockname()) as connection:

        def write(number):
            choose = random.Random(number)
            start = 0
            for _ in range(60):
                start += connection.send_as(number, start, bytes([number << 5]) * choose.randint(1, 4000))

        log.together(write, [(n,) for n in range(8)])
    log.wait(server)
