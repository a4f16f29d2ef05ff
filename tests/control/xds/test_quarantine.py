"""The quarantine of one proxy: who is left out when it refuses something, and when that ends."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from control.mesh.choice import IN_FORCE, Choice, Made, Source
from control.xds.encoding.encode import CLUSTER, LISTENER, ROUTES
from control.xds.quarantine import Quarantine, Surroundings, named

DATAPLANE = Source("Dataplane", "web", "1")
LOG, TRACE = Source("MeshAccessLog", "log", "1"), Source("MeshTrace", "trace", "1")
PERMISSION, TLS = Source("MeshTrafficPermission", "permission", "1"), Source("MeshTLS", "tls", "1")
OFFLOAD = Source("MeshOffload", "offload", "1")
PROTECTING = ("MeshTLS", "MeshTrafficPermission")


def out(*sources: Source, closed: tuple[str, ...] = ()) -> Choice:
    return Choice(frozenset(s.key for s in sources), frozenset(closed))


class Scene:
    """A proxy that refuses what has one of the `bad` sources in it, in words of that source."""

    def __init__(self, resources: Mapping[str, set[Source]], bad: set[Source] = frozenset()) -> None:  # type: ignore[assignment]
        self.resources = {name: {*made, DATAPLANE} for name, made in resources.items()}
        self.bad = set(bad)
        self.quarantine = Quarantine()
        self.rounds = 0
        # What is wrong whatever the policies are, by name of the resource.
        self.broken: dict[str, str] = {}

    def change(self, source: Source, version: str) -> Source:
        new = source._replace(version=version)
        self.resources = {n: {new if s == source else s for s in made} for n, made in self.resources.items()}
        return new

    def now(self) -> Surroundings:
        every = {s for made in self.resources.values() for s in made}

        def selecting(type_name: str) -> Made:
            return frozenset(s for s in every if s.type == type_name)

        def version(type_name: str, name: str) -> str:
            return next((s.version for s in every if s.key == (type_name, name)), "")

        return Surroundings(selecting, version)

    def content(self) -> dict[str, Made]:
        choice = self.quarantine.choice
        return {
            name: frozenset(
                s for s in made if s.key not in choice.left_out and not (name in choice.closed and s.type in PROTECTING)
            )
            for name, made in self.resources.items()
        }

    def push(self, type_url: str = LISTENER) -> dict[str, Made]:
        """Until the proxy has taken it, or nothing is sent any more; what it was offered last."""
        for _ in range(50):
            self.quarantine.look(self.now())
            content, reasons = self.content(), dict[str, str]()
            for name, made in content.items():
                wrong = sorted(s for s in made if s in self.bad)
                if name in self.broken:
                    reasons[name] = self.broken[name]
                elif wrong:
                    reasons[name] = f"no field {wrong[0].name}"
            self.rounds += 1
            if not reasons:
                if not self.quarantine.took(type_url, content):
                    return content
                continue
            detail = "Error adding/updating listener(s) " + "\n".join(f"{n}: {text}" for n, text in reasons.items())
            if not self.quarantine.refused(type_url, content, detail, self.now(), 0.0):
                return content
        raise AssertionError("it does not end")

    @property
    def left_out(self) -> Choice:
        return self.quarantine.choice


def test_a_bad_policy_is_left_out_and_a_permission_goes_on() -> None:
    scene = Scene({"in": {LOG, TRACE, PERMISSION}, "out": {LOG}})
    scene.push()
    bad = scene.change(LOG, "2")
    scene.bad = {bad}
    scene.change(PERMISSION, "2")
    taken = scene.push()
    assert scene.left_out == out(LOG)
    assert PERMISSION._replace(version="2") in taken["in"]
    assert TRACE in taken["in"]
    [one] = scene.quarantine.left_out
    assert one.message.startswith("MeshAccessLog log is left out for this proxy, which rejects in, out with it: Error")
    # Another permission does not wait, and the bad one is not tried again for it.
    before = scene.rounds
    scene.change(PERMISSION._replace(version="2"), "3")
    assert PERMISSION._replace(version="3") in scene.push()["in"]
    assert (scene.rounds, scene.left_out) == (before + 1, out(LOG))
    # It is tried again when it changes.
    scene.change(bad, "3")
    assert LOG._replace(version="3") in scene.push()["in"]
    assert scene.left_out == IN_FORCE
    assert scene.quarantine.left_out == []


@pytest.mark.parametrize("what", [DATAPLANE, Source("MeshAccessLog", "other", "1")])
def test_it_is_tried_again_when_something_else_changes_that_could_matter(what: Source) -> None:
    scene = Scene({"in": {LOG, Source("MeshAccessLog", "other", "1"), PERMISSION}})
    scene.push()
    scene.bad = {scene.change(LOG, "2")}
    scene.push()
    assert scene.left_out == out(LOG)
    scene.bad = set()
    scene.change(what, "9")
    scene.push()
    assert scene.left_out == IN_FORCE


def test_who_comes_without_a_past_gets_all_but_the_bad_one() -> None:
    logs = {Source("MeshAccessLog", f"log-{n}", "1") for n in range(4)}
    bad = Source("MeshAccessLog", "log-2", "1")
    scene = Scene({"in": {*logs, TRACE, PERMISSION, TLS, OFFLOAD}}, {bad})
    taken = scene.push()
    assert scene.left_out == out(bad)
    assert taken["in"] == {*logs, TRACE, PERMISSION, TLS, OFFLOAD, DATAPLANE} - {bad}


def test_two_bad_policies_are_both_found() -> None:
    other = Source("MeshAccessLog", "other", "1")
    scene = Scene({"in": {LOG, other, TRACE, PERMISSION}}, {TRACE, other})
    assert scene.push()["in"] == {LOG, PERMISSION, DATAPLANE}
    assert scene.left_out == out(TRACE, other)


def test_two_bad_policies_of_two_resources_are_both_found() -> None:
    other = Source("MeshAccessLog", "other", "1")
    scene = Scene({"in": {LOG, PERMISSION}, "out": {other}}, {LOG, other})
    scene.push()
    assert scene.left_out == out(LOG, other)


def test_bad_policies_that_sound_the_same_are_left_out_together() -> None:
    scene = Scene({"in": {LOG, TRACE, PERMISSION}})
    scene.bad = {LOG, TRACE}
    same = {LOG.name: "x", TRACE.name: "x"}
    scene.resources = {"in": {s._replace(name=same.get(s.name, s.name)) for s in scene.resources["in"]}}
    scene.bad = {s._replace(name="x") for s in scene.bad}
    scene.push()
    assert scene.left_out.left_out == {("MeshAccessLog", "x"), ("MeshTrace", "x")}


@pytest.mark.parametrize("bad", [PERMISSION, TLS])
def test_where_permissions_are_refused_nobody_is_let_in(bad: Source) -> None:
    scene = Scene({"in": {LOG, PERMISSION, TLS}, "other": {PERMISSION.__class__("MeshTrafficPermission", "b", "1")}})
    scene.push()
    scene.bad = {scene.change(bad, "2")}
    taken = scene.push()
    assert taken["in"] == {LOG, DATAPLANE}
    assert scene.left_out == out(closed=("in",))
    [one] = scene.quarantine.left_out
    assert one.message.startswith("all access is denied at in, which the proxy rejects with its permissions: ")
    scene.bad = set()
    scene.change(bad._replace(version="2"), "3")
    assert scene.push()["in"] == {LOG, DATAPLANE, PERMISSION, TLS} - {bad} | {bad._replace(version="3")}


def test_what_no_policy_is_to_blame_for_leaves_nothing_out() -> None:
    scene = Scene({"in": {LOG, TRACE, PERMISSION}, "out": {LOG}})
    scene.broken["in"] = "cannot bind"
    scene.push()
    assert scene.left_out == IN_FORCE
    rounds = scene.rounds
    scene.push()
    assert scene.rounds == rounds + 1  # it is not tried anew for ever
    # With a past, and with something else that changed: not one trial.
    scene = Scene({"in": {LOG, PERMISSION}})
    scene.push()
    scene.broken["in"] = "cannot bind"
    scene.change(DATAPLANE, "2")
    scene.push()
    assert (scene.rounds, scene.left_out) == (2, IN_FORCE)
    assert scene.quarantine.causes(LISTENER) == (DATAPLANE._replace(version="2"),)


def test_what_does_not_last_does_not_close() -> None:
    """An address that is in use for a moment, while a permission changes."""
    scene = Scene({"in": {PERMISSION}})
    scene.push()
    changed = scene.change(PERMISSION, "2")
    quarantine, words = scene.quarantine, "in: address in use"
    assert quarantine.refused(LISTENER, scene.content(), words, scene.now(), 0.0)
    assert quarantine.choice == out(closed=("in",))
    assert quarantine.took(LISTENER, scene.content())  # the address is free, and it is tried as it should be
    assert quarantine.choice == IN_FORCE
    assert not quarantine.took(LISTENER, scene.content())
    assert changed in scene.content()["in"]
    assert not quarantine.is_busy


def test_the_same_words_as_before_are_no_reason_to_search_again() -> None:
    scene = Scene({"in": {LOG, PERMISSION}, "unbound": {LOG, PERMISSION}})
    scene.broken["unbound"] = "cannot bind"
    scene.push()
    assert scene.left_out == IN_FORCE
    permission = scene.change(PERMISSION, "2")
    rounds = scene.rounds
    scene.push()
    assert (scene.rounds, scene.left_out) == (rounds + 1, IN_FORCE)
    # And somebody else's mistake is found beside it.
    scene.bad = {scene.change(LOG, "2")}
    taken = scene.push()
    assert scene.left_out == out(LOG)
    assert permission in taken["in"]


def test_who_has_started_anew_may_refuse_what_it_took() -> None:
    """An Envoy of another version, for example."""
    scene = Scene({"in": {LOG, PERMISSION}})
    scene.push()
    scene.bad = {LOG}
    scene.quarantine.restarted()
    assert scene.push()["in"] == {PERMISSION, DATAPLANE}


def test_a_change_during_the_search_does_not_hold_what_did_not_help() -> None:
    scene = Scene({"unbound": {PERMISSION}})
    words = "unbound: cannot bind"
    assert scene.quarantine.refused(LISTENER, scene.content(), words, scene.now(), 0.0)
    assert scene.left_out == out(closed=("unbound",))
    scene.resources["unbound"].add(TRACE)
    scene.broken["unbound"] = "cannot bind"
    scene.push()
    assert scene.left_out == IN_FORCE


def test_a_listener_that_cannot_be_had_does_not_close_another() -> None:
    scene = Scene({"in": {PERMISSION}, "unbound": {PERMISSION}})
    scene.push()
    scene.broken["unbound"] = "cannot bind"
    scene.change(PERMISSION, "2")
    scene.push()
    assert "in" not in scene.left_out.closed


def test_a_key_does_not_move_for_a_refusal() -> None:
    scene = Scene({"in": {OFFLOAD, LOG}})
    scene.push()
    scene.bad = {scene.change(OFFLOAD, "2")}
    scene.push()
    assert scene.left_out == IN_FORCE
    assert scene.quarantine.causes(LISTENER) == (OFFLOAD._replace(version="2"),)


def test_an_answer_of_before_the_trial_is_no_answer_to_it() -> None:
    scene = Scene({"in": {LOG, TRACE}}, {LOG})
    old = scene.content()
    assert scene.quarantine.refused(LISTENER, old, "in: no field log", scene.now(), 0.0)
    assert not scene.quarantine.refused(LISTENER, old, "in: no field log", scene.now(), 0.0)
    assert scene.left_out == out(TRACE)  # what protects least


def test_who_is_sent_what_it_has_keeps_its_quarantine() -> None:
    """A delta stream is silent then; the next refusal is another matter."""
    scene = Scene({"in": {LOG, PERMISSION}})
    scene.push()
    bad = scene.change(LOG, "2")
    assert scene.quarantine.refused(LISTENER, scene.content(), "in: no field log", scene.now(), 0.0)
    trace = TRACE._replace(version="5")
    scene.resources["in"].add(trace)
    scene.bad = {bad, trace}
    scene.push()
    assert scene.left_out == out(bad, trace)


def test_types_are_apart() -> None:
    scene = Scene({"in": {LOG, PERMISSION}}, {LOG})
    scene.push(LISTENER)
    scene.push(CLUSTER)
    assert scene.left_out == out(LOG)
    assert scene.quarantine.causes(ROUTES) == ()


names = ["MeshTrace", "MeshAccessLog", "MeshHealthCheck", "MeshHTTPRoute", "MeshTrafficPermission", "MeshTLS"]
sources = st.builds(Source, st.sampled_from(names), st.sampled_from("abc"), st.just("1"))


@pytest.mark.slow(seconds=2)
@settings(max_examples=300, deadline=None)
@given(
    resources=st.dictionaries(st.sampled_from(["in", "out", "more"]), st.sets(sources, max_size=5), min_size=1),
    choose=st.data(),
    with_past=st.booleans(),
)
def test_whatever_is_bad_the_proxy_takes_the_rest(
    resources: Mapping[str, set[Source]], choose: st.DataObject, with_past: bool
) -> None:
    scene = Scene(resources)
    if with_past:
        scene.push()
    every = sorted({s for made in resources.values() for s in made})
    bad = choose.draw(st.sets(st.sampled_from(every), max_size=3)) if every else set()
    scene.bad = {scene.change(source, "2") for source in bad}
    taken = scene.push()
    assert not any(made & scene.bad for made in taken.values())
    closed, left = scene.left_out.closed, scene.left_out.left_out
    # Permissions count everywhere but where they are refused, and there all of them are gone.
    for name, made in scene.resources.items():
        permissions = {s for s in made if s.type in PROTECTING}
        assert taken[name] & permissions == (set() if name in closed else permissions)
        if name in closed:
            assert permissions & scene.bad
    assert {s.key for s in scene.bad if s.type not in PROTECTING} <= left | {
        s.key for s in scene.bad if all(name in closed for name, made in scene.resources.items() if s in made)
    }
    # And all is as it was when the bad ones are mended.
    scene.bad = set()
    for source in bad:
        scene.change(source._replace(version="2"), "3")
    assert scene.push() == {name: frozenset(made) for name, made in scene.resources.items()}
    assert not scene.quarantine.is_busy


WORDS: list[tuple[str, set[str]]] = [
    ("Error adding/updating listener(s) a: no\nb.c_1: no\n", {"a", "b.c_1"}),
    ("Error adding/updating cluster(s) a_10: no", set()),
    ('goo.gle/debugstr   \nname: "b.c_1"\nhost: "a"', {"b.c_1"}),
    ("invalid perl operator", set()),
    ("self_outbound_::1_80: no", {"self_outbound_::1_80"}),
]


@pytest.mark.parametrize(("detail", "wanted"), WORDS)
def test_which_resources_words_are_about(detail: str, wanted: set[str]) -> None:
    assert named(detail, ["a", "a_1", "b.c_1", "self_outbound_::1_80", "1_80"]) == wanted
