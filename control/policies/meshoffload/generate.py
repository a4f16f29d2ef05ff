"""MeshOffload: the settings in force for a proxy, and the filter chain whose TLS is the module's.

The module does the server's side of TLS. Until it does the client's side as well, a proxy in mode Offload calls others
with Envoy's own TLS and a certificate that is good for calling only (see control/ca/issue.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from control.policies.meshoffload.schema import Conf, KeyType
from control.policies.meshtls.generate import DEFAULT_VERSION
from control.policies.meshtls.schema import Conf as TlsConf
from envoy_ext import render
from envoy_ext.settings import DEFAULT_DAEMON_SOCKET, TlsSettings, TlsVersion

Config = dict[str, Any]


@dataclass(frozen=True)
class OffloadSettings:
    """Everything decided: what a policy leaves open has its default here, and the node's daemon gets the same."""

    mode: Literal["Offload", "EnvoyTLS"]
    # The least work for both ends, with or without vector kernels.
    key_type: KeyType = "p256"
    usage: Literal["tls13", "tls12+13"] = "tls13"
    # 0: nothing waits while a core is idle.
    max_wait_us: int = 0
    # 0: the daemon's own bound.
    max_queue: int = 0
    software: Literal["Allow", "Require", "Forbid"] = "Allow"
    socket: str = str(DEFAULT_DAEMON_SOCKET)


def settings(conf: Conf | None) -> OffloadSettings:
    """Without any policy a proxy uses Envoy's own TLS, which works on every host; a policy means the offload."""
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


_VERSIONS: dict[str, TlsVersion | None] = {"TLSAuto": None, "TLS12": "1.2", "TLS13": "1.3"}


def tls_settings(
    offload: OffloadSettings, tls: TlsConf | None, identity: str, trust_domains: Sequence[str]
) -> TlsSettings:
    """The module's side of MeshTLS and MeshOffload for an inbound."""
    version = (tls.tls_version if tls else None) or DEFAULT_VERSION
    # A key of usage tls13 cannot sign for 1.2, whatever MeshTLS allows.
    minimum = "1.3" if offload.usage == "tls13" else _VERSIONS[version.min or "TLSAuto"]
    return TlsSettings(
        identities=(identity,),
        daemon_socket=Path(offload.socket),
        alpn=("h2", "http/1.1"),
        tls_minimum=minimum,
        tls_maximum=_VERSIONS[version.max or "TLSAuto"],
        cipher_suites=tuple(tls.tls_ciphers or ()) if tls and offload.usage != "tls13" else (),
        client_certificate="required",
        trust_domains=tuple(trust_domains),
    )


def downstream(settings: TlsSettings) -> tuple[Config, Config]:
    """(transport socket, companion filter) of a filter chain; the filter has to be its first."""
    return render.transport_socket(settings), render.companion_filter(settings)
