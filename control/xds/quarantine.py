"""What one proxy rejects, and which policies are left out for it so that everything else reaches it. Pure.

Theory of operation
-------------------
A proxy rejects a whole response (NACK) although one policy in it is wrong, and keeps what it had. So a bad access log
would keep a permission from it, and a proxy that has just started would have nothing at all. A permission must never
wait for another policy's mistake; so the policy is found and left out for this proxy, by name, and the rest is sent.

Every resource is known with its sources (`Made`: policies, the dataplane, services, each in its version). What the
proxy accepted last is the baseline. When it rejects a resource, the changes since then are suspected; of a proxy
without one, everything. Suspects are tried one after the other, each trial leaving something out:

    each suspect alone, the one that protects least first     (at most MOST_SINGLES of them)
    all suspects that protect nothing
    all these, and what is rejected is closed                 every caller is rejected there, and so is plaintext

    rejected -> TRIAL --taken--> HELD --what it was made of changes--> forgotten, and tried again as a whole
                 |  ^
       rejected: |  | next trial. What is no longer rejected, or for another reason than before, had this trial's cause:
                 +--+ what was left out stays out.
                 |
                 +--no trial is left--> only what was found stays out: the rest is no policy's doing (an address that
                                        cannot be bound, say). The proxy waits for a change.

A MeshTrafficPermission is never left out by itself, which would change what it means: where permissions are rejected,
all callers are. The full form is tried once more before that is held, since a temporary cause (an address in use)
looks the same. A MeshOffload is never left out, as the key would move into the proxy.

A proxy that is sent what it has already does not respond. Its trial stays in force all the same; a later rejection of
anything that the trial did not know begins a new one, and what the old one left out is held.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from control.mesh.choice import IN_FORCE, NOTHING, PROTECTING, Choice, Key, Made, Source
from control.xds.encoding.encode import LISTENER, ROUTES

# In the order of suspicion: what protects least comes first.
UNPROTECTED = (
    "MeshTrace",
    "MeshMetric",
    "MeshAccessLog",
    "MeshHealthCheck",
    "MeshLoadBalancingStrategy",
    "MeshHTTPRoute",
)
# Types of resources that let callers in.
CLOSABLE = (LISTENER, ROUTES)
_POLICIES = {*UNPROTECTED, *PROTECTING, "MeshOffload"}
# Each trial is a round trip. More suspects than this at once mean a mesh in which every policy is new.
MOST_SINGLES = 8


@dataclass(frozen=True)
class Refusal:
    """A proxy's rejection of resources of one type."""

    type_url: str
    # By name: the message about this one, else the whole message.
    reasons: Mapping[str, str]
    detail: str

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.reasons)


@dataclass(frozen=True)
class LeftOut:
    """A policy that does not apply to a proxy; without a name, all that let callers in where the proxy rejects that."""

    type: str
    name: str
    refusal: Refusal
    since: float

    @property
    def message(self) -> str:
        names = ", ".join(self.refusal.names[:3]) + (", ..." if len(self.refusal.names) > 3 else "")
        if not self.name:
            return (
                f"all access is denied at {names}, which the proxy rejects with its permissions: {self.refusal.detail}"
            )
        return (
            f"{self.type} {self.name} is left out for this proxy, which rejects {names} with it: {self.refusal.detail}"
        )


class Surroundings(NamedTuple):
    """The present state. `selecting`: the policies of a type that select the proxy, including those left out."""

    selecting: Callable[[str], Made]
    # Returns the version of a resource; empty if it is gone.
    version: Callable[[str, str], str]

    def around(self, types: Iterable[str], made: Made) -> Made:
        """Everything that could affect these: policies of the same types, and all that is not a policy."""
        others = {s for s in made if s.type not in _POLICIES}
        found = {Source(s.type, s.name, self.version(s.type, s.name)) for s in others}
        for type_name in types:
            found |= self.selecting(type_name)
        return frozenset(found)


@dataclass
class _Trial:
    """The search for the cause of one rejection."""

    refusal: Refusal
    since: float
    # The policies in what was rejected, and all that it was made of.
    known: Made
    made: Made
    # The part that the proxy had not accepted in this version.
    changed: Made
    suspects: tuple[Choice, ...]
    around: Made
    at: int = 0
    # What has turned out to be one of several causes.
    found: Choice = IN_FORCE
    # Whether the full form was tried once more, after the closed one was accepted; None: not yet.
    again: bool | None = None

    @property
    def is_over(self) -> bool:
        return self.at >= len(self.suspects)

    @property
    def choice(self) -> Choice:
        return self.found if self.is_over or self.again else self.found | self.suspects[self.at]


