"""The protocol of one ADS stream: requests and snapshots in, responses out. No I/O, no clock of its own.

Theory of operation
-------------------
Each type on the stream has a Subscription with the states of states.py. After every event the machine checks which
types have something due, in the order in which Envoy must get them, so that nothing refers to what does not exist yet:

    CDS  ->  EDS  ->  LDS  ->  RDS  ->  removal of clusters and their endpoints

- Endpoints follow their clusters at once: Envoy acknowledges clusters only when they are warm, and they become warm by
  their endpoints (and secrets).
- LDS, and then RDS, are held back while an earlier type has a response in flight or due: make before break.
- LDS and RDS also wait until the client has subscribed to, and has, the endpoints of every cluster that it got: a new
  cluster accepts requests only then. A client that never subscribes to them is not waited for longer than PATIENCE.
- While LDS or RDS lag (something due, in flight, or rejected), nothing is removed from the client's clusters and
  endpoints: its old routes may still lead there.
- Secrets wait for nobody and nobody waits for them: clusters and listeners wait for their secrets by themselves.

A rejected response does not hold later types back: it may stay rejected for long, and Envoy keeps what it had.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from control.xds.encoding.encode import CLUSTER, ENDPOINTS, LISTENER, ROUTES, SECRET
from control.xds.protocol.messages import Abort, Acked, Action, DeltaRequest, Ignored, Nacked, Request
from control.xds.protocol.states import Phase
from control.xds.protocol.subscription import Delta, StateOfTheWorld, Subscription
from control.xds.snapshot import Snapshot

ORDER = (SECRET, CLUSTER, ENDPOINTS, LISTENER, ROUTES)
# For LDS and RDS of a client that has clusters but has not subscribed to their endpoints; Envoy does at once.
PATIENCE = 1.0
# More than any proxy asks for; what is beyond is not a proxy.
MAX_NAMES = 10_000
# Names of resources have up to 253 characters; those of clusters are made of three.
MAX_NAME_CHARS = 512


class Stream:
    """`now` is seconds of any steady clock."""

    def __init__(self, subscriptions: Mapping[str, Subscription]) -> None:
        self.subscriptions = subscriptions
        subscriptions[ENDPOINTS].clusters = subscriptions[CLUSTER]
        self._snapshot: Snapshot | None = None
        self._nonce = 0
        # When the client took (or refused) the clusters whose endpoints it may not have asked for yet.
        self._clusters_taken_at: float | None = None

    def receive(self, request: Request | DeltaRequest, now: float) -> Sequence[Action]:
        subscription = self.subscriptions.get(request.type_url)
        if subscription is None:
            return [Ignored(request.type_url[:256], "this type is not served")]
        problem = _excess(request, subscription)
        if problem is not None:
            return [Abort(problem)]
        actions = subscription.receive(request)
        if request.type_url == CLUSTER and any(isinstance(action, Acked | Nacked) for action in actions):
            self._clusters_taken_at = now
        return [*actions, *self._pump(now)]

    def update(self, snapshot: Snapshot, now: float) -> Sequence[Action]:
        """A newer snapshot for this client."""
        self._snapshot = snapshot
        return self._pump(now)

    def tick(self, now: float) -> Sequence[Action]:
        """To be called at `deadline`."""
        return self._pump(now)

    def has_taken(self, snapshot: Snapshot) -> bool:
        """Whether the client has acknowledged all of the snapshot that concerns it: nothing is due or on its way."""
        of = self.subscriptions
        if not (of[CLUSTER].is_asked and of[LISTENER].is_asked) or self._missing_endpoints(snapshot):
            return False
        if any(of[type_url].lags(snapshot) for type_url in (CLUSTER, ENDPOINTS, LISTENER, ROUTES)):
            return False
        needed = snapshot.of_type(SECRET) if snapshot.facts is not None and snapshot.facts.uses_tls else {}
        secrets = of[SECRET]
        return (
            secrets.names >= needed.keys()
            and (not needed or secrets.phase is Phase.SETTLED)
            and not secrets.lags(snapshot)
        )

    @property
    def deadline(self) -> float | None:
        """When patience ends, if something waits for it."""
        if self._clusters_taken_at is None or self._snapshot is None or not self._missing_endpoints(self._snapshot):
            return None
        hold = self._is_behind(self._snapshot)
        waits = any(self.subscriptions[t].due(self._snapshot, hold) for t in (LISTENER, ROUTES))
        return self._clusters_taken_at + PATIENCE if waits else None

    def _pump(self, now: float) -> list[Action]:
        if self._snapshot is None:
            return []
        snapshot, answers = self._snapshot, list[Action]()
        hold = self._is_behind(snapshot)
        clusters = self.subscriptions[CLUSTER]
        if self._clusters_taken_at is None and not clusters.due(snapshot, hold) and clusters.phase is Phase.SETTLED:
            # A client that came back with all its clusters; there will be no ACK.
            self._clusters_taken_at = now
        for type_url in ORDER:
            subscription = self.subscriptions[type_url]
            if subscription.due(snapshot, hold) and self._may_send(type_url, snapshot, hold, now):
                self._nonce += 1
                answers.append(subscription.answer(snapshot, hold, str(self._nonce)))
        return answers

    def _is_behind(self, snapshot: Snapshot) -> bool:
        return any(self.subscriptions[type_url].lags(snapshot) for type_url in (LISTENER, ROUTES))

    def _may_send(self, type_url: str, snapshot: Snapshot, hold: bool, now: float) -> bool:
        if type_url not in (LISTENER, ROUTES):
            return True
        for earlier in ORDER[1 : ORDER.index(type_url)]:
            subscription = self.subscriptions[earlier]
            if subscription.phase is Phase.WAITING or subscription.due(snapshot, hold):
                return False
        if self._missing_endpoints(snapshot):
            return self._clusters_taken_at is not None and now >= self._clusters_taken_at + PATIENCE
        return True

    def _missing_endpoints(self, snapshot: Snapshot) -> bool:
        """Whether the client has clusters whose endpoints it has not asked for."""
        clusters, endpoints = self.subscriptions[CLUSTER], self.subscriptions[ENDPOINTS]
        if not clusters.wildcard or endpoints.wildcard:
            return False
        return bool(snapshot.of_type(ENDPOINTS).keys() - endpoints.names)


def state_of_the_world() -> Stream:
    return Stream({type_url: StateOfTheWorld(type_url) for type_url in ORDER})


def delta() -> Stream:
    return Stream({type_url: Delta(type_url) for type_url in ORDER})


def _excess(request: Request | DeltaRequest, subscription: Subscription) -> str | None:
    if isinstance(request, Request):
        names: Sequence[str] = request.names
        total = len(names)
    else:
        names = (*request.subscribe, *request.initial_versions, *request.initial_versions.values())
        total = len(subscription.names) + len(request.subscribe) + len(request.initial_versions)
    if total > MAX_NAMES:
        return f"{total} names of one type are asked for; at most {MAX_NAMES}"
    if any(len(name) > MAX_NAME_CHARS for name in names):
        return f"a name or version has more than {MAX_NAME_CHARS} characters"
    return None
