"""A stream that passes 4 GiB, where 32-bit numbers begin anew, and messages on both sides of the seam."""

import log
from message import ask, recv_message, send_message

BULK = (4 << 30) - 3000
CHUNK = 4 << 20


def serve(listener):
    connection, _ = listener.accept()
    buffer = bytearray(CHUNK)
    with connection:
        left = BULK
        while left:
            left -= connection.recv_into(buffer, min(CHUNK, left))
        while (message := recv_message(connection)) is not None:
            send_message(connection, message[::-1])


def fill(connection):
    """Sends the bulk: the next byte stands 3,000 bytes before 4 GiB."""
    view = memoryview(bytes(CHUNK))
    left = BULK
    while left:
        left -= connection.send(view[:left])


def run():
    listener = log.listen()
    server = log.spawn(serve, listener)
    with log.connect(listener.getsockname()) as connection:
        fill(connection)
        for i in range(300):
            ask(connection, b"across the seam %d" % i)
    log.wait(server)
