"""What `mesh serve` can be told, each default with its reason; and where its files are."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

DEFAULT_DATA = Path("/var/lib/mesh")
# Kuma's ports, so that firewalls that know Kuma know this.
XDS_PORT = 5678
NODES_PORT = 5679
API_PORT = 5682


@dataclass(frozen=True)
class Address:
    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_address(text: str, default_port: int) -> Address:
    """Of 127.0.0.1:5682, [::1]:5682, or either without the port. Raises ValueError."""
    host, colon, port = text.rpartition(":")
    if not colon or text.endswith("]") or (":" in host and not host.startswith("[")):
        host, port = text, str(default_port)
    if not port.isdigit() or not 0 <= int(port) <= 65535 or not host.strip("[]"):
        raise ValueError(f"{text!r} is not an address: use host:port, for example 127.0.0.1:{default_port}")
    return Address(host.strip("[]"), int(port))


@dataclass(frozen=True)
class Files:
    """In one folder, which only the control plane's user can read."""

    folder: Path

    @property
    def database(self) -> str:
        return f"sqlite:///{self.folder / 'mesh.db'}"

    @property
    def key(self) -> Path:
        return self.folder / "store.key"

    @property
    def admin_token(self) -> Path:
        """For `mesh` on the same host; made at the first start."""
        return self.folder / "admin.token"

    @property
    def ca(self) -> Path:
        """Of the control plane's own certificate: what proxies and `mesh` elsewhere need."""
        return self.folder / "ca.pem"


class CannotServe(Exception):
    """The host or its configuration forbids to start; starting again does not help. The message says why."""


def data_folder(environment: Mapping[str, str] = os.environ) -> Path:
    return Path(environment.get("MESH_DATA", DEFAULT_DATA))


def write_private(path: Path, text: str) -> None:
    """Readable for the owner only, from its first byte on; replaces what is there."""
    staged = path.with_name(f".{path.name}.new")
    staged.unlink(missing_ok=True)
    with os.fdopen(os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    staged.rename(path)
