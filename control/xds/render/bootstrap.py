"""The bootstrap configuration of a proxy: who it is, and where its control plane is. Everything else comes by ADS.

The token is in a separate file, which Envoy reads at each connection: a new one is used without a restart, and no dump
of the configuration shows it. Only Envoy's client of Google's gRPC library does that, not its own client.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from control.xds.render import shapes
from envoy_ext.render import Config, pipe_address, socket_address

# Name of the stream to the control plane in statistics.
NAME = "control_plane"
_FROM_FILE = "envoy.grpc_credentials.file_based_metadata"
_CHANNEL = {
    # A control plane that vanishes silently is noticed, and looked for again.
    "grpc.keepalive_time_ms": 30_000,
    "grpc.keepalive_timeout_ms": 10_000,
    # Envoy has its own pauses, of up to 30 s; those of the library, up to two minutes, would be added to them.
    "grpc.initial_reconnect_backoff_ms": 100,
    "grpc.max_reconnect_backoff_ms": 1_000,
    # The library's limit of 4 MiB is less than what a proxy of a large mesh gets; Envoy's own client has none.
    "grpc.max_receive_message_length": -1,
}


@dataclass(frozen=True)
class ControlPlaneAddress:
    host: str
    port: int
    ca_pem: str


@dataclass(frozen=True)
class ProxyIdentity:
    """`token_file`: the token and nothing else, not even a newline: Envoy sends the file as it is."""

    mesh: str
    dataplane: str
    token_file: Path

    @property
    def node_id(self) -> str:
        return f"{self.mesh}.{self.dataplane}"


def bootstrap(
    proxy: ProxyIdentity,
    control_plane: ControlPlaneAddress,
    admin_port: int | None = None,
    delta: bool = True,
    admin_socket: Path | None = None,
) -> Config:
    """The bootstrap; it contains no secret.

    Envoy's admin interface is on a Unix socket, or on a port of 127.0.0.1 that every user of the host can reach.
    """
    ads = {
        "api_type": "DELTA_GRPC" if delta else "GRPC",
        "transport_api_version": "V3",
        # The node is sent once per stream, not with every request.
        "set_node_on_first_message_only": True,
        "grpc_services": [{"google_grpc": _client(proxy, control_plane)}],
    }
    result: Config = {
        "node": {"id": proxy.node_id, "cluster": proxy.mesh},
        "dynamic_resources": {"ads_config": ads, "cds_config": shapes.ADS, "lds_config": shapes.ADS},
    }
    if admin_socket is not None:
        result["admin"] = {"address": _private_socket(admin_socket)}
        result["static_resources"] = {"clusters": [_admin_cluster(admin_socket)]}
    elif admin_port is not None:
        result["admin"] = {"address": socket_address("127.0.0.1", admin_port)}
    return result


def _private_socket(path: Path) -> Config:
    """A socket for only the user that the process runs as."""
    return {"pipe": {"path": str(path), "mode": 0o600}}


def _admin_cluster(path: Path) -> Config:
    """The target of listeners for statistics and metrics, in place of the one that comes by ADS (admin.py)."""
    endpoint = {"endpoint": {"address": pipe_address(path)}}
    return {
        "name": shapes.ADMIN_CLUSTER,
        "type": "STATIC",
        "connect_timeout": "5s",
        "load_assignment": {"cluster_name": shapes.ADMIN_CLUSTER, "endpoints": [{"lb_endpoints": [endpoint]}]},
    }


def _client(proxy: ProxyIdentity, control_plane: ControlPlaneAddress) -> Config:
    """The host in the target is the one that the control plane's certificate must name."""
    host = f"[{control_plane.host}]" if ":" in control_plane.host else control_plane.host
    token = {
        "@type": "type.googleapis.com/envoy.config.grpc_credential.v3.FileBasedMetadataConfig",
        "secret_data": {"filename": str(proxy.token_file)},
        "header_key": "authorization",
        "header_prefix": "Bearer ",
    }
    return {
        "target_uri": f"{host}:{control_plane.port}",
        "stat_prefix": NAME,
        "channel_credentials": {"ssl_credentials": {"root_certs": {"inline_string": control_plane.ca_pem}}},
        "credentials_factory_name": _FROM_FILE,
        "call_credentials": [{"from_plugin": {"name": _FROM_FILE, "typed_config": token}}],
        "channel_args": {"args": {name: {"int_value": value} for name, value in _CHANNEL.items()}},
    }
