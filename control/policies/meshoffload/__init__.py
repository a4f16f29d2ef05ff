"""The policy: which workloads use the handshake offload, and how."""
