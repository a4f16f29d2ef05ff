"""Labels of Kuma: which there are, and what they may say.

One that does nothing here is accepted where Kuma's own exports write it. One that Kuma does not have is a mistake: what
it should do does not happen, and nobody is told.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping

from control.model.base import RFC1035_RULE, is_rfc1035_label
from control.model.reference import DISPLAY_NAME, WORKLOAD, ZONE
from control.model.violation import Violation, dotted

PREFIX = "kuma.io/"
EFFECT = PREFIX + "effect"
SHADOW = "shadow"
_MESH = PREFIX + "mesh"

# What each may be; None: anything that a label may be.
_VALUES: Mapping[str, tuple[str, ...] | None] = {
    EFFECT: (SHADOW,),
    PREFIX + "origin": ("zone", "global"),
    PREFIX + "env": ("universal", "kubernetes"),
    PREFIX + "policy-role": ("system", "producer", "consumer", "workload-owner"),
    DISPLAY_NAME: None,
    ZONE: None,
    WORKLOAD: None,
    _MESH: None,
    **{
        PREFIX + name: None
        for name in (
            "managed-by",
            "deletion-grace-period-started-at",
            "proxy-type",
            "service",
            "service-name",
            "protocol",
            "instance",
            "external-service-name",
            "sidecar-injection",
            "gateway",
            "listener-zoneingress",
            "listener-zoneegress",
        )
    },
}
# They stand in SPIFFE ids.
_RFC1035 = (ZONE, WORKLOAD)


def is_shadow(labels: Mapping[str, str]) -> bool:
    """Whether a policy has no effect but in `mesh inspect config --shadow`."""
    return labels.get(EFFECT) == SHADOW


def violations(labels: Mapping[str, str], mesh: str | None, is_policy: bool) -> Iterator[Violation]:
    for key, value in labels.items():
        if not key.startswith(PREFIX):
            continue
        path = dotted(("labels", key))
        if key not in _VALUES:
            close = difflib.get_close_matches(key, _VALUES, n=1)
            meant = f"; did you mean {close[0]}?" if close else ""
            yield Violation(path, f"is not a label of Kuma{meant} (there are: {', '.join(sorted(_VALUES))})", "")
            continue
        allowed = _VALUES[key]
        if allowed is not None and value not in allowed:
            one = "one of " if len(allowed) > 1 else ""
            yield Violation(path, f"must be {one}{', '.join(allowed)}; got {value!r}", f"{key}: {allowed[0]}")
        elif key == EFFECT and not is_policy:
            yield Violation(path, "can only stand on a policy: nothing else can be tried out without effect", "")
        elif key in _RFC1035 and not is_rfc1035_label(value):
            yield Violation(path, f"{RFC1035_RULE}; got {value!r}", f"{key}: backend")
        elif key == _MESH and value != (mesh or ""):
            yield Violation(path, f"must be the mesh of the resource, {mesh!r}; got {value!r}", f"{key}: {mesh}")
