"""The API's TLS: the control plane's own certificate, and a client certificate where an administrator has one."""

from __future__ import annotations

import ssl
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

from control.serving_certificate import ServingCertificate
from control.tls_memory import load_chain


class Protocol(H11Protocol):
    """HTTP as uvicorn speaks it; requests are told the client certificate that TLS has verified, as
    `state.client_certificate` (DER)."""

    def connection_made(self, transport: Any) -> None:
        connection: ssl.SSLObject | None = transport.get_extra_info("ssl_object")
        shown = connection.getpeercert(binary_form=True) if connection is not None else None
        self.app_state = {**self.app_state, "client_certificate": shown}
        super().connection_made(transport)


def tls_context(certificate: ServingCertificate, administrators_pem: str) -> ssl.SSLContext:
    """A client need not show a certificate; one that it shows has to be of the administrators' CA."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.verify_mode = ssl.CERT_OPTIONAL
    context.load_verify_locations(cadata=administrators_pem)
    # No session is resumed: a certificate is verified at each connection.
    context.num_tickets = 0
    context.options |= ssl.OP_NO_TICKET
    use(certificate, context)
    return context


def use(certificate: ServingCertificate, context: ssl.SSLContext) -> None:
    """As it is now; for the handshakes from here on."""
    key, chain = certificate.key_and_chain()
    load_chain(context, chain, key)
