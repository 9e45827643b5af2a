"""Two processes, `server` and `client`, that take turns over one TCP connection."""
import ctypes
import errno
import fcntl
import os
import select
import signal
import socket
import struct
import sys
import threading
import time
import traceback

SLOWNESS = int(os.environ.get("WHEREFORE_TEST_SLOWNESS", "1"))  # as in `tests::patience`
LOOPBACK = {socket.AF_INET: "127.0.0.1", socket.AF_INET6: "::1"}
libc = ctypes.CDLL(None, use_errno=True)


def rename(comm):
    """Names the calling thread."""
    libc.prctl(15, comm.encode(), 0, 0, 0)


def say(*words):
    os.write(1, (" ".join(str(word) for word in words) + "\n").encode())


def seen(call, *arguments):
    """What a call gives the program: a number, or the name of its errno."""
    try:
        result = call(*arguments)
    except OSError as error:
        return errno.errorcode[error.errno]
    return len(result) if isinstance(result, bytes) else result


def deafen(s):
    """Has the kernel drop what comes for a socket, as if it were lost on its way, until it hears again."""
    keep_no_byte = ctypes.create_string_buffer(struct.pack("HBBI", 6, 0, 0, 0))
    s.setsockopt(socket.SOL_SOCKET, 26, struct.pack("HP", 1, ctypes.addressof(keep_no_byte)))  # SO_ATTACH_FILTER


def hear(s):
    s.setsockopt(socket.SOL_SOCKET, 27, 0)  # SO_DETACH_FILTER


def retransmits(s):
    return s.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)[2] > 0


class Turns:
    """One side's end of two pipes, which the recorder does not look at."""

    def __init__(self, read, write):
        self.read, self.write = read, write

    def give(self, word="."):
        os.write(self.write, str(word).encode())

    def take(self):
        if not select.select([self.read], [], [], 10 * SLOWNESS)[0]:
            raise TimeoutError("the other side does not go on")
        return os.read(self.read, 100).decode()


def turns():
    # In packets, so that two words given in a row are taken one by one.
    (a_read, a_write), (b_read, b_write) = os.pipe2(os.O_DIRECT), os.pipe2(os.O_DIRECT)
    return Turns(a_read, b_write), Turns(b_read, a_write)


def child(comm, act):
    """Runs `act` in a process of that name; its number."""
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        rename(comm)
        act()
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(status)


def finish(*pids):
    """Waits for them; a process that failed fails the play."""
    if any([os.waitpid(pid, 0)[1] for pid in pids]):
        sys.exit("a player failed")


def reset_on_close(connection):
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def until(ready, what="it"):
    """Waits up to ten seconds for something that another CPU brings about."""
    for _ in range(10_000 * SLOWNESS):
        if ready():
            return
        time.sleep(0.001)
    raise TimeoutError(f"{what} did not come")


def queued(connection):
    """Bytes that wait to be read."""
    return struct.unpack("i", fcntl.ioctl(connection, 0x541B, b"\0\0\0\0"))[0]


def state(connection):
    """The kernel's number of the connection's state."""
    return connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]


ESTABLISHED, CLOSE, CLOSE_WAIT = 1, 7, 8


def play(server, client, family=socket.AF_INET):
    """`server` gets the accepted connection, `client` the connected one; the server says its port."""
    of_server, of_client = turns()

    def serve():
        listener = socket.socket(family)
        listener.bind((LOOPBACK[family], 0))
        listener.listen(8)
        port = listener.getsockname()[1]
        say("port", port)
        of_server.give(port)
        connection, _ = listener.accept()
        of_server.take()  # not before `connect` has returned
        listener.close()
        server(connection, of_server)

    def connect():
        connection = socket.socket(family)
        connection.connect((LOOPBACK[family], int(of_client.take())))
        of_client.give()
        client(connection, of_client)

    finish(child("server", serve), child("client", connect))
