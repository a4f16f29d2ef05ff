"""Explains a proxy: its policies, what it should have, what it has, and why a call to it is allowed or denied."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any

from control.ca.identities import Held
from control.mesh.choice import IN_FORCE, Choice
from control.mesh.facts import Plan, Presence, Wait
from control.mesh.proxy_policies import ProxyPolicies
from control.mesh.transitions import service_step
from control.mesh.view import MeshView
from control.model.placement import node_of
from control.model.resource import Resource
from control.policies import POLICIES
from control.policies.meshtrafficpermission.generate import decide
from control.reconcile.control_plane import ControlPlane
from control.reconcile.proxies import Proxy
from control.xds.encoding.encode import CLUSTER, ENDPOINTS, LISTENER, ROUTES, SECRET
from control.xds.protocol.states import Phase
from control.xds.protocol.subscription import Subscription
from control.xds.quarantine import LeftOut
from control.xds.render.endpoints import load_assignments
from control.xds.render.inbounds import is_closed, permission_entries
from control.xds.render.proxy import render

# More of a mesh than anybody reads; `mesh get` shows all of a kind.
MAX_LEFT_OUT = 20
# The end of the year 9999, the last date that can be represented; a token may name a later one.
_FOREVER = 253_402_300_799
SHORT = {CLUSTER: "CDS", ENDPOINTS: "EDS", LISTENER: "LDS", ROUTES: "RDS", SECRET: "SDS"}


def policies(view: MeshView, dataplane: Resource) -> list[dict[str, Any]]:
    """Every policy that selects the proxy, the weakest of each type first."""
    found = ProxyPolicies(view, dataplane)
    return [
        {"type": policy.type, "policies": [resource.to_data() for resource in found.of_type(policy.type)]}
        for policy in POLICIES
        if found.of_type(policy.type)
    ]


def config(view: MeshView, dataplane: Resource, choice: Choice = IN_FORCE) -> dict[str, Any]:
    """What the proxy should have, without secrets."""
    rendered = render(view, dataplane, choice=choice)
    return {
        "clusters": list(rendered.clusters.values()),
        "endpoints": list(load_assignments(view, rendered.reached, view.zone_of(dataplane)).values()),
        "listeners": list(rendered.listeners.values()),
        "routes": list(rendered.routes.values()),
        "problems": rendered.problems,
    }


def access(view: MeshView, dataplane: Resource, caller: str, choice: Choice = IN_FORCE) -> list[dict[str, Any]]:
    """For each inbound, whether the caller with this SPIFFE id is allowed, and which rule decides."""
    found, identity = ProxyPolicies(view, dataplane, choice=choice), view.identity_of(dataplane)
    answers = []
    for inbound in dataplane.spec.networking.inbound:
        if identity is None:
            allowed, reason = True, "the dataplane has no identity: it accepts plaintext, and permissions do not apply"
        elif is_closed(found, inbound):
            allowed, reason = False, "the proxy rejects its permissions (mesh inspect overview): all access is denied"
        else:
            allowed, reason = decide(permission_entries(found, inbound), caller)
        answers.append({"inbound": inbound.section, "allowed": allowed, "reason": reason})
    return answers


async def overview(control_plane: ControlPlane, view: MeshView, dataplane: Resource) -> dict[str, Any]:
    """Who it is, whether it is connected, what it accepted and rejected, and which steps wait for what."""
    identity, mode = view.identity_of(dataplane), ProxyPolicies(view, dataplane).offload.mode
    # In mode Offload the node's daemon has the certificate; an earlier one in the store means nothing.
    held = control_plane.state.identities.held(dataplane.mesh, dataplane.name) if mode == "EnvoyTLS" else None
    choice = control_plane.state.quarantines.choice(view, dataplane)
    problems = list(render(view, dataplane, choice=choice).problems)
    left_out = control_plane.state.quarantines.left_out(dataplane.mesh, dataplane.name)
    problems += [one.message for one in left_out]
    problems += [one.message for one in view.unreadable[:MAX_LEFT_OUT]]
    if identity is not None:
        problems += _trouble(control_plane, view.mesh, identity.mesh_identity, mode, held)
    given, node = view.given(dataplane), node_of(dataplane)
    word = control_plane.state.daemons.word(given) if given is not None else None
    if word is not None:
        problems.append(f"node {node} cannot sign for {identity.spiffe_id if identity else 'it'}: {word}")
    presence = control_plane.state.plans.presence_of(dataplane.mesh, dataplane.name)
    if presence in (Presence.OFFLINE, Presence.LOST, Presence.NEW):
        problems.append(
            f"its proxy is {presence.value}: it gets no traffic (delete the Dataplane if it will not return)"
        )
    waits = waits_of(view, dataplane.name)
    return {
        "name": dataplane.name,
        "mesh": dataplane.mesh,
        "spiffeID": identity.spiffe_id if identity else None,
        "mode": mode,
        "certificate": {"notAfter": held.not_after.isoformat(), "renewAt": held.renew_at.isoformat()} if held else None,
        "problems": problems,
        "leftOut": [_left_out(one) for one in left_out],
        "waits": [_wait(wait) for wait in waits],
        "settled": word is None and not any(wait.who == dataplane.name for wait in waits),
        "connections": [
            _connection(control_plane, proxy)
            for proxy in control_plane.state.proxies.named(dataplane.mesh, dataplane.name)
        ],
    }


def waits_of(view: MeshView, name: str) -> list[Wait]:
    """Steps of the dataplane that wait, and those that wait for it; including those of services that it serves."""
    plan = view.plan or Plan()
    served = {service_step(s.name) for s in view.of_type("MeshService") if any(d.name == name for d in view.members(s))}
    return [wait for wait in plan.waits if name in (wait.who, wait.waits_for) or wait.who in served]


def waiting(view: MeshView) -> list[dict[str, str]]:
    """Every step of the mesh that waits, and for whom."""
    return [_wait(wait) for wait in (view.plan or Plan()).waits]


def _wait(wait: Wait) -> dict[str, str]:
    return {"who": wait.who, "step": wait.step, "waitsFor": wait.waits_for, "reason": wait.reason}


def _trouble(control_plane: ControlPlane, mesh: str, mesh_identity: str, mode: str, held: Held | None) -> list[str]:
    """Problems of the CA of a proxy's identity, and what the proxy has in spite of them."""
    trouble = control_plane.state.identities.authorities.trouble(mesh, mesh_identity)
    if trouble is None:
        return []
    if mode == "Offload":
        keeps = "its node keeps its present certificate until it expires"
    elif held is not None and held.is_valid(control_plane.state.identities.now()):
        keeps = f"the proxy keeps its certificate until {held.not_after:%Y-%m-%d %H:%M} UTC"
    else:
        keeps = "the proxy has no certificate"
    return [f"the CA of MeshIdentity {mesh_identity} cannot be used: {trouble}; {keeps}"]


