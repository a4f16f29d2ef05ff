"""Mesh: a world of its own. Meshes share nothing: no services, no trust, no policies."""

from __future__ import annotations

from collections.abc import Iterator

from control.model.base import Model
from control.model.violation import Violation


class MeshSpec(Model):
    """Kuma 3.0 keeps nothing in it: identities, TLS, tracing and logging are resources and policies of their own."""


def validate(spec: MeshSpec) -> Iterator[Violation]:  # noqa: ARG001 (one signature for all kinds)
    yield from ()
