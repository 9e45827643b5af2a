"""sendmsg and recvmsg with several buffers at once, some of them empty or half filled."""

import random

import log


def serve(listener):
    connection, _ = listener.accept()
    choose = random.Random(3)
    with connection:
        while True:
            buffers = [bytearray(choose.randint(0, 300)) for _ in range(choose.randint(1, 6))] + [bytearray(5)]
            if connection.recvmsg_into(buffers)[0] == 0:
                break
            if not connection.recvmsg(choose.randint(1, 500))[0]:
                break


def run():
    listener = log.listen()
    server = log.spawn(serve, listener)
    choose = random.Random(4)
    with log.connect(listener.getsockname()) as connection:
        for _ in range(600):
            connection.sendmsg([bytes(choose.randint(0, 200)) for _ in range(choose.randint(1, 8))] + [b"end"])
    log.wait(server)
