"""What one client wants and has of one resource type; the content side of the state machine.

`StateOfTheWorld` and `Delta` differ in the content of requests and responses; the states are those of states.py. Both
answer three questions: is something due (`due`), what exactly (`answer`), and what did a request mean (`receive`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from control.xds.encoding import encode
from control.xds.encoding.encode import CLUSTER, ENDPOINTS, LISTENER, Encoded
from control.xds.protocol.messages import WILDCARD, Acked, Action, DeltaRequest, Ignored, Nacked, Request, Respond
from control.xds.protocol.states import Event, Phase, step
from control.xds.quarantine import named
from control.xds.snapshot import Snapshot, fold, no_endpoints

# Types of which a client may want everything, and of which a response is complete: what it lacks is removed.
WHOLE_TYPES = frozenset({CLUSTER, LISTENER})


class Refused(NamedTuple):
    """A resource that the client rejected: its version (None: its removal), and the client's error message."""

    version: str | None
    detail: str


class Subscription:
    def __init__(self, type_url: str) -> None:
        self.type_url = type_url
        self.phase = Phase.UNASKED
        self.wildcard = False
        self.names: set[str] = set()
        # The nonce and version of the last response, and the version acknowledged last; for `mesh inspect`.
        self.nonce = self.version = self.acked_version = ""
        # What the client rejected last, by name; see refused_now.
        self.refusals: dict[str, Refused] = {}
        # For endpoints: the clusters of the same stream, whose versions are folded in as they were told to this client.
        self.clusters: Subscription | None = None

    @property
    def is_asked(self) -> bool:
        return self.phase is not Phase.UNASKED

    def step(self, event: Event) -> None:
        self.phase = step(self.phase, event)

    def wanted(self, snapshot: Snapshot) -> dict[str, Encoded]:
        """What the client should have of what it subscribed to. A cluster that does not exist has no endpoints."""
        available = snapshot.of_type(self.type_url)
        chosen = dict(available) if self.wildcard else {name: available[name] for name in self.names & available.keys()}
        if self.type_url == ENDPOINTS:
            chosen |= {name: no_endpoints(name) for name in self.names - available.keys()}
            chosen = {name: fold(resource, self._cluster_version(name)) for name, resource in chosen.items()}
        return chosen

    def _cluster_version(self, name: str) -> str:
        return (self.clusters.told().get(name) if self.clusters is not None else None) or ""

    def _again(self, sent: Encoded) -> Encoded:
        """Endpoints of a cluster that is being removed: those that were sent, with the cluster's present version."""
        return fold(encode.intern(sent.name, sent.any_bytes), self._cluster_version(sent.name))

    def refused_now(self, snapshot: Snapshot) -> dict[str, Refused]:
        """What the client rejects of what it should have, whatever it has accepted since; without what has changed.

        While a response is in flight, the client has not said yet whether that is better.
        """
        if self.phase is Phase.WAITING:
            return dict(self.refusals)
        wanted = _versions(self.wanted(snapshot)) if self.refusals else {}
        return {name: refused for name, refused in self.refusals.items() if wanted.get(name) == refused.version}

    def told(self) -> Mapping[str, str | None]:
        """Versions of what the client was told, by name."""
        raise NotImplementedError

    def due(self, snapshot: Snapshot, hold: bool) -> bool:
        """Whether a response should be sent now. `hold`: nothing may be taken away from the client yet."""
        raise NotImplementedError

    def lags(self, snapshot: Snapshot) -> bool:
        """Whether the client has, or may have, something other than it should: then nothing that it uses may go."""
        return self.phase in (Phase.WAITING, Phase.PARKED) or self.due(snapshot, hold=False)

    def answer(self, snapshot: Snapshot, hold: bool, nonce: str) -> Respond:
        raise NotImplementedError

    def receive(self, request: Any) -> list[Action]:
        """Handles a Request or a DeltaRequest, whichever the stream's protocol uses."""
        raise NotImplementedError

    def _acknowledged(self, nonce: str, error: str | None) -> list[Action]:
        """Handles an ACK or NACK; returns nothing if the request is neither."""
        if nonce != self.nonce or self.phase is not Phase.WAITING:
            return []
        if error is None:
            self.step(Event.ACK)
            self.acked_version = self.version
            self._taken()
            return [Acked(self.type_url, self.version)]
        self.step(Event.NACK)
        self._refused(error)
        return [Nacked(self.type_url, self.version, error)]

    def _taken(self) -> None:
        raise NotImplementedError

    def _refused(self, detail: str) -> None:
        raise NotImplementedError


