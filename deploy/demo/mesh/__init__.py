"""The mesh half of `make demo`: control plane, one node's daemon, four services on stock Envoys, all by xDS."""
