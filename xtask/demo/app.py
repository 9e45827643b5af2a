#!/usr/bin/env python3
"""The demo's application: a thread pool that answers HTTP with the help of redis.

One thread accepts connections and puts them on a queue, from which four workers take them. The queue lives
in this process's memory, so the kernel does not see which worker a connection goes to, nor why.

    app.py PORT REDIS_PORT MARK

`/slow` stops halfway through its answer, after making the file MARK, and goes on a minute later.
"""

import pathlib
import queue
import socket
import sys
import threading
import time

WORKERS = 4


class Redis:
    """One connection to redis, in its plain text protocol."""

    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.reader = self.socket.makefile("rb")

    def ask(self, command):
        """The one-line answer to a command, without what marks its type."""
        self.socket.sendall(command.encode() + b"\r\n")
        answer = self.reader.readline()
        if not answer.endswith(b"\r\n"):
            raise ConnectionError("redis went away")
        return answer[1:-2].decode()


def read_path(connection):
    """The path a request asks for; its headers are read and ignored."""
    with connection.makefile("rb") as reader:
        words = reader.readline().split()
        while reader.readline() not in (b"\r\n", b""):
            pass
    return words[1].decode() if len(words) > 1 else "/"


def answer(connection, redis, mark):
    path = read_path(connection)
    visits = int(redis.ask("INCR visits"))
    digits = sum(number * number for number in range(visits * 100))
    body = f"{path}: visit {visits}, computed {digits}\n".encode() * 10
    head = f"HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {len(body)}\r\n\r\n"
    half = len(body) // 2
    connection.sendall(head.encode() + body[:half])
    if path == "/slow":
        mark.touch()
        time.sleep(60)
    connection.sendall(body[half:])


def work(waiting, redis_port, mark):
    redis = Redis(redis_port)
    while True:
        with waiting.get() as connection:
            answer(connection, redis, mark)


def main():
    pathlib.Path("/proc/self/comm").write_text("app.py")  # else all is named after the interpreter
    port, redis_port, mark = int(sys.argv[1]), int(sys.argv[2]), pathlib.Path(sys.argv[3])
    waiting = queue.Queue()
    for _ in range(WORKERS):
        threading.Thread(target=work, args=(waiting, redis_port, mark), daemon=True).start()
    with socket.create_server(("127.0.0.1", port), backlog=64) as listener:
        while True:
            connection, _ = listener.accept()
            waiting.put(connection)


main()
