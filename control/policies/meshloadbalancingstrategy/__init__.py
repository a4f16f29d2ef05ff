"""The policy: how the endpoints of a service share requests."""
