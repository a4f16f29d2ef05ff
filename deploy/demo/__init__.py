"""`make demo`: stock Envoy terminates TLS with keys that only the daemon holds, and the demo proves it."""
