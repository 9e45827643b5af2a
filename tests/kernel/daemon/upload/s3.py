"""A store that speaks as much of S3 as an upload needs, and checks each request's signature as AWS does.

    s3.py FOLDER [CERTIFICATE KEY]

FOLDER/objects takes the objects, FOLDER/requests a line for each request, FOLDER/port says where it listens; and
FOLDER/mood says what it does: `well`, or `503`, `hang`.
"""

import hashlib
import hmac
import os
import ssl
import sys
import threading
import time
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

FOLDER = sys.argv[1]
ACCESS, SECRET = "AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
LOCK = threading.Lock()
PARTS = {}


def path(*names):
    return os.path.join(FOLDER, *names)


def mood():
    with open(path("mood")) as file:
        return file.read().strip()


def sign(key, text):
    return hmac.new(key, text.encode(), hashlib.sha256).digest()


def signature(request, body):
    """What the request's signature should be, and what it is (Signature Version 4)."""
    scheme, _, rest = request.headers["Authorization"].partition(" ")
    assert scheme == "AWS4-HMAC-SHA256", scheme
    fields = dict(field.strip().split("=", 1) for field in rest.split(","))
    access, date, region, service, end = fields["Credential"].split("/")
    assert (access, service, end) == (ACCESS, "s3", "aws4_request"), fields
    digest = request.headers["x-amz-content-sha256"]
    assert digest == hashlib.sha256(body).hexdigest(), "the body is another"
    names = fields["SignedHeaders"].split(";")
    assert "host" in names and "x-amz-content-sha256" in names, names
    where, _, query = request.path.partition("?")
    query = "&".join(sorted(part if "=" in part else part + "=" for part in query.split("&") if part))
    headers = "".join(f"{name}:{request.headers[name].strip()}\n" for name in names)
    asked = "\n".join([request.command, where, query, headers, fields["SignedHeaders"], digest])
    scope = "/".join([date, region, service, end])
    text = "\n".join([scheme, request.headers["x-amz-date"], scope, hashlib.sha256(asked.encode()).hexdigest()])
    key = ("AWS4" + SECRET).encode()
    for part in [date, region, service, end]:
        key = sign(key, part)
    return sign(key, text).hex(), fields["Signature"]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, status, body=b"", **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def note(self, how):
        with LOCK, open(path("requests"), "a") as file:
            file.write(f"{self.command} {self.path} {how}\n")

    def take(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        now = mood()
        if now == "503":
            self.note("503")
            return self.answer(503)
        if now == "hang":
            self.note("hang")
            while mood() == "hang":
                time.sleep(0.02)
            self.close_connection = True
            return None
        try:
            wanted, given = signature(self, body)
            assert wanted == given, f"{given} is not {wanted}"
        except Exception as error:
            self.note(f"unsigned: {error!r}")
            return self.answer(403, b"<Error><Code>SignatureDoesNotMatch</Code></Error>")
        self.note("signed")
        where, _, query = self.path.partition("?")
        return self.do(urllib.parse.unquote(where).lstrip("/"), dict(urllib.parse.parse_qsl(query, True)), body)

    do_PUT = do_POST = do_DELETE = do_GET = take

    def do(self, key, query, body):
        tag = '"' + hashlib.md5(body).hexdigest() + '"'
        if self.command == "PUT" and "uploadId" in query:
            with LOCK:
                PARTS.setdefault(query["uploadId"], {})[int(query["partNumber"])] = body
            return self.answer(200, ETag=tag)
        if self.command == "PUT":
            self.keep(key, body)
            return self.answer(200, ETag=tag)
        if self.command == "POST" and "uploads" in query:
            text = f"<InitiateMultipartUploadResult><UploadId>{time.time_ns()}</UploadId></InitiateMultipartUploadResult>"
            return self.answer(200, text.encode())
        if self.command == "POST" and "uploadId" in query:
            with LOCK:
                parts = PARTS.pop(query["uploadId"])
            self.keep(key, b"".join(parts[number] for number in sorted(parts)))
            text = f"<CompleteMultipartUploadResult><ETag>{tag}</ETag></CompleteMultipartUploadResult>"
            return self.answer(200, text.encode())
        if self.command == "DELETE" and "uploadId" in query:
            with LOCK:
                PARTS.pop(query["uploadId"], None)
            return self.answer(204)
        return self.answer(400)

    def keep(self, key, body):
        where = os.path.normpath(path("objects", key))
        assert where.startswith(path("objects") + os.sep), key
        os.makedirs(os.path.dirname(where), exist_ok=True)
        with open(where + ".part", "wb") as file:
            file.write(body)
        os.rename(where + ".part", where)


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_):
        """Whoever broke off was killed, or does not trust the certificate."""


server = Server(("127.0.0.1", int(os.environ.get("PORT", "0"))), Handler)
if len(sys.argv) > 2:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(sys.argv[2], sys.argv[3])
    # The handshake is the connection's own, so that one that fails holds up nobody.
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
with open(path("port.new"), "w") as file:
    file.write(str(server.server_address[1]))
os.rename(path("port.new"), path("port"))
server.serve_forever()
