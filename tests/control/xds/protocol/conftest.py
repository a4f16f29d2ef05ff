"""Hand-driven clients of the protocol machine, and small snapshots."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import pytest

from control.xds.encoding.encode import CLUSTER, ENDPOINTS, LISTENER, ROUTES, SECRET, intern
from control.xds.protocol import stream as streams
from control.xds.protocol.messages import Action, DeltaRequest, Request, Respond
from control.xds.snapshot import Snapshot

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
