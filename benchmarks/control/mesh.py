"""The simulated mesh: a number of dataplanes, spread over a number of services; pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import yaml

CALLS = 5  # services that each proxy calls
SHARED = 0  # one of them is called by everybody, so that a change of it affects everybody


@dataclass(frozen=True)
class Mesh:
    proxies: int
    services: int

    def service_of(self, proxy: int) -> int:
        return proxy % self.services

    def calls(self, proxy: int) -> list[int]:
        """The shared service, and some others, different for each proxy."""
        others = (1 + (proxy * 7 + n * 13) % (self.services - 1) for n in range(CALLS - 1))
        return sorted({SHARED, *others})

    def dataplane(self, proxy: int, address: str | None = None) -> dict[str, Any]:
        number = self.service_of(proxy)
        outbound = [
            {"port": 20000 + called, "backendRef": {"kind": "MeshService", "name": f"svc-{called}", "port": 80}}
            for called in self.calls(proxy)
        ]
        return {
            "type": "Dataplane",
            "name": f"dp-{proxy}",
            "mesh": "default",
            "labels": {"app": f"svc-{number}", "kuma.io/workload": f"svc-{number}"},
            "spec": {
                "networking": {
                    "address": address or f"10.{proxy >> 16 & 255}.{proxy >> 8 & 255}.{proxy & 255}",
                    "inbound": [{"port": 8080, "servicePort": 18080, "name": "http", "protocol": "http"}],
                    "outbound": outbound,
                }
            },
        }

    def documents(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = [
            {"type": "Mesh", "name": "default"},
            {
                "type": "MeshIdentity",
                "name": "identity",
                "mesh": "default",
                "spec": {
                    "selector": {"dataplane": {"matchLabels": {}}},
                    "provider": {"type": "Bundled", "bundled": {"autogenerate": {"enabled": True}}},
                },
            },
            # Keys at the nodes, as in production: the control plane generates none.
            {"type": "MeshOffload", "name": "all", "mesh": "default", "spec": {"default": {"mode": "Offload"}}},
        ]
        found += [
            {
                "type": "MeshService",
                "name": f"svc-{number}",
                "mesh": "default",
                "spec": {
                    "selector": {"dataplaneLabels": {"matchLabels": {"app": f"svc-{number}"}}},
                    "ports": [{"port": 80, "targetPort": "http", "appProtocol": "http"}],
                },
            }
            for number in range(self.services)
        ]
        return found + [self.dataplane(proxy) for proxy in range(self.proxies)]

    def yaml(self) -> str:
        return yaml.safe_dump_all(self.documents(), sort_keys=False)


def cluster_name(service: int) -> str:
    return f"kri_msvc_default___svc-{service}_80"
