"""Files sent with sendfile, which never reach the program's memory."""

import tempfile

import log
from message import recv_exactly, recv_to_end


def serve(listener, connections):
    with tempfile.TemporaryFile() as file:
        file.write(bytes(1_000_000))
        file.flush()
        for number in range(connections):
            connection, _ = listener.accept()
            with connection:
                for i in range(15):
                    offset, size = 1000 * i, 1 + 9973 * i * (number + 1) % 300_000
                    connection.sendall(size.to_bytes(4, "big"))
                    while size:
                        sent = connection.sendfile(file, offset, size)
                        offset, size = offset + sent, size - sent
                recv_to_end(connection)


def run():
    listener = log.listen()
    server = log.spawn(serve, listener, 4)
    for _ in range(4):
        with log.connect(listener.getsockname()) as connection:
            for _ in range(15):
                recv_exactly(connection, int.from_bytes(recv_exactly(connection, 4), "big"), 30_000)
    log.wait(server)
