"""A stream that had passed 4 GiB before anyone recorded: only the kernel's 64-bit counters know it."""

import log
from cases.past_4gib import fill, serve
from message import ask

OLDER = True
MUST_SHARE = 0.9  # a stream's first calls have no known end before them that proves their place


def run():
    listener = log.listen()
    server = log.spawn(serve, listener)
    with log.connect(listener.getsockname()) as connection:
        fill(connection)
        for i in range(200):
            ask(connection, b"before %d" % i)
        log.until_recorded()
        for i in range(200):
            ask(connection, b"after %d" % i)
    log.wait(server)
