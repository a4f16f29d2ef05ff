"""The stream to the control plane: kept open, reopened, and its messages. One thread.

Configurations are passed on (`configured`); certificate requests wait on the issuing pool's threads for their
responses. While there is no stream, requests fail at once and the daemon continues with what it has.
"""

from __future__ import annotations

import queue
import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotYet
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from offload import __version__
from offload.config.issuers import Mesh
from offload.filesystem.trusted_paths import Trust, UntrustedPathError, read_trusted
from offload.issuing.issuer import Issued, IssuerError, Wanted
from offload.mesh.node_certificate import Credential, NodeCertificate, make_request, proof, take
from offload.reporting.logs import get_logger
from offload.v1 import node_pb2

BACKOFF_FIRST_S = 0.5
BACKOFF_MAX_S = 30.0
ANSWER_SECONDS = 30.0
JOIN_SECONDS = 30.0
STREAM_LEAST_S = 60.0  # so that clocks that differ by half of a certificate's life cause no renewal loop
MESSAGE_MAX = 16 * 1024 * 1024
_SERVICE = "/offload.v1.NodeService"
_OPTIONS = (
    ("grpc.max_receive_message_length", MESSAGE_MAX),
    # A control plane that vanishes silently is noticed within a minute.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    # Reconnecting is done here; gRPC's own backoff would be added to it.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
)


@dataclass(frozen=True)
class ClientStatus:
    """The state of the client, for people and metrics."""

    control_plane: str
    is_connected: bool
    reason: str  # why it is not; empty while it is
    attempts: int  # streams that were tried since the start
    is_mutual: bool  # the stream is authenticated by the node's certificate, not by its token


class MeshError(Exception):
    """The control plane cannot be used; the message names the file and the way out."""


def backoff_seconds(failures: int, number: float) -> float:
    """The pause after this many failures in a row; `number`, from 0 to 1, spreads the nodes of a mesh."""
    longest = min(BACKOFF_MAX_S, BACKOFF_FIRST_S * float(2 ** min(failures, 16)))
    return longest * (0.5 + 0.5 * number)


@dataclass
class Stream:
    """One connection's outgoing messages; None ends it."""

    outgoing: queue.SimpleQueue[node_pb2.NodeMessage | None]

    def messages(self) -> Iterator[node_pb2.NodeMessage]:
        while (message := self.outgoing.get()) is not None:
            yield message


