"""The same two addresses, again and again: only what happens tells one connection from the next."""

import errno
import time

import log
from message import ask, recv_message, send_message


def serve(listener, connections):
    """Closes first when told goodbye, so that the waiting state is here and the client's port free at once."""
    for _ in range(connections):
        connection, _ = listener.accept()
        try:
            while message := recv_message(connection):
                send_message(connection, message[::-1])
        except ConnectionResetError:
            pass
        connection.close()


def connect_from(port, address):
    """The last connection's end may still wait for the answer to its FIN."""
    for _ in range(200):
        try:
            return log.connect(address, log.at_port(port))
        except OSError as error:
            if error.errno != errno.EADDRNOTAVAIL:
                raise
        time.sleep(0.01)
    return log.connect(address, log.at_port(port))


def run():
    listener = log.listen()
    server = log.spawn(serve, listener, 30)
    port = 0
    for number in range(30):
        connection = connect_from(port, listener.getsockname())
        port = connection.getsockname()[1]
        for i in range(number % 6 + 1):
            ask(connection, b"connection %d, question %d" % (number, i))
        if number % 2:
            connection.abort()
        else:
            send_message(connection, b"")
            assert recv_message(connection) is None
            connection.close()
    log.wait(server)
