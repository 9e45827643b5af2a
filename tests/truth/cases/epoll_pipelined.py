"""An epoll server; clients send several requests at once and cut them anywhere."""

import random
import selectors
import struct

import log
from message import framed, recv_exactly


def requests_in(buffer):
    """Takes the whole requests off the front of a buffer."""
    out = []
    while len(buffer) >= 4 and len(buffer) >= 4 + (size := struct.unpack_from("!I", buffer)[0]):
        out.append(bytes(buffer[4:4 + size]))
        del buffer[:4 + size]
    return out


def serve(listener, connections):
    selector = selectors.EpollSelector()
    listener.setblocking(False)
    selector.register(listener, selectors.EVENT_READ)
    buffers, done = {}, 0
    while done < connections:
        for key, _ in selector.select():
            if key.fileobj is listener:
                connection, _ = listener.accept()
                connection.setblocking(False)
                selector.register(connection, selectors.EVENT_READ)
                buffers[connection] = bytearray()
                continue
            connection = key.fileobj
            data = connection.recv(700)
            if not data:
                selector.unregister(connection)
                connection.close()
                done += 1
                continue
            buffers[connection] += data
            if answers := requests_in(buffers[connection]):
                connection.send(b"".join(framed(a) for a in answers))


def client(number, address):
    choose = random.Random(number)
    with log.connect(address) as connection:
        for _ in range(15):
            payloads = [choose.randbytes(choose.randint(1, 200)) for _ in range(choose.randint(1, 8))]
            stream = b"".join(framed(p) for p in payloads)
            while stream:
                cut = choose.randint(1, 300)
                connection.sendall(stream[:cut])
                stream = stream[cut:]
            for payload in payloads:
                size = struct.unpack("!I", recv_exactly(connection, 4, choose.randint(1, 4)))[0]
                assert recv_exactly(connection, size, choose.randint(1, 128)) == payload


def run():
    listener = log.listen()
    server = log.spawn(serve, listener, 6)
    log.together(client, [(n, listener.getsockname()) for n in range(6)])
    log.wait(server)
