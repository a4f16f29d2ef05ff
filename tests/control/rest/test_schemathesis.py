"""A real `mesh serve`, fuzzed over TLS by its own description (OpenAPI): it never fails, and answers as it says.

What is sent is made of the description: half of it as it allows, half of it not. Checked are: no answer of 500 and
above, only statuses, content types, headers and bodies that the description has, what it forbids is refused, nobody
gets in without a token, and methods that it does not have are refused.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import CHECKS, load_all_checks
from schemathesis.config import SchemathesisConfig
from schemathesis.core.result import Ok

from tests.control.mesh_process import ControlPlane
from tests.control.resources import MESH_WITH_IDENTITY

# Validation says more than a schema can (what goes with what), so what a schema allows may be refused.
NOT_CHECKED = ("positive_data_acceptance",)

RESOURCES = (
    MESH_WITH_IDENTITY
    + """---
type: Dataplane
name: a
labels: {app: web, kuma.io/workload: web}
spec: {networking: {address: 127.0.0.1, inbound: [{port: 21380, servicePort: 21381, protocol: http}]}}
"""
)


class Server:
    def __init__(self, mesh: ControlPlane) -> None:
        self.mesh = mesh
        self.address = f"https://127.0.0.1:{mesh.api}"
        self.session = requests.Session()
        self.ca = str(mesh.data / "ca.pem")
        token = (mesh.data / "admin.token").read_text().strip()
        self.headers = {"Authorization": f"Bearer {token}"}
        self.statuses: Counter[int] = Counter()
        load_all_checks()
        self.checks = [check for check in CHECKS.get_all() if check.__name__ not in NOT_CHECKED]
        self.schema = schemathesis.openapi.from_url(
            f"{self.address}/openapi.json", verify=self.ca, config=SchemathesisConfig(seed=1)
        )
        self.schema.validate()

    def operations(self) -> Iterator[Any]:
        for result in self.schema.get_all_operations():
            assert isinstance(result, Ok), result
            yield result.ok()

    def fuzz(self, operation: Any, examples: int) -> None:
        """What is allowed is about things that are there: the mesh `default` and what is called `a` in it."""
        known = {"mesh": "default", "name": "a", "kind": "dataplane"}
        if operation.path == "/meshes/{name}":
            known["name"] = "default"
        parameters = {name: known[name] for name in known if "{" + name + "}" in operation.path}
        allowed = operation.as_strategy(GenerationMode.POSITIVE, path_parameters=parameters)
        # A proxy that is asked for its statistics may not be there: 502, which is no fault of the server.
        is_ours = not operation.path.endswith("/stats")
        checks = [check for check in self.checks if is_ours or check.__name__ != "not_a_server_error"]
        forbidden = operation.as_strategy(GenerationMode.NEGATIVE)

        @seed(7)
        @settings(
            max_examples=examples,
            deadline=None,
            database=None,
            phases=(Phase.generate,),
            suppress_health_check=list(HealthCheck),
        )
        @given(case=st.one_of(allowed, forbidden))
        def one(case: Any) -> None:
            if case.method == "DELETE" and operation.path == "/meshes/{name}":
                # Everything else would be about nothing without it.
                case.path_parameters = {"name": "other"}
            elif case.method == "PUT" and case.meta.generation.mode is GenerationMode.POSITIVE:
                # Which name it is, a schema cannot say.
                case.body["name"] = case.path_parameters["name"]
                if "mesh" in case.body:
                    case.body["mesh"] = "default"
            answer = case.call_and_validate(
                base_url=self.address,
                session=self.session,
                headers=self.headers,
                checks=checks,
                verify=self.ca,
                timeout=30,
            )
            self.statuses[answer.status_code] += 1

        one()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    mesh = ControlPlane(tmp_path_factory.mktemp("fuzz"))
    mesh.start()
    mesh.output("apply", "-m", "default", "-f", "-", stdin=RESOURCES)
    yield Server(mesh)
    assert mesh.stop() == 0
    log = (mesh.folder / "serve.log").read_text()
    assert "Traceback" not in log, log


def fuzz_all(server: Server, examples: int) -> None:
    failures, seen = [], 0
    for operation in server.operations():
        seen += 1
        try:
            server.fuzz(operation, examples)
        except BaseExceptionGroup as failure:  # all of them are shown, not only the first
            failures.append(f"{operation.label}\n{failure}\n" + "\n".join(map(str, getattr(failure, "exceptions", ()))))
    assert seen > 70
    assert {200, 201, 400, 404} <= server.statuses.keys(), "it got through to what it is about"
    assert not failures, "\n\n".join(failures)


@pytest.mark.slow(seconds=33)
def test_every_operation(server: Server) -> None:
    fuzz_all(server, 4)


@pytest.mark.long
def test_every_operation_for_longer(server: Server) -> None:
    fuzz_all(server, 40)
