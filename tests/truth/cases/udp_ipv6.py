"""The same with IPv6, all of one length: only their order tells them apart."""

import log
from datagram import Datagrams

MUST_SHARE = 0.0


def serve(server, questions):
    for _ in range(questions):
        data, address = server.recvfrom()
        server.sendto(data, address)


def run():
    server = Datagrams("::1")
    child = log.spawn(serve, server, 100)
    own = Datagrams("::1")
    for _ in range(20):
        for _ in range(5):
            own.sendto(bytes(64), server.address)
        for _ in range(5):
            own.recvfrom()
    own.close()
    log.wait(child)