class MeshClient(threading.Thread):
    def __init__(
        self,
        settings: Mesh,
        backends: list[str],
        configured: Callable[[node_pb2.Configuration], None],
        connected: Callable[[], None],
        trust: Trust | None = None,
    ) -> None:
        """`configured` and `connected` are called on this thread. `trust`: defaults to that of this process."""
        super().__init__(name="mesh", daemon=True)
        self._settings = settings
        proxy = settings.proxy
        self._options = _OPTIONS + ((("grpc.http_proxy", proxy),) if proxy else (("grpc.enable_http_proxy", 0),))
        self._trust = Trust.of() if trust is None else trust
        self._backends = backends
        self._configured, self._connected = configured, connected
        self._log = get_logger()
        self._random = random.SystemRandom().random
        self._lock = threading.Lock()
        self._stream: Stream | None = None
        self._waiting: dict[int, Future[node_pb2.CertificateAnswer]] = {}
        self._last_id = 0
        self._credential = Credential()  # only used by the thread
        self._is_mutual = False
        self._reason, self._attempts = "not connected yet", 0
        self._told = ""  # the last warning about the token's file
        self._stopping = threading.Event()
        self._call: grpc.Call | None = None

    # ---- for other threads ----

    @property
    def is_connected(self) -> bool:
        return self._stream is not None

    def status(self) -> ClientStatus:
        with self._lock:
            connected = self._stream is not None
            reason = "" if connected else self._reason
            return ClientStatus(self._settings.control_plane, connected, reason, self._attempts, self._is_mutual)

    def applied(self, version: str, problems: tuple[str, ...]) -> None:
        self._send(node_pb2.NodeMessage(applied=node_pb2.Applied(version=version, problems=problems)))

    def serving(self, spiffe_ids: tuple[str, ...]) -> None:
        self._send(node_pb2.NodeMessage(serving=node_pb2.Serving(spiffe_ids=spiffe_ids)))

    def certify(self, mesh: str, spiffe_id: str, request: bytes) -> node_pb2.CertificateAnswer:
        """Blocks until the control plane responds. IssuerError."""
        answer: Future[node_pb2.CertificateAnswer] = Future()
        with self._lock:
            self._last_id += 1
            number = self._last_id
            self._waiting[number] = answer
        asked = node_pb2.CertificateRequest(id=number, mesh=mesh, spiffe_id=spiffe_id, request=request)
        try:
            if not self._send(node_pb2.NodeMessage(certificate_request=asked)):
                raise IssuerError(f"no connection to the control plane {self._settings.control_plane}")
            return answer.result(ANSWER_SECONDS)
        except NotYet:
            raise IssuerError(f"the control plane did not answer within {ANSWER_SECONDS:g} s") from None
        finally:
            with self._lock:
                self._waiting.pop(number, None)

    def stop(self) -> None:
        self._stopping.set()
        self._end_stream("the daemon is stopping")
        if self._call is not None:
            self._call.cancel()
        if self.is_alive():
            self.join(timeout=5)

    def _send(self, message: node_pb2.NodeMessage) -> bool:
        with self._lock:
            if self._stream is None:
                return False
            self._stream.outgoing.put(message)
            return True

    # ---- the thread ----

    def run(self) -> None:
        failures = 0
        told = by_certificate = ""
        while not self._stopping.is_set():
            with self._lock:
                self._attempts += 1
            try:
                self._converse()
                reason = "the control plane ended the stream"
            except (grpc.RpcError, MeshError) as error:
                reason = _words(error)
            except Exception as error:  # noqa: BLE001  (a fault in one stream must not end all others)
                self._log.exception("the stream to the control plane failed unexpectedly")
                reason = f"unexpected failure: {type(error).__name__}"
            renewing = False
            if self.is_connected:
                failures, told = 0, ""
                renewing = self._is_mutual and self._credential.is_due(time.time())
            elif self._credential.failed(time.time()):
                by_certificate = reason
                continue
            else:
                failures += 1
                if by_certificate:
                    reason, by_certificate = f"{by_certificate}; then by token: {reason}", ""
            self._end_stream(reason)
            if renewing:
                continue  # at once: nothing is wrong
            if self._stopping.is_set():
                return
            pause = backoff_seconds(failures, self._random())
            if reason != told:
                told = reason
                self._log.warning(
                    "not connected to the control plane; the current state stays in force",
                    control_plane=self._settings.control_plane,
                    reason=reason,
                    again_in_seconds=round(pause, 1),
                )
            self._stopping.wait(pause)

    def _converse(self) -> None:
        """Runs one stream to its end. RpcError, MeshError."""
        ca = _read(self._settings.ca_file, "mesh.ca_file", self._trust)
        certificate = self._join(ca)
        stream = Stream(queue.SimpleQueue())
        hello = node_pb2.Hello(daemon_version=__version__, backends=self._backends)
        stream.outgoing.put(node_pb2.NodeMessage(hello=hello))
        with self._channel(ca, certificate) as channel:
            # When it is due for renewal, the stream is reopened with the next certificate.
            left = None if certificate is None else max(STREAM_LEAST_S, certificate.renew_at - time.time())
            connect = channel.stream_stream(f"{_SERVICE}/Connect", node_pb2.NodeMessage.SerializeToString)
            call = connect(stream.messages(), metadata=self._token(certificate), timeout=left)
            self._call = call
            if self._stopping.is_set():
                call.cancel()
            try:
                for data in call:
                    message = _parsed(node_pb2.ControlMessage, data)
                    if self._stream is None:
                        with self._lock:
                            self._stream, self._is_mutual = stream, certificate is not None
                        self._log.info(
                            "connected to the control plane",
                            control_plane=self._settings.control_plane,
                            mutual_tls=self._is_mutual,
                        )
                        self._connected()
                    self._take(message)
            finally:
                stream.outgoing.put(None)
                self._call = None

    def _join(self, ca: bytes) -> NodeCertificate | None:
        """The node's certificate, renewed if due; None if the control plane has no port for it."""
        shown, now = self._credential.to_show(time.time()), time.time()
        if shown is not None and not self._credential.is_due(now):
            return shown
        request = make_request()
        with self._channel(ca, shown) as channel:
            join = channel.unary_unary(f"{_SERVICE}/Join", node_pb2.JoinRequest.SerializeToString)
            try:
                ended = self._credential.ended(now)
                certificate, signature = proof(ended, request) if ended else (b"", b"")
                asked = node_pb2.JoinRequest(request=request.der, ended_certificate=certificate, proof=signature)
                data = join(asked, metadata=self._token(shown, is_needed=not ended), timeout=JOIN_SECONDS)
            except grpc.RpcError as error:
                if error.code() is grpc.StatusCode.UNIMPLEMENTED:
                    return None
                raise
        answer = _parsed(node_pb2.JoinAnswer, data)
        try:
            got = take(request, answer.certificate_chain, answer.renew_at, self._settings.control_plane, answer.port)
        except ValueError as error:
            raise MeshError(f"the control plane gave the node an invalid certificate: {error}") from error
        self._credential.got(got)
        self._log.info("received the node's certificate", address=got.address, not_after=got.not_after)
        return got

    def _channel(self, ca: bytes, certificate: NodeCertificate | None) -> grpc.Channel:
        """Uses the node's certificate, at the port for those; without one, the port where nodes join."""
        if certificate is None:
            return grpc.secure_channel(
                self._settings.control_plane, grpc.ssl_channel_credentials(ca), options=self._options
            )
        credentials = grpc.ssl_channel_credentials(ca, certificate.key_pem, certificate.chain_pem)
        return grpc.secure_channel(certificate.address, credentials, options=self._options)

    def _token(self, certificate: NodeCertificate | None, is_needed: bool = True) -> tuple[tuple[str, str], ...]:
        """The token as metadata; empty if a certificate identifies us. The file is read each time. MeshError."""
        if certificate is not None:
            return ()
        file = self._settings.token_file
        if not is_needed and not file.is_file():
            return ()
        token = _read(file, "mesh.token_file", self._trust, self._exposed).decode("ascii", "replace").strip()
        if not token or not token.isascii() or not token.isprintable():
            raise MeshError(f"mesh.token_file: {file} has no token (mesh generate node-token --name NODE)")
        return (("authorization", f"Bearer {token}"),)

    def _exposed(self, text: str) -> None:
        """Warns once, and not at each attempt."""
        if text != self._told:
            self._told = text
            self._log.warning("other users can read the node token", why=text)

    def _take(self, message: node_pb2.ControlMessage) -> None:
        if message.WhichOneof("message") == "configuration":
            self._configured(message.configuration)
        elif message.WhichOneof("message") == "certificate_answer":
            with self._lock:
                waiting = self._waiting.get(message.certificate_answer.id)
            if waiting is not None and not waiting.done():
                waiting.set_result(message.certificate_answer)

    def _end_stream(self, reason: str) -> None:
        with self._lock:
            self._reason = reason
            stream, self._stream = self._stream, None
            waiting, self._waiting = self._waiting, {}
        if stream is not None:
            stream.outgoing.put(None)
        for answer in waiting.values():
            if not answer.done():
                answer.set_exception(IssuerError(f"the connection to the control plane was lost: {reason}"))


