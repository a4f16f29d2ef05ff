"""Each guard of the plan by itself: without it, one of these fails. c1 calls service a, whose members are a1 and a2."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from control.mesh.facts import (
    NOTHING,
    Accepts,
    Call,
    Evidence,
    Facts,
    Known,
    NodeKnown,
    Place,
    Plan,
    Presence,
    Record,
    Wanted,
    WantedProxy,
    WantedService,
)
from control.mesh.transitions import NEW_IDENTITY, NO_TLS, OFFLOAD, TLS, plan
from control.model.identity import Identity

S = "http"
A, C = (Identity(f"spiffe://one/{name}", "one", "identity") for name in "ac")
NEW = Identity("spiffe://two/a", "two", "identity")
DIGESTS = {"one": "1", "two": "2"}
TRUST = frozenset(DIGESTS.items())
PLACE = Place("n1", "/run/1")
GONE = Presence.OFFLINE


def serves(tls: bool = True, plaintext: bool = True, identity: Identity | None = A, **more: object) -> Facts:
    return Facts(identity, **{"inbounds": {S: Accepts(plaintext, tls)}, "trusts": TRUST, **more})  # type: ignore[arg-type]


def calls(tls: bool, ids: tuple[str, ...] = (A.spiffe_id,), without: tuple[str, ...] = (), **more: object) -> Facts:
    call = Call(tls, frozenset(ids) if tls else frozenset(), frozenset(without))
    return Facts(**{"identity": C, "trusts": TRUST, "calls": {"a": call}, **more})  # type: ignore[arg-type]


def known(*possible: Facts, presence: Presence = Presence.HERE) -> Known:
    return Known(presence, possible)


def planned(
    members: Mapping[str, Known],
    before: bool | None,
    caller: Known | None = None,
    wanted: Mapping[str, Identity | None] | None = None,
    pinned: frozenset[str] | None = None,
    strict: tuple[str, ...] = (),
    places: Mapping[str, Place] | None = None,  # of keys that are not in Envoy
    nodes: Mapping[str, NodeKnown] | None = None,
    members_call: tuple[str, ...] = (),
) -> Plan:
    """`wanted`: identities that differ from A and C."""
    identities = dict.fromkeys(members, A) | {"c1": C} | dict(wanted or {})
    proxies = {
        name: WantedProxy(identities[name], (places or {}).get(name), {S: name not in strict}, members_call)
        for name in members
    }
    proxies["c1"] = WantedProxy(identities["c1"], (places or {}).get("c1"), {S: True}, ("a",))
    services = {"a": WantedService(dict.fromkeys(members, (S,)), pinned), "c": WantedService({"c1": (S,)})}
    record = Record({"c": True} | ({} if before is None else {"a": before}), {"one": "PEM", "zero": "PEM"})
    evidence = Evidence({**members, **({"c1": caller} if caller is not None else {})}, nodes or {})
    return plan(Wanted(proxies, services, dict.fromkeys(DIGESTS, "PEM"), DIGESTS), record, evidence)


def waits(of: Plan, step: str) -> set[tuple[str, str]]:
    return {(wait.who, wait.waits_for) for wait in of.waits if wait.step == step}


HERE, READY = known(NOTHING), known(serves())
BY_TLS, BY_PLAINTEXT = known(calls(True)), known(calls(False))
NOBODY: dict[str, Identity | None] = {"a1": None, "a2": None}
PINNED = frozenset({"spiffe://elsewhere/x"})


@pytest.mark.parametrize(
    ("more", "tls"),
    [
        ({}, True),
        ({"wanted": {"a2": None}}, False),
        ({"wanted": {"a2": None}, "strict": ("a1",)}, True),
        ({"wanted": NOBODY}, False),
        ({"wanted": NOBODY, "pinned": PINNED}, True),
    ],
)
def test_how_a_new_service_begins(more: dict[str, object], tls: bool) -> None:
    assert planned({"a1": HERE, "a2": HERE}, None, **more).services["a"].tls is tls  # type: ignore[arg-type]


AT_NODE = known(serves(place=PLACE))
DEAF = known(serves(identity=None), presence=Presence.HERE)


@pytest.mark.parametrize(
    ("a2", "caller", "more", "tls"),
    [
        (READY, BY_PLAINTEXT, {}, True),
        (HERE, BY_PLAINTEXT, {}, False),
        (HERE, BY_TLS, {}, True),  # nobody calls it by plaintext
        (known(serves(), serves(tls=False)), BY_PLAINTEXT, {}, False),  # it may be using either
        (known(serves(tls=False)), BY_PLAINTEXT, {}, False),
        (DEAF, BY_PLAINTEXT, {}, False),
        (known(NOTHING, presence=GONE), BY_PLAINTEXT, {}, True),  # it gets no traffic
        (known(serves(trusts=frozenset())), BY_PLAINTEXT, {}, False),
        (known(serves(trusts=frozenset({("one", "older")}))), BY_PLAINTEXT, {}, False),
        (AT_NODE, BY_PLAINTEXT, {}, False),
        (AT_NODE, BY_PLAINTEXT, {"nodes": {"n1": NodeKnown(frozenset(), TRUST)}}, False),
        (AT_NODE, BY_PLAINTEXT, {"nodes": {"n1": NodeKnown(frozenset({(A.spiffe_id, PLACE.socket)}))}}, False),
        (AT_NODE, BY_PLAINTEXT, {"nodes": {"n1": NodeKnown(frozenset({(A.spiffe_id, PLACE.socket)}), TRUST)}}, True),
        (READY, BY_PLAINTEXT, {"wanted": {"a2": None}}, False),
        (READY, BY_PLAINTEXT, {"wanted": {"a2": None}, "pinned": PINNED}, True),
    ],
)
def test_when_plaintext_becomes_tls(a2: Known, caller: Known, more: dict[str, object], tls: bool) -> None:
    found = planned({"a1": READY, "a2": a2}, False, caller, **more)  # type: ignore[arg-type]
    assert found.services["a"].tls is tls
    assert (("service a", "a2") in waits(found, TLS)) is not tls


def test_a_service_of_which_nobody_counts_stays_as_it_is() -> None:
    gone = {"a1": known(serves(), presence=GONE), "a2": known(serves(), presence=GONE)}
    assert not planned(gone, False, BY_PLAINTEXT).services["a"].tls
    assert not planned(gone, False, wanted=NOBODY).services["a"].tls


@pytest.mark.parametrize(
    ("a2", "caller", "more", "tls"),
    [
        (READY, BY_TLS, {"wanted": NOBODY}, False),
        (READY, BY_TLS, {"wanted": {"a2": None}}, True),
        (READY, BY_TLS, {"wanted": NOBODY, "pinned": PINNED}, True),
        (known(serves(plaintext=False)), BY_TLS, {"wanted": NOBODY}, True),
        (known(serves(plaintext=False), presence=GONE), BY_TLS, {"wanted": NOBODY}, False),
        (known(serves(plaintext=False)), BY_PLAINTEXT, {"wanted": NOBODY}, False),
    ],
)
def test_when_tls_becomes_plaintext(a2: Known, caller: Known, more: dict[str, object], tls: bool) -> None:
    assert planned({"a1": READY, "a2": a2}, True, caller, **more).services["a"].tls is tls  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("a2", "more", "without"),
    [
        (READY, {}, set()),
        (HERE, {}, {"a2"}),
        (known(serves(), presence=GONE), {}, {"a2"}),
        (READY, {"wanted": {"a2": None}}, {"a2"}),
        (READY, {"wanted": {"a2": None}, "pinned": PINNED}, set()),
        (READY, {"wanted": NOBODY}, set()),  # it is about to end for all
    ],
)
def test_who_gets_no_traffic_by_tls(a2: Known, more: dict[str, object], without: set[str]) -> None:
    found = planned({"a1": READY, "a2": a2}, True, BY_TLS, **more)  # type: ignore[arg-type]
    assert found.services["a"].without[True] == without


@pytest.mark.parametrize(
    ("a1", "a2", "without"),
    [
        (READY, READY, set()),
        (READY, known(serves(plaintext=False)), {"a2"}),
        (READY, known(serves(plaintext=False), serves()), set()),
        (READY, known(serves(), presence=GONE), {"a2"}),
        (known(serves(plaintext=False)), known(serves(plaintext=False)), set()),
        (known(serves(plaintext=False)), known(serves(), presence=GONE), {"a2"}),
    ],
)
def test_who_gets_no_traffic_by_plaintext(a1: Known, a2: Known, without: set[str]) -> None:
    assert planned({"a1": a1, "a2": a2}, False).services["a"].without[False] == without


def test_ids_that_may_serve() -> None:
    members = {"a1": READY, "a2": known(serves(), serves(identity=NEW))}
    assert planned(members, True).services["a"].server_ids == ("spiffe://one/a", "spiffe://two/a")
    soon = planned({"a1": READY}, True, wanted={"a1": NEW}).services["a"].server_ids
    assert soon == ("spiffe://one/a", "spiffe://two/a")
    assert planned(members, True, pinned=PINNED).services["a"].server_ids == tuple(PINNED)


CALLS_C = {"c": Call(True, frozenset({C.spiffe_id}))}


@pytest.mark.parametrize(
    ("caller", "members_call", "kept"),
    [
        (BY_TLS, (), True),
        (BY_PLAINTEXT, (), False),
        (known(calls(True), presence=Presence.LOST), (), False),
        (known(calls(True, without=("a1",))), (), False),
        # It calls c1, which takes TLS only, or plaintext too, or is not there.
        (known(calls(False, inbounds={S: Accepts(False, True)})), ("c",), True),
        (known(calls(False, inbounds={S: Accepts(True, True)})), ("c",), False),
        (known(calls(False, inbounds={S: Accepts(False, True)}), presence=GONE), ("c",), False),
    ],
)
def test_an_identity_ends_when_nobody_needs_it(caller: Known, members_call: tuple[str, ...], kept: bool) -> None:
    found = planned({"a1": READY}, True, caller, wanted={"a1": None}, members_call=members_call)
    assert found.facts["a1"].identity == (A if kept else None)
    assert (("a1", "c1") in waits(found, NO_TLS)) is kept


BOTH = (A.spiffe_id, NEW.spiffe_id)
ONE_ONLY = frozenset({("one", "1")})


@pytest.mark.parametrize(
    ("a1", "caller", "moves"),
    [
        (READY, known(calls(True, BOTH)), True),
        (READY, known(calls(True)), False),
        (READY, known(calls(True), calls(True, BOTH)), False),
        (READY, known(calls(True, BOTH, trusts=ONE_ONLY)), False),
        (READY, known(calls(True, without=("a1",))), True),
        (READY, known(calls(True), presence=Presence.LOST), True),
        # It calls c1, which has to verify it.
        (known(serves(calls=CALLS_C)), known(calls(True, BOTH, trusts=ONE_ONLY)), False),
        (known(serves(calls=CALLS_C)), known(calls(False, trusts=ONE_ONLY)), False),
        (known(serves(calls=CALLS_C)), known(calls(False, trusts=ONE_ONLY), presence=GONE), True),
        (known(serves(calls=CALLS_C)), known(calls(False)), True),
    ],
)
def test_another_id_waits_for_those_who_see_it(a1: Known, caller: Known, moves: bool) -> None:
    found = planned({"a1": a1}, True, caller, wanted={"a1": NEW})
    assert found.facts["a1"].identity == (NEW if moves else A)
    assert (("a1", "c1") in waits(found, NEW_IDENTITY)) is not moves


def test_a_key_moves_to_a_daemon_that_serves_it() -> None:
    late = planned({"a1": READY}, True, places={"a1": PLACE})
    assert (late.facts["a1"].place, waits(late, OFFLOAD)) == (None, {("a1", "node n1")})
    assert late.held["a1"] == ((A, PLACE),)
    nodes = {"n1": NodeKnown(frozenset({(A.spiffe_id, PLACE.socket)}), TRUST)}
    assert planned({"a1": READY}, True, places={"a1": PLACE}, nodes=nodes).facts["a1"].place == PLACE
    # It may be using the old place until it has said otherwise, unless it is lost.
    assert planned({"a1": known(serves(place=PLACE), serves())}, True).held == {"a1": ((A, PLACE),)}
    lost = known(serves(place=PLACE), serves(), presence=Presence.LOST)
    assert planned({"a1": lost}, True).held == {}


C_SERVED = NodeKnown(frozenset({(C.spiffe_id, PLACE.socket)}), TRUST)
UNTRUSTING = known(serves(trusts=frozenset()))


@pytest.mark.parametrize(
    ("a2", "caller", "more", "tls"),
    [
        (READY, known(calls(False)), {}, True),
        (READY, known(calls(False)), {"wanted": {"c1": None}}, False),
        (READY, known(calls(False, identity=None)), {}, False),  # it has no certificate yet
        (READY, known(NOTHING), {}, True),  # it has just been started, and waits for its certificate
        (UNTRUSTING, known(calls(False)), {}, False),
        (UNTRUSTING, known(calls(True)), {}, True),
        (UNTRUSTING, known(calls(False, without=("a2",))), {}, True),  # nothing is lost
        (known(serves(trusts=frozenset(), plaintext=False)), known(calls(False)), {}, True),
        (known(serves(trusts=frozenset()), presence=GONE), known(calls(False)), {}, True),
        (READY, known(calls(False, place=PLACE)), {"places": {"c1": PLACE}}, False),
        (READY, known(calls(False, place=PLACE)), {"places": {"c1": PLACE}, "nodes": {"n1": C_SERVED}}, True),
    ],
)
def test_when_a_caller_goes_over(a2: Known, caller: Known, more: dict[str, object], tls: bool) -> None:
    found = planned({"a1": READY, "a2": a2}, True, caller, **more)  # type: ignore[arg-type]
    assert found.services["a"].tls
    assert found.facts["c1"].calls["a"].tls is tls


@pytest.mark.parametrize(
    ("a1", "caller", "before", "kept"),
    [
        (READY, BY_PLAINTEXT, True, True),
        (READY, BY_TLS, True, False),
        (READY, known(calls(False), calls(True)), True, True),
        (READY, known(calls(False), presence=Presence.LOST), True, False),
        (READY, known(calls(False, without=("a1",)), calls(True)), True, False),
        (known(serves(plaintext=False)), BY_PLAINTEXT, True, False),  # never what it did not take before
        # What it is given now counts too.
        (READY, known(Facts()), False, True),
        (READY, known(Facts(), presence=Presence.AWAY), False, True),
        (READY, known(Facts(), presence=GONE), False, False),
        (known(serves(), presence=GONE), known(Facts()), False, False),
    ],
)
def test_when_plaintext_is_refused(a1: Known, caller: Known, before: bool, kept: bool) -> None:
    # A member without an identity keeps the service by plaintext.
    a2, wanted = (READY, {}) if before else (known(NOTHING), {"a2": None, "c1": None})
    found = planned({"a1": a1, "a2": a2}, before, caller, wanted, strict=("a1",))
    assert found.facts["a1"].inbounds[S] == Accepts(kept, True)


def test_an_inbound_that_serves_nobody_here_refuses_plaintext_at_once() -> None:
    proxies = {"a1": WantedProxy(A, None, {S: False, "other": False}, ()), "c1": WantedProxy(C, None, {}, ("a",))}
    services = {"a": WantedService({"a1": (S,)})}
    inbounds = {S: Accepts(True, True), "other": Accepts(True, True)}
    evidence = Evidence({"a1": known(serves(inbounds=inbounds)), "c1": BY_PLAINTEXT})
    found = plan(Wanted(proxies, services, {}, DIGESTS), Record({"a": True}), evidence)
    assert found.facts["a1"].inbounds == {S: Accepts(True, True), "other": Accepts(False, True)}


def test_whoever_is_to_lose_its_identity_takes_both() -> None:
    found = planned({"a1": READY}, True, BY_TLS, {"a1": None}, strict=("a1",))
    assert found.facts["a1"].inbounds[S] == Accepts(True, True)
    assert planned({"a1": READY}, True, wanted={"a1": None}).facts["a1"].inbounds[S] == Accepts(True, False)


def test_a_bundle_stays_while_somebody_shows_an_id_of_it() -> None:
    old = serves(identity=Identity("spiffe://zero/a", "zero", "identity"))
    assert planned({"a1": known(old, serves())}, True, BY_TLS).retained == {"zero": "PEM"}
    assert planned({"a1": known(old, serves(), presence=Presence.LOST)}, True, BY_TLS).retained == {}


def test_of_whom_nothing_is_known() -> None:
    """Who was there before is as the plan says; who is new has nothing."""
    before = Known(Presence.AWAY)
    assert planned({"a1": READY, "a2": before}, True, BY_TLS).services["a"].without[True] == set()
    new = Known(Presence.PROXYLESS), Known(Presence.NEW)
    assert planned({"a1": READY, "a2": new[1]}, True, BY_TLS).services["a"].without[True] == {"a2"}
    assert planned({"a1": READY, "a2": new[0]}, True, BY_TLS).services["a"].without[True] == set()


def test_nobody_waits_for_itself() -> None:
    """A member that calls its own service goes over by itself."""
    alone = known(serves(calls={"a": Call(False)}))
    found = planned({"a1": alone}, True, strict=("a1",), members_call=("a",))
    assert found.facts["a1"].inbounds[S] == Accepts(False, True)
