"""Requests a proxy's statistics, over mutual TLS; both ends know who the other is before any data is exchanged.

A proxy whose address is 127.0.0.1 is on the control plane's own host (nobody else reaches it there), where a listener
would conflict with an admin interface with --admin-port: that interface is asked directly, after it has been checked to
belong to this proxy.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import ssl
import threading
from typing import Any, Literal
from urllib.parse import urlencode

from control.ca.identities import Identities
from control.mesh.view import MeshView
from control.model.dataplane import ADMIN_HOST
from control.model.identity import Credential, Identity
from control.model.resource import Resource
from control.own_certificates.tls_memory import load_chain
from control.xds.render import admin

Form = Literal["text", "json", "prometheus"]

TIMEOUT_S = 5.0  # for each step: connecting, the handshake, more of the response
ANSWER_S = 15.0  # for the whole response; a proxy that trickles bytes would hold a thread for ever
# The response of a proxy with some hundreds of clusters has about one.
MAX_BYTES = 32 * 1024 * 1024


class NoWay(Exception):
    """The Dataplane as it is cannot be asked; the message says what it lacks."""


class NoAnswer(Exception):
    """The proxy was asked and did not respond, or somebody else did."""


def read(identities: Identities, view: MeshView, dataplane: Resource, text: str, form: Form) -> bytes:
    """`text`: a regular expression (RE2) for the wanted names; empty means all. Raises NoWay, NoAnswer."""
    networking, identity = dataplane.spec.networking, view.identity_of(dataplane)
    if networking.admin is None:
        raise NoWay(f"Dataplane {dataplane.name!r} has no networking.admin.port: set it")
    query = {"filter": text} if text else {}
    path = "/stats/prometheus" if form == "prometheus" else "/stats"
    if form == "json":
        query["format"] = "json"
    target = f"{path}?{urlencode(query)}" if query else path
    place = f"{networking.address}:{networking.admin.port}"
    try:
        if networking.address == ADMIN_HOST:
            return _read_local(networking.admin.port, f"{dataplane.mesh}.{dataplane.name}", target)
        if identity is None:
            raise NoWay(f"Dataplane {dataplane.name!r} has no identity: neither end could authenticate the other")
        if not admin.is_offered(networking):
            raise NoWay(f"Dataplane {dataplane.name!r} has no IP address as networking.address")
        context = _context(view, identity, identities.own(view.mesh, identity))
        return _read_remote(networking.address, networking.admin.port, context, identity, target)
    except (OSError, http.client.HTTPException) as error:
        hint = "is it running and connected?"
        if networking.address == ADMIN_HOST:
            hint += (
                f" At {ADMIN_HOST} only a proxy with --admin-port {networking.admin.port} answers: without it, give "
                "the Dataplane another address of this host, 127.0.0.2 for example"
            )
        raise NoAnswer(f"the proxy does not answer at {place} ({error}): {hint}") from error


def _context(view: MeshView, identity: Identity, own: Credential) -> ssl.SSLContext:
    """Trusts the CAs of the proxy's own trust domain, and presents the control plane's identity."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    # The name is a SPIFFE id, which is compared below.
    context.check_hostname = False
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    trusted = dict(view.trust_bundles).get(identity.trust_domain)
    if trusted is None:
        raise NoWay(f"there is no MeshTrust for {identity.trust_domain}")
    context.load_verify_locations(cadata=trusted)
    load_chain(context, own.chain_pem.encode(), own.key_pem.encode())
    return context


def _read_remote(host: str, port: int, context: ssl.SSLContext, identity: Identity, target: str) -> bytes:
    connection = http.client.HTTPSConnection(host, port, timeout=TIMEOUT_S, context=context)
    try:
        connection.connect()
        names = _uris(connection.sock)
        if names != [identity.spiffe_id]:
            raise NoAnswer(f"{host}:{port} is {', '.join(names) or 'nobody'}, not {identity.spiffe_id}")
        return _get(connection, target)
    finally:
        connection.close()


def _cut(connection: socket.socket, is_cut: threading.Event) -> None:
    """Cuts the connection. The flag is set first, since the reader may see the end at once."""
    is_cut.set()
    with contextlib.suppress(OSError):  # it has ended by itself
        connection.shutdown(socket.SHUT_RDWR)


def _uris(connection: Any) -> list[str]:
    shown = connection.getpeercert() or {}
    return [value for kind, value in shown.get("subjectAltName", ()) if kind == "URI"]


def _read_local(port: int, node_id: str, target: str) -> bytes:
    connection = http.client.HTTPConnection(ADMIN_HOST, port, timeout=TIMEOUT_S)
    try:
        try:
            found = json.loads(_get(connection, "/server_info"))["node"]["id"]
        except (ValueError, KeyError, TypeError) as error:
            raise NoAnswer(f"what listens on {ADMIN_HOST}:{port} is not an Envoy") from error
        if found != node_id:
            raise NoAnswer(f"what listens on {ADMIN_HOST}:{port} is the proxy {str(found)[:256]!r}, not {node_id!r}")
        return _get(connection, target)
    finally:
        connection.close()


def _get(connection: http.client.HTTPConnection, target: str) -> bytes:
    connection.request("GET", target)
    is_cut = threading.Event()
    late = threading.Timer(ANSWER_S, _cut, [connection.sock, is_cut])
    late.start()
    try:
        answer = connection.getresponse()
        body = answer.read(MAX_BYTES + 1)
    finally:
        late.cancel()
        if is_cut.is_set():
            raise NoAnswer(f"the proxy's answer took more than {ANSWER_S:g} s")
    if len(body) > MAX_BYTES:
        raise NoAnswer(f"the proxy's answer has more than {MAX_BYTES} bytes: use a filter")
    if not _is_whole(answer):
        raise NoAnswer("the proxy's answer ended in the middle")
    if answer.status != 200:
        raise NoAnswer(f"the proxy refuses: {answer.status} {body[:200].decode(errors='replace').strip()}")
    return body


def _is_whole(answer: http.client.HTTPResponse) -> bool:
    """Whether a response that was read to its end is complete: the library takes a cut for the end of the response."""
    return answer.chunked or answer.length == 0
