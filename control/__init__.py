"""The mesh control plane: the one place that configures the offload (see docs/guide/services.md).

Dependencies between the rooms run one way: `model` and `policies` know nobody, `store` knows `model`, `xds` builds
Envoy configuration out of both, `ca` and `nodes` issue identities, `rest` and `cli` are the faces.
"""
