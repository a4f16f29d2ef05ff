"""The cost of the module's record path against stock Envoy's TLS: bulk transfer and requests, interleaved."""
