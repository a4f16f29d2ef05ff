"""Who a workload is, and what it shows to prove it."""

from __future__ import annotations

from dataclasses import dataclass, field

# The path of the SPIFFE id that the control plane reserves for itself; no workload gets it (ca/identities.py).
CONTROL_PLANE_PATH = "/mesh-control-plane"


@dataclass(frozen=True)
class Identity:
    """Who a dataplane is."""

    spiffe_id: str
    trust_domain: str
    # The MeshIdentity that gives it, and whose CA signs.
    mesh_identity: str
    # When the MeshIdentity was created: one that is deleted and created again has another CA.
    made_at: str = ""


@dataclass(frozen=True)
class Credential:
    """A certificate with its key, for Envoy's own TLS: PEM, leaf first."""

    chain_pem: str
    key_pem: str = field(repr=False)


def control_plane_id(trust_domain: str) -> str:
    return f"spiffe://{trust_domain}{CONTROL_PLANE_PATH}"
