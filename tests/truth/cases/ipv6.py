"""IPv6, and IPv4 clients of a server whose socket is IPv6."""

import socket

import log
from message import answer_all, ask


def serve(listener, connections):
    for _ in range(connections):
        answer_all(listener.accept()[0])


def needs():
    try:
        log.listen("::1").close()
    except OSError as error:
        return f"no IPv6 on loopback: {error}"
    return None


def run():
    six = log.listen("::1")
    both = log.Socket(socket.AF_INET6, socket.SOCK_STREAM)
    both.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    both.bind(("::", 0))
    both.listen()
    servers = [log.spawn(serve, six, 3), log.spawn(serve, both, 3)]
    for address in [("::1", six.getsockname()[1]), ("127.0.0.1", both.getsockname()[1])]:
        for number in range(3):
            with log.connect(address) as connection:
                for i in range(20):
                    ask(connection, b"%d: question %d" % (number, i))
    log.wait(*servers)
