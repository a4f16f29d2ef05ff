"""MeshIdentities, and a clock that tests set."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from control.ca.authority import generate
from control.model.identity import Identity
from control.model.resource import Resource

Read = Callable[[str], list[Resource]]
ID = Identity("spiffe://shop.default.mesh.local/workload/cart", "shop.default.mesh.local", "identity")
BUNDLED = "provider: {type: Bundled, bundled: {%s}}"


class Clock:
    def __init__(self) -> None:
        self.now = datetime.now(UTC).replace(microsecond=0)

    def __call__(self) -> datetime:
        return self.now


def identity(read: Read, bundled: str = "autogenerate: {enabled: true}") -> list[Resource]:
    spec = f"{{selector: {{dataplane: {{}}}}, {BUNDLED % bundled}}}"
    return read(f"type: Mesh\nname: shop\n---\ntype: MeshIdentity\nname: identity\nmesh: shop\nspec: {spec}")


def from_files(folder: Path) -> str:
    sources = ", ".join(
        f"{name}: {{type: File, file: {{path: {folder / path}}}}}"
        for name, path in (("certificate", "ca.pem"), ("privateKey", "ca.key"))
    )
    return f"ca: {{{sources}}}"


def write_ca(folder: Path, now: datetime) -> str:
    """Its certificate."""
    certificate, key = generate("shop.default.mesh.local", now).to_pem()
    (folder / "ca.pem").write_text(certificate)
    (folder / "ca.key").write_text(key)
    return certificate
