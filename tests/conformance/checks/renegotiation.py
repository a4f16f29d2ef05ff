"""Renegotiation: never, and the client is told so (RFC 5746)."""

from __future__ import annotations

from typing import Any

from tlslite.constants import ContentType, ExtensionType

from tests.conformance.check import Run, checks
from tests.conformance.client import Client, request, talk
from tests.conformance.hello import RENEGOTIATION_INFO, drop, edited, extension, put, vector
from tests.conformance.rig import Target

REFUSED = "alert no_renegotiation"
SCSV = 0x00FF


def _again(edit: Any = None, served: bool = False) -> Run:
    """The first hello once more, behind the handshake; before or after a request was `served`."""

    def run(target: Target) -> str:
        hellos: list[Any] = []

        def hook(client: Client, hello: Any) -> None:
            hellos.append(hello)
            client.handshake(bytes(hello.write()))

        def then(client: Client) -> str:
            if served and not (first := request(client)).startswith("TLS"):
                return f"before it: {first}"
            if edit is not None:
                edit(hellos[0])
            client.record(ContentType.handshake, bytes(hellos[0].write()))
            return request(client)

        return talk(target, "1.2", {"client_hello": hook}, then)

    return run


def _insecure(hello: Any) -> None:
    """Without anything that ties it to the first handshake."""
    hello.cipher_suites.remove(SCSV)
    drop(hello, RENEGOTIATION_INFO)


def _offered(how: Any) -> Run:
    """Does the server say that it knows secure renegotiation?"""

    def look(client: Client) -> str:
        assert client.server_hello is not None
        answer = client.server_hello.getExtension(ExtensionType.renegotiation_info)
        said = "nothing" if answer is None else "empty" if bytes(answer.extData) == b"\x00" else "something else"
        return f"{request(client)}, {said}"

    def hook(client: Client, hello: Any) -> None:
        how(hello)
        client.handshake(bytes(hello.write()))

    return lambda target: talk(target, "1.2", {"client_hello": hook}, look)


def _by_extension(hello: Any) -> None:
    hello.cipher_suites.remove(SCSV)
    hello.extensions.append(extension(RENEGOTIATION_INFO, b"\x00"))


CHECKS = checks(
    "renegotiation",
    ("client begins one", "RFC 5746 4.5, RFC 9325 3.5", REFUSED, _again()),
    ("client begins one after a request", "RFC 5746 4.5, RFC 9325 3.5", REFUSED, _again(served=True)),
    ("client begins an insecure one", "RFC 5746 4.5", REFUSED, _again(_insecure)),
    (
        "renegotiation_info answered, by the cipher suite",
        "RFC 5746 3.6",
        "TLS 1.2, empty",
        _offered(lambda _hello: None),
    ),
    ("renegotiation_info answered, by the extension", "RFC 5746 3.6", "TLS 1.2, empty", _offered(_by_extension)),
    ("renegotiation_info not sent to who knows nothing of it", "RFC 5746 3.6", "TLS 1.2, nothing", _offered(_insecure)),
    (
        "renegotiation_info says that this is one",
        "RFC 5746 3.6",
        "alert handshake_failure",
        edited("1.2", lambda hello: put(hello, RENEGOTIATION_INFO, vector(bytes(12), 1))),
    ),
    (
        "renegotiation_info is malformed",
        "RFC 5746 3.2",
        ("alert decode_error", "alert handshake_failure"),
        edited("1.2", lambda hello: put(hello, RENEGOTIATION_INFO, b"\x05\x00")),
    ),
)
