"""How requests are told who the caller is, for each way in which that was or was not verified."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from envoy_ext.render import filter_state


@dataclass(frozen=True)
class PeerDetails:
    """How requests are told who the caller is: fields of the connection manager, and of its virtual host."""

    manager: Mapping[str, Any] = field(default_factory=dict)
    host: Mapping[str, Any] = field(default_factory=dict)


# Nobody is verified: the header of a caller that names one is removed.
PLAINTEXT = PeerDetails({"forward_client_cert_details": "SANITIZE"})
ENVOY_TLS = PeerDetails(
    {"forward_client_cert_details": "SANITIZE_SET", "set_current_client_cert_details": {"uri": True}}
)


def by_module(own_id: str) -> PeerDetails:
    """Envoy does not see the module's TLS: the scheme must be set, and the header be made from filter state."""
    value = f"By={own_id};URI={filter_state('peer_spiffe_id')}"
    header = {"header": {"key": "x-forwarded-client-cert", "value": value}}
    return PeerDetails(
        {
            "forward_client_cert_details": "SANITIZE_SET",
            "scheme_header_transformation": {"scheme_to_overwrite": "https"},
        },
        {"request_headers_to_add": [header | {"append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}]},
    )
