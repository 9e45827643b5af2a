"""TCP Fast Open: bytes that go with the SYN, sent by a call that connects, by one after a `connect` that did nothing
yet, and answered by a server that accepts before the handshake is over."""

import os
import socket
import time

import log
import netns
from message import recv_exactly, recv_to_end

FASTOPEN_CONNECT, ADDRESS, CONNECTIONS = 30, "10.78.1.1", 6


def needs():
    return netns.needs_nft()


def may_open_fast():
    """Both ways, in the namespace that the process is in."""
    with open("/proc/sys/net/ipv4/tcp_fastopen", "w", encoding="ascii") as file:
        file.write("3")


def serve(listener):
    for _ in range(3 * CONNECTIONS):
        connection, _ = listener.accept()
        with connection:
            recv_exactly(connection, 7)
            connection.sendall(b"answer")
            recv_to_end(connection)


def serve_early(listener):
    """Accepts, receives and answers what came with the SYN, before the handshake is over."""
    early = [listener.accept()[0] for _ in range(CONNECTIONS)]
    for connection in early:
        recv_exactly(connection, 7)
        connection.sendall(b"answer")
    for connection in early:
        with connection:
            recv_to_end(connection)


def finish(connection):
    with connection:
        recv_exactly(connection, 6)
        connection.sendall(b"thanks")
        connection.shutdown(socket.SHUT_WR)
        recv_to_end(connection)


def ask(address):
    for flags in (0, socket.MSG_DONTWAIT):
        for _ in range(CONNECTIONS):  # the first one gets the cookie, the others send
            connection = log.Socket(socket.AF_INET, socket.SOCK_STREAM)
            finish(connection.connect_with(b"request", address, flags))
    for _ in range(CONNECTIONS):
        connection = log.connect(address, lambda c: c.setsockopt(socket.IPPROTO_TCP, FASTOPEN_CONNECT, 1))
        connection.sendall(b"request")
        finish(connection)


def run_server(port):
    may_open_fast()
    listener = log.listen(ADDRESS)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_FASTOPEN, 16)
    os.write(port, b"%d" % listener.getsockname()[1])
    serve(listener)
    serve_early(listener)
    if (opened := counted("TCPFastOpenPassive")) < 4 * CONNECTIONS - 2:
        raise RuntimeError(f"only {opened} connections were opened fast")


def counted(name):
    """A counter of the namespace."""
    with open("/proc/net/netstat", encoding="ascii") as file:
        names, values = (line.split() for line in file.readlines()[:2])
    return int(values[names.index(name)])


def run_client(port, asked, deaf):
    may_open_fast()
    address = ADDRESS, int(os.read(port, 9))
    ask(address)
    asked.set()
    deaf.wait()
    for connection in [log.Socket(socket.AF_INET, socket.SOCK_STREAM).connect_with(b"request", address, socket.MSG_DONTWAIT)
                       for _ in range(CONNECTIONS)]:
        finish(connection)


def run():
    reader, writer = os.pipe()
    asked, deaf = log.Flag(), log.Flag()
    with netns.Net("a", "b") as net:
        net.link("a", ADDRESS, "b", "10.78.1.2")
        children = [log.spawn(run_server, writer, inside=net.inside("a")),
                    log.spawn(run_client, reader, asked, deaf, inside=net.inside("b"))]
        asked.wait()
        # The client does not hear that its SYN was answered, until that is said again.
        netns.nft(net.name("b"), "add table ip deaf; add chain ip deaf input { type filter hook input priority 0; };"
                                 "add rule ip deaf input tcp flags & (syn | ack) == syn | ack drop")
        deaf.set()
        time.sleep(0.4)
        netns.nft(net.name("b"), "delete table ip deaf")
        log.wait(*children)
