"""Eight threads write to one socket, one at a time: each holds a lock during its send."""

import random
import threading

import log
from message import recv_to_end


def serve(listener):
    connection, _ = listener.accept()
    with connection:
        recv_to_end(connection, 1000)


def run():
    listener = log.listen()
    server = log.spawn(serve, listener)
    lock = threading.Lock()
    with log.connect(listener.getsockname()) as connection:

        def write(number):
            choose = random.Random(number)
            for _ in range(100):
                with lock:
                    connection.send(bytes(choose.randint(1, 400)))

        log.together(write, [(n,) for n in range(8)])
    log.wait(server)
