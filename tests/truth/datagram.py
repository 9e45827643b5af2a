"""A UDP socket that notes its calls. What goes from one address to another counts as a stream of its own, of which each
message is the next piece: true where nothing is lost or overtaken, as on loopback with few messages at a time."""

import itertools
import os
import socket
import threading

import log

_numbers = itertools.count()


class Datagrams:
    def __init__(self, host="127.0.0.1"):
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.socket = socket.socket(family, socket.SOCK_DGRAM)
        self.socket.bind((host, 0))
        self.socket.settimeout(20)
        self.address = self.socket.getsockname()
        self.peers = {}

    def connect(self, address):
        self.socket.connect(address)
        return self

    def close(self):
        self.socket.close()

    def send(self, data):
        self._note("send", self.socket.getpeername(), self.socket.send, data)

    def sendto(self, data, address):
        self._note("send", address, self.socket.sendto, data, address)

    def recv(self, size=2000):
        return self._note("recv", self.socket.getpeername(), self.socket.recv, size)

    def recvfrom(self, size=2000):
        """Data and address."""
        before = log.now()
        data, address = self.socket.recvfrom(size)
        self._write("recv", address, before, len(data))
        return data, address

    def _note(self, op, address, function, *args):
        before = log.now()
        value = function(*args)
        self._write(op, address, before, len(value) if op == "recv" else value)
        return value

    def _write(self, op, address, before, length):
        after = log.now()
        key = log.address_text(address)
        if key not in self.peers:
            self.peers[key] = {"endpoint": f"{os.getpid()}.d{next(_numbers)}", "send": 0, "recv": 0}
            log.write(op="endpoint", endpoint=self.peers[key]["endpoint"], time=before,
                      local=log.address_text(self.address), remote=key, protocol="udp")
        peer = self.peers[key]
        start = peer[op]
        peer[op] += length
        log.write(op=op, endpoint=peer["endpoint"], pid=os.getpid(), tid=threading.get_native_id(),
                  ranges=[[start, start + length]], result=length, error=None, before=before, after=after)
