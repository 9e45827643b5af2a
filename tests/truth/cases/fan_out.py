"""One coordinator asks ten processes at once and waits for all of them, again and again."""

import log
from message import answer_all, recv_message, send_message


def work(listener):
    connection, _ = listener.accept()
    answer_all(connection)


def run():
    listeners = [log.listen() for _ in range(10)]
    workers = [log.spawn(work, listener) for listener in listeners]
    connections = [log.connect(listener.getsockname()) for listener in listeners]
    for i in range(30):
        for connection in connections:
            send_message(connection, b"round %d" % i)
        for connection in connections:
            recv_message(connection)
    for connection in connections:
        connection.close()
    log.wait(*workers)
