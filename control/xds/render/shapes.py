"""Pieces that several parts of a proxy's configuration share, as plain dictionaries (proto JSON)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from envoy_ext import render
from envoy_ext.render import Config

ADS: Config = {"ads": {}, "resource_api_version": "V3"}
# The proxy's own admin interface.
ADMIN_CLUSTER = "self_admin"


def http_options(protocol: str) -> Config:
    """What a cluster needs to speak `protocol`; nothing for tcp."""
    return {} if protocol == "tcp" else render.http_options(http2=protocol != "http")


def http_connection_manager(
    manager: Mapping[str, Any], http_filters: Sequence[Config], logs: Sequence[Config], tracing: Config | None
) -> Config:
    typed: Config = {
        "@type": render.HTTP_CONNECTION_MANAGER,
        **manager,
        "http_filters": [*http_filters, render.router()],
        "upgrade_configs": [{"upgrade_type": "websocket"}],
    }
    if logs:
        typed["access_log"] = [*logs]
    if tracing is not None:
        typed["tracing"] = tracing
    return {"name": "envoy.filters.network.http_connection_manager", "typed_config": typed}
