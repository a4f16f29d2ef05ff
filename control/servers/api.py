"""The API's connections: the control plane's own certificate, a client certificate where an administrator has one, and
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

# From the beginning of a connection, or the end of the request before, to the end of the headers.
HEADERS_S = 10.0
# From there to the end of the body, which nobody may wait for any more; an administrator is told so shortly before.
BODY_S = BODY_TIMEOUT_S + 5
# Of a body that nobody waits for, as the request has been answered: the client may not have looked yet.
UNREAD_BYTES = 256 * 1024
# For some of an answer to be taken, when more than a few buffers of it wait.
ANSWER_S = 30.0


class Protocol(H11Protocol):
    """HTTP as uvicorn speaks it, with a time for each part of a request. Requests are told the client certificate that
    TLS has verified, as `state.client_certificate` (DER), and whom to tell that they have shown a credential that
    counts, as `state.authenticated`."""

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
        """The time begins when the part does: a byte now and then does not make it longer."""
        # A request after another one on the same connection is another part.
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
