"""A server with a thread per connection, and clients that are threads of one process."""

import threading

import log
from message import answer_all, ask


def serve(listener, connections):
    threads = []
    for _ in range(connections):
        connection, _ = listener.accept()
        threads.append(threading.Thread(target=answer_all, args=(connection,)))
        threads[-1].start()
    for thread in threads:
        thread.join()


def client(number, address):
    with log.connect(address) as connection:
        for i in range(20):
            ask(connection, f"question {i} of client {number}".encode())


def run():
    listener = log.listen()
    server = log.spawn(serve, listener, 16)
    log.together(client, [(n, listener.getsockname()) for n in range(16)])
    log.wait(server)
