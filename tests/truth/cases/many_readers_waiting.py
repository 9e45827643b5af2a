"""Racing readers that each wait for more than there is (MSG_WAITALL): while one waits, another takes what comes, so
one receive's bytes lie in several places."""

import random
import socket
import time

import log

RACING = True
WORDS = 20_000


def read(connection, number, start):
    choose = random.Random(number)
    start.wait()
    while connection.recv_counted(8 * choose.randint(20, 200), socket.MSG_WAITALL):
        pass
    connection.drop()


def serve(listener, ready):
    connection, _ = listener.accept()
    start = log.StartLine()
    readers = [log.spawn(read, connection, number, start) for number in range(3)]
    start.go(3)
    ready.set()
    log.wait(*readers)
    connection.close()


def run():
    listener = log.listen()
    ready = log.Flag()
    server = log.spawn(serve, listener, ready)
    choose = random.Random(7)
    with log.connect(listener.getsockname()) as connection:
        ready.wait()
        word = 0
        while word < WORDS:
            words = choose.randint(1, 60)
            connection.sendall(log.counted(word, words))
            word += words
            if choose.random() < 0.2:
                time.sleep(0.0002)  # so that readers wait
    log.wait(server)
