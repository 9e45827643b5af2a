"""Questions and answers through a Unix socket, one thread at each end of each connection."""

import tempfile
import threading

import log
from message import answer_all, ask, framed, recv_message


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
        ask_from_file(connection, f"question of client {number}, from a file".encode())


def ask_from_file(connection, payload):
    """The same by sendfile, which lends the file's pages."""
    message, sent = framed(payload), 0
    with tempfile.TemporaryFile() as file:
        file.write(message)
        file.flush()
        while sent < len(message):
            sent += connection.sendfile(file, sent, len(message) - sent)
    if recv_message(connection) != payload[::-1]:
        raise ValueError("the answer is not to the question")


def run():
    listener = log.listen_unix()
    server = log.spawn(serve, listener, 8)
    log.together(client, [(n, listener.getsockname()) for n in range(8)])
    log.wait(server)