class Quarantine:
    """The state of one dataplane, over all its connections."""

    def __init__(self) -> None:
        # What the proxy accepted last, by type and name.
        self._taken: dict[str, dict[str, Made]] = {}
        self._trials: dict[str, _Trial] = {}
        self._held: list[_Trial] = []
        # By type and name: messages of rejections that no policy caused.
        self._hopeless: dict[tuple[str, str], str] = {}
        # By type, for people: what has changed in what is rejected.
        self._causes: dict[str, tuple[Source, ...]] = {}

    # --- results ------------------------------------------------------------------------------------------------------

    @property
    def choice(self) -> Choice:
        chosen = IN_FORCE
        for trial in self._all():
            chosen |= trial.choice
        return chosen

    @property
    def is_busy(self) -> bool:
        """Whether anything may be left out."""
        return bool(self._held or self._trials)

    def has_trial(self, type_url: str) -> bool:
        return type_url in self._trials

    def _all(self) -> Sequence[_Trial]:
        return [*self._held, *self._trials.values()]

    @property
    def left_out(self) -> list[LeftOut]:
        """The policies left out, for people."""
        found: dict[Key, LeftOut] = {}
        for trial in self._all():
            for type_name, name in sorted(trial.choice.left_out):
                found[type_name, name] = LeftOut(type_name, name, trial.refusal, trial.since)
            if trial.choice.closed:
                found["", str(sorted(trial.choice.closed))] = LeftOut("", "", trial.refusal, trial.since)
        return list(found.values())

    def causes(self, type_url: str) -> tuple[Source, ...]:
        """What had changed in what the proxy rejected last, of this type."""
        return self._causes.get(type_url, ())

    # --- events -------------------------------------------------------------------------------------------------------

    def look(self, now: Surroundings) -> None:
        """To be called before a configuration is made: what has changed since is tried again as a whole."""
        self._held = [trial for trial in self._held if _is_same(trial, now)]
        self._trials = {type_url: trial for type_url, trial in self._trials.items() if _is_same(trial, now)}

    def restarted(self) -> None:
        """The proxy has nothing any more, and may be of another version."""
        self._taken, self._hopeless = {}, {}

    def took(self, type_url: str, content: Mapping[str, Made]) -> bool:
        """The proxy has accepted these; returns whether it should be sent something else."""
        for name in content:
            self._hopeless.pop((type_url, name), None)
        self._taken.setdefault(type_url, {}).update(content)
        trial = self._trials.get(type_url)
        if trial is not None and not set(trial.refusal.names) <= content.keys():
            return False
        self._causes.pop(type_url, None)
        if trial is None:
            return False
        if trial.choice.closed and trial.again is None:
            trial.again = True
            return True
        del self._trials[type_url]
        if trial.choice != IN_FORCE:
            self._held.append(trial)
        return False

    def refused(self, type_url: str, content: Mapping[str, Made], detail: str, now: Surroundings, at: float) -> bool:
        """The proxy has rejected these; returns whether it should be sent something else."""
        said = words(detail, content)
        reasons = {name: said.get(name, _plain(detail)) for name in self._blamed(type_url, content, detail)}
        names = [name for name, reason in reasons.items() if self._hopeless.get((type_url, name)) != reason]
        if not names:
            return False  # as before: not caused by a policy
        made = NOTHING.union(*(content[name] for name in names))
        if not self.choice.left_out.isdisjoint(source.key for source in made):
            return False  # made before the trial that is in force
        taken = self._taken.get(type_url, {})
        changed = NOTHING.union(*(content[name] - taken.get(name, NOTHING) for name in names))
        self._causes[type_url] = tuple(sorted(changed))
        refusal = Refusal(type_url, {name: reasons[name] for name in names}, detail)
        trial = self._trials.get(type_url)
        known = frozenset(source for source in made if source.type in _POLICIES)
        if trial is not None and known <= trial.known and set(names) == set(trial.refusal.names):
            again = _go_on(trial, refusal)
            self._remember(trial)
            return again
        if trial is not None and _has_helped(trial, refusal):
            if trial.choice != IN_FORCE:
                self._held.append(trial)
        elif trial is not None:  # the search goes on with what has come since, and with what the trial left out
            known, made, changed = known | trial.known, made | trial.made, changed | trial.changed
        suspects = _suspects(type_url, names, changed)
        around = now.around(_types_of(suspects), made)
        self._trials[type_url] = trial = _Trial(refusal, at, known, made, changed, suspects, around)
        self._remember(trial)
        return bool(suspects)

    def _remember(self, trial: _Trial) -> None:
        if trial.is_over:
            reasons = trial.refusal.reasons
            self._hopeless |= {(trial.refusal.type_url, name): reason for name, reason in reasons.items()}

    def _blamed(self, type_url: str, content: Mapping[str, Made], detail: str) -> tuple[str, ...]:
        """What the proxy names, else what has changed, else all."""
        found = named(detail, content)
        if not found:
            taken = self._taken.get(type_url, {})
            found = {name for name, made in content.items() if taken.get(name) != made}
        return tuple(sorted(found or content))


