"""HTTP/1.1 keep-alive with the standard library's server and client: many requests on one connection."""

import http.client
import http.server

import log

REQUESTS = 60


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # the answer's head and body are one send

    def do_GET(self):
        body = self.path.encode() * 10
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Server(http.server.HTTPServer):
    def shutdown_request(self, request):
        request.close()


def serve(listener, connections):
    server = Server(listener.getsockname(), Handler, bind_and_activate=False)
    server.socket.close()
    server.socket = listener
    for _ in range(connections):
        server.handle_request()


def client(address):
    connection = http.client.HTTPConnection(*address)
    connection.sock = log.connect(address)
    for i in range(REQUESTS):
        connection.request("GET", f"/page/{i}")
        assert connection.getresponse().read() == f"/page/{i}".encode() * 10
    connection.sock.close()
    connection.close()


def run():
    listener = log.listen()
    server = log.spawn(serve, listener, 4)
    for _ in range(4):
        client(listener.getsockname())
    log.wait(server)
