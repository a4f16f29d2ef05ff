"""The API's client side: where it is, with which token, and what an error of it says."""

from __future__ import annotations

import os
import ssl
from pathlib import Path
from typing import Any

import httpx

from control.settings import API_PORT, Files, data_folder

TIMEOUT_S = 30.0


class ApiError(Exception):
    """The control plane refused; the message is its own."""


class Unreachable(Exception):
    """The control plane is not there, or not to be trusted."""


class Api:
    """From the environment (MESH_API, MESH_TOKEN or MESH_TOKEN_FILE, MESH_CA), else from the control plane's files."""

    def __init__(self) -> None:
        files = Files(data_folder())
        self.address = os.environ.get("MESH_API", f"https://127.0.0.1:{API_PORT}")
        token = os.environ.get("MESH_TOKEN") or _read(
            Path(os.environ.get("MESH_TOKEN_FILE", files.admin_token)),
            "the administrator's token",
            "set MESH_TOKEN or MESH_TOKEN_FILE, or use the control plane's host as its user",
        )
        ca = os.environ.get("MESH_CA", str(files.ca))
        _read(Path(ca), "the control plane's CA", "copy ca.pem of its data folder here and set MESH_CA")
        headers = {"authorization": f"Bearer {token.strip()}"}
        context = ssl.create_default_context(cafile=ca)
        self._client = httpx.Client(base_url=self.address, verify=context, headers=headers, timeout=TIMEOUT_S)

    def call(self, method: str, path: str, body: object = None, **headers: str) -> Any:
        """The answer's JSON. Raises ApiError, Unreachable."""
        try:
            response = self._client.request(method, path, json=body, headers=headers)
        except httpx.TransportError as error:
            raise Unreachable(f"the control plane at {self.address} does not answer: {error}") from error
        try:
            data = response.json()
        except ValueError:
            raise Unreachable(f"what answers at {self.address} is not the control plane") from None
        if response.is_error:
            raise ApiError(str(data.get("detail", data)) if isinstance(data, dict) else str(data))
        return data

    def list(self, path: str) -> list[dict[str, Any]]:
        """All pages."""
        items: list[dict[str, Any]] = []
        after: str | None = ""
        while after is not None:
            page = self.call("GET", f"{path}?size=1000&after={after}")
            items += page["items"]
            after = page["next"]
        return items


def _read(path: Path, what: str, way_out: str) -> str:
    try:
        return path.read_text()
    except OSError as error:
        raise Unreachable(f"{what} cannot be read from {path} ({error.strerror}): {way_out}") from error