class StateOfTheWorld(Subscription):
    """Every request names all resources; every response carries all that were requested."""

    def __init__(self, type_url: str) -> None:
        super().__init__(type_url)
        # The content of the last response, of the last accepted one, and of a rejected one.
        self._sent: Mapping[str, Encoded] = {}
        self._accepted: Mapping[str, Encoded] = {}
        self._refused_content: Mapping[str, str] | None = None
        # The version that a reconnecting client claims; compared as soon as there is a snapshot.
        self._claimed_version = ""
        self._named_before = False

    def told(self) -> Mapping[str, str | None]:
        return _versions(self._sent)

    def _content(self, snapshot: Snapshot, hold: bool) -> dict[str, Encoded]:
        content = self.wanted(snapshot)
        if not hold:
            return content
        available = snapshot.of_type(self.type_url)
        if self.type_url == ENDPOINTS:
            held = {name for name in content if name not in available and name in self._sent}
            return content | {name: self._again(self._sent[name]) for name in held}
        if self.type_url == CLUSTER:
            return {name: resource for name, resource in self._accepted.items() if name not in content} | content
        return content

    def due(self, snapshot: Snapshot, hold: bool) -> bool:
        if self.phase in (Phase.UNASKED, Phase.WAITING):
            return False
        content = self._content(snapshot, hold)
        if self._claimed_version:
            if self._claimed_version == encode.version_of(self.type_url, content.values()):
                # Nothing is sent to a client that has it all from an earlier stream, perhaps from another server.
                self._sent = self._accepted = content
                self.version = self.acked_version = self._claimed_version
            self._claimed_version = ""
        if self.phase is Phase.PARKED:
            return _versions(content) != self._refused_content
        if self.type_url in WHOLE_TYPES:
            return not self.version or content != self._sent
        return any(self._sent.get(name) is not resource for name, resource in content.items())

    def answer(self, snapshot: Snapshot, hold: bool, nonce: str) -> Respond:
        if self.phase is Phase.PARKED:
            self.step(Event.CHANGE)
        content = self._content(snapshot, hold)
        self.nonce, self.version, self._sent = nonce, encode.version_of(self.type_url, content.values()), content
        self.step(Event.SENT)
        return Respond(self.type_url, self.version, nonce, _in_order(content.values()))

    def receive(self, request: Request) -> list[Action]:
        if self.nonce and request.nonce and request.nonce != self.nonce:
            self.step(Event.STALE)
            return [Ignored(self.type_url, f"stale nonce {request.nonce!r}, the last is {self.nonce!r}")]
        actions = self._acknowledged(request.nonce, request.error) if self.nonce else []
        first = not self.is_asked and not self.nonce
        self._subscribe(request.names)
        if first and self.is_asked:
            self._claimed_version = request.version
        return actions

    def _subscribe(self, names: Sequence[str]) -> None:
        explicit = {name for name in names if name != WILDCARD}
        # If names were never given, an empty list is the older form of requesting everything.
        everything = WILDCARD in names or (not names and not self._named_before and self.type_url in WHOLE_TYPES)
        self._named_before = self._named_before or bool(names)
        self.wildcard, self.names = everything, explicit
        if not everything and not explicit:
            if self.is_asked:
                self.step(Event.UNSUBSCRIBE)
            self._sent = self._accepted = {}
            return
        self.step(Event.SUBSCRIBE)
        if self.type_url not in WHOLE_TYPES and not everything:
            # A name that is requested again later must be sent again: the client has dropped it meanwhile.
            self._sent = {name: self._sent[name] for name in explicit & self._sent.keys()}
            self._accepted = {name: self._accepted[name] for name in explicit & self._accepted.keys()}

    def _taken(self) -> None:
        self._refused_content, self._accepted, self.refusals = None, self._sent, {}

    def _refused(self, detail: str) -> None:
        changed = [name for name, resource in self._sent.items() if self._accepted.get(name) is not resource]
        blamed = named(detail, self._sent) or set(changed or self._sent)
        self.refusals = {name: Refused(self._sent[name].version, detail) for name in blamed}
        self._refused_content, self._sent = _versions(self._sent), self._accepted


