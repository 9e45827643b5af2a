"""Connections thrown away (SO_LINGER 0): the other end's next call fails with ECONNRESET."""

import log
from message import answer_all, ask


def serve(listener, connections):
    for _ in range(connections):
        connection, _ = listener.accept()
        try:
            answer_all(connection)
        except ConnectionResetError:
            connection.close()


def run():
    listener = log.listen()
    server = log.spawn(serve, listener, 40)
    for number in range(40):
        connection = log.connect(listener.getsockname())
        for i in range(number % 5):
            ask(connection, b"question %d" % i)
        connection.abort()
    log.wait(server)
