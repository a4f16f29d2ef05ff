"""MeshTrafficPermission: who may call the inbounds of a proxy. Without any, nobody may."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import Field

from control.model.base import Model
from control.model.reference import Match, TopLevelTargetRef, check_match, check_top_level
from control.model.violation import Violation
from control.policies.policy import Policy

_EXAMPLE = [{"spiffeID": {"type": "Exact", "value": "spiffe://default.default.mesh.local/workload/web"}}]
ACTIONS = ("allow", "deny", "allowWithShadowDeny")


class RuleConf(Model):
    allow: list[Match] | None = Field(default=None, examples=[_EXAMPLE])
    # Wins over every allow, whichever policy it stands in.
    deny: list[Match] | None = Field(default=None, examples=[_EXAMPLE])
    # Let in, and counted as if denied: to try a denial out.
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


POLICY = Policy("MeshTrafficPermission", "meshtrafficpermissions", "mtp", frozenset({"inbound"}), Spec, validate)
