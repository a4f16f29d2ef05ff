"""MeshTrafficPermission: who may call the inbounds of a proxy. Without any, nobody may."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import Field, ValidationError

from control.model.base import Model
from control.model.target_ref import EVERYONE, Match, SpiffeIDMatch, TopLevelTargetRef, check_match, check_top_level
from control.model.unreadable import without_unknown
from control.model.violation import Violation
from control.policies.policy import Policy

_EXAMPLE = [{"spiffeID": {"type": "Exact", "value": "spiffe://default.default.mesh.local/workload/web"}}]
ACTIONS = ("allow", "deny", "allowWithShadowDeny")


class RuleConf(Model):
    allow: list[Match] | None = Field(default=None, examples=[_EXAMPLE])
    # Wins over every allow, whichever policy has it.
    deny: list[Match] | None = Field(default=None, examples=[_EXAMPLE])
    # Allowed, but counted as if denied: to try a denial out.
    allow_with_shadow_deny: list[Match] | None = Field(default=None, examples=[_EXAMPLE])


class Rule(Model):
    default: RuleConf = Field(examples=[{"allow": _EXAMPLE}])


class Spec(Model):
    target_ref: TopLevelTargetRef | None = None
    rules: list[Rule] = Field(min_length=1, examples=[[{"default": {"allow": _EXAMPLE}}]])


def validate(spec: Spec) -> Iterator[Violation]:
    yield from check_top_level(spec.target_ref, configures_inbounds=True)
    for index, rule in enumerate(spec.rules):
        path = f"spec.rules[{index}].default"
        lists = (rule.default.allow, rule.default.deny, rule.default.allow_with_shadow_deny)
        if not any(lists):
            yield Violation(
                path,
                f"must have at least one of {', '.join(ACTIONS)}",
                "allow: [{spiffeID: {type: Exact, value: 'spiffe://default.default.mesh.local/workload/web'}}]",
            )
        for name, matches in zip(ACTIONS, lists, strict=True):
            for number, match in enumerate(matches or ()):
                yield from check_match(match, f"{path}.{name}[{number}]")


_EVERYONE = Match(spiffeID=SpiffeIDMatch(type="Prefix", value=EVERYONE))


def keep(spec: Mapping[str, Any]) -> Spec | None:
    """What stays in force if this version cannot read it: its denials. It allows nobody, since that is not known.

    A denial that cannot be read denies everybody, and one whose targetRef cannot be read applies to the whole mesh.
    """
    denied = list(_denied_by(spec))
    if not denied:
        return None
    try:
        target = TopLevelTargetRef.model_validate(spec["targetRef"]) if spec.get("targetRef") is not None else None
    except ValidationError:
        target = None
    return Spec.model_validate({"targetRef": target, "rules": [Rule(default=RuleConf(deny=denied))]})


def _denied_by(data: Any) -> Iterator[Match]:
    """Collects denials wherever they are: a newer version may have moved them."""
    if isinstance(data, list):
        for item in data:
            yield from _denied_by(item)
    elif isinstance(data, dict):
        for key, value in data.items():
            if key == "deny" and isinstance(value, list):
                yield from (_match(match) for match in value)
            elif "deny" in str(key).lower() and key not in ACTIONS:
                yield _EVERYONE
            else:
                yield from _denied_by(value)


def _match(data: Any) -> Match:
    """Ignores unknown fields, so that it matches more callers, not fewer."""
    known = without_unknown(Match, data, needed=("spiffeID",)) if isinstance(data, dict) else None
    return known or _EVERYONE


POLICY = Policy("MeshTrafficPermission", "meshtrafficpermissions", "mtp", frozenset({"inbound"}), Spec, validate, keep)
