"""Single steps of the plan, each as it is described."""

from __future__ import annotations

from dataclasses import replace

import pytest

from control.mesh.evidence import OFFLINE_AFTER_S, Claims, MeshEvidence
from control.mesh.facts import NOTHING, Accepts, Call, Facts, Place, Presence, Record
from control.mesh.transitions import NEW_IDENTITY, OFFLOAD, STRICT, TLS, TRAFFIC
from control.model.identity import Identity
from tests.control.mesh.world import SECTION, Labels, Wish, World, dataplane, with_labels


def world(**names: Labels) -> World:
    made = World(Wish(names or {"a1": Labels("a"), "a2": Labels("a"), "c1": Labels("c")}))
    made.settle()
    return made


def go(of: World, *names: str) -> None:
    for name in names:
        of.take(name, "serving")
        of.take(name, "calling")
        of.acknowledge(name)


def steps(of: World, step: str) -> set[tuple[str, str]]:
    return {(wait.who, wait.waits_for) for wait in of.plan.waits if wait.step == step}


def test_callers_wait_for_every_server_and_strict_for_every_caller() -> None:
    there = world()
    every = {name: replace(labels, has_identity=True) for name, labels in there.wish.dataplanes.items()}
    there.change(replace(there.wish, dataplanes=every))
    assert there.plan.facts["a1"].inbounds[SECTION] == Accepts(plaintext=True, tls=True)
    go(there, "a1", "c1")
    assert steps(there, TLS) >= {("service a", "a2")}
    assert not there.plan.services["a"].tls
    assert steps(there, STRICT) >= {("a1", "c1")}
    go(there, "a2")
    assert there.plan.services["a"].tls
    assert there.plan.facts["c1"].calls["a"].tls
    assert there.plan.facts["a1"].inbounds[SECTION].plaintext, "c1 has not gone over yet"
    go(there, "c1")
    assert there.plan.facts["a1"].inbounds[SECTION] == Accepts(plaintext=False, tls=True)


def test_known_trust_is_no_readiness() -> None:
    """c1 has an identity, so everybody verifies its domain; the servers get theirs later."""
    there = world(a1=Labels("a"), a2=Labels("a"), c1=Labels("c", has_identity=True, strict=False))
    for name in ("a1", "a2"):
        there.change(with_labels(there.wish, name, has_identity=True))
    go(there, "c1")
    assert not there.plan.facts["c1"].calls["a"].tls
    assert steps(there, TLS) >= {("service a", "a1"), ("service a", "a2")}


def test_tls_is_sticky_and_a_member_without_identity_gets_no_traffic() -> None:
    there = world(**{name: Labels(name[0], has_identity=True) for name in ("a1", "a2", "c1")})
    there.change(with_labels(there.wish, "a2", has_identity=False))
    assert there.plan.services["a"].tls
    assert there.plan.facts["c1"].calls["a"].without == {"a2"}
    assert steps(there, TRAFFIC) == {("a2", "a2")}
    assert there.plan.facts["a2"].identity is not None, "c1 may still be calling it"
    go(there, "c1")
    assert there.plan.facts["a2"].identity is not None, "it calls nobody that takes plaintext"
    # And a new one without.
    there.change(replace(there.wish, dataplanes={**there.wish.dataplanes, "a3": Labels("a")}))
    there.start("a3")
    go(there, "a3", "c1")
    assert there.plan.facts["c1"].calls["a"].without == {"a2", "a3"}


def test_another_id_waits_for_the_callers() -> None:
    there = world(**{name: Labels(name[0], has_identity=True) for name in ("a1", "c1")})
    there.change(replace(there.wish, path="sa"))
    assert there.plan.services["a"].server_ids == ("spiffe://one/sa/a", "spiffe://one/workload/a")
    assert steps(there, NEW_IDENTITY) >= {("a1", "c1")}
    there.disconnect("c1")
    there.pass_time()
    assert "not connected" in str(next(wait for wait in there.plan.waits if wait.who == "a1"))
    there.now += 24 * 3600
    there.think()
    identity = there.plan.facts["a1"].identity
    assert identity is not None
    assert identity.spiffe_id == "spiffe://one/sa/a", "who is lost is not waited for"


def test_a_key_moves_when_the_daemon_serves_it() -> None:
    there = world(a1=Labels("a", has_identity=True), c1=Labels("c", has_identity=True))
    there.change(with_labels(there.wish, "a1", place=Place("n1", "/run/1")))
    assert steps(there, OFFLOAD) == {("a1", "node n1")}
    assert there.plan.facts["a1"].place is None
    there.node_takes("n1")
    assert there.plan.facts["a1"].place == Place("n1", "/run/1")
    # And back: the node holds it until the proxy has gone over.
    go(there, "a1")
    there.change(with_labels(there.wish, "a1", place=None))
    assert [place for _, place in there.plan.held["a1"]] == [Place("n1", "/run/1")]
    go(there, "a1")
    assert "a1" not in there.plan.held


def test_presence_in_its_order() -> None:
    evidence, of = MeshEvidence(Record()), [dataplane("a"), dataplane("b")]
    evidence.begin(["a"], 0)

    def presence(now: float) -> list[Presence]:
        return [evidence.known(of, now)[name].presence for name in ("a", "b")]

    assert presence(1) == [Presence.AWAY, Presence.NEW]
    claims = evidence.connect("a", 1)
    assert claims.possible == [], "it was there before, and has what it had"
    assert evidence.connect("b", 1).possible == [NOTHING]
    assert presence(2) == [Presence.HERE, Presence.HERE]
    evidence.disconnect("a", claims, 10)
    assert presence(10 + OFFLINE_AFTER_S - 1)[0] is Presence.AWAY
    assert evidence.next_change == pytest.approx(10 + OFFLINE_AFTER_S)
    assert presence(10 + OFFLINE_AFTER_S)[0] is Presence.OFFLINE
    assert evidence.connect("a", 100).possible[0] == NOTHING, "it has been started anew, for all that is known"


def test_claims_are_bounded_and_end_with_an_acknowledgement() -> None:
    claims = Claims()
    for number in range(100):
        claims.offer(Facts(calls={"a": Call(True, frozenset({str(number)}))}))
    assert len(claims.possible) == 32
    assert claims.settle(claims.possible[-1])
    assert not claims.settle(claims.possible[-1])
    assert len(claims.possible) == 1


def test_a_record_comes_back_as_it_was() -> None:
    facts = Facts(
        Identity("spiffe://one/a", "one", "identity", "now"),
        Place("n1", "/run/1"),
        frozenset({("one", "digest")}),
        {SECTION: Accepts(plaintext=False, tls=True)},
        {"b": Call(True, frozenset({"spiffe://one/b"}), frozenset({"b2"}))},
    )
    record = Record({"a": True}, {"one": "PEM"}, {"a1": (NOTHING, facts)})
    assert Record.from_json(record.to_json()) == record
