"""The client side of the API: its address, its credentials, and the meaning of its errors."""

from __future__ import annotations

import ipaddress
import os
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import httpx

from control.cli.output import warn_if_exposed
from control.settings import API_PORT, Files, data_folder

TIMEOUT_S = 30.0


def _is_near(address: str) -> bool:
    """Whether an address names this host or a private network."""
    try:
        host = urlsplit(address).hostname or ""
    except ValueError:
        return False
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        found = ipaddress.ip_address(host)
    except ValueError:
        return False
    return found.is_private or found.is_loopback or found.is_link_local


class ApiError(Exception):
    """The control plane refused; the message is its own."""


class Unreachable(Exception):
    """The control plane cannot be reached, or cannot be trusted."""


class Api:
    """Settings come from the environment (MESH_API, MESH_CA; MESH_TOKEN, MESH_TOKEN_FILE, or MESH_CERTIFICATE with
    MESH_KEY), else from the control plane's files."""

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        files = Files(data_folder(environment))
        self.address = environment.get("MESH_API", f"https://127.0.0.1:{API_PORT}")
        ca = environment.get("MESH_CA", str(files.ca))
        _read(Path(ca), "the control plane's CA", "copy ca.pem of its data folder here and set MESH_CA")
        try:
            context = ssl.create_default_context(cafile=ca)
        except ssl.SSLError as error:
            raise Unreachable(f"{ca} contains no certificates (PEM): {error.reason or error}") from error
        headers = {}
        certificate, key = environment.get("MESH_CERTIFICATE"), environment.get("MESH_KEY")
        if certificate and not environment.get("MESH_TOKEN"):
            _show_certificate(context, certificate, key)
        else:
            headers["authorization"] = f"Bearer {_token(files, environment)}"
        self._client = httpx.Client(
            base_url=self.address,
            verify=context,
            headers=headers,
            timeout=TIMEOUT_S,
            # A proxy named in the environment is for remote hosts: it cannot reach this host's own addresses.
            trust_env=not _is_near(self.address),
        )

    def call(self, method: str, path: str, body: object = None, **headers: str) -> Any:
        """Returns the response's JSON. Raises ApiError, Unreachable."""
        return self._checked(self._request(method, path, body, headers))

    def text(self, path: str) -> str:
        """Like `call`, for a response that is not JSON."""
        response = self._request("GET", path, None, {})
        if response.is_error:
            self._checked(response)
        return response.text

    def _request(self, method: str, path: str, body: object, headers: dict[str, str]) -> httpx.Response:
        try:
            return self._client.request(method, path, json=body, headers=headers)
        except (httpx.TransportError, httpx.InvalidURL) as error:
            raise Unreachable(f"the control plane at {self.address} does not answer: {_cause(error)}") from error

    def _checked(self, response: httpx.Response) -> Any:
        try:
            data = response.json()
        except ValueError:
            raise Unreachable(f"what answers at {self.address} is not the control plane") from None
        if response.is_error:
            raise ApiError(str(data.get("detail", data)) if isinstance(data, dict) else str(data))
        return data

    def list(self, path: str) -> list[dict[str, Any]]:
        """Collects all pages."""
        items: list[dict[str, Any]] = []
        after: str | None = ""
        while after is not None:
            page = self.call("GET", f"{path}?size=1000&after={quote(after, safe='')}")
            items += page["items"]
            after = page["next"]
        return items


def _cause(error: BaseException) -> str:
    """The cause in words: the system's own reason, which the client's message only repeats with its number."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return (
                f"its certificate is not issued by this CA, or not for this name ({cause.verify_message}); check "
                f"MESH_CA"
            )
        if isinstance(cause, OSError) and cause.strerror and not isinstance(cause, ssl.SSLError):
            return cause.strerror.lower()
        cause = cause.__cause__ or cause.__context__
    return str(error)


def segment(text: str) -> str:
    """Encodes a name, whatever its characters, as one segment of a path."""
    return quote(text, safe="")


def _token(files: Files, environment: Mapping[str, str]) -> str:
    token = environment.get("MESH_TOKEN") or _read(
        Path(environment.get("MESH_TOKEN_FILE", files.admin_token)),
        "the administrator's token",
        "set MESH_TOKEN, MESH_TOKEN_FILE, or MESH_CERTIFICATE and MESH_KEY, or be the control plane's user on its host",
        is_secret=True,
    )
    return token.strip()


def _show_certificate(context: ssl.SSLContext, certificate: str, key: str | None) -> None:
    way_out = "see mesh generate admin-certificate"
    _read(Path(certificate), "the client certificate", way_out, is_secret=key is None)
    if key is not None:
        _read(Path(key), "the client certificate's key", way_out, is_secret=True)
    try:
        context.load_cert_chain(certificate, key)
    except ssl.SSLError as error:
        raise Unreachable(f"{certificate} and {key or 'its key'} cannot be used: {error.reason or error}") from error


def _read(path: Path, what: str, way_out: str, is_secret: bool = False) -> str:
    try:
        text = path.read_text()
        if is_secret:
            warn_if_exposed(path)
        return text
    except OSError as error:
        raise Unreachable(f"{what} cannot be read from {path} ({error.strerror}): {way_out}") from error
