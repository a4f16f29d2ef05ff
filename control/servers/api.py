"""The API's connections: the control plane's own certificate, an optional client certificate of an administrator, and
how long a request may take."""

from __future__ import annotations

import asyncio
import ssl
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from control.own_certificates.serving import ServingCertificate
from control.own_certificates.tls_memory import load_chain
from control.rest.limits import BODY_TIMEOUT_S
from control.servers.listener import Connection

# Time from the start of a connection, or the end of the previous request, to the end of the headers.
HEADERS_S = 10.0
# Time from there to the end of the body, after which nobody waits for it; shortly before, the administrator is told.
BODY_S = BODY_TIMEOUT_S + 5
# Bytes of a body that nobody waits for, since the request has been answered: the client may not have noticed yet.
UNREAD_BYTES = 256 * 1024
# Time for some of a response to be read, while more than a few buffers of it wait.
ANSWER_S = 30.0


class Protocol(H11Protocol):
    """HTTP as in uvicorn, with a time limit for each part of a request. Requests get the client certificate that TLS
    has verified, as `state.client_certificate` (DER), and the function to call once they have shown a valid credential,
    as `state.authenticated`."""

    def __init__(self, *arguments: Any, connection: Connection, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self._connection = connection
        self._part: object = None
        self._unread = 0
        self._timer: asyncio.TimerHandle | None = None
        self._answer_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        tls: ssl.SSLObject | None = transport.get_extra_info("ssl_object")
        shown = tls.getpeercert(binary_form=True) if tls is not None else None
        authenticated = self._connection.authenticated
        self.app_state = {**self.app_state, "client_certificate": shown, "authenticated": authenticated}
        super().connection_made(transport)
        self._time_part()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.conn.their_state is h11.SEND_BODY and self.cycle.response_complete:
            self._unread += len(data)
            if self._unread > UNREAD_BYTES:
                self._end()
        self._time_part()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._time_part()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        for timer in (self._timer, self._answer_timer):
            if timer is not None:
                timer.cancel()
        self._timer = self._answer_timer = None
        self._connection.lost()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._answer_timer = self.loop.call_later(ANSWER_S, self._end)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._answer_timer is not None:
            self._answer_timer.cancel()
            self._answer_timer = None

    def _time_part(self) -> None:
        """Starts the time of a part when the part starts: a byte now and then does not extend it."""
        # The next request on the same connection is a new part.
        part = (self.conn.their_state, self.cycle)
        if part == self._part:
            return
        self._part = part
        if self._timer is not None:
            self._timer.cancel()
        seconds = {h11.IDLE: HEADERS_S, h11.SEND_BODY: BODY_S}.get(self.conn.their_state)
        self._timer = self.loop.call_later(seconds, self._end) if seconds is not None else None

    def _end(self) -> None:
        self.transport.abort()


def tls_context(certificate: ServingCertificate, administrators_pem: str) -> ssl.SSLContext:
    """A client need not present a certificate; one that it presents must come from the administrators' CA."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.verify_mode = ssl.CERT_OPTIONAL
    context.load_verify_locations(cadata=administrators_pem)
    # Sessions are never resumed: a certificate is verified at each connection.
    context.num_tickets = 0
    context.options |= ssl.OP_NO_TICKET
    use(certificate, context)
    return context


def use(certificate: ServingCertificate, context: ssl.SSLContext) -> None:
    """Loads the certificate as it is now, for future handshakes."""
    key, chain = certificate.key_and_chain()
    load_chain(context, chain, key)
