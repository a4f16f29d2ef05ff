"""The gRPC server around the protocol machine: authenticates a proxy, feeds its stream, sends the output.

Resources are serialised once (xds/encoding/encode.py); a response is assembled from their bytes, not from messages.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import grpc
import structlog
from envoy.service.discovery.v3 import discovery_pb2

from control.mesh.choice import Made
from control.reconcile.control_plane import ControlPlane
from control.reconcile.proxies import Proxy
from control.reconcile.snapshots import Withheld
from control.servers.requests import Refused, parsed, read
from control.store.errors import StoreError
from control.tokens.bearers import Bearers
from control.tokens.checks import TokenChecks
from control.tokens.tokens import Claims, InvalidToken, Tokens
from control.xds.encoding.encode import Encoded
from control.xds.protocol import stream as streams
from control.xds.protocol.messages import Abort, Acked, Action, DeltaRequest, Nacked, Request, Respond
from control.xds.snapshot import Snapshot
from offload.reporting.folded_log import FoldedLog

log = structlog.get_logger(__name__)

# A context for a peer, open while a call of its runs that has shown a credential.
Welcome = Callable[[str], contextlib.AbstractContextManager[None]]

SERVICE = "envoy.service.discovery.v3.AggregatedDiscoveryService"
# Requests of one proxy that wait to be handled; beyond that its own flow control holds it back.
REQUESTS_WAITING = 16
# The first request identifies the proxy; a stream without one only takes up resources.
HELLO_TIMEOUT_S = 10.0
MAX_REQUEST_BYTES = 4 * 1024 * 1024
# <mesh>.<dataplane>: 63 and 253 characters at most, as names of resources are.
MAX_NODE_ID_CHARS = 320
# A proxy's error message is kept for `mesh inspect`, and logged.
MAX_DETAIL_CHARS = 2000


def unbounded(_: str) -> contextlib.AbstractContextManager[None]:
    """For servers where nobody counts connections."""
    return contextlib.nullcontext()


class DiscoveryServer:
    """`folded` logs what a peer can cause as often as it likes. `welcome` is told the peer of each call that has shown
    a token."""

    def __init__(
        self, control_plane: ControlPlane, tokens: Tokens, folded: FoldedLog | None = None, welcome: Welcome = unbounded
    ) -> None:
        self._control_plane, self._tokens = control_plane, tokens
        self._bearers, self._checks = Bearers(tokens), TokenChecks()
        self._folded, self._welcome = folded or FoldedLog(log), welcome

    def add_to(self, server: grpc.aio.Server) -> None:
        handlers = {
            "StreamAggregatedResources": grpc.stream_stream_rpc_method_handler(self._stream, None, None),
            "DeltaAggregatedResources": grpc.stream_stream_rpc_method_handler(self._delta, None, None),
        }
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))

    async def _stream(self, requests: AsyncIterator[bytes], context: grpc.aio.ServicerContext) -> AsyncIterator[bytes]:
        async for answer in self._serve(requests, context, is_delta=False):
            yield answer

    async def _delta(self, requests: AsyncIterator[bytes], context: grpc.aio.ServicerContext) -> AsyncIterator[bytes]:
        async for answer in self._serve(requests, context, is_delta=True):
            yield answer

    async def _serve(
        self, requests: AsyncIterator[bytes], context: grpc.aio.ServicerContext, is_delta: bool
    ) -> AsyncIterator[bytes]:
        try:
            # Done first: nothing is even read from a peer without a token.
            claims = await self._authenticate(context)
            with self._welcome(context.peer()):
                first = await self._hello(requests, is_delta)
                mesh, name = await self._dataplane(first.node, claims)
                proxy = await self._control_plane.connections.connect(mesh, name, claims.refusal, claims.expires_at)
                try:
                    with self._bearers.stream(claims, proxy.is_void):
                        async for answer in self._converse(proxy, first, requests, is_delta):
                            yield answer
                finally:
                    self._control_plane.connections.disconnect(proxy)
        except Refused as refused:
            self._control_plane.state.metrics.refused.labels(refused.reason).inc()
            self._folded.warning(("xDS", refused.reason), "xDS stream ended", peer=context.peer(), reason=str(refused))
            await context.abort(refused.code, str(refused))
        except Withheld as withheld:
            self._control_plane.state.metrics.refused.labels("withheld").inc()
            self._folded.warning(("xDS", "withheld"), "xDS stream ended", peer=context.peer(), reason=str(withheld))
            await context.abort(grpc.StatusCode.UNAVAILABLE, str(withheld))
        except StoreError as error:
            self._control_plane.state.metrics.refused.labels("store").inc()
            await context.abort(grpc.StatusCode.UNAVAILABLE, f"the store is unavailable: {error}")
        except Exception:
            self._control_plane.state.metrics.refused.labels("internal").inc()
            log.exception("an xDS stream failed", peer=context.peer())
            await context.abort(grpc.StatusCode.INTERNAL, "the control plane failed; its log says why")

    @staticmethod
    async def _hello(requests: AsyncIterator[bytes], is_delta: bool) -> Heard:
        try:
            return heard(await asyncio.wait_for(anext(requests), HELLO_TIMEOUT_S), is_delta)
        except (TimeoutError, StopAsyncIteration):
            raise Refused(grpc.StatusCode.INVALID_ARGUMENT, "hello", "no request arrived on the stream") from None

    async def _authenticate(self, context: grpc.aio.ServicerContext) -> Claims:
        """Checks the token with the keys of the mesh that it names."""
        metadata = dict(context.invocation_metadata() or ())
        bearer = str(metadata.get("authorization", ""))
        scheme, _, token = bearer.partition(" ")
        if scheme.lower() != "bearer" or not token:
            message = "no dataplane token: send it as the metadata authorization: Bearer <token>"
            raise Refused(grpc.StatusCode.UNAUTHENTICATED, "token", message)
        try:
            return await self._checks.run(self._tokens.check_dataplane, token.strip())
        except InvalidToken as invalid:
            raise Refused(grpc.StatusCode.UNAUTHENTICATED, "token", str(invalid)) from None

    async def _dataplane(self, node: str, claims: Claims) -> tuple[str, str]:
        """(mesh, dataplane). The node id says what the proxy claims to be, the token what it may be."""
        mesh, _, name = node.partition(".")
        if not mesh or not name or len(node) > MAX_NODE_ID_CHARS:
            message = f"node.id must be <mesh>.<dataplane>, for example default.cart-1; got {node[:256]!r}"
            raise Refused(grpc.StatusCode.INVALID_ARGUMENT, "node", message)
        if mesh != claims.mesh:
            message = f"the token is for the mesh {claims.mesh!r}, not {mesh!r}"
            raise Refused(grpc.StatusCode.UNAUTHENTICATED, "token", message)
        dataplane = (await self._control_plane.views.view(mesh)).get("Dataplane", name)
        if dataplane is None:
            # The dataplane may have been created a moment ago.
            view = await self._control_plane.views.view(mesh, fresh=True)
            dataplane, withheld = view.get("Dataplane", name), view.withheld(name)
            if withheld is not None:
                raise Withheld(withheld)
        if dataplane is None:
            message = f"there is no Dataplane {name!r} in mesh {mesh!r}: apply it first"
            raise Refused(grpc.StatusCode.NOT_FOUND, "dataplane", message)
        refusal = claims.refusal(dataplane)
        if refusal is not None:
            raise Refused(grpc.StatusCode.PERMISSION_DENIED, "token", refusal)
        return mesh, name

    async def _converse(
        self, proxy: Proxy, first: Heard, requests: AsyncIterator[bytes], is_delta: bool
    ) -> AsyncIterator[bytes]:
        if first.is_fresh:
            self._control_plane.connections.restarted(proxy)
        machine = proxy.stream = streams.delta() if is_delta else streams.state_of_the_world()
        waiting: asyncio.Queue[Heard | Refused | None] = asyncio.Queue(REQUESTS_WAITING)
        waiting.put_nowait(first)
        parse = partial(heard, is_delta=is_delta)
        reader = asyncio.create_task(read(requests, parse, waiting, proxy.wake))
        served = None
        try:
            while True:
                proxy.wake.clear()
                actions: list[Action] = []
                has_ended = False
                if proxy.gone:
                    message = f"the Dataplane {proxy.name!r} was deleted"
                    raise Refused(grpc.StatusCode.NOT_FOUND, "dataplane", message)
                if proxy.void is not None:
                    raise Refused(grpc.StatusCode.UNAUTHENTICATED, "token", proxy.void)
                if proxy.refusal is not None:
                    raise Refused(grpc.StatusCode.PERMISSION_DENIED, "token", proxy.refusal)
                if proxy.snapshot is not None and proxy.snapshot is not served:
                    served = proxy.snapshot
                    actions += machine.update(served, time.monotonic())
                while not waiting.empty():
                    said = waiting.get_nowait()
                    if said is None:
                        has_ended = True
                        break
                    if isinstance(said, Refused):
                        raise said
                    if said.node not in ("", first.node):
                        message = f"the stream belongs to {first.node!r}; another node needs a separate stream"
                        raise Refused(grpc.StatusCode.INVALID_ARGUMENT, "node", message)
                    actions += machine.receive(said.request, time.monotonic())
                if machine.deadline is not None and time.monotonic() >= machine.deadline:
                    actions += machine.tick(time.monotonic())
                for action in actions:
                    await self._account(proxy, action)
                    if isinstance(action, Respond):
                        proxy.sent[action.type_url] = _made_of(served, action)
                        yield delta_bytes(action) if is_delta else response_bytes(action)
                if served is proxy.snapshot and proxy.settles():
                    self._control_plane.connections.settled(proxy)
                # Its last words count, even if they are read together with the end of the stream.
                if has_ended:
                    return
                await _woken(proxy.wake, machine.deadline)
        finally:
            reader.cancel()

    async def _account(self, proxy: Proxy, action: Action) -> None:
        short = action.type_url.rpartition(".")[2] if not isinstance(action, Abort) else ""
        if isinstance(action, Acked):
            self._control_plane.state.metrics.acks.labels(short).inc()
            self._control_plane.connections.took(proxy, action.type_url)
        elif isinstance(action, Nacked):
            self._control_plane.state.metrics.nacks.labels(short).inc()
            log.warning(
                "a proxy rejected its configuration",
                mesh=proxy.mesh,
                dataplane=proxy.name,
                type=short,
                version=action.version,
                detail=action.detail,
            )
            await self._control_plane.connections.refused(proxy, action.type_url, action.detail)
        elif isinstance(action, Abort):
            raise Refused(grpc.StatusCode.INVALID_ARGUMENT, "excess", action.reason)


def _made_of(snapshot: Snapshot | None, answer: Respond) -> dict[str, Made]:
    """What the resources of a response were made of; without those that no policy is in."""
    made_of = snapshot.made_of.get(answer.type_url, {}) if snapshot is not None else {}
    return {resource.name: made_of[resource.name] for resource in answer.resources if resource.name in made_of}


async def _woken(wake: asyncio.Event, deadline: float | None) -> None:
    timeout = None if deadline is None else max(0.0, deadline - time.monotonic())
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(wake.wait(), timeout)


@dataclass(frozen=True)
class Heard:
    """The needed parts of a request: a node's metadata may be megabytes."""

    # The node's id; empty if the request has none, as in all but the first.
    node: str
    request: Request | DeltaRequest

    @property
    def is_fresh(self) -> bool:
        """Whether the first request shows that the proxy has nothing from an earlier stream."""
        request = self.request
        return not (request.version if isinstance(request, Request) else request.initial_versions)


