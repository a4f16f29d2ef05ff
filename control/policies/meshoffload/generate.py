"""MeshOffload: the settings in force for a proxy, and its transport sockets: the module's, for both directions.

In mode Offload neither keys nor trust bundles come to Envoy: the module gets both from the node's daemon.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from control.policies.meshoffload.schema import Conf, KeyType
from control.policies.meshtls.generate import resumes, versions
from control.policies.meshtls.schema import Conf as TlsConf
from envoy_ext import render
from envoy_ext.render import Config
from envoy_ext.settings import DEFAULT_DAEMON_SOCKET, SpiffeMatch, TlsSettings, TlsVersion, UpstreamTlsSettings


@dataclass(frozen=True)
class OffloadSettings:
    """The settings with all defaults applied; the node's daemon gets the same."""

    mode: Literal["Offload", "EnvoyTLS"]
    # The least work for both ends, with or without vector kernels.
    key_type: KeyType = "p256"
    usage: Literal["tls13", "tls12+13"] = "tls13"
    # None: the node's own setting, which fits its cores. 0: nothing waits while a core is idle.
    max_wait_us: int | None = None
    # 0: the daemon's own bound.
    max_queue: int = 0
    software: Literal["Allow", "Require", "Forbid"] = "Allow"
    socket: str = str(DEFAULT_DAEMON_SOCKET)


def settings(conf: Conf | None) -> OffloadSettings:
    """Without any policy a proxy uses Envoy's own TLS, which works on every host; a policy enables the offload."""
    if conf is None:
        return OffloadSettings("EnvoyTLS")
    batch = conf.batch
    given: dict[str, Any] = {
        "key_type": conf.key_type,
        "usage": conf.usage,
        "max_wait_us": batch.max_wait_us if batch else None,
        "max_queue": batch.max_queue if batch else None,
        "software": conf.software,
        "socket": conf.socket,
    }
    return OffloadSettings(
        conf.mode or "Offload", **{name: value for name, value in given.items() if value is not None}
    )


_VERSIONS: dict[float, TlsVersion] = {1.2: "1.2", 1.3: "1.3"}


def _versions(offload: OffloadSettings, tls: TlsConf | None) -> dict[str, Any]:
    """Versions and ciphers, as MeshTLS and the key's usage allow. A key of usage tls13 cannot sign for TLS 1.2."""
    least, most = versions(tls)
    only13 = offload.usage == "tls13"
    return {
        "tls_minimum": "1.3" if only13 else _VERSIONS[least],
        "tls_maximum": "1.3" if only13 else _VERSIONS[most],
        "cipher_suites": tuple(tls.tls_ciphers or ()) if tls and not only13 else (),
    }


def tls_settings(
    offload: OffloadSettings, tls: TlsConf | None, identity: str, trust_domains: Sequence[str]
) -> TlsSettings:
    """The module's side of MeshTLS and MeshOffload for an inbound."""
    return TlsSettings(
        identities=(identity,),
        daemon_socket=Path(offload.socket),
        alpn=("h2", "http/1.1"),
        client_certificate="required",
        trust_domains=tuple(trust_domains),
        session_tickets=None if resumes(tls) else False,
        **_versions(offload, tls),
    )


def downstream(settings: TlsSettings) -> tuple[Config, Config]:
    """(transport socket, companion filter) of a filter chain; the filter must be its first."""
    return render.transport_socket(settings), render.companion_filter(settings)


@dataclass(frozen=True)
class Server:
    """The server that a cluster calls: its SPIFFE ids, server name, and the protocols to offer."""

    spiffe_ids: Sequence[str]
    sni: str
    alpn: Sequence[str]


def upstream(
    offload: OffloadSettings, tls: TlsConf | None, identity: str, trust_domains: Sequence[str], server: Server
) -> Config:
    """The transport socket of a cluster. It accepts only a server with one of `server.spiffe_ids`."""
    settings = UpstreamTlsSettings(
        identities=(identity,),
        daemon_socket=Path(offload.socket),
        alpn=tuple(server.alpn),
        server_name=server.sni,
        trust_domains=tuple(trust_domains),
        peer_spiffe_ids=tuple(SpiffeMatch("exact", one) for one in server.spiffe_ids),
        **_versions(offload, tls),
    )
    return render.transport_socket(settings)
