"""Names looked up as by a stub resolver: each from a socket of its own, of a server that asks another one."""

import log
from datagram import Datagrams

MUST_SHARE = 0.0


def authority(server, questions):
    for _ in range(questions):
        name, address = server.recvfrom()
        server.sendto(name + bytes(16), address)


def cache(server, upstream, questions):
    for _ in range(questions):
        name, address = server.recvfrom()
        own = Datagrams().connect(upstream)
        own.send(name)
        answer = own.recv()
        own.close()
        server.sendto(answer, address)


def look_up(number, address):
    for i in range(10):
        own = Datagrams().connect(address)
        own.send(bytes(20 + number + i))
        own.recv()
        own.close()


def run():
    upstream, server = Datagrams(), Datagrams()
    children = [log.spawn(authority, upstream, 60), log.spawn(cache, server, upstream.address, 60)]
    log.together(look_up, [(number, server.address) for number in range(6)])
    log.wait(*children)
