"""Kuma's labels: which exist, and their allowed values.

A label without effect here is accepted if Kuma's own exports contain it. A label that Kuma does not have is a mistake:
its intended effect would be missing, and nobody would be told.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping

from control.model.base import RFC1035_RULE, is_rfc1035_label
from control.model.target_ref import DISPLAY_NAME, WORKLOAD, ZONE
from control.model.violation import Violation, dotted

PREFIX = "kuma.io/"
EFFECT = PREFIX + "effect"
SHADOW = "shadow"
_MESH = PREFIX + "mesh"

# The allowed values of each label; None: anything that a label may contain.
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
# They become part of SPIFFE ids.
_RFC1035 = (ZONE, WORKLOAD)


def is_shadow(labels: Mapping[str, str]) -> bool:
    """Whether a policy has no effect except in `mesh inspect config --shadow`."""
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
            yield Violation(path, "is only allowed on a policy: nothing else supports the shadow effect", "")
        elif key in _RFC1035 and not is_rfc1035_label(value):
            yield Violation(path, f"{RFC1035_RULE}; got {value!r}", f"{key}: backend")
        elif key == _MESH and value != (mesh or ""):
            yield Violation(path, f"must be the mesh of the resource, {mesh!r}; got {value!r}", f"{key}: {mesh}")
