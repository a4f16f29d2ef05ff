"""The HTTP service behind the demo's Envoy. Run as a module, it serves until SIGTERM.

python -m deploy.demo.backend PORT_FILE: binds a free port of 127.0.0.1 and writes it to PORT_FILE.
"""

from __future__ import annotations

import os
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

GREETING = b"Hello from behind Envoy.\n"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # keep-alive, so that Envoy's connection pool is effective
    wbufsize = -1  # header and body leave in one segment

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/plain")
        self.send_header("content-length", str(len(GREETING)))
        self.end_headers()
        self.wfile.write(GREETING)

    def log_message(self, format: str, *arguments: object) -> None:
        """Logs nothing per request."""


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256


def serve(port_file: Path) -> None:
    server = Server(("127.0.0.1", 0), Handler)
    # Renamed into place: whoever finds the file finds the whole number.
    staged = port_file.with_suffix(".new")
    staged.write_text(str(server.server_port))
    os.replace(staged, port_file)
    server.serve_forever()


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