class Delta(Subscription):
    """Requests name changes of the subscription; responses carry what changed."""

    def __init__(self, type_url: str) -> None:
        super().__init__(type_url)
        # Versions that the client has; None for a name it was told does not exist.
        self._has: dict[str, str | None] = {}
        # For endpoints: what was sent on this stream, for clusters that are being removed.
        self._sent: dict[str, Encoded] = {}
        # For the response in flight: what the client had before.
        self._before: dict[str, str | None] = {}
        # Content that was rejected, by name; None for a removal.
        self._refused_content: dict[str, str | None] = {}
        self._asked_before = False

    def told(self) -> Mapping[str, str | None]:
        return self._has

    def _changes(self, snapshot: Snapshot, hold: bool, again: bool = False) -> tuple[list[Encoded], list[str]]:
        """What to send and what to remove; `again`: includes what was rejected."""
        refused = {} if again else self._refused_content
        wanted = self.wanted(snapshot)
        if hold and self.type_url == ENDPOINTS:
            available = snapshot.of_type(ENDPOINTS)
            held = [name for name in wanted if name not in available and self._has.get(name) is not None]
            # What was sent on an earlier stream is unknown here; it stays as it is.
            kept = {name: self._again(self._sent[name]) for name in held if name in self._sent}
            wanted = {name: resource for name, resource in wanted.items() if name not in held} | kept
        changed = [
            resource
            for name, resource in wanted.items()
            if self._has.get(name) != resource.version and refused.get(name, "") != resource.version
        ]
        if hold and self.type_url in (CLUSTER, ENDPOINTS):
            return changed, []
        gone = [name for name, version in self._has.items() if version is not None and name not in wanted]
        absent = [name for name in self.names if name not in wanted and name not in self._has]
        return changed, [name for name in (*gone, *absent) if refused.get(name, "") is not None]

    def due(self, snapshot: Snapshot, hold: bool) -> bool:
        if self.phase in (Phase.UNASKED, Phase.WAITING):
            return False
        changed, removed = self._changes(snapshot, hold)
        # A first response is sent even if it is empty: a client that wants everything waits for it.
        return bool(changed or removed) or (not self.nonce and self.wildcard and not self._has)

    def lags(self, snapshot: Snapshot) -> bool:
        """Unlike in state-of-the-world, what the client has after a NACK is known; it may be what it should have."""
        return self.is_asked and (self.phase is Phase.WAITING or any(self._changes(snapshot, False, again=True)))

    def answer(self, snapshot: Snapshot, hold: bool, nonce: str) -> Respond:
        if self.phase is Phase.PARKED:
            self.step(Event.CHANGE)
        changed, removed = self._changes(snapshot, hold)
        self.nonce, self.version = nonce, snapshot.version(self.type_url)
        touched = [resource.name for resource in changed] + removed
        # The default marks what did not exist at all, which is not the same as "told that it does not exist".
        self._before = {name: self._has.get(name, "") for name in touched}
        self._has |= {resource.name: resource.version for resource in changed} | dict.fromkeys(removed, None)
        if self.type_url == ENDPOINTS:
            self._sent |= {resource.name: resource for resource in changed}
            self._sent = {name: resource for name, resource in self._sent.items() if name in self.names}
        self.step(Event.SENT)
        return Respond(self.type_url, self.version, nonce, _in_order(changed), tuple(sorted(removed)))

    def receive(self, request: DeltaRequest) -> list[Action]:
        actions: list[Action] = []
        if request.nonce:
            actions = self._acknowledged(request.nonce, request.error)
            if not actions and self.nonce:
                self.step(Event.STALE)
                actions = [Ignored(self.type_url, f"stale nonce {request.nonce!r}, the last is {self.nonce!r}")]
        # Unlike in state-of-the-world, a subscription counts whatever its nonce: it is sent only once.
        self._subscribe(request)
        return actions

    def _subscribe(self, request: DeltaRequest) -> None:
        first, self._asked_before = not self._asked_before, True
        subscribe, unsubscribe = set(request.subscribe), set(request.unsubscribe)
        if first:
            self._has = dict(request.initial_versions)
            if not subscribe and self.type_url in WHOLE_TYPES:
                subscribe = {WILDCARD}
        if WILDCARD in subscribe:
            self.wildcard = True
        for name in subscribe - {WILDCARD}:
            self.names.add(name)
            if not first:
                # A repeated subscription means that it must be sent again.
                self._has.pop(name, None)
                self._unpin(name)
        if WILDCARD in unsubscribe:
            self.wildcard = False
            self._has = {name: version for name, version in self._has.items() if name in self.names}
        for name in unsubscribe - {WILDCARD}:
            self.names.discard(name)
            self._has.pop(name, None)
            self._unpin(name)
        if self.wildcard or self.names:
            self.step(Event.SUBSCRIBE)
        elif self.is_asked:
            self.step(Event.UNSUBSCRIBE)

    def _taken(self) -> None:
        for name in self._before:
            self._unpin(name)
            if self._has.get(name, "") is None and name not in self.names:
                del self._has[name]
        self._before = {}

    def _unpin(self, name: str) -> None:
        self._refused_content.pop(name, None)
        self.refusals.pop(name, None)

    def _refused(self, detail: str) -> None:
        """The resources that the client names count as rejected; the rest, accepted or not, is sent again by itself.

        If it names none, all of the response counts as rejected. A removal alone cannot be wrong, unless the response
        had nothing else; it is retried.
        """
        blamed = named(detail, (name for name in self._before if self._has.get(name) is not None))
        only_removals = all(self._has.get(name) is None for name in self._before)
        for name, before in self._before.items():
            if name not in self._has:
                continue  # unsubscribed meanwhile
            if name in blamed if blamed else (self._has[name] is not None or only_removals):
                self._refused_content[name] = self._has[name]
                self.refusals[name] = Refused(self._has[name], detail)
            if before == "":
                del self._has[name]
            else:
                self._has[name] = before
        self._before = {}


def _versions(content: Mapping[str, Encoded]) -> dict[str, str]:
    return {name: resource.version for name, resource in content.items()}


def _in_order(resources: Iterable[Encoded]) -> tuple[Encoded, ...]:
    return tuple(sorted(resources, key=lambda resource: resource.name))
