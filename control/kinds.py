"""Every type of resource that this control plane knows: the one list, from the model and the policies' folders."""

from __future__ import annotations

from control.model import dataplane, mesh, mesh_identity, mesh_service, opentelemetry_backend
from control.model.resource import Kind, Kinds
from control.policies import POLICIES

MESH = Kind("Mesh", "meshes", "m", mesh.MeshSpec, mesh.validate, in_mesh=False, dns_label=True)
DATAPLANE = Kind("Dataplane", "dataplanes", "dp", dataplane.DataplaneSpec, dataplane.validate, flat=True)
MESH_SERVICE = Kind(
    "MeshService", "meshservices", "msvc", mesh_service.MeshServiceSpec, mesh_service.validate, dns_label=True
)
MESH_IDENTITY = Kind(
    "MeshIdentity",
    "meshidentities",
    "mid",
    mesh_identity.MeshIdentitySpec,
    mesh_identity.validate_identity,
    keep=mesh_identity.keep_identity,
)
MESH_TRUST = Kind("MeshTrust", "meshtrusts", "mtrust", mesh_identity.MeshTrustSpec, mesh_identity.validate_trust)
OPENTELEMETRY_BACKEND = Kind(
    "MeshOpenTelemetryBackend",
    "meshopentelemetrybackends",
    "motb",
    opentelemetry_backend.MeshOpenTelemetryBackendSpec,
    opentelemetry_backend.validate,
)

KINDS = Kinds(
    [MESH, DATAPLANE, MESH_SERVICE, MESH_IDENTITY, MESH_TRUST, OPENTELEMETRY_BACKEND]
    + [Kind(p.type, p.plural, p.short, p.spec, p.validate, is_policy=True, keep=p.keep) for p in POLICIES]
)
