"""The steps of the mesh demo. Each changes something, sends requests, and returns their counts with what must hold."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from control.ca.rotation import Event
from control.cli.client import ApiError
from deploy.demo.mesh import calls
from deploy.demo.mesh.calls import NO_ANSWER
from deploy.demo.mesh.parts import BLUE, IDENTITY, Mesh, spiffe_id
from deploy.demo.mesh.result import Step, by_version
from deploy.demo.traffic import traffic, wait_for_requests
from deploy.node.waiting import wait_for

DENIED = "403"
FROM_BLUE, FROM_GREEN, FROM_CART = "200 prices-blue", "200 prices-green", "200 cart"
PRICES = (FROM_BLUE, FROM_GREEN)
# Number of equal answers in a row after which a switch counts as complete: Envoy's one worker has its routes then.
SETTLED = 20
# The same before a measurement, when one version of two must be gone; by chance 200 of one kind have p < 1e-9.
CERTAIN = 200
# Standard deviations by which a share may differ: more happens once in two million runs.
SIGMAS = 5
STAGE_SECONDS = 60
# Pause between background requests, which must not take the machine from what they watch.
PAUSE = 0.005


@dataclass(frozen=True)
class Sizes:
    """Numbers of requests; the test uses fewer."""

    each: int = 200  # by each caller, if only the answers matter
    canary: int = 5000
    background: int = 200  # at least, before and after each change with traffic going on
    down_seconds: float = 3.0


@contextmanager
def both_kinds(mesh: Mesh) -> Iterator[Counter[str]]:
    """Requests over kept connections, and requests with a handshake each, all the time."""

    def once() -> Counter[str]:
        time.sleep(PAUSE)
        return Counter((calls.answer(mesh.web_to_prices), calls.answer(mesh.web_to_cart)))

    with traffic(once) as counts:
        yield counts


def deny_by_default(mesh: Mesh, sizes: Sizes) -> Step:
    step = Step("deny_by_default", "deny by default")
    mesh.answers_become(mesh.web_to_prices, DENIED, SETTLED)
    for call, wanted in (
        (mesh.web_to_prices, DENIED),
        (mesh.cart_to_prices, DENIED),
        (mesh.web_to_cart, NO_ANSWER),
        (mesh.outsider_to_prices, NO_ANSWER),
    ):
        step.expect(call.name, calls.answers(call, sizes.each), [wanted])
    (found,) = mesh.control_plane.access(BLUE, spiffe_id("web"))
    step.require(not found["allowed"], "`mesh inspect access` says that web may call prices")
    step.shown = "no access: HTTP 403, TCP and plaintext closed"
    return step


def permission(mesh: Mesh, sizes: Sizes) -> Step:
    step = Step("permission", "a permission admits web")
    mesh.apply("web-may-call")
    mesh.answers_become(mesh.web_to_cart, FROM_CART, SETTLED)
    for wanted in PRICES:  # each version has its own proxy, which receives the permission separately
        mesh.answers_become(mesh.web_to_prices, wanted)
    wait_for("both versions to admit web", lambda: DENIED not in calls.answers(mesh.web_to_prices, SETTLED))
    step.expect(mesh.web_to_prices.name, calls.answers(mesh.web_to_prices, sizes.each), PRICES)
    step.expect(mesh.web_to_cart.name, calls.answers(mesh.web_to_cart, sizes.each), [FROM_CART])
    allowed = step.requests
    step.expect(mesh.cart_to_prices.name, calls.answers(mesh.cart_to_prices, sizes.each), [DENIED])
    step.counts = {"allowed": allowed, "denied": step.requests - allowed}
    step.shown = f"web is admitted {allowed} times; cart, which is not named, {DENIED} {step.requests - allowed} times"
    return step


def canary(mesh: Mesh, sizes: Sizes) -> Step:
    step = Step("canary", "canary, 90 to 10")
    mesh.apply("blue")
    mesh.answers_become(mesh.web_to_prices, FROM_BLUE, SETTLED)
    mesh.apply("canary")
    mesh.answers_become(mesh.web_to_prices, FROM_GREEN)
    answers = calls.answers(mesh.web_to_prices, sizes.canary)
    step.expect(mesh.web_to_prices.name, answers, PRICES)
    versions = by_version(answers)
    share = versions["green"] / sizes.canary
    margin = SIGMAS * math.sqrt(0.1 * 0.9 / sizes.canary)
    step.require(abs(share - 0.1) <= margin, f"{share:.1%} went to the canary, which is not 10 % ± {margin:.1%}")
    step.counts = {**versions, "share": round(share, 4)}
    step.shown = f"{versions['blue']:,} to blue, {versions['green']:,} to green: {share:.1%}"
    return step


def blue_green(mesh: Mesh, sizes: Sizes) -> Step:
    step = Step("blue_green", "switch from blue to green")
    mesh.apply("blue")
    mesh.answers_become(mesh.web_to_prices, FROM_BLUE, CERTAIN)
    with traffic(lambda: Counter((calls.answer(mesh.web_to_prices),))) as during:
        wait_for_requests(during, sizes.background)
        mesh.apply("green")
        mesh.answers_become(mesh.web_to_prices, FROM_GREEN, SETTLED)
        wait_for_requests(during, sizes.background)
    step.expect(mesh.web_to_prices.name, during, PRICES)
    after = calls.answers(mesh.web_to_prices, sizes.each)
    step.expect("after the switch web", after, [FROM_GREEN])
    step.counts = dict(by_version(during + after))
    step.shown = f"{step.counts.get('blue', 0):,} from blue, then {step.counts.get('green', 0):,} from green"
    return step


def permissive_to_strict(mesh: Mesh, sizes: Sizes) -> Step:
    step = Step("permissive_to_strict", "permissive, then strict")
    outsider = mesh.outsider_to_prices
    with both_kinds(mesh) as during:
        mesh.apply("permissive")
        mesh.answers_become(outsider, FROM_GREEN, SETTLED)
        permissive = calls.answers(outsider, sizes.each)
        mesh.apply("strict")
        mesh.answers_become(outsider, NO_ANSWER, SETTLED)
        strict = calls.answers(outsider, sizes.each)
        wait_for_requests(during, sizes.background)
    step.expect("plaintext, while permissive,", permissive, [FROM_GREEN])
    step.expect("plaintext, when strict,", strict, [NO_ANSWER])
    step.expect("web by mutual TLS meanwhile", during, [FROM_GREEN, FROM_CART])
    step.counts = {
        "plaintext_let_in": permissive[FROM_GREEN],
        "plaintext_refused": strict[NO_ANSWER],
        "mtls_requests": during.total(),
        "mtls_failures": during.total() - during[FROM_GREEN] - during[FROM_CART],
    }
    step.shown = (
        f"plaintext {permissive[FROM_GREEN]} times admitted, then {strict[NO_ANSWER]} times refused; "
        f"{during.total():,} by mutual TLS meanwhile"
    )
    return step


def ca_rotation(mesh: Mesh, sizes: Sizes) -> Step:
    step = Step("ca_rotation", "rotation of the CA")
    before = mesh.control_plane.rotation(IDENTITY)
    handshakes = _handshakes(mesh)
    with both_kinds(mesh) as during:
        wait_for_requests(during, sizes.background)
        for event in (Event.BEGIN, Event.DISTRIBUTED, Event.REPLACED, Event.RETIRED):
            after = _step_of_rotation(mesh, event)
            wait_for_requests(during, sizes.background)
    step.expect("web", during, [FROM_GREEN, FROM_CART])
    step.require(after["stage"] == "Stable", f"the rotation ended in stage {after['stage']}")
    step.require(after["issuer"] != before["issuer"], "the CA is the one that it was")
    step.require(len(after["bundle"]) == 1, "the old CA is still trusted")
    made = _handshakes(mesh) - handshakes
    step.require(made >= during[FROM_CART], f"only {made} handshakes for {during[FROM_CART]} connections")
    step.counts = {"stages": 4, "handshakes": made}
    step.shown = f"new CA in every bundle, it signs, old one gone; {made:,} mTLS handshakes meanwhile"
    return step


def _step_of_rotation(mesh: Mesh, event: Event) -> dict[str, Any]:
    """Retries while somebody is not ready; the last rejection says who."""
    end = time.monotonic() + STAGE_SECONDS
    while True:
        try:
            after: dict[str, Any] = mesh.control_plane.rotation(IDENTITY, event.value)
        except ApiError:
            if time.monotonic() > end:
                raise
            time.sleep(0.1)
        else:
            return after


def _handshakes(mesh: Mesh) -> int:
    """Handshakes of the module, in all proxies, as the server."""
    name = "tls_offload.handshakes"
    return sum(proxy.stats(name).get(name, 0) for proxy in mesh.proxies.values())


def control_plane_restart(mesh: Mesh, sizes: Sizes) -> Step:
    step = Step("control_plane_restart", "control plane killed and restarted")
    with both_kinds(mesh) as during:
        wait_for_requests(during, sizes.background)
        sent = _configurations_taken(mesh)
        mesh.control_plane.kill()
        alone = during.total()
        time.sleep(sizes.down_seconds)
        alone = during.total() - alone
        mesh.control_plane.start()
        wait_for("the proxies and the node to come back", mesh.connected, STAGE_SECONDS)
        again = _configurations_taken(mesh) - sent
        # The control plane is in charge again.
        mesh.apply("blue")
        mesh.answers_become(mesh.web_to_prices, FROM_BLUE, SETTLED)
        wait_for_requests(during, sizes.background)
    step.expect("web", during, [*PRICES, FROM_CART])
    step.require(alone > 0, "there were no requests while it was away")
    step.require(again == 0, f"{again} configurations were sent again though nothing had changed")
    step.counts = {"requests_while_away": alone, "configurations_sent_again": again}
    step.shown = f"{alone:,} requests while it was away (SIGKILL); nothing sent again, the next change arrives"
    return step


def _configurations_taken(mesh: Mesh) -> int:
    """Listeners and clusters that proxies have accepted from the control plane."""
    names = ("cluster_manager.cds.update_success", "listener_manager.lds.update_success")
    return sum(proxy.stats(name).get(name, 0) for proxy in mesh.proxies.values() for name in names)


StepFunction = Callable[[Mesh, Sizes], Step]
