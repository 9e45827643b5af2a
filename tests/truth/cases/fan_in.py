"""Twenty processes report to one collector, which reads whichever is ready."""

import selectors

import log
from message import recv_message, send_message


def collect(listener, connections):
    selector = selectors.DefaultSelector()
    for _ in range(connections):
        connection, _ = listener.accept()
        selector.register(connection, selectors.EVENT_READ)
    while selector.get_map():
        for key, _ in selector.select():
            if recv_message(key.fileobj) is None:
                selector.unregister(key.fileobj)
                key.fileobj.close()


def report(number, address):
    with log.connect(address) as connection:
        for i in range(15):
            send_message(connection, b"%d of %d" % (i, number))


def run():
    listener = log.listen()
    collector = log.spawn(collect, listener, 20)
    reporters = [log.spawn(report, n, listener.getsockname()) for n in range(20)]
    log.wait(collector, *reporters)
