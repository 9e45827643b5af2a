"""Multipath TCP: the stream goes over two paths at once, and has offsets of its own. And with an end that speaks only
TCP."""

import random
import socket

import log
from log import IPPROTO_MPTCP as MPTCP
import netns
from message import recv_exactly, recv_message, recv_to_end, send_message

A, A2, B, B2 = "10.79.1.1", "10.79.2.1", "10.79.1.2", "10.79.2.2"


def needs():
    if reason := netns.needs_links():
        return reason
    try:
        socket.socket(socket.AF_INET, socket.SOCK_STREAM, MPTCP).close()
    except OSError as error:
        return f"no MPTCP: {error}"
    return None




def listen(port, proto):
    listener = log.Socket(socket.AF_INET, socket.SOCK_STREAM, proto)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((A, port))
    listener.listen()
    return listener


def serve(port, proto, connections, ready):
    """Answers, then sends much, then waits for the end."""
    listener = listen(port, proto)
    ready.set()
    for _ in range(connections):
        connection, _ = listener.accept()
        with connection:
            while message := recv_message(connection, 900):
                send_message(connection, message[::-1])
            connection.sendall(bytes(2_000_000))
            recv_to_end(connection)


def ask(port, proto, connections):
    choose = random.Random(port)
    for number in range(connections):
        connection = log.Socket(socket.AF_INET, socket.SOCK_STREAM, proto)
        with connection:
            connection.connect((A, port))
            for _ in range(20):
                payload = bytes(choose.randint(1, 3000))
                send_message(connection, payload)
                connection.recv(3, socket.MSG_PEEK)
                recv_message(connection)
            send_message(connection, b"")
            recv_exactly(connection, 2_000_000, 100_000)
            connection.shutdown(socket.SHUT_WR)
            recv_to_end(connection)


def run():
    with netns.Net("a", "b") as net:
        net.link("a", A, "b", B)
        net.link("a", A2, "b", B2)
        for letter in "ab":
            netns.sh("ip", "-n", net.name(letter), "mptcp", "limits", "set", "subflow", "2", "add_addr_accepted", "2")
        netns.sh("ip", "-n", net.name("b"), "mptcp", "endpoint", "add", B2, "dev", "v1", "subflow")
        plays = [(7001, MPTCP, MPTCP), (7002, MPTCP, socket.IPPROTO_TCP), (7003, socket.IPPROTO_TCP, MPTCP)]
        for port, of_server, of_client in plays:
            ready = log.Flag()
            server = log.spawn(serve, port, of_server, 3, ready, inside=net.inside("a"))
            ready.wait()
            client = log.spawn(ask, port, of_client, 3, inside=net.inside("b"))
            log.wait(server, client)
