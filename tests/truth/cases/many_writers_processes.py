"""Four processes that inherited one socket write to it at will: unlike threads of Python, really at once.

Most sends only queue (MSG_MORE), which is so quick that one may end between another's end and its report."""

import random
import socket

import log
from message import recv_to_end

RACING = True


def serve(listener):
    connection, _ = listener.accept()
    with connection:
        log.layout(connection, recv_to_end(connection, 300))


def write(connection, number, line):
    choose = random.Random(number)
    start = 0
    line.wait()
    for i in range(1500):
        if i % 100 == 0:
            line.next_turn()
        data = bytes([number << 5]) * choose.randint(1, 300)
        start += connection.send_as(number, start, data, socket.MSG_MORE if i % 20 else 0)
    connection.drop()


def run():
    listener = log.listen()
    server = log.spawn(serve, listener)
    with log.connect(listener.getsockname()) as connection:
        line = log.StartLine()
        writers = [log.spawn(write, connection, number, line) for number in range(4)]
        line.go(4)
        log.wait(*writers)
    log.wait(server)
