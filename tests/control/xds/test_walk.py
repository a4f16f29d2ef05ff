"""The way from a view to a proxy's snapshot, as one reads it: how often it comes back to a file that was left.

A function counts when it is called first; it comes back where its file was entered before and no call of it is open.
The view is not counted: it is the value that everybody asks.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

from control.mesh.view import MeshView
from control.xds.builder import SnapshotBuilder

CONTROL = Path(__file__).parents[3] / "control"
# What docs/design/architecture.md says.
RETURNS = 6
MESH = """
type: MeshIdentity
name: identity
spec: {selector: {dataplane: {matchLabels: {}}}, provider: {type: Bundled, bundled: {autogenerate: {enabled: true}}}}
---
type: MeshService
name: backend
spec:
  selector: {dataplaneLabels: {matchLabels: {app: backend}}}
  ports: [{port: 80, targetPort: 8080, appProtocol: http}]
---
type: Dataplane
name: web-1
labels: {app: web, kuma.io/workload: web}
spec:
  networking:
    address: 10.0.0.1
    admin: {port: 9901}
    inbound: [{port: 8080, protocol: http}]
    outbound: [{port: 3000, backendRef: {kind: MeshService, name: backend, port: 80}}]
---
type: MeshTrafficPermission
name: p
spec: {rules: [{default: {allow: [{spiffeID: {type: Exact, value: spiffe://default.default.mesh.local/workload/web}}]}}]}
---
type: MeshMetric
name: m
spec: {default: {backends: [{type: Prometheus, prometheus: {port: 5670, path: /metrics}}]}}
"""


class Walk:
    """For sys.setprofile."""

    def __init__(self) -> None:
        self.entered: list[str] = []
        self.returns: list[tuple[str, str]] = []
        self._called: set[CodeType] = set()
        self._open: list[str | None] = []

    def __call__(self, frame: FrameType, event: str, _: Any) -> None:
        if event == "call":
            file, code = self._file(frame.f_code), frame.f_code
            if file is not None and not code.co_name.startswith("<") and code not in self._called:
                self._called.add(code)
                if file not in self.entered:
                    self.entered.append(file)
                elif file not in self._open:
                    self.returns.append((file, code.co_name))
            self._open.append(file)
        elif event == "return" and self._open:
            self._open.pop()

    @staticmethod
    def _file(code: CodeType) -> str | None:
        """Of the rooms on the way; without the model and the policies, which are the words that they speak."""
        path = Path(code.co_filename)
        if not path.is_relative_to(CONTROL):
            return None
        file = str(path.relative_to(CONTROL))
        return file if file.startswith(("mesh/", "xds/")) and file != "mesh/view.py" else None


def test_the_way_to_a_snapshot_comes_back_seldom(scenario: Callable[[str], MeshView]) -> None:
    view, builder, walk = scenario(MESH), SnapshotBuilder(), Walk()
    web, before = view.dataplanes[0], sys.getprofile()
    sys.setprofile(walk)
    try:
        builder.build(view, web, None)
    finally:
        sys.setprofile(before)
    parts = ["inbounds", "admin", "outbounds", "metrics", "endpoints"]
    assert [file for file in walk.entered if Path(file).stem in parts] == [f"xds/render/{part}.py" for part in parts]
    assert len(walk.returns) <= RETURNS, walk.returns
