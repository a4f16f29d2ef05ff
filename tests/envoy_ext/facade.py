"""A server in front of the real daemon, for clients that meet another one: it has only some of the calls, and may
change what comes back in them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import grpc

Change = Callable[[str, bytes], bytes]  # of a method's response message

THREADS = 100  # one for each call that is open


class Facade(grpc.GenericRpcHandler):
    def __init__(self, channel: grpc.Channel, methods: Sequence[str], change: Change) -> None:
        self._channel, self._methods, self._change = channel, methods, change
        self.asked: list[str] = []

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        method = details.method.rpartition("/")[2]
        self.asked.append(method)
        if method not in self._methods:
            return None

        def pass_on(requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
            call = self._channel.stream_stream(details.method)(requests)
            context.add_callback(call.cancel)
            try:
                for message in call:
                    yield self._change(method, message)
            except grpc.RpcError as error:
                context.abort(error.code(), error.details())

        return grpc.stream_stream_rpc_method_handler(pass_on)


@contextmanager
def facade(
    path: Path, daemon: Path, methods: Sequence[str], change: Change = lambda _, message: message
) -> Iterator[list[str]]:
    """Serves at `path` what the daemon at `daemon` serves; gives the methods that were asked for."""
    options = [("grpc.max_send_message_length", -1)]
    with grpc.insecure_channel(f"unix:{daemon}") as channel:
        handler = Facade(channel, methods, change)
        server = grpc.server(ThreadPoolExecutor(THREADS), handlers=[handler], options=options)
        server.add_insecure_port(f"unix:{path}")
        server.start()
        try:
            yield handler.asked
        finally:
            server.stop(0).wait()
