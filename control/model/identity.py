"""Who a workload is, and what it shows to prove it."""

from __future__ import annotations

from dataclasses import dataclass, field

# The path of the SPIFFE id that the control plane takes for itself; no workload gets it (ca/identities.py).
CONTROL_PLANE_PATH = "/mesh-control-plane"


@dataclass(frozen=True)
class Identity:
    """Who a dataplane is."""

    spiffe_id: str
    trust_domain: str
    # The MeshIdentity that says so, and whose CA signs.
    mesh_identity: str
    # When that was made: one of the same name that is made again has another CA.
    made_at: str = ""


@dataclass(frozen=True)
class Credential:
    """A certificate with its key, for Envoy's own TLS: PEM, leaf first."""

    chain_pem: str
    key_pem: str = field(repr=False)


def control_plane_id(trust_domain: str) -> str:
    return f"spiffe://{trust_domain}{CONTROL_PLANE_PATH}"
