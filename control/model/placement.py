"""Labels of dataplanes that say where their proxies run, and as whom; a dataplane without a proxy says that too."""

from __future__ import annotations

from control.model.resource import Resource

NODE_LABEL = "offload.mesh/node"
UID_LABEL = "offload.mesh/uid"
GID_LABEL = "offload.mesh/gid"
# `none`: no proxy runs beside the workload; it is called by plaintext, and is always assumed to be up.
PROXY_LABEL = "offload.mesh/proxy"


def node_of(dataplane: Resource) -> str | None:
    """The node whose daemon has to hold the dataplane's key."""
    return dataplane.labels.get(NODE_LABEL)


def has_proxy(dataplane: Resource) -> bool:
    return dataplane.labels.get(PROXY_LABEL) != "none"
