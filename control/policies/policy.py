"""What a policy's folder provides to the rest of the control plane."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from control.model.base import SpecModel
from control.model.violation import Violation


@dataclass(frozen=True)
class Policy:
    """`shape` says where its configuration is: one `default` for the whole proxy, `rules` for inbounds, or `to`
    entries for outbounds (MeshAccessLog has both of the latter)."""

    type: str
    plural: str
    short: str
    shape: frozenset[Literal["proxy", "inbound", "outbound"]]
    spec: SpecModel
    validate: Callable[[Any], Iterable[Violation]]
    # For policies that protect: what stays in force of a spec that this version cannot read (model/unreadable.py).
    keep: Callable[[Mapping[str, Any]], Any] | None = None
