"""Listeners shared by processes: a port with a listener for each (SO_REUSEPORT), one listener inherited by all, and
one passed on through a Unix socket."""

import select
import socket

import log
from message import ask, recv_message, send_message

PROCESSES, CONNECTIONS = 3, 12


def serve(listener, stop, opened):
    """Answers one question on each connection, until the other end of `stop` is closed."""
    opened.close()
    listener.setblocking(False)
    while listener in select.select([listener, stop], [], [])[0]:
        try:
            connection, _ = listener.accept()
        except BlockingIOError:
            continue  # another process was faster
        with connection:
            while (message := recv_message(connection)) is not None:
                send_message(connection, message[::-1])


def take_over(channel, stop, opened):
    _, (fd,), _, _ = socket.recv_fds(channel, 1, 1)
    serve(log.Socket(fileno=fd), stop, opened)


def reuse_port(port=0):
    listener = log.Socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    listener.bind(("127.0.0.1", port))
    listener.listen(CONNECTIONS)
    return listener


def run():
    stop, opened = socket.socketpair()
    first = reuse_port()
    own = [first, *(reuse_port(first.getsockname()[1]) for _ in range(PROCESSES - 1))]
    inherited, passed = log.listen(), log.listen()
    here, there = socket.socketpair()
    children = [log.spawn(serve, listener, stop, opened) for listener in own]
    children += [log.spawn(serve, inherited, stop, opened) for _ in range(PROCESSES)]
    children.append(log.spawn(take_over, there, stop, opened))
    socket.send_fds(here, [b"."], [passed.fileno()])
    for listener in (first, inherited, passed):
        address = listener.getsockname()
        log.together(lambda number: ask_some(address, number), ((number,) for number in range(CONNECTIONS)))
    opened.close()
    log.wait(*children)


def ask_some(address, number):
    with log.connect(address) as connection:
        for i in range(number % 3):
            ask(connection, b"question %d" % i)
