"""The settings of `mesh serve`, each default with its reason; and the locations of its files."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

DEFAULT_DATA = Path("/var/lib/mesh")
# Kuma's ports, so that firewalls set up for Kuma fit.
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
    """Parses 127.0.0.1:5682, [::1]:5682, or either without the port. Raises ValueError."""
    host, colon, port = text.rpartition(":")
    if not colon or text.endswith("]") or (":" in host and not host.startswith("[")):
        host, port = text, str(default_port)
    if not port.isdigit() or not 0 <= int(port) <= 65535 or not host.strip("[]"):
        raise ValueError(f"{text!r} is not an address: use host:port, for example 127.0.0.1:{default_port}")
    return Address(host.strip("[]"), int(port))


@dataclass(frozen=True)
class Files:
    """The files in one folder, which only the control plane's user can read."""

    folder: Path

    @property
    def database(self) -> str:
        return f"sqlite:///{self.folder / 'mesh.db'}"

    @property
    def key(self) -> Path:
        return self.folder / "store.key"

    @property
    def admin_token(self) -> Path:
        """The token for `mesh` on the same host; created at the first start."""
        return self.folder / "admin.token"

    @property
    def ca(self) -> Path:
        """The CA of the control plane's own certificate: needed by proxies, and by `mesh` on other hosts."""
        return self.folder / "ca.pem"


class CannotServe(Exception):
    """The host or its configuration prevents the start; a restart does not help. The message says why."""


def data_folder(environment: Mapping[str, str] = os.environ) -> Path:
    return Path(environment.get("MESH_DATA", DEFAULT_DATA))


def write_private(path: Path, text: str) -> None:
    """Readable for the owner only, from its first byte on; replaces an existing file."""
    staged = path.with_name(f".{path.name}.new")
    staged.unlink(missing_ok=True)
    with os.fdopen(os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    staged.rename(path)
