"""What stands behind Envoy in the tests: an HTTP echo server and a TCP servers that half-close."""

from __future__ import annotations

import socket
import socketserver
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class HttpEcho(BaseHTTPRequestHandler):
    """Answers a POST with its body, a GET with the request's headers."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self._answer(body)

    def do_GET(self) -> None:
        self._answer("".join(f"{name}: {value}\n" for name, value in self.headers.items()).encode())

    def _answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        """Nothing per request."""


class ReverseAtEnd(socketserver.BaseRequestHandler):
    """Reads to the end of its input, then sends it back in reverse: an answer after a half-close."""

    def handle(self) -> None:
        received = bytearray()
        while piece := self.request.recv(65536):
            received += piece
        self.request.sendall(bytes(reversed(received)))


class FarewellAtOnce(socketserver.BaseRequestHandler):
    """Sends its answer and its end first, then counts what still comes in."""

    received: list[int] = []  # noqa: RUF012  (of the whole server: one entry per connection)

    def handle(self) -> None:
        self.request.sendall(b"farewell")
        self.request.shutdown(socket.SHUT_WR)
        count = 0
        while piece := self.request.recv(65536):
            count += len(piece)
        self.received.append(count)


class HttpServer(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256


class TcpServer(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 256


def serve(server: socketserver.TCPServer) -> int:
    """Serves in a thread; gives the port."""
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    port: int = server.server_address[1]
    return port
