from __future__ import annotations

import http.client
import sys
from pathlib import Path

from deploy.demo.backend import GREETING
from deploy.node.processes import Processes


def test_answers_on_a_connection_that_stays(tmp_path: Path) -> None:
    port_file = tmp_path / "port"
    with Processes(tmp_path) as processes:
        process = processes.start("backend", [sys.executable, "-m", "deploy.demo.backend", port_file])
        process.wait_until(port_file.is_file, "ready")
        connection = http.client.HTTPConnection("127.0.0.1", int(port_file.read_text()), timeout=5)
        for _ in range(3):
            connection.request("GET", "/")
            answer = connection.getresponse()
            assert answer.status == 200
            assert answer.read() == GREETING
        connection.close()
