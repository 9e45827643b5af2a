"""A connection whose descriptor goes to another process in the middle of its life (SCM_RIGHTS)."""

import array
import socket

import log
from message import recv_exactly

# What the second process did with it may have begun before the first was done, for all that the counts say.
MUST_SHARE = 0.3


def second(way, others):
    for other in others:
        other.drop()
    data, ancillary, *_ = way.recvmsg(100, socket.CMSG_SPACE(4))
    fds = array.array("i", ancillary[0][2])
    passed = log.Socket(socket.AF_UNIX, socket.SOCK_STREAM, fileno=fds[0])
    passed.resume(*data.decode().split("/"))
    for number in range(10):
        passed.sendall(f"second {number}".encode())
    passed.drop()


def run():
    reader, writer = log.pair("the stream")
    way, other = log.pair("the way", socket.SOCK_SEQPACKET)
    child = log.spawn(second, other, [reader, writer, way])
    for number in range(10):
        writer.sendall(f"first {number}".encode())
    sent = writer.sent
    told = f"{writer.endpoint}/{sent}".encode()
    way.sendmsg([told], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [writer.fileno()]))])
    writer.drop()
    recv_exactly(reader, sent)
    recv_exactly(reader, 80)
    log.wait(child)
