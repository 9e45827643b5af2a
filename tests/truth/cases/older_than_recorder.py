"""Connections that carried bytes before anyone recorded, one with a receive that was already waiting."""

import log
from message import answer_all, ask, recv_message, send_message

OLDER = True
MUST_SHARE = 0.9  # a stream's first calls have no known end before them that proves their place


def serve(listener, connections):
    log.together(answer_all, [(listener.accept()[0],) for _ in range(connections)])


def run():
    listener = log.listen()
    server = log.spawn(serve, listener, 6)
    connections = [log.connect(listener.getsockname()) for _ in range(6)]
    for number, connection in enumerate(connections[:4]):  # two have carried nothing yet
        for i in range(number * 7 + 1):
            ask(connection, b"x" * (i * 111 + 1))
    send_message(connections[0], b"sent before, answered before, received after")
    log.until_recorded()
    recv_message(connections[0])
    for connection in connections:
        for i in range(20):
            ask(connection, b"now it is recorded %d" % i)
    for connection in connections:
        connection.close()
    log.wait(server)
