"""Four threads read one socket at will; the bytes say where in the stream they stand."""

import random

import log

RACING = True
WORDS = 40_000


def serve(listener):
    connection, _ = listener.accept()

    def read(number):
        choose = random.Random(number)
        while connection.recv_counted(8 * choose.randint(3, 200)):
            pass

    log.together(read, [(n,) for n in range(4)])
    connection.close()


def run():
    listener = log.listen()
    server = log.spawn(serve, listener)
    choose = random.Random(5)
    with log.connect(listener.getsockname()) as connection:
        word = 0
        while word < WORDS:
            words = choose.randint(1, 150)
            connection.sendall(log.counted(word, words))
            word += words
    log.wait(server)
