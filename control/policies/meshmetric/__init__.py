"""The policy: metrics of the proxy for Prometheus."""
