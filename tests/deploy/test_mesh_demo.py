"""The mesh half of the demo: its resources, how it judges what it sees, and a small part of it for real."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from control.kinds import KINDS
from control.model import documents
from control.model.placement import UID_LABEL
from deploy.demo import __main__ as demo
from deploy.demo import progress
from deploy.demo.mesh import calls, compare, example, parts, result, show, steps
from deploy.demo.mesh.applications import application
from deploy.demo.mesh.calls import NO_ANSWER, Call
from deploy.demo.mesh.compare import Measured
from deploy.demo.mesh.example import Example
from deploy.demo.mesh.parts import Mesh
from deploy.demo.mesh.result import Step
from deploy.demo.traffic import traffic, wait_for_requests
from deploy.node.processes import NodeError, Processes
from deploy.node.waiting import wait_for

FILES = sorted(example.FOLDER.glob("*.yaml"))
SMALL = steps.Sizes(each=20, canary=300, background=20, down_seconds=0.5)


# --- resources --------------------------------------------------------------------------------------------------------


def test_every_resource_can_be_applied_as_it_stands() -> None:
    found = [one for path in FILES for one in documents.read(path.read_text(), str(path), KINDS)]
    assert {one.kind.type for one in found} == {
        "Mesh", "MeshIdentity", "Dataplane", "MeshService",
        "MeshOffload", "MeshTrafficPermission", "MeshHTTPRoute", "MeshTLS",
    }  # fmt: skip


def test_what_a_run_puts_in_of_its_own() -> None:
    here = Example("127.0.99.", Path("/run/mine.sock"))
    addresses = [one.spec.networking.address for one in here.dataplanes]
    assert addresses == [f"127.0.99.{number}" for number in (11, 12, 13, 14)]
    assert {one.labels[UID_LABEL] for one in here.dataplanes} == {str(os.getuid())}
    ports = {one.name: one.spec.networking.admin.port for one in here.dataplanes}
    assert ports == here.admin_ports
    assert len(set(ports.values())) == 4
    (offload,) = here.resources("offload", keyType="rsa2048")
    assert offload.spec.default.socket == "/run/mine.sock"
    assert offload.spec.default.key_type == "rsa2048"
    (envoy_tls,) = here.resources("envoy-tls")
    assert envoy_tls.spec.default.socket is None, "there is no daemon in that mode"


def test_two_runs_have_different_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    # Apart from those of a demo, or of this test, that may be running on this machine.
    first = 1000 + os.getpid()
    monkeypatch.setattr(example, "NETWORKS", range(first, first + 2))
    with ExitStack() as stack:
        found = {stack.enter_context(example.own_network()) for _ in range(2)}
        assert found == {f"127.0.{first}.", f"127.0.{first + 1}."}
        with pytest.raises(NodeError, match="in use by other runs"), example.own_network():
            pass
    with example.own_network() as again:
        assert again == f"127.0.{first}."


# --- counting and judging ---------------------------------------------------------------------------------------------


def test_what_a_step_must_not_get_is_a_failure() -> None:
    step = Step("canary", "canary")
    step.expect("web", {"200 prices-blue": 3, "403": 2}, steps.PRICES)
    assert step.as_data() == {"requests": 5, "failures": 2}
    assert result.problems([step]) == ["canary: web should get 200 prices-blue or 200 prices-green, and got {'403': 2}"]


@pytest.mark.parametrize("problems", [[], ["cart got in"]])
def test_the_exit_status_depends_on_every_step(problems: list[str], tmp_path: Path) -> None:
    done = Step("permission", "a permission", requests=5, failures=len(problems), problems=problems)
    found = demo.Found(mesh=show.Findings(steps=[Step("canary", "canary", 3), done]))
    with progress.console.capture() as captured:
        assert demo.conclude(found, tmp_path) is (not problems)
    report = json.loads((tmp_path / "report.json").read_text())
    assert report == {
        "canary": {"requests": 3, "failures": 0},
        "permission": {"requests": 5, "failures": len(problems)},
        "problems": [f"a permission: {problem}" for problem in problems],
    }
    assert ("no request of any step failed" in captured.get()) is (not problems)


def test_a_step_without_requests_is_a_problem() -> None:
    step = Step("canary", "canary")
    step.expect("web", {}, steps.PRICES)
    assert step.problems == ["web: there were no requests"]


def measured(**changes: int) -> Measured:
    return Measured(**({"connections": 100, "full_handshakes": 100, "signatures": 200, "seconds": 1} | changes))


@pytest.mark.parametrize(
    ("mode", "found", "problem"),
    [
        ("Offload", measured(), None),
        ("EnvoyTLS", measured(signatures=0), None),
        ("Offload", measured(full_handshakes=99), "99 full handshakes for 100 connections"),
        ("Offload", measured(resumed=3), "3 sessions were resumed"),
        ("Offload", measured(signatures=199), "199 signatures by the daemon instead of 200"),
        ("EnvoyTLS", measured(signatures=1), "1 signatures by the daemon instead of 0"),
    ],
)
def test_what_the_comparison_must_have_measured(mode: str, found: Measured, problem: str | None) -> None:
    step = Step("offload_against_envoy_tls", "comparison")
    compare.judge(step, mode, mode, found)
    assert [text.partition(": ")[2] for text in step.problems] == ([problem] if problem else [])


def test_cpu_is_per_connection() -> None:
    data = measured(envoy_ns=50_000_000, daemon_ns=10_000_000, seconds=2).as_data()
    assert data["envoys_cpu_us_per_connection"] == 500
    assert data["daemon_cpu_us_per_connection"] == 100
    assert data["cpu_us_per_connection"] == 600
    assert data["handshakes_per_s"] == 50


@pytest.mark.parametrize(
    ("received", "meaning"),
    [
        (b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\ncart x", "200 cart"),
        (b"HTTP/1.1 403 Forbidden\r\n\r\nRBAC: access denied", "403"),
        (b"HTTP/1.1 200 OK\r\ncontent-le", NO_ANSWER),
        (b"\x15\x03\x01", NO_ANSWER),
        (b"", NO_ANSWER),
    ],
)
def test_what_an_answer_is_counted_as(received: bytes, meaning: str) -> None:
    assert calls.meaning_of(received) == meaning


def test_nobody_there_is_no_answer() -> None:
    assert calls.answers(Call("x", "127.0.0.1", example.free_port()), 3) == {NO_ANSWER: 3}


def test_traffic_counts_every_request_and_ends() -> None:
    sent = []

    def once() -> Counter[str]:
        sent.append(1)
        return Counter(("yes",))

    others = set(threading.enumerate())
    with traffic(once, at_once=2) as counts:
        wait_for_requests(counts, 50)
    assert counts == {"yes": len(sent)}
    assert len(sent) >= 50
    assert set(threading.enumerate()) <= others
    with pytest.raises(NodeError, match="waiting for the moon"):
        wait_for("the moon", lambda: False, seconds=0.05)


async def test_applications_say_who_they_are_and_who_calls() -> None:
    server = await application("cart", 0)
    port = server.sockets[0].getsockname()[1]
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    # In two pieces, and a second request on the same connection.
    writer.write(b"GET / HTTP/1.1\r\nX-Forwarded-Client-Cert: URI=spiffe://a/web\r\n")
    await writer.drain()
    writer.write(b"\r\nGET / HTTP/1.1\r\nconnection: close\r\n\r\n")
    answers = (await reader.read()).decode()
    assert answers.count("HTTP/1.1 200 OK") == 2
    assert "cart X-Forwarded-Client-Cert: URI=spiffe://a/web" in answers
    writer.close()
    server.close()


# --- for real ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def mesh(tmp_path: Path) -> Iterator[Mesh]:
    with (
        tempfile.TemporaryDirectory(prefix="mesh-") as folder,  # a socket's path is short
        Processes(tmp_path) as processes,
        parts.running(processes, Path(folder)) as running,
    ):
        yield running


@pytest.mark.envoy
def test_permission_switch_and_hints(mesh: Mesh, monkeypatch: pytest.MonkeyPatch) -> None:
    for step in (steps.deny_by_default, steps.permission, steps.blue_green):
        done = step(mesh, SMALL)
        assert done.problems == []
        assert done.failures == 0
        assert done.requests >= SMALL.each
    # The same steps notice when it is not so: what was shut is open now.
    monkeypatch.setattr(Mesh, "answers_become", lambda *_: None)
    again = steps.deny_by_default(mesh, SMALL)
    assert any("web calls prices should get 403" in problem for problem in again.problems)
    assert any("`mesh inspect access` says" in problem for problem in again.problems)
    assert again.failures == 2 * SMALL.each

    with progress.console.capture() as captured:
        show.print_hints(mesh)
    said = captured.get()
    (url,) = re.findall(r"(http\S+)\s+web calls cart", said)
    (place,) = re.findall(r"//([\d.]+):(\d+)/", url)
    assert calls.answer(Call("", place[0], int(place[1]))) == steps.FROM_CART
    (settings,) = re.findall(r"export (.*)", said)
    environment = dict(os.environ) | dict(pair.split("=", 1) for pair in shlex.split(settings))
    (command,) = re.findall(r"mesh (inspect overview .*)", said)
    line = [sys.executable, "-c", "from control.cli import main; main()", *shlex.split(command), "-o", "json"]
    shown = subprocess.run(line, env=environment, capture_output=True, text=True, check=True).stdout
    assert json.loads(shown)["mode"] == "Offload"
    assert mesh.problems() == []


@pytest.mark.long
@pytest.mark.envoy
def test_the_whole_in_small(tmp_path: Path) -> None:
    """`make demo` runs it large."""
    line = [sys.executable, "-m", "deploy.demo", "--part", "mesh", "--quick", "--output", str(tmp_path / "demo")]
    done = subprocess.run(line, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((tmp_path / "demo" / "report.json").read_text())
    keys = ["deny_by_default", "permission", "canary", "blue_green", "permissive_to_strict", "ca_rotation",
            "control_plane_restart", "offload_against_envoy_tls", "keys_in_envoys", "problems"]  # fmt: skip
    assert list(report) == keys
    assert all(report[key]["failures"] == 0 for key in keys[:-1])
    assert report["canary"]["requests"] == 500
    assert report["keys_in_envoys"]["with_a_key"] == {"EnvoyTLS": 4, "Offload": 0}
