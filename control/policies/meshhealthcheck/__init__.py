"""The policy: active health checks of services."""
