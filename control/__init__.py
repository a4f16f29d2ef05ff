"""The mesh control plane: the one place that configures the offload (see docs/guide/services.md).

Dependencies between the rooms run one way, from the last of this list to the first; tests/test_rooms.py holds them to
it: `model`, `policies`, `store`, `kinds`, `tokens`, `mesh`, `ca`, `own_certificates`, `xds`, `reconcile`, `rest`,
`servers`, `cli`.
"""
