"""Hand-driven clients of the protocol machine, and small snapshots."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import pytest
from envoy.service.discovery.v3 import ads_pb2_grpc

from control.kinds import KINDS
from control.plane import ControlPlane
from control.store.store import Store, StoreKey
from control.tokens.tokens import Tokens
from control.xds import stream as streams
from control.xds.encode import CLUSTER, ENDPOINTS, LISTENER, ROUTES, SECRET, intern
from control.xds.messages import Action, DeltaRequest, Request, Respond
from control.xds.server import DiscoveryServer
from control.xds.snapshot import Snapshot
from tests.control.xds.world import MESH, Read, World

SHORT = {"CDS": CLUSTER, "EDS": ENDPOINTS, "LDS": LISTENER, "RDS": ROUTES, "SDS": SECRET}
NAMES = {url: short for short, url in SHORT.items()}


def make_snapshot(**types: Mapping[str, str]) -> Snapshot:
    """snapshot(CDS={"a": "1"}): a cluster a with content 1."""
    resources = {
        SHORT[short]: {name: intern(name, f"{short}/{name}/{content}".encode()) for name, content in contents.items()}
        for short, contents in types.items()
    }
    return Snapshot(resources)


@dataclass
class Client:
    """Speaks for Envoy; every method returns what the server answers, as ("CDS", "a b", "-c")."""

    delta: bool = False
    now: float = 0.0
    actions: list[Action] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.stream = streams.delta() if self.delta else streams.state_of_the_world()
        self.names: dict[str, tuple[str, ...]] = {}
        self.last: dict[str, Respond] = {}

    def _told(self, actions: Sequence[Action]) -> list[tuple[str, ...]]:
        self.actions = list(actions)
        answers: list[tuple[str, ...]] = []
        for action in actions:
            if isinstance(action, Respond):
                self.last[action.type_url] = action
                removed = " ".join(f"-{name}" for name in action.removed)
                names = " ".join(resource.name for resource in action.resources)
                answers.append((NAMES[action.type_url], " ".join(filter(None, (names, removed)))))
        return answers

    def update(self, snapshot: Snapshot) -> list[tuple[str, ...]]:
        return self._told(self.stream.update(snapshot, self.now))

    def tick(self) -> list[tuple[str, ...]]:
        return self._told(self.stream.tick(self.now))

    def ask(
        self, short: str, *names: str, version: str = "", nonce: str | None = None, **more: object
    ) -> list[tuple[str, ...]]:
        """State of the world: these names from now on. Delta: these names as well; more: unsubscribe, have."""
        url = SHORT[short]
        if self.delta:
            have, gone = more.get("have", {}), more.get("unsubscribe", ())
            assert isinstance(have, dict)
            assert isinstance(gone, tuple)
            return self._told(self.stream.receive(DeltaRequest(url, names, gone, have, nonce or ""), self.now))
        self.names[url] = names
        used = self.last[url].nonce if nonce is None and url in self.last else nonce or ""
        return self._told(self.stream.receive(Request(url, names, version, used), self.now))

    def ack(self, short: str, *names: str, nonce: str | None = None, error: str | None = None) -> list[tuple[str, ...]]:
        """Acknowledges the last answer; of state of the world it can change the names with it."""
        url = SHORT[short]
        answer = self.last[url]
        if self.delta:
            return self._told(
                self.stream.receive(DeltaRequest(url, nonce=nonce or answer.nonce, error=error), self.now)
            )
        if names:
            self.names[url] = names
        version = answer.version if error is None else ""
        return self._told(
            self.stream.receive(Request(url, self.names.get(url, ()), version, nonce or answer.nonce, error), self.now)
        )

    def nack(self, short: str, error: str = "no") -> list[tuple[str, ...]]:
        return self.ack(short, error=error)


@pytest.fixture
def snapshot() -> Callable[..., Snapshot]:
    return make_snapshot


@pytest.fixture
def client() -> Client:
    return Client()


@pytest.fixture
def delta_client() -> Client:
    return Client(delta=True)


@pytest.fixture
def short_types() -> Mapping[str, str]:
    return SHORT


@pytest.fixture
async def world(tmp_path: Path, read_resources: Read) -> AsyncIterator[World]:
    store = Store(f"sqlite:///{tmp_path}/mesh.db", StoreKey(file=tmp_path / "key"), KINDS)
    plane, tokens = ControlPlane(store), Tokens(store)
    server = grpc.aio.server()
    DiscoveryServer(plane, tokens).add_to(server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    running = asyncio.create_task(plane.run())
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        world = World(plane, tokens, ads_pb2_grpc.AggregatedDiscoveryServiceStub(channel), read_resources)
        await world.apply(MESH)
        yield world
    await server.stop(0)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    store.close()
