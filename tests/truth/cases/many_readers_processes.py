"""Four processes that inherited one socket read it at will: unlike threads of Python, really at once.

Everything has arrived before they begin, so that none waits for the writer; they wait for each other instead, to meet
in the kernel, where one's receive may end between another's end and its report."""

import array
import fcntl
import random
import socket
import termios
import time

import log

RACING = True
SIZE = 800_000
SO_RCVBUFFORCE = 33  # beyond net.core.rmem_max, which is less than this on most machines


def read(connection, number, start):
    choose = random.Random(number)
    start.wait()
    start.next_turn()
    count = 0
    while connection.recv_counted(8 * choose.randint(3, 30)):
        count += 1
        if count % 100 == 0:
            start.next_turn()
    connection.drop()


def waiting(connection):
    """How many bytes have arrived and are not read."""
    count = array.array("i", [0])
    fcntl.ioctl(connection.fileno(), termios.FIONREAD, count)
    return count[0]


def serve(listener):
    connection, _ = listener.accept()
    while waiting(connection) < SIZE:
        time.sleep(0.001)
    start = log.StartLine()
    readers = [log.spawn(read, connection, number, start) for number in range(4)]
    start.go(4)
    log.wait(*readers)
    connection.close()


def run():
    listener = log.listen()
    listener.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 4 * SIZE)  # what is accepted inherits it
    server = log.spawn(serve, listener)
    choose = random.Random(6)
    data = log.counted(0, SIZE // 8)
    with log.connect(listener.getsockname()) as connection:
        position = 0
        while position < SIZE:
            size = 8 * choose.randint(3, 30)
            connection.sendall(data[position:position + size], socket.MSG_MORE if position + size < SIZE else 0)
            position += size
    log.wait(server)