def _is_same(trial: _Trial, now: Surroundings) -> bool:
    """Whether everything that could affect what is left out is unchanged."""
    choice = trial.choice
    types = _types_of(trial.suspects if choice == IN_FORCE else [choice])
    before = {source for source in trial.around if source.type in types or source.type not in _POLICIES}
    return before == now.around(types, trial.made)


def _has_helped(trial: _Trial, refusal: Refusal) -> bool:
    """Whether something is no longer rejected, or for another reason."""
    before, now = trial.refusal.reasons, refusal.reasons
    return any(now.get(name) != reason for name, reason in before.items())


def _go_on(trial: _Trial, refusal: Refusal) -> bool:
    if trial.is_over:
        return False
    if trial.again:  # the full form is rejected: it stays closed
        trial.again = False
        return True
    if _has_helped(trial, refusal):
        # One of several causes is found; the search for the others starts again.
        trial.found, trial.refusal = trial.found | trial.suspects[trial.at], refusal
        others = (c for place, c in enumerate(trial.suspects) if place != trial.at)
        less = [Choice(c.left_out - trial.found.left_out, c.closed) for c in others]
        trial.suspects, trial.at = tuple(dict.fromkeys(c for c in less if c != IN_FORCE)), 0
        return True
    trial.at += 1
    return True


def _suspects(type_url: str, names: Iterable[str], changed: Made) -> tuple[Choice, ...]:
    """What is left out, trial by trial."""
    found = [source.key for type_name in UNPROTECTED for source in sorted(changed) if source.type == type_name]
    keys = list(dict.fromkeys(found))
    trials = [Choice(frozenset({key})) for key in keys[:MOST_SINGLES]]
    everything = Choice(frozenset(keys))
    if len(keys) > 1:
        trials.append(everything)
    if type_url in CLOSABLE and any(source.type in PROTECTING for source in changed):
        trials.append(everything | Choice(closed=frozenset(names)))
    return tuple(trials)


def _types_of(trials: Sequence[Choice]) -> set[str]:
    last = trials[-1] if trials else IN_FORCE
    return {type_name for type_name, _ in last.left_out} | (set(PROTECTING) if last.closed else set())


def _plain(detail: str) -> str:
    """The message without white space, of which protobuf adds random amounts, so that nobody relies on its form."""
    return re.sub(r"\s+", " ", detail)


# How protobuf begins a message that Envoy shows; only its first name is that of the resource.
_SHOWN = re.compile(r'goo\.gle/debug\w+\s+name: "([^"]+)"')


def named(detail: str, names: Iterable[str]) -> set[str]:
    """Which of these resources a proxy's message is about."""
    return set(words(detail, names))


def words(detail: str, names: Iterable[str]) -> dict[str, str]:
    """What a proxy says about each of these resources that it names."""
    shown = _SHOWN.search(detail)
    if shown is not None:
        return {name: _plain(detail) for name in names if name == shown[1]}
    places = []
    for name in names:
        # Most names are not in it, which the first test finds faster.
        found = name in detail and re.search(rf"(?<![A-Za-z0-9_.:-]){re.escape(name)}(?![A-Za-z0-9_.-])", detail)
        if found:
            places.append((found.start(), name))
    places.sort()
    ends = [*(start for start, _ in places[1:]), len(detail)]
    return {name: _plain(detail[start:end]).strip(" ,") for (start, name), end in zip(places, ends, strict=False)}
