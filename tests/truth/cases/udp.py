"""Questions and answers by UDP: one socket that serves all, clients whose sockets are connected and clients whose are not."""

import log
from datagram import Datagrams

MUST_SHARE = 0.0  # nothing proves which datagram it was


def serve(server, questions):
    for _ in range(questions):
        data, address = server.recvfrom()
        server.sendto(data[::-1], address)


def client(number, address):
    own = Datagrams()
    if number % 2:
        own.connect(address)
    for i in range(20):
        question = bytes(1 + (number * 31 + i * 7) % 900)
        if number % 2:
            own.send(question)
            own.recv()
        else:
            own.sendto(question, address)
            own.recvfrom()
    own.close()


def run():
    server = Datagrams()
    child = log.spawn(serve, server, 8 * 20)
    log.together(client, [(number, server.address) for number in range(8)])
    log.wait(child)
