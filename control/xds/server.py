"""The gRPC server around the protocol machine: authenticates a proxy, feeds its stream, sends what comes out.

Resources are serialised once (encode.py); an answer is put together from their bytes, not from messages.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

import grpc
import structlog
from envoy.service.discovery.v3 import discovery_pb2

from control.plane import ControlPlane, Proxy
from control.store.errors import StoreError
from control.tokens.tokens import InvalidToken, Tokens
from control.xds import stream as streams
from control.xds.encode import Encoded
from control.xds.messages import Abort, Acked, Action, DeltaRequest, Nacked, Request, Respond

log = structlog.get_logger(__name__)

SERVICE = "envoy.service.discovery.v3.AggregatedDiscoveryService"
# Requests of one proxy that wait to be handled; beyond that its own flow control holds it back.
REQUESTS_WAITING = 64
# The first request says who the proxy is; one that says nothing takes up a stream.
HELLO_TIMEOUT_S = 10.0
MAX_REQUEST_BYTES = 4 * 1024 * 1024


class Refused(Exception):
    """A stream that is not let in, or is ended."""

    def __init__(self, code: grpc.StatusCode, reason: str, message: str) -> None:
        super().__init__(message)
        self.code, self.reason = code, reason


class DiscoveryServer:
    def __init__(self, plane: ControlPlane, tokens: Tokens) -> None:
        self._plane, self._tokens = plane, tokens

    def add_to(self, server: grpc.aio.Server) -> None:
        handlers = {
            "StreamAggregatedResources": grpc.stream_stream_rpc_method_handler(
                self._stream, discovery_pb2.DiscoveryRequest.FromString, None
            ),
            "DeltaAggregatedResources": grpc.stream_stream_rpc_method_handler(
                self._delta, discovery_pb2.DeltaDiscoveryRequest.FromString, None
            ),
        }
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))

    async def _stream(self, requests: AsyncIterator[Any], context: grpc.aio.ServicerContext) -> AsyncIterator[bytes]:
        async for answer in self._serve(requests, context, is_delta=False):
            yield answer

    async def _delta(self, requests: AsyncIterator[Any], context: grpc.aio.ServicerContext) -> AsyncIterator[bytes]:
        async for answer in self._serve(requests, context, is_delta=True):
            yield answer

    async def _serve(
        self, requests: AsyncIterator[Any], context: grpc.aio.ServicerContext, is_delta: bool
    ) -> AsyncIterator[bytes]:
        try:
            first = await self._hello(requests)
            mesh, name = await self._authenticate(first, context)
            proxy = await self._plane.connect(mesh, name)
            try:
                async for answer in self._converse(proxy, first, requests, is_delta):
                    yield answer
            finally:
                self._plane.disconnect(proxy)
        except Refused as refused:
            self._plane.metrics.refused.labels(refused.reason).inc()
            log.warning("xDS stream ended", peer=context.peer(), reason=str(refused))
            await context.abort(refused.code, str(refused))
        except StoreError as error:
            self._plane.metrics.refused.labels("store").inc()
            await context.abort(grpc.StatusCode.UNAVAILABLE, f"the store does not answer: {error}")

    @staticmethod
    async def _hello(requests: AsyncIterator[Any]) -> Any:
        try:
            return await asyncio.wait_for(anext(requests), HELLO_TIMEOUT_S)
        except (TimeoutError, StopAsyncIteration):
            raise Refused(grpc.StatusCode.INVALID_ARGUMENT, "hello", "the stream began without a request") from None

    async def _authenticate(self, first: Any, context: grpc.aio.ServicerContext) -> tuple[str, str]:
        """(mesh, dataplane). What the proxy says it is stands in the node id, what it may be in its token."""
        mesh, _, name = first.node.id.partition(".")
        if not mesh or not name:
            message = f"node.id must be <mesh>.<dataplane>, for example default.cart-1; got {first.node.id[:256]!r}"
            raise Refused(grpc.StatusCode.INVALID_ARGUMENT, "node", message)
        metadata = dict(context.invocation_metadata() or ())
        bearer = str(metadata.get("authorization", ""))
        scheme, _, token = bearer.partition(" ")
        if scheme.lower() != "bearer" or not token:
            message = "no dataplane token: send it as the metadata authorization: Bearer <token>"
            raise Refused(grpc.StatusCode.UNAUTHENTICATED, "token", message)
        try:
            claims = await asyncio.to_thread(self._tokens.check, token.strip(), "dataplane", mesh)
        except InvalidToken as invalid:
            raise Refused(grpc.StatusCode.UNAUTHENTICATED, "token", str(invalid)) from None
        dataplane = (await self._plane.view(mesh)).get("Dataplane", name)
        if dataplane is None:
            # It may have been made a moment ago.
            dataplane = (await self._plane.view(mesh, fresh=True)).get("Dataplane", name)
        if dataplane is None:
            message = f"there is no Dataplane {name!r} in mesh {mesh!r}: apply it first"
            raise Refused(grpc.StatusCode.NOT_FOUND, "dataplane", message)
        refusal = claims.refusal(dataplane)
        if refusal is not None:
            raise Refused(grpc.StatusCode.PERMISSION_DENIED, "token", refusal)
        return mesh, name

    async def _converse(
        self, proxy: Proxy, first: Any, requests: AsyncIterator[Any], is_delta: bool
    ) -> AsyncIterator[bytes]:
        machine = proxy.stream = streams.delta() if is_delta else streams.state_of_the_world()
        waiting: asyncio.Queue[Any] = asyncio.Queue(REQUESTS_WAITING)
        waiting.put_nowait(first)
        reader = asyncio.create_task(_read(requests, waiting, proxy.wake))
        served = None
        try:
            while True:
                proxy.wake.clear()
                actions: list[Action] = []
                if proxy.gone:
                    message = f"the Dataplane {proxy.name!r} was deleted"
                    raise Refused(grpc.StatusCode.NOT_FOUND, "dataplane", message)
                if proxy.snapshot is not None and proxy.snapshot is not served:
                    served = proxy.snapshot
                    actions += machine.update(served, time.monotonic())
                while not waiting.empty():
                    request = waiting.get_nowait()
                    if request is None:
                        return
                    actions += machine.receive(_parsed(request, is_delta), time.monotonic())
                if machine.deadline is not None and time.monotonic() >= machine.deadline:
                    actions += machine.tick(time.monotonic())
                for action in actions:
                    self._account(proxy, action)
                    if isinstance(action, Respond):
                        yield delta_bytes(action) if is_delta else response_bytes(action)
                await _woken(proxy.wake, machine.deadline)
        finally:
            reader.cancel()

    def _account(self, proxy: Proxy, action: Action) -> None:
        short = action.type_url.rpartition(".")[2] if not isinstance(action, Abort) else ""
        if isinstance(action, Acked):
            self._plane.metrics.acks.labels(short).inc()
        elif isinstance(action, Nacked):
            self._plane.metrics.nacks.labels(short).inc()
            log.warning(
                "a proxy refused its configuration",
                mesh=proxy.mesh,
                dataplane=proxy.name,
                type=short,
                version=action.version,
                detail=action.detail[:2000],
            )
        elif isinstance(action, Abort):
            raise Refused(grpc.StatusCode.INVALID_ARGUMENT, "excess", action.reason)


async def _read(requests: AsyncIterator[Any], waiting: asyncio.Queue[Any], wake: asyncio.Event) -> None:
    """Moves requests to where the conversation finds them; None at the end of the stream."""
    async for request in requests:
        await waiting.put(request)
        wake.set()
    await waiting.put(None)
    wake.set()


async def _woken(wake: asyncio.Event, deadline: float | None) -> None:
    timeout = None if deadline is None else max(0.0, deadline - time.monotonic())
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(wake.wait(), timeout)


def _parsed(request: Any, is_delta: bool) -> Request | DeltaRequest:
    error = request.error_detail.message or "no reason given" if request.HasField("error_detail") else None
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
# Resource (the Any): all three are length-delimited. test_server.py checks it against the descriptors.
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