def heard(data: bytes, is_delta: bool) -> Heard:
    """Raises Refused."""
    request = parsed(discovery_pb2.DeltaDiscoveryRequest if is_delta else discovery_pb2.DiscoveryRequest, data)
    return Heard(request.node.id, _parsed(request, is_delta))


def _parsed(request: Any, is_delta: bool) -> Request | DeltaRequest:
    error: str | None = None
    if request.HasField("error_detail"):
        error = request.error_detail.message[:MAX_DETAIL_CHARS] or "no reason given"
    if not is_delta:
        names = tuple(request.resource_names)
        return Request(request.type_url, names, request.version_info, request.response_nonce, error)
    return DeltaRequest(
        request.type_url,
        tuple(request.resource_names_subscribe),
        tuple(request.resource_names_unsubscribe),
        dict(request.initial_resource_versions),
        request.response_nonce,
        error,
    )


# --- bytes ------------------------------------------------------------------------------------------------------------

# Field 2 of DiscoveryResponse (resources, an Any each), of DeltaDiscoveryResponse (resources, a Resource each), and of
# Resource (the Any): all three are length-delimited. test_ads.py checks it against the descriptors.
_FIELD_2 = b"\x12"


def _field_2(content: bytes) -> bytes:
    size, length = len(content), bytearray()
    while size > 0x7F:
        length.append(size & 0x7F | 0x80)
        size >>= 7
    length.append(size)
    return _FIELD_2 + bytes(length) + content


def response_bytes(answer: Respond) -> bytes:
    """A serialised DiscoveryResponse."""
    head = discovery_pb2.DiscoveryResponse(
        version_info=answer.version, type_url=answer.type_url, nonce=answer.nonce
    ).SerializeToString()
    return b"".join([head, *(_field_2(resource.any_bytes) for resource in answer.resources)])


def delta_bytes(answer: Respond) -> bytes:
    """A serialised DeltaDiscoveryResponse."""
    head = discovery_pb2.DeltaDiscoveryResponse(
        system_version_info=answer.version,
        type_url=answer.type_url,
        nonce=answer.nonce,
        removed_resources=answer.removed,
    ).SerializeToString()
    return b"".join([head, *_delta_resources(answer.resources)])


def _delta_resources(resources: Sequence[Encoded]) -> list[bytes]:
    heads = (discovery_pb2.Resource(name=r.name, version=r.version).SerializeToString() for r in resources)
    return [_field_2(head + _field_2(r.any_bytes)) for head, r in zip(heads, resources, strict=True)]
