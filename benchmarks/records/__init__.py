"""What the module's record path costs beside stock Envoy's TLS: bulk transfer and requests, interleaved in one run."""
