"""The demo's clients: curl, openssl s_client, and the load generator."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy.demo.backend import GREETING
from deploy.load import tools

SECONDS = 20


@dataclass(frozen=True)
class Visit:
    """One handshake by one real client."""

    client: str
    listener: str
    problem: str | None  # None: as expected


def curl(listener: str, port: int, ca_file: Path, http2: bool) -> Visit:
    """One verified request; the body and the HTTP version must be right."""
    version = "2" if http2 else "1.1"
    line = ["curl", "--noproxy", "*", "--silent", "--show-error", "--max-time", str(SECONDS), "--cacert", str(ca_file)]
    line += ["--http2" if http2 else "--http1.1", "--write-out", "%{http_version} %{http_code}"]
    line.append(f"https://localhost:{port}/")
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    wanted = f"{GREETING.decode()}{version} 200"
    problem = None if done.stdout == wanted else f"{done.stdout.strip()} {done.stderr.strip()}".strip()
    return Visit(f"curl HTTP/{version}", listener, problem)


def s_client(listener: str, port: int, ca_file: Path, version: str) -> Visit:
    """One verified handshake of OpenSSL's own client, with TLS "1.2" or "1.3"."""
    line = ["openssl", "s_client", "-connect", f"localhost:{port}", "-CAfile", str(ca_file)]
    line += ["-verify_return_error", "-verify_hostname", "localhost", "-tls1_" + version.removeprefix("1.")]
    done = subprocess.run(line, input="", capture_output=True, text=True, timeout=SECONDS, check=False)
    good = done.returncode == 0 and f"TLSv{version}" in done.stdout and "Verify return code: 0 (ok)" in done.stdout
    last = (done.stderr.strip().splitlines() or ["no message"])[-1]
    return Visit(f"openssl s_client TLS {version}", listener, None if good else last)


def visits(listener: str, port: int, ca_file: Path) -> Sequence[Visit]:
    """One visit by every kind of client."""
    return (
        curl(listener, port, ca_file, http2=False),
        curl(listener, port, ca_file, http2=True),
        s_client(listener, port, ca_file, "1.3"),
        s_client(listener, port, ca_file, "1.2"),
    )


def load(port: int, ca_file: Path, connections: int) -> dict[str, Any]:
    """New TLS 1.3 connections, each verified and each with one request."""
    return tools.tlsload(
        f"127.0.0.1:{port}",
        count=connections,
        concurrency=50,
        tls="1.3",
        alpn="http/1.1",
        sni="localhost",
        ca=ca_file,
        get="/",
        histogram=True,
    )