@dataclass(frozen=True)
class MeshIssuer:
    """The control plane as an issuer. Equal ones issue the same certificates: another CA makes another issuer."""

    client: MeshClient
    mesh: str
    authority: bytes  # SHA-256 of the issuing CA's certificate

    def issue(self, request: bytes, wanted: Wanted) -> Issued:
        answer = self.client.certify(self.mesh, wanted.identity, request)
        if answer.status != 0:
            raise IssuerError(f"the control plane refused: {answer.message[:1000]}")
        return Issued(tuple(answer.certificate_chain), answer.renew_at or None)


def _read(path: Path, what: str, trust: Trust, warn: Callable[[str], None] | None = None) -> bytes:
    try:
        return read_trusted(path, trust, warn)
    except OSError as error:
        raise MeshError(f"{what}: cannot read {path}: {error.strerror}") from error
    except UntrustedPathError as error:
        raise MeshError(f"{what}: {path} is rejected: {error}") from error


def _parsed(kind: Any, data: bytes) -> Any:
    """Parsed here and not in gRPC, which would log a traceback and hide what was received. MeshError."""
    try:
        return kind.FromString(data)
    except DecodeError:
        raise MeshError(
            f"the control plane sent bytes that are not a {kind.DESCRIPTOR.name}: is it a control plane?"
        ) from None


def _words(error: grpc.RpcError | MeshError) -> str:
    if isinstance(error, MeshError):
        return str(error)
    code = error.code()
    details = str(error.details() or "")[:1000]
    if code is grpc.StatusCode.UNAUTHENTICATED:
        way_out = (
            "put a new one (mesh generate node-token --name NODE) into mesh.token_file, which is read at each attempt"
        )
        return f"the control plane rejects the node token: {details}; {way_out}"
    return f"{code.name}: {details}"
