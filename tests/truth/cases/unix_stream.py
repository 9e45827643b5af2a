"""Questions and answers through a Unix socket, one thread at each end of each connection."""

import threading

import log
from message import answer_all, ask


def serve(listener, connections):
    threads = []
    for _ in range(connections):
        connection, _ = listener.accept()
        threads.append(threading.Thread(target=answer_all, args=(connection, 7)))
        threads[-1].start()
    for thread in threads:
        thread.join()


def client(number, address):
    with log.connect_unix(address) as connection:
        for i in range(20):
            ask(connection, f"question {i} of client {number}".encode() * (1 + i % 3))


def run():
    listener = log.listen_unix()
    server = log.spawn(serve, listener, 8)
    log.together(client, [(n, listener.getsockname()) for n in range(8)])
    log.wait(server)