def _left_out(one: LeftOut) -> dict[str, Any]:
    since = datetime.fromtimestamp(one.since, UTC).isoformat()
    resources = [f"{SHORT.get(one.refusal.type_url, 'its')} {name}" for name in one.refusal.names]
    return {"type": one.type, "name": one.name, "resources": resources, "because": one.refusal.detail, "since": since}


def _connection(control_plane: ControlPlane, proxy: Proxy) -> dict[str, Any]:
    subscriptions = proxy.stream.subscriptions if proxy.stream is not None else {}
    types = {
        SHORT[type_url]: _type(control_plane, proxy, subscription)
        for type_url, subscription in subscriptions.items()
        if subscription.is_asked
    }
    seconds = int(time.monotonic() - proxy.connected_at)
    end = proxy.token_ends_at
    until = None if end is None else datetime.fromtimestamp(min(end, _FOREVER), UTC).isoformat()
    return {"connectedSeconds": seconds, "tokenUntil": until, "types": types}


def _type(control_plane: ControlPlane, proxy: Proxy, subscription: Subscription) -> dict[str, Any]:
    """What it rejects now is shown for each resource, whatever else of the type it has accepted since."""
    snapshot, type_url = proxy.snapshot, subscription.type_url
    refused = subscription.refused_now(snapshot) if snapshot is not None else {}
    state: dict[str, Any] = {
        "state": (Phase.PARKED if refused and subscription.phase is Phase.SETTLED else subscription.phase).value,
        "sentVersion": subscription.version,
        "acknowledgedVersion": subscription.acked_version,
        "wantedVersion": snapshot.version(type_url) if snapshot is not None else "",
    }
    if refused:
        causes = [str(cause) for cause in control_plane.state.quarantines.causes(proxy.mesh, proxy.name, type_url)]
        state["refused"] = "; ".join(dict.fromkeys(one.detail for one in refused.values()))
        state["refusals"] = [
            {"resource": name, "because": one.detail, "changed": causes} for name, one in sorted(refused.items())
        ]
    elif subscription.phase is Phase.PARKED:
        state["state"] = Phase.SETTLED.value  # what it rejected is no longer wanted
    return state
