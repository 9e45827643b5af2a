"""TLS on both sides. The programs move the ciphertext themselves (MemoryBIO), so they know every call."""

import os
import shutil
import ssl
import subprocess
import tempfile
import threading

import log


def needs():
    return None if shutil.which("openssl") else "no openssl command in PATH to make a certificate with"


def certificate(folder):
    key, cert = os.path.join(folder, "key.pem"), os.path.join(folder, "cert.pem")
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
                    "-keyout", key, "-out", cert, "-days", "2", "-subj", "/CN=truth"], check=True, capture_output=True)
    return key, cert


class Secured:
    """A TLS object over a socket: what it wants sent is sent, what it lacks is received."""

    def __init__(self, connection, context, **how):
        self.connection = connection
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, **how)
        self.call(self.tls.do_handshake)

    def call(self, function, *args):
        while True:
            try:
                value = function(*args)
                self.flush()
                return value
            except ssl.SSLWantReadError:
                self.flush()
                data = self.connection.recv(4096)
                if data:
                    self.incoming.write(data)
                else:
                    self.incoming.write_eof()

    def flush(self):
        if self.outgoing.pending:
            self.connection.sendall(self.outgoing.read())

    def read(self):
        try:
            return self.call(self.tls.read, 2000)
        except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
            return b""

    def write(self, data):
        self.call(self.tls.write, data)


def serve(listener, context, connections):
    def handle(connection):
        secured = Secured(connection, context, server_side=True)
        while data := secured.read():
            secured.write(data[::-1])
        connection.close()

    threads = []
    for _ in range(connections):
        threads.append(threading.Thread(target=handle, args=(listener.accept()[0],)))
        threads[-1].start()
    for thread in threads:
        thread.join()


def client(number, address, context):
    with log.connect(address) as connection:
        secured = Secured(connection, context, server_hostname="truth")
        for i in range(20):
            message = b"secret %d of %d " % (i, number) * (i + 1)
            secured.write(message)
            answer = b""
            while len(answer) < len(message):
                answer += secured.read()


def run():
    with tempfile.TemporaryDirectory() as folder:
        key, cert = certificate(folder)
        server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server_side.load_cert_chain(cert, key)
        client_side = ssl.create_default_context(cafile=cert)
        listener = log.listen()
        server = log.spawn(serve, listener, server_side, 5)
        log.together(client, [(n, listener.getsockname(), client_side) for n in range(5)])
        log.wait(server)
