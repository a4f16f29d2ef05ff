"""The policy: distributed tracing."""
