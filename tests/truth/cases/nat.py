"""A router between two hosts that rewrites both addresses (masquerade and port forwarding): neither end sees
the other's address, and the program names the connection in its first bytes."""

import os

import log
import netns
from message import answer_all, ask, recv_message, send_message


def needs():
    return netns.needs_nft()


def serve(listening, inside):
    inside()
    listener = log.listen("10.78.2.2", 7000)
    listening.set()
    for _ in range(5):
        connection, _ = listener.accept()
        connection.name_connection(recv_message(connection).decode())
        answer_all(connection)


def client():
    for number in range(5):
        with log.connect(("10.78.1.1", 80)) as connection:
            name = f"{os.getpid()}-{number}"
            send_message(connection, name.encode())
            connection.name_connection(name)
            for i in range(30):
                ask(connection, b"question %d" % i)


def run():
    with netns.Net("a", "r", "b") as net:
        net.link("a", "10.78.1.2", "r", "10.78.1.1")
        net.link("r", "10.78.2.1", "b", "10.78.2.2")
        netns.sh("ip", "netns", "exec", net.name("r"), "sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")
        netns.nft(net.name("r"), """
            add table ip nat
            add chain ip nat pre { type nat hook prerouting priority -100; }
            add chain ip nat post { type nat hook postrouting priority 100; }
            add rule ip nat pre ip daddr 10.78.1.1 tcp dport 80 dnat to 10.78.2.2:7000
            add rule ip nat post ip daddr 10.78.2.2 masquerade
        """)
        listening = log.Flag()
        server = log.spawn(serve, listening, net.inside("b"))
        listening.wait()
        log.wait(log.spawn(client, inside=net.inside("a")), server)
