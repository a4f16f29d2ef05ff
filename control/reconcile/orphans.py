"""MeshTrusts that the control plane made of a MeshIdentity which is there no more. Pure.

Such a CA is trusted until nobody needs it: before the change has come to everybody, handshakes with certificates of it
would fail. Then it goes, as its key did: a leaked one must not be good for ever.
"""

from __future__ import annotations

from cryptography import x509
from cryptography.hazmat.primitives import hashes

from control.ca.authorities import MANAGED_BY
from control.mesh.view import MeshView
from control.model.resource import Resource


def orphans(view: MeshView) -> list[Resource]:
    unreadable = {one.key for one in view.unreadable}
    return [
        trust
        for trust in view.of_type("MeshTrust")
        if MANAGED_BY.items() <= trust.labels.items()
        and view.get("MeshIdentity", trust.name) is None
        and ("MeshIdentity", view.mesh, trust.name) not in unreadable
    ]


def fingerprints(trust: Resource) -> frozenset[str]:
    """Of its CAs: SHA-256, hexadecimal."""
    return frozenset(
        certificate.fingerprint(hashes.SHA256()).hex()
        for bundle in trust.spec.ca_bundles
        for certificate in x509.load_pem_x509_certificates(bundle.pem.value.encode())
    )
