"""An HTTP/2 client that does as it is told, right or wrong: frames by hand (hyperframe), headers by hpack."""

from __future__ import annotations

import contextlib
import select
import socket
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import hpack
from hyperframe.frame import (
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SERVICE = "/offload.v1.PrivateKeyService/"


def grpc_frame(message: bytes, flag: int = 0) -> bytes:
    return struct.pack(">BI", flag, len(message)) + message


def headers(method: str, **changes: str | None) -> list[tuple[str, str]]:
    fields: dict[str, str | None] = {
        ":method": "POST",
        ":scheme": "http",
        ":path": SERVICE + method,
        ":authority": "localhost",
        "content-type": "application/grpc",
        "te": "trailers",
    }
    fields.update({name.replace("_", "-") if name[0] != ":" else name: value for name, value in changes.items()})
    return [(name, value) for name, value in fields.items() if value is not None]


@dataclass
class Answer:
    """What came on one stream until it ended."""

    headers: dict[str, str] = field(default_factory=dict)
    data: bytes = b""
    reset: int | None = None
    ended: bool = False

    @property
    def status(self) -> str | None:
        return self.headers.get("grpc-status")

    def messages(self) -> Iterator[bytes]:
        rest = self.data
        while rest:
            (size,) = struct.unpack(">I", rest[1:5])
            assert len(rest) >= 5 + size, "message cut short"
            yield rest[5 : 5 + size]
            rest = rest[5 + size :]


class RawClient:
    def __init__(self, connection: socket.socket, settings: dict[int, int] | None = None) -> None:
        self.socket = connection
        self.socket.settimeout(20)
        self.encoder, self.decoder = hpack.Encoder(), hpack.Decoder()
        self.next_stream = 1
        self.received = b""
        self.answers: dict[int, Answer] = {}
        self.goaway: GoAwayFrame | None = None
        self.pings: list[bytes] = []
        self.unacknowledged: list[bytes] = []
        self.windows: dict[int, int] = {}
        self.closed = False
        self.socket.sendall(PREFACE + SettingsFrame(0, settings or {}).serialize())

    def __enter__(self) -> RawClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, *frames: Frame | bytes) -> None:
        self.socket.sendall(b"".join(f if isinstance(f, bytes) else f.serialize() for f in frames))

    def send_while_reading(self, *frames: Frame) -> None:
        """For more than the sockets hold: the server stops reading while its answers do not leave."""
        data = b"".join(frame.serialize() for frame in frames)
        while data:
            readable, writable, _ = select.select([self.socket], [self.socket], [], 60)
            assert readable or writable, "the server neither reads nor writes"
            if readable:
                assert self.step() is not None, "the connection was closed"
            elif writable:
                data = data[self.socket.send(data) :]

    def request(self, fields: Iterable[tuple[str, str]], flags: Iterable[str] = ("END_HEADERS",)) -> HeadersFrame:
        frame = HeadersFrame(self.next_stream, self.encoder.encode(list(fields)), flags=list(flags))
        self.next_stream += 2
        return frame

    def open(self, method: str, **changes: str | None) -> int:
        frame = self.request(headers(method, **changes))
        self.send(frame)
        return int(frame.stream_id)

    def data(self, stream: int, data: bytes, *, end: bool = False) -> None:
        pieces = [data[i : i + 16384] for i in range(0, len(data), 16384)] or [b""]
        for number, piece in enumerate(pieces):
            last = end and number == len(pieces) - 1
            self.send(DataFrame(stream, piece, flags=["END_STREAM"] if last else []))

    def call(self, method: str, message: bytes) -> Answer:
        stream = self.open(method)
        self.data(stream, grpc_frame(message), end=True)
        return self.wait(stream)

    # --- receiving ---

    def read_frame(self) -> Frame | None:
        """The next frame, or None when the server has closed the connection."""
        while True:
            if len(self.received) >= 9:
                frame, size = Frame.parse_frame_header(memoryview(self.received[:9]))
                if len(self.received) >= 9 + size:
                    frame.parse_body(memoryview(self.received[9 : 9 + size]))
                    self.received = self.received[9 + size :]
                    return frame
            try:
                more = self.socket.recv(65536)
            except (ConnectionResetError, BrokenPipeError):
                more = b""
            if not more:
                self.closed = True
                return None
            self.received += more

    def step(self) -> Frame | None:
        """Reads one frame and takes note of it. Opens no window."""
        frame = self.read_frame()
        if isinstance(frame, HeadersFrame):
            answer = self.answer(frame.stream_id)
            assert "END_HEADERS" in frame.flags
            answer.headers.update((str(name), str(value)) for name, value in self.decoder.decode(frame.data))
            answer.ended |= "END_STREAM" in frame.flags
        elif isinstance(frame, DataFrame):
            answer = self.answer(frame.stream_id)
            answer.data += frame.data
            answer.ended |= "END_STREAM" in frame.flags
        elif isinstance(frame, RstStreamFrame):
            self.answer(frame.stream_id).reset = frame.error_code
        elif isinstance(frame, GoAwayFrame):
            self.goaway = frame
        elif isinstance(frame, WindowUpdateFrame):
            self.windows[frame.stream_id] = self.windows.get(frame.stream_id, 0) + frame.window_increment
        elif isinstance(frame, SettingsFrame) and "ACK" not in frame.flags:
            self.acknowledge(SettingsFrame(0, flags=["ACK"]))
        elif isinstance(frame, PingFrame):
            if "ACK" in frame.flags:
                self.pings.append(frame.opaque_data)
            else:
                self.acknowledge(PingFrame(0, frame.opaque_data, flags=["ACK"]))
        return frame

    def acknowledge(self, frame: Frame) -> None:
        """The server may have closed already; what it said before that is still to be read."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.send(frame)

    def answer(self, stream: int) -> Answer:
        return self.answers.setdefault(stream, Answer())

    def wait(self, stream: int) -> Answer:
        """Until the stream has ended in any way, or the connection is closed."""
        answer = self.answer(stream)
        while not answer.ended and answer.reset is None and self.step() is not None:
            pass
        return answer

    def wait_closed(self) -> None:
        while self.step() is not None:
            pass

    def ping(self, mark: bytes = b"12345678") -> None:
        """Returns when the server has dealt with everything before."""
        self.send(PingFrame(0, mark))
        while mark not in self.pings:
            assert self.step() is not None, "the connection was closed"
        self.pings.remove(mark)

    def read_available(self) -> None:
        """Takes note of the frames that are there already."""
        timeout = self.socket.gettimeout()
        self.socket.settimeout(0)
        try:
            while self.step() is not None:
                pass
        except BlockingIOError:
            pass
        finally:
            self.socket.settimeout(timeout)

    def step_without_ping_ack(self) -> None:
        """As `step`, but the server's PING stays unanswered until acknowledge_pings."""
        frame = self.read_frame()
        if isinstance(frame, PingFrame):
            self.unacknowledged.append(frame.opaque_data)
        elif isinstance(frame, GoAwayFrame):
            self.goaway = frame

    def acknowledge_pings(self) -> None:
        for mark in self.unacknowledged:
            self.acknowledge(PingFrame(0, mark, flags=["ACK"]))
        self.unacknowledged.clear()
