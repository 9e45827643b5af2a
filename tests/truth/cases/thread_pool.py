"""A server in which one thread receives and a pool answers: each answer is sent by whichever thread is free."""

import threading
from concurrent.futures import ThreadPoolExecutor

import log
from message import recv_message, send_message


def serve(listener, connections):
    def answer(connection, message):
        send_message(connection, message.upper())

    def read(connection, pool):
        with connection:
            while message := recv_message(connection):
                pool.submit(answer, connection, message).result()

    with ThreadPoolExecutor(4) as pool:
        readers = []
        for _ in range(connections):
            connection, _ = listener.accept()
            readers.append(threading.Thread(target=read, args=(connection, pool)))
            readers[-1].start()
        for reader in readers:
            reader.join()


def client(number, address):
    with log.connect(address) as connection:
        for i in range(25):
            send_message(connection, f"client {number} asks {i}".encode())
            recv_message(connection)


def run():
    listener = log.listen()
    server = log.spawn(serve, listener, 8)
    log.together(client, [(n, listener.getsockname()) for n in range(8)])
    log.wait(server)
