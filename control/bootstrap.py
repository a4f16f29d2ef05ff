"""The bootstrap configuration of a proxy: who it is, and where its control plane is. Everything else comes by ADS."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from typing import Any

from control.xds import shapes

Config = dict[str, Any]

CLUSTER = "control_plane"


@dataclass(frozen=True)
class ControlPlaneAddress:
    host: str
    port: int
    ca_pem: str


@dataclass(frozen=True)
class ProxyIdentity:
    mesh: str
    dataplane: str
    token: str = field(repr=False)

    @property
    def node_id(self) -> str:
        return f"{self.mesh}.{self.dataplane}"


def bootstrap(
    proxy: ProxyIdentity, control_plane: ControlPlaneAddress, admin_port: int | None = None, delta: bool = True
) -> Config:
    """The file holds the token: keep it readable for the proxy's user only."""
    service = {
        "envoy_grpc": {"cluster_name": CLUSTER},
        "initial_metadata": [{"key": "authorization", "value": f"Bearer {proxy.token}"}],
    }
    ads = {
        "api_type": "DELTA_GRPC" if delta else "GRPC",
        "transport_api_version": "V3",
        # The node is told once a stream, not with every request.
        "set_node_on_first_message_only": True,
        "grpc_services": [service],
    }
    result: Config = {
        "node": {"id": proxy.node_id, "cluster": proxy.mesh},
        "dynamic_resources": {"ads_config": ads, "cds_config": shapes.ADS, "lds_config": shapes.ADS},
        "static_resources": {"clusters": [_cluster(control_plane)]},
    }
    if admin_port is not None:
        result["admin"] = {"address": shapes.address("127.0.0.1", admin_port)}
    return result


def _cluster(control_plane: ControlPlaneAddress) -> Config:
    host = control_plane.host
    context = {
        "@type": shapes.TYPES + "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
        "common_tls_context": {
            "validation_context": {
                "trusted_ca": {"inline_string": control_plane.ca_pem},
                "match_typed_subject_alt_names": [
                    {"san_type": "IP_ADDRESS" if _is_ip(host) else "DNS", "matcher": {"exact": host}}
                ],
            },
            "alpn_protocols": ["h2"],
        },
    }
    return {
        "name": CLUSTER,
        "type": "STATIC" if _is_ip(host) else "STRICT_DNS",
        "connect_timeout": "5s",
        "load_assignment": {
            "cluster_name": CLUSTER,
            "endpoints": [{"lb_endpoints": [shapes.endpoint(host, control_plane.port)]}],
        },
        "transport_socket": {"name": "envoy.transport_sockets.tls", "typed_config": context},
        **_http2_with_keepalive(),
    }


def _http2_with_keepalive() -> Config:
    """A control plane that is gone without a word is noticed, and looked for again."""
    options = shapes.http_options("http2")
    [typed] = options["typed_extension_protocol_options"].values()
    keepalive = {"connection_keepalive": {"interval": "30s", "timeout": "10s"}}
    typed["explicit_http_config"]["http2_protocol_options"] = keepalive
    return options


def _is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
