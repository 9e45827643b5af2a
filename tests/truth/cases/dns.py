"""Names looked up as by a stub resolver: each from a socket of its own, of a server that asks another one."""

import log
from datagram import Datagrams

MUST_SHARE = 0.0


def authority(server, questions):
    for _ in range(questions):
        name, address = server.recvfrom()
        server.sendto(name + bytes(16), address)


def cache(server, upstream, questions):
    # A port that is given again would be the same way to the server, but not to its asker: none is closed before the end.
    used = []
    for _ in range(questions):
        name, address = server.recvfrom()
        own = Datagrams().connect(upstream)
        used.append(own)
        own.send(name)
        answer = own.recv()
        server.sendto(answer, address)
    for own in used:
        own.close()


def look_up(number, address, used):
    for i in range(10):
        own = Datagrams().connect(address)
        used.append(own)
        own.send(bytes(20 + number + i))
        own.recv()


def run():
    upstream, server = Datagrams(), Datagrams()
    children = [log.spawn(authority, upstream, 60), log.spawn(cache, server, upstream.address, 60)]
    used = []
    log.together(look_up, [(number, server.address, used) for number in range(6)])
    for own in used:
        own.close()
    log.wait(*children)
