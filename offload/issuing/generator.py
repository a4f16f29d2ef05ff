"""Keys that are generated on this node, and their certificates: requested, put into force, renewed.

The thin shell around `renewal`: one thread that waits for what is due, and a few that generate keys and talk to
issuers. Each certificate has its own key, in locked memory only; a restart generates new ones. What is in force stays
so until its successor exists.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime

from offload import _dataplane
from offload.identities.in_force import Generated, KeyPair, TrustBundle
from offload.issuing.issuer import IssuerError, check
from offload.issuing.orders import Order
from offload.issuing.renewal import Renewal, State
from offload.reporting.logs import get_logger

ISSUING_AT_ONCE = 4  # identities that wait for their issuers concurrently
LOOK_SECONDS = 1.0  # clocks can be set, and machines can sleep: due work must not wait for the old time
GENERATED_HERE = "generated on this node"


@dataclass
class Entry:
    order: Order
    renewal: Renewal
    pair: KeyPair | None = None
    problem: str | None = None


@dataclass(frozen=True)
class IssuanceStatus:
    """The state of issuance, for metrics."""

    results: Mapping[tuple[str, str], int]  # (issuer, "issued" or "failed") -> count
    next_renewal: Mapping[str, float] = field(default_factory=dict)  # identity -> seconds since 1970


class GeneratedIdentities:
    """`changed` is called, from a thread of this object, when `current` has something new."""

    def __init__(self, changed: Callable[[], None], clock: Callable[[], float] = time.time) -> None:
        self._changed = changed
        self._clock = clock
        self._random = random.SystemRandom().random
        self._log = get_logger()
        self._condition = threading.Condition()
        self._entries: dict[str, Entry] = {}
        self._bundles: dict[str, tuple[TrustBundle, ...]] = {}
        self._results: dict[tuple[str, str], int] = {}
        self._stopping = False
        self._thread: threading.Thread | None = None
        self._pool = ThreadPoolExecutor(ISSUING_AT_ONCE, thread_name_prefix="issuing")

    # ---- for the daemon ----

    def configure(self, orders: Mapping[str, Order], bundles: Mapping[str, tuple[TrustBundle, ...]]) -> None:
        """Adopts what is to be generated, by identity; superseded certificates serve until their replacements exist.

        `bundles`: for identities whose trust comes with their order, and not from files.
        """
        with self._condition:
            self._bundles = dict(bundles)
            for name in self._entries.keys() - orders.keys():
                del self._entries[name]
            for name, order in orders.items():
                entry = self._entries.get(name)
                if entry is None or entry.order != order:
                    self._entries[name] = Entry(order, Renewal(self._random), entry.pair if entry else None)
            self._condition.notify()

    def hurry(self, issuer: str) -> None:
        """The issuer is back: whatever waits for it is due now."""
        with self._condition:
            for entry in self._entries.values():
                if entry.order.source.issuer == issuer and entry.renewal.state is State.WAITING:
                    entry.renewal.due_at = self._clock()
            self._condition.notify()

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="renewals", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        with self._condition:
            self._stopping = True
            self._condition.notify()
        if self._thread is not None:
            self._thread.join(timeout=5)
        # A hanging issuer is not waited for; its own timeout ends it.
        self._pool.shutdown(wait=False, cancel_futures=True)

    def names(self) -> list[str]:
        with self._condition:
            return sorted(self._entries)

    def current(self) -> Generated:
        with self._condition:
            return Generated(
                {name: entry.pair for name, entry in self._entries.items() if entry.pair is not None},
                {name: entry.problem for name, entry in self._entries.items() if entry.problem is not None},
                dict(self._bundles),
            )

    def status(self) -> IssuanceStatus:
        with self._condition:
            dues = {n: e.renewal.due_at for n, e in self._entries.items() if e.renewal.state is not State.ASKING}
            return IssuanceStatus(dict(self._results), dues)

    # ---- the thread ----

    def _run(self) -> None:
        while True:
            with self._condition:
                if self._stopping:
                    return
                now = self._clock()
                for name, entry in self._entries.items():
                    if entry.renewal.is_due(now):
                        entry.renewal.asked()
                        self._pool.submit(self._issue, name, entry)
                waits = [e.renewal.due_at - now for e in self._entries.values() if e.renewal.state is not State.ASKING]
                self._condition.wait(max(0.05, min([*waits, LOOK_SECONDS])))

    def _issue(self, name: str, entry: Entry) -> None:
        """Generates a key, has it certified, and checks the chain, on a thread of the pool."""
        order = entry.order
        pair: KeyPair | None = None
        problem = None
        try:
            key = _dataplane.Key.generate(order.source.key_type)
            request = key.certificate_request(order.wanted.uris, order.wanted.dns_names)
            issued = order.issuer.issue(request, order.wanted)
            chain = check(issued.chain, key.key_id, order.wanted, datetime.fromtimestamp(self._clock(), UTC))
            pair = KeyPair(key, chain, GENERATED_HERE, f"issuer {order.source.issuer}", renew_at=issued.renew_at)
        except (IssuerError, ValueError) as error:
            problem = str(error)
        except Exception as error:  # noqa: BLE001  (an issuer's fault must not end renewals for ever)
            self._log.exception("an issuer failed unexpectedly", identity=name, issuer=order.source.issuer)
            problem = f"the issuer failed unexpectedly: {type(error).__name__}"
        with self._condition:
            self._done(name, entry, pair, problem)
            self._condition.notify()
        self._changed()

    def _done(self, name: str, entry: Entry, pair: KeyPair | None, problem: str | None) -> None:
        issuer, now = entry.order.source.issuer, self._clock()
        result = (issuer, "failed" if pair is None else "issued")
        self._results[result] = self._results.get(result, 0) + 1
        entry.problem = problem
        if pair is None:
            entry.renewal.refused(now)
            self._log.warning(
                "no certificate",
                identity=name,
                issuer=issuer,
                reason=problem,
                again_in_seconds=round(entry.renewal.due_at - now, 1),
                previous_stays_in_force=entry.pair is not None,
            )
            return
        chain = pair.chain
        entry.renewal.issued(now, chain.not_before, chain.chain_not_after, pair.renew_at)
        entry.pair = KeyPair(pair.key, chain, pair.key_file, pair.certificate_file, renew_at=entry.renewal.due_at)
        self._log.info(
            "certificate issued",
            identity=name,
            issuer=issuer,
            serial_number=chain.serial_number,
            not_after=chain.chain_not_after,
            renewal_in_seconds=round(entry.renewal.due_at - now),
        )
