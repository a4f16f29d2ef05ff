"""One connection of a scraper: bytes in, requests out, bytes back. No I/O and no clock; h11 knows HTTP.

What a peer can make this hold is bounded: a request head of at most HEAD_MAX bytes, no body, and one response, whose
body is shared by all connections. The next request is not read before the response to the last one is sent.
"""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus

import h11

HEAD_MAX = 8 * 1024  # a scraper's is below 500 bytes
PATHS = (b"/metrics", b"/")
TEXT = "text/plain; charset=utf-8"


@dataclass(frozen=True)
class Page:
    """The response to a scrape."""

    body: bytes
    content_type: str
    encoding: str | None = None


@dataclass(frozen=True)
class Scrape:
    """A scraper's request; `accept` and `accept_encoding` as it sent them."""

    accept: str
    accept_encoding: str


class Exchange:
    """Feed it with `receive`; then `next_scrape` says whether there is a request to answer with `answer`.

    `output` is the data to send, oldest first; `ended` says that the connection is to be closed once that is sent.
    """

    def __init__(self) -> None:
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=HEAD_MAX)
        self._request: h11.Request | None = None
        self.output: list[memoryview] = []
        self.ended = False
        self.malformed = False

    def receive(self, data: bytes) -> None:
        """Takes data from the peer; empty if it has ended its side."""
        try:
            self._http.receive_data(data)
        except h11.RemoteProtocolError:
            self.ended = True  # more data after its end

    def next_scrape(self) -> Scrape | None:
        """The next complete request for the metrics. Other requests are answered here."""
        while not self.ended and not self.output:
            try:
                event = self._http.next_event()
            except h11.RemoteProtocolError as error:
                self._refuse(error.error_status_hint, "not an HTTP request for metrics\n")
                return None
            if isinstance(event, h11.Request):
                self._request = event
            elif isinstance(event, h11.Data):
                self._refuse(413, "requests must have no body\n")
            elif isinstance(event, h11.EndOfMessage) and self._request is not None:
                if (scrape := self._read(self._request)) is not None:
                    return scrape
            else:
                self.ended = event is not h11.NEED_DATA
                return None
        return None

    def answer(self, page: Page) -> None:
        encoding = [("Content-Encoding", page.encoding)] if page.encoding else []
        self._respond(200, page.body, page.content_type, [*encoding, ("Vary", "Accept, Accept-Encoding")])

    def fail(self) -> None:
        """Reports that nothing could be rendered."""
        self._respond(500, b"the metrics cannot be rendered; see the daemon's log\n", TEXT)

    def sent(self) -> None:
        """All output was sent: continues with the next request, if the connection stays open."""
        if not self.ended:
            self._http.start_next_cycle()
            self._request = None

    def _read(self, request: h11.Request) -> Scrape | None:
        if request.method not in (b"GET", b"HEAD"):
            self._respond(405, b"metrics are read with GET\n", TEXT, [("Allow", "GET, HEAD")])
            return None
        if request.target.partition(b"?")[0] not in PATHS:
            self._respond(404, b"metrics are at /metrics\n", TEXT)
            return None
        given = {name: value.decode("latin-1") for name, value in request.headers}
        return Scrape(given.get(b"accept", ""), given.get(b"accept-encoding", ""))

    def _refuse(self, status: int, why: str) -> None:
        self.malformed = True
        if self._http.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            self._respond(status, why.encode(), TEXT, [("Connection", "close")])
        self.ended = True

    def _respond(self, status: int, body: bytes, content_type: str, more: list[tuple[str, str]] | None = None) -> None:
        headers = [("Content-Type", content_type), ("Content-Length", str(len(body))), *(more or [])]
        head = self._http.send(h11.Response(status_code=status, reason=HTTPStatus(status).phrase, headers=headers))
        self.output.append(memoryview(head or b""))
        if self._request is None or self._request.method != b"HEAD":
            # Bypasses h11, which would copy the body for each connection.
            parts = self._http.send_with_data_passthrough(h11.Data(data=body)) or []
            self.output += [memoryview(part) for part in parts]
        self._http.send(h11.EndOfMessage())
        self.ended = self._http.our_state is not h11.DONE or self._http.their_state is not h11.DONE
